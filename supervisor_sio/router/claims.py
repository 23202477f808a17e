"""Questions of workers about clients that come back, which the router forwards to their owners.

The states of a question:

========  ==============================================  ====================================
state     what happens                                    then
========  ==============================================  ====================================
(none)    a worker asks                                   WAITING; over if there is no room
WAITING   a worker owns the clients of this tag, and      ASKED
          its channel is not full
          no worker owns them, or will                    ANSWERED: no such client
ASKED     the owner answers                               ANSWERED
          the owner's channel ends                        WAITING, for the worker that inherits
                                                          the clients
ANSWERED  the answer was sent to the asker                over
any       CLAIM_TIMEOUT                                   over; the asker receives a refusal, if
                                                          it reads
          the asker's channel ends                        over
========  ==============================================  ====================================
"""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import Callable, Iterable, Optional, Union

from ..common import channel, reasons, recovery
from ..common.channel import ChannelError, Message
from ..common.limits import CLAIM_BYTES, CLAIM_TIMEOUT, CLAIMS
from .carrier import Carrier

logger = logging.getLogger("supervisor_sio.router")


class _State(Enum):
    WAITING = auto()
    ASKED = auto()
    ANSWERED = auto()


@dataclass(eq=False)
class _Claim:
    asker: Carrier
    #: The asker's number of the question.
    number: int
    tag: str
    #: The packet of the question, later of the answer, and the descriptors attached to it.
    data: bytes
    descriptors: list[int]
    deadline: float
    state: _State = _State.WAITING
    #: The worker that was asked.
    owner: Optional[Carrier] = None


class Claims:
    """All questions that are not answered yet.

    :param carrier_of: returns the channel to the worker that owns the clients of a tag, if any.
    :param expected: whether a worker is expected to own them soon.
    :param ceiling: the number below which kept descriptors must be.
    """

    def __init__(
        self,
        carrier_of: Callable[[str], Optional[Carrier]],
        expected: Callable[[str], bool],
        ceiling: Callable[[], int],
    ) -> None:
        self._carrier_of = carrier_of
        self._expected = expected
        self._ceiling = ceiling
        self._numbers = itertools.count(1)
        #: By the number under which the owner is asked; oldest first.
        self._open: dict[int, _Claim] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    # --- messages from workers ----------------------------------------------------------

    @staticmethod
    def handles(kind: str) -> bool:
        """Whether :meth:`handle` takes messages of this type."""
        return kind in ("claim", "claimed")

    def handle(self, carrier: Carrier, message: Message, descriptors: list[int]) -> None:
        """Handle a message of a worker; its descriptors are closed unless they are kept.

        :raises ChannelError: when the message is malformed.
        """
        kept = False
        try:
            if len(descriptors) > 1:
                raise ChannelError("a claim with more than one descriptor")
            if message["type"] == "claim":
                kept = self._take_question(carrier, message, descriptors)
            else:
                kept = self._take_answer(carrier, message, descriptors)
        finally:
            if not kept:
                channel.close_all(descriptors)

    def lost_descriptors(self, carrier: Carrier, message: Message) -> None:
        """This process had no free descriptor for that of a message.

        :raises ChannelError: when the message is malformed.
        """
        if message["type"] == "claim":
            number, _, _ = recovery.read_claim(message)
            self._refuse(carrier, number, reasons.CLAIMS_FULL)
        else:
            number, _ = recovery.read_claimed(message)
            claim = self._asked(carrier, number)
            if claim is not None:
                self._answer_myself(number, claim, reasons.INCOMPLETE)

    def _take_question(self, asker: Carrier, message: Message, descriptors: list[int]) -> bool:
        theirs, tag, question = recovery.read_claim(message)
        number = next(self._numbers)
        try:
            data = channel.encode(recovery.claim(number, tag, question))
        except ChannelError:  # too long, because the number has more digits
            self._refuse(asker, theirs, reasons.NO_OWNER)
            return False
        full = len(self._open) >= CLAIMS or self._bytes + len(data) > CLAIM_BYTES
        if full or max(descriptors, default=-1) >= self._ceiling():
            self._refuse(asker, theirs, reasons.CLAIMS_FULL)
            return False
        deadline = time.monotonic() + CLAIM_TIMEOUT
        claim = _Claim(asker, theirs, tag, data, descriptors, deadline)
        self._open[number] = claim
        self._bytes += len(data)
        self._ask(number, claim)
        return True

    @staticmethod
    def _refuse(asker: Carrier, number: int, reason: str) -> None:
        """Refuse at once, if the worker reads; if not, its own timeout ends the question."""
        asker.pass_on(channel.encode(recovery.not_claimed(number, reason)), ())

    def _asked(self, carrier: Carrier, number: int) -> Optional[_Claim]:
        claim = self._open.get(number)
        asked = claim is not None and claim.state is _State.ASKED and claim.owner is carrier
        return claim if asked else None  # None: it has expired

    def _take_answer(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        number, answer = recovery.read_claimed(message)
        claim = self._asked(carrier, number)
        if claim is None:
            return False
        if max(descriptors, default=-1) >= self._ceiling():
            self._answer_myself(number, claim, reasons.INCOMPLETE)
            return False
        try:
            self._answer(number, claim, answer, descriptors)
        except ChannelError:  # too long, as above
            self._answer_myself(number, claim, reasons.INCOMPLETE)
            return False
        return True

    # --- events of workers ----------------------------------------------------------------

    def lost(self, carrier: Carrier) -> None:
        """The channel to a worker has ended."""
        for number, claim in list(self._open.items()):
            if claim.asker is carrier:
                self._forget(number)
            elif claim.owner is carrier and claim.state is _State.ASKED:
                claim.state, claim.owner = _State.WAITING, None
        self._go_on(self._open)

    def resume(self, carrier: Carrier) -> None:
        """A worker reads again."""
        tags = frozenset(carrier.member.tags if carrier.member is not None else ())
        self._go_on(
            number
            for number, claim in self._open.items()
            if claim.asker is carrier or claim.tag in tags
        )

    def look(self) -> None:
        """Expire and retry questions; called once a second, and when an owner may be ready."""
        now = time.monotonic()
        for number, claim in list(self._open.items()):
            if now < claim.deadline:
                break  # and all later ones
            if claim.state is not _State.ANSWERED:
                self._answer_myself(number, claim, reasons.NO_OWNER)
            self._forget(number)
        self._go_on(self._open)

    def _go_on(self, numbers: Iterable[int]) -> None:
        """Retry what could not be asked or answered before, oldest first."""
        #: The tags and askers for which an attempt has failed, so further ones are skipped.
        busy: set[Union[str, Carrier]] = set()
        for number in list(numbers):
            claim = self._open.get(number)
            if claim is None or claim.state is _State.ASKED:
                continue
            waiting = claim.state is _State.WAITING
            whom = claim.tag if waiting else claim.asker
            if whom in busy:
                continue
            if not (self._ask(number, claim) if waiting else self._tell(number, claim)):
                busy.add(whom)

    # --- a question -----------------------------------------------------------------------

    def _ask(self, number: int, claim: _Claim) -> bool:
        """Ask the owner, or answer; false if the question must keep waiting."""
        owner = self._carrier_of(claim.tag)
        if owner is None:
            if self._expected(claim.tag):
                return False
            self._answer_myself(number, claim, reasons.UNKNOWN_PID)
        elif not self._send(number, owner, claim):
            return False
        else:
            claim.state, claim.owner = _State.ASKED, owner
        return True

    def _answer_myself(self, number: int, claim: _Claim, reason: str) -> None:
        self._answer(number, claim, {"reason": reason}, [])

    def _answer(self, number: int, claim: _Claim, answer: Message, descriptors: list[int]) -> None:
        data = channel.encode(recovery.claimed(claim.number, answer))
        channel.close_all(claim.descriptors)
        self._bytes += len(data) - len(claim.data)
        claim.data, claim.descriptors, claim.state = data, descriptors, _State.ANSWERED
        self._tell(number, claim)

    def _tell(self, number: int, claim: _Claim) -> bool:
        """Send the answer to the asker; false if it must read first."""
        if not self._send(number, claim.asker, claim):
            return False
        self._forget(number)
        return True

    def _send(self, number: int, carrier: Carrier, claim: _Claim) -> bool:
        """Send the packet; false when the worker must read first, or is gone."""
        try:
            return carrier.pass_on(claim.data, claim.descriptors)
        except Exception as error:  # one question must not stop the others
            logger.error("a question about a client that came back is lost: %r", error)
            self._forget(number)
            return False

    def _forget(self, number: int) -> None:
        claim = self._open.pop(number, None)
        if claim is not None:
            self._bytes -= len(claim.data)
            channel.close_all(claim.descriptors)
