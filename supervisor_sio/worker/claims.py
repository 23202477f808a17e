"""Questions between workers about returning clients, sent through the router.

A returning client's ``pid`` names the worker that has the events it missed. The worker to which it
has connected asks that worker, see :mod:`supervisor_sio.common.recovery`. The managers define the
questions and answers: each is JSON with Socket.IO messages, in a memory file.
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

#: Socket.IO messages, each as its encoded packets.
Messages = Sequence[Sequence[EncodedPacket]]

#: A question or an answer: a JSON object, and messages.
Said = tuple[dict[str, Any], Messages]


class Router(Protocol):
    """Sends messages to the router."""

    def post(self, message: Message, descriptors: Sequence[int] = (), own: bool = False) -> None:
        """Send a message as soon as the router takes it; without a router, drop it.

        :param own: whether to close the descriptors afterwards.
        """


class _Asked(NamedTuple):
    tag: str
    question: Said
    deadline: float
    #: Called with the answer, in the loop.
    answered: Callable[[Said], None]


class Claims:
    """This worker's questions to others, and its answers to theirs. Call all methods in the loop.

    :param answer: called with another worker's question and a function that takes the answer.
    """

    def __init__(
        self, router: Router, answer: Callable[[Said, Callable[[Said], None]], None]
    ) -> None:
        self._router = router
        self._answer = answer
        self._numbers = itertools.count(1)
        #: Unanswered questions by number, the oldest first.
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        self._answering = 0

    def ask(self, tag: str, question: Said, answered: Callable[[Said], None]) -> None:
        """Ask the worker that has the clients of a tag.

        :param answered: called with the answer, if one arrives within ``CLAIM_TIMEOUT``.
        """
        now = time.monotonic()
        self._drop_late(now)
        number = next(self._numbers)
        asked = self._asked[number] = _Asked(tag, question, now + CLAIM_TIMEOUT, answered)
        self._send_question(number, asked)

    def _drop_late(self, now: float) -> None:
        """Drop expired questions, for whose answers nobody waits."""
        while self._asked and next(iter(self._asked.values())).deadline <= now:
            self._asked.popitem(last=False)

    def repeat(self) -> None:
        """Send the unanswered questions again, to a new router."""
        self._drop_late(time.monotonic())
        for number, asked in list(self._asked.items()):
            self._send_question(number, asked)

    def _send_question(self, number: int, asked: _Asked) -> None:
        try:
            descriptor = memory_file.write("claim", pack(asked.question))
        except OSError:  # no free descriptor
            self._take_answer(number, no_answer())
        else:
            self._router.post(recovery.claim(number, asked.tag, {}), [descriptor], own=True)

    # --- messages from the router ---------------------------------------------------------

    def handle(self, message: Message, descriptors: Sequence[int]) -> None:
        """Handle a question or an answer. The caller keeps the descriptors.

        :raises ChannelError: if the message is malformed.
        """
        if message["type"] == "claim":
            number, _, _ = recovery.read_claim(message)
            self._take_question(number, descriptors)
            return
        number, values = recovery.read_claimed(message)
        # An answer without a descriptor comes from the router itself.
        self._take_answer(number, _read(descriptors) if descriptors else (values, ()))

    def lost_descriptors(self, message: Message) -> None:
        """A message has lost its descriptors, because this process had none free."""
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
        if len(data) > CLAIM_LENGTH:  # from several journals, or a large one
            data = pack(no_answer(NOT_KEPT))
        try:
            descriptor = memory_file.write("claimed", data)
        except OSError:  # no free descriptor
            self._router.post(recovery.not_claimed(number, NO_OWNER))
        else:
            self._router.post(recovery.claimed(number, {}), [descriptor], own=True)


def no_answer(reason: str = NO_OWNER) -> Said:
    """The answer to a question that cannot be answered."""
    return {"reason": reason}, ()


def _read(descriptors: Sequence[int]) -> Said:
    try:
        return unpack(memory_file.read(descriptors[0], CLAIM_LENGTH))
    except (OSError, ValueError) as error:
        raise ChannelError(f"cannot read a claim: {error}") from None


# --- encoding: a line of JSON with the packets' lengths, then all packets -----------------


def pack(said: Said) -> bytes:
    """Encode a question or an answer for another process."""
    values, messages = said
    encoded = [[one.encode() if isinstance(one, str) else one for one in m] for m in messages]
    # A negative length marks bytes, a positive one text.
    lengths = [
        [len(data) if isinstance(one, str) else ~len(data) for one, data in zip(*both)]
        for both in zip(messages, encoded)
    ]
    head = json.dumps([values, lengths], separators=(",", ":")).encode()
    return b"".join([head, b"\n", *itertools.chain.from_iterable(encoded)])


def unpack(data: bytes) -> Said:
    """Decode what :func:`pack` has encoded.

    :raises ValueError: if ``data`` is malformed.
    """
    end = data.find(b"\n")
    try:
        values, lengths = json.loads(data[:end])
        reader = _Reader(data, end + 1)
        messages = [[reader.read(length) for length in message] for message in lengths]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"malformed: {error}") from None
    if not isinstance(values, dict) or reader.at != len(data):
        raise ValueError("malformed: wrong type, or data after the last packet")
    return values, messages


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def read(self, length: int) -> EncodedPacket:
        size = length if length >= 0 else ~length
        data = self._data[self.at : self.at + size]
        if len(data) < size:
            raise ValueError("truncated")
        self.at += size
        return data.decode() if length >= 0 else data
