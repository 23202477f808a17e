"""Questions among workers about clients that come back, through the router.

A client says by its ``pid`` which worker has what it missed. The worker to which it has come asks
that one, see :mod:`supervisor_sio.common.recovery`. What is asked and answered is the managers'
affair: both are JSON, and Socket.IO messages beside it, in a memory file.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import OrderedDict
from typing import Any, Callable, NamedTuple, Protocol, Sequence

from ..common import memory_file, recovery
from ..common.channel import ChannelError, Message
from ..common.limits import CLAIM_LENGTH, CLAIM_TIMEOUT, CLAIMS_AT_ONCE
from ..common.reasons import NO_OWNER, NOT_KEPT
from ..relay.message import EncodedPacket

#: The packets of some Socket.IO messages.
Messages = Sequence[Sequence[EncodedPacket]]

#: JSON, and messages beside it: a question, or an answer.
Said = tuple[dict[str, Any], Messages]


class Router(Protocol):
    """What sends to the router."""

    def post(self, message: Message, descriptors: Sequence[int] = (), own: bool = False) -> None:
        """Send, if there is a router, as soon as it takes it.

        :param own: whether the descriptors are closed then.
        """


class _Asked(NamedTuple):
    tag: str
    question: Said
    deadline: float
    #: Gets the answer, in the loop.
    answered: Callable[[Said], None]


class Claims:
    """This worker's questions and its answers; all in the loop.

    :param answer: is asked by others, and calls what it gets with its answer.
    """

    def __init__(
        self, router: Router, answer: Callable[[Said, Callable[[Said], None]], None]
    ) -> None:
        self._router = router
        self._answer = answer
        self._numbers = itertools.count(1)
        #: Those that are asked first come first.
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        self._answering = 0

    def ask(self, tag: str, question: Said, answered: Callable[[Said], None]) -> None:
        """Ask the worker that has the clients of a tag.

        :param answered: is called with the answer, soon or late; or not at all.
        """
        now = time.monotonic()
        self._drop_late(now)
        number = next(self._numbers)
        asked = self._asked[number] = _Asked(tag, question, now + CLAIM_TIMEOUT, answered)
        self._send_question(number, asked)

    def _drop_late(self, now: float) -> None:
        """Nobody waits for these any more."""
        while self._asked and next(iter(self._asked.values())).deadline <= now:
            self._asked.popitem(last=False)

    def repeat(self) -> None:
        """The router that was asked is gone, there is another one."""
        self._drop_late(time.monotonic())
        for number, asked in list(self._asked.items()):
            self._send_question(number, asked)

    def _send_question(self, number: int, asked: _Asked) -> None:
        try:
            descriptor = memory_file.write("claim", pack(asked.question))
        except OSError:  # no descriptor is free
            self._take_answer(number, no_answer())
        else:
            self._router.post(recovery.claim(number, asked.tag, {}), [descriptor], own=True)

    # --- what the router says -------------------------------------------------------------

    def handle(self, message: Message, descriptors: Sequence[int]) -> None:
        """A question, or an answer. The descriptors are the caller's.

        :raises ChannelError: when it is not understood.
        """
        if message["type"] == "claim":
            number, _, _ = recovery.read_claim(message)
            self._take_question(number, descriptors)
            return
        number, values = recovery.read_claimed(message)
        # Without a descriptor it is the router's own.
        self._take_answer(number, _read(descriptors) if descriptors else (values, ()))

    def lost_descriptors(self, message: Message) -> None:
        """This process had none free for what came with a message."""
        if message["type"] == "claim":
            self._send_answer(recovery.read_claim(message)[0], no_answer())
        elif message["type"] == "claimed":
            self._take_answer(recovery.read_claimed(message)[0], no_answer())

    def _take_answer(self, number: int, answer: Said) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.answered(answer)

    def _take_question(self, number: int, descriptors: Sequence[int]) -> None:
        if not descriptors:
            raise ChannelError("a claim without its question")
        question = _read(descriptors)
        if self._answering == CLAIMS_AT_ONCE:
            self._send_answer(number, no_answer())
            return
        self._answering += 1

        def answered(answer: Said) -> None:
            self._answering -= 1
            self._send_answer(number, answer)

        self._answer(question, answered)

    def _send_answer(self, number: int, answer: Said) -> None:
        data = pack(answer)
        if len(data) > CLAIM_LENGTH:  # of several journals, or of a large one
            data = pack(no_answer(NOT_KEPT))
        try:
            descriptor = memory_file.write("claimed", data)
        except OSError:  # no descriptor is free
            self._router.post(recovery.not_claimed(number, NO_OWNER))
        else:
            self._router.post(recovery.claimed(number, {}), [descriptor], own=True)


def no_answer(reason: str = NO_OWNER) -> Said:
    """For who has asked in vain."""
    return {"reason": reason}, ()


def _read(descriptors: Sequence[int]) -> Said:
    try:
        return unpack(memory_file.read(descriptors[0], CLAIM_LENGTH))
    except (OSError, ValueError) as error:
        raise ChannelError(f"about a client that comes back: {error}") from None


# --- as bytes: a line of JSON with the lengths, and then all packets ----------------------


def pack(said: Said) -> bytes:
    """For another process."""
    values, messages = said
    encoded = [[one.encode() if isinstance(one, str) else one for one in m] for m in messages]
    # Negative: it is bytes, and no text.
    lengths = [
        [len(data) if isinstance(one, str) else ~len(data) for one, data in zip(*both)]
        for both in zip(messages, encoded)
    ]
    head = json.dumps([values, lengths], separators=(",", ":")).encode()
    return b"".join([head, b"\n", *itertools.chain.from_iterable(encoded)])


def unpack(data: bytes) -> Said:
    """:raises ValueError: for what :func:`pack` has not made."""
    end = data.find(b"\n")
    try:
        values, lengths = json.loads(data[:end])
        reader = _Reader(data, end + 1)
        messages = [[reader.read(length) for length in message] for message in lengths]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not of this form: {error}") from None
    if not isinstance(values, dict) or reader.at != len(data):
        raise ValueError("not of this form: it does not end where it should")
    return values, messages


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def read(self, length: int) -> EncodedPacket:
        size = length if length >= 0 else ~length
        data = self._data[self.at : self.at + size]
        if len(data) < size:
            raise ValueError("cut short")
        self.at += size
        return data.decode() if length >= 0 else data
