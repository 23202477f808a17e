"""What a process hears: each message once, and each sender's in the order it sent them.

Pure: no sockets and no clocks here. The two streams of a sender that concern
this process (see :mod:`.outbox`) are put together again. When a number is
missing, later messages of that sender are held, and :meth:`Inbox.questions`
says whom to ask for what; other senders are not held up.

A sender heard for the first time may have sent a lot before this process
listened. It is asked which of its messages came before that.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple, Optional, Sequence

from ..common.limits import (
    RELAY_GIVE_UP,
    RELAY_MOST_HELD,
    RELAY_MOST_HELD_BYTES,
    RELAY_MOST_SENDERS,
)
from .message import RelayMessage

#: Seconds between questions when no answer comes.
_ASK_AGAIN = 0.3

#: A gap that no sender of ours can leave.
_LARGEST_GAP = 2**31 - 1


class Impossible(ValueError):
    """A number that the sender cannot have reached."""


class Question(NamedTuple):
    """To a sender: send messages ``first`` to ``last`` of a stream again.

    ``first`` 0 asks for its position instead.
    """

    sender: str
    to_all: bool
    first: int
    last: int


class _Stream:
    """One stream of one sender, as far as it has been heard."""

    def __init__(self) -> None:
        #: The number that comes next.
        self.next = 1
        #: The highest number that is known to exist.
        self.last = 0
        self.held: dict[int, RelayMessage] = {}
        self.asked = -_ASK_AGAIN

    @property
    def missing(self) -> Optional[tuple[int, int]]:
        """The first hole: its first and last number."""
        if self.last < self.next or self.next in self.held:
            return None
        return self.next, min(self.held, default=self.last + 1) - 1

    def check(self, last: int) -> None:
        """:raises Impossible: when that is too far ahead."""
        if last - self.next > _LARGEST_GAP:
            raise Impossible(f"number {last} after {self.next - 1}")

    def knows(self, last: int) -> None:
        """:raises Impossible: when that is too far ahead; nothing has changed then."""
        self.check(last)
        if last > self.last:
            self.last = last


class _Sender:
    def __init__(self) -> None:
        self.to_all = _Stream()
        self.to_us = _Stream()
        #: Whether it is known which messages are the first for this process.
        self.placed = False
        #: Since when it is asked in vain.
        self.waiting_since: Optional[float] = None

    @property
    def in_step(self) -> bool:
        return (
            self.to_all.last < self.to_all.next
            and self.to_us.last < self.to_us.next
            and self.placed
        )


class Inbox:
    """All senders.

    :param tag: of this process; what is to it alone comes under this name.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._senders: OrderedDict[str, _Sender] = OrderedDict()
        #: Those of which something is missing.
        self._behind: dict[str, _Sender] = {}
        self._held_bytes = 0
        #: Messages for this process that nobody can send again.
        self.dropped = 0

    def receive(self, message: RelayMessage, to_all: bool) -> Sequence[RelayMessage]:
        """Take a numbered message; what can be delivered now, in order.

        :raises Impossible: for a number out of all reason; nothing has changed then.
        """
        sender = self._senders.get(message.sender) or _Sender()
        stream = sender.to_all if to_all else sender.to_us
        number = message.sequence
        self._check(sender, message, to_all)
        # Nearly always: the next one, and nothing is waiting.
        if number == stream.next and sender.in_step and self._follows(sender, message, to_all):
            stream.next = number + 1
            stream.last = number
            self._senders.move_to_end(message.sender)
            return (message,)
        stream.knows(number)
        self._remember(message.sender, sender)
        if number == 1 and not self._before(message, to_all):
            sender.placed = True  # it has said nothing before
        self._hold(stream, message)
        return self._advance(message.sender, sender)

    def position(
        self,
        name: str,
        to_all: int,
        to_us: int,
        before: Optional[tuple[int, int]] = None,
        since: float = math.inf,
    ) -> Sequence[RelayMessage]:
        """What a sender says of its streams: the number of the last message of each.

        :param before: the last message of either stream that was not meant for this
            process: it did not listen yet. Of messages that the sender no longer
            keeps it says the same, as it has forgotten when they were sent.
        :param since: when this process began to listen. Messages sent from then on
            that have arrived are for it, whatever ``before`` says.
        :raises Impossible: for a number out of all reason; nothing has changed then.
        """
        sender = self._senders.get(name) or _Sender()
        sender.to_us.check(to_us)
        sender.to_all.knows(to_all)
        sender.to_us.knows(to_us)
        self._remember(name, sender)
        sender.waiting_since = None
        if not to_all and not to_us:
            sender.placed = True
        elif before is not None and not sender.placed:
            self._place(
                sender,
                min(before[0] + 1, to_all + 1, *_sent_from(since, sender.to_all)),
                min(before[1] + 1, to_us + 1, *_sent_from(since, sender.to_us)),
            )
        return self._advance(name, sender)

    def again(
        self,
        name: str,
        to_all: bool,
        asked: int,
        first: int,
        messages: Sequence[RelayMessage],
        start: int = 0,
    ) -> Sequence[RelayMessage]:
        """A sender's answer to a question: messages from ``first`` on.

        :param asked: the number that was asked for. When ``first`` is higher, the
            sender does not have those before any more.
        :param start: numbers up to this one were never given: nothing is lost.
        :raises Impossible: for a number out of all reason.
        """
        sender = self._senders.get(name)
        stream = None if sender is None else sender.to_all if to_all else sender.to_us
        if sender is None or stream is None or asked != stream.next:
            return ()  # an answer that comes twice
        sender.waiting_since = None
        stream.asked = -_ASK_AGAIN
        if first > asked:
            here = min(first, stream.last + 1, *stream.held)
            if start >= asked:
                stream.next = min(start + 1, here)
            self._skip(stream, here)
        for message in messages:
            if message.sequence <= stream.last:
                self._check(sender, message, to_all)
                self._hold(stream, message, asked_for=True)
        return self._advance(name, sender)

    def has(self, name: str, to_all: int, to_us: int) -> bool:
        """Whether all messages of a sender up to these numbers were delivered or given up."""
        sender = self._senders.get(name)
        return sender is not None and sender.to_all.next > to_all and sender.to_us.next > to_us

    def delivered_to_all(self, name: str) -> int:
        """The number of the last message to all of a sender that was delivered."""
        sender = self._senders.get(name)
        return 0 if sender is None else sender.to_all.next - 1

    def gone(self, name: str) -> Sequence[RelayMessage]:
        """A sender has ended: what is there is all there will be."""
        delivered = self.give_up(name)
        self._senders.pop(name, None)
        return delivered

    def give_up(self, name: str) -> Sequence[RelayMessage]:
        """Wait no longer for what a sender was asked for."""
        sender = self._senders.get(name)
        self._behind.pop(name, None)
        if sender is None:
            return ()
        sender.waiting_since = None
        if not sender.placed:
            # What it sent before may not have been for us: start with what is here.
            known = max(sender.to_all.last, *(m.after for m in sender.to_us.held.values()), 0)
            self._place(
                sender,
                min(sender.to_all.held, default=known + 1),
                min(sender.to_us.held, default=sender.to_us.last + 1),
            )
        delivered = self._deliverable(sender)
        while not sender.in_step:
            # To us first: what is held then says itself whether it was sent before.
            for stream in (sender.to_us, sender.to_all):
                if stream.missing is not None:
                    self._skip(stream, stream.missing[1] + 1)
                    break
            else:
                # Each waits for the other: no sender of ours says such a thing.
                self._skip(sender.to_all, sender.to_all.last + 1)
                self._skip(sender.to_us, sender.to_us.last + 1)
            delivered += self._deliverable(sender)
        return delivered

    def questions(self, now: float) -> list[Question]:
        """Whom to ask for what now; each question comes again until it is answered."""
        asked: list[Question] = []
        for name, sender in self._behind.items():
            for stream in (sender.to_all, sender.to_us):
                if now - stream.asked < _ASK_AGAIN:
                    continue
                if not sender.placed:
                    if stream is sender.to_us:
                        continue
                    question = Question(name, True, 0, 0)
                elif stream.missing is not None:
                    question = Question(name, stream is sender.to_all, *stream.missing)
                else:
                    continue
                asked.append(question)
                stream.asked = now
                if sender.waiting_since is None:
                    sender.waiting_since = now
        return asked

    @property
    def waits(self) -> bool:
        """Whether anything is missing."""
        return bool(self._behind)

    def silent(self, now: float) -> list[str]:
        """Senders that have been asked in vain for ten seconds."""
        return [
            name
            for name, sender in self._behind.items()
            if sender.waiting_since is not None and now - sender.waiting_since > RELAY_GIVE_UP
        ]

    def wait_anew(self) -> None:
        """Nobody could answer until now: the ten seconds begin again."""
        for sender in self._behind.values():
            sender.waiting_since = None

    # --- the two streams of a sender ------------------------------------------

    def _remember(self, name: str, sender: _Sender) -> None:
        if name not in self._senders and len(self._senders) >= RELAY_MOST_SENDERS:
            oldest = next((old for old, other in self._senders.items() if other.in_step), None)
            if oldest is not None:
                del self._senders[oldest]
        self._senders[name] = sender
        self._senders.move_to_end(name)

    def _place(self, sender: _Sender, first_to_all: int, first_to_us: int) -> None:
        """Everything from these numbers on is for this process."""
        sender.placed = True
        for stream, first in ((sender.to_all, first_to_all), (sender.to_us, first_to_us)):
            self._release(stream, first)
            stream.next = first

    def _release(self, stream: _Stream, before: int) -> None:
        for number in [number for number in stream.held if number < before]:
            self._held_bytes -= _size(stream.held.pop(number))

    def _hold(self, stream: _Stream, message: RelayMessage, asked_for: bool = False) -> None:
        number, size = message.sequence, _size(message)
        if number < stream.next or number in stream.held:
            return  # it came before
        if (
            asked_for
            or number == stream.next
            or (
                len(stream.held) < RELAY_MOST_HELD
                and self._held_bytes + size <= RELAY_MOST_HELD_BYTES
            )
        ):
            stream.held[number] = message
            self._held_bytes += size

    def _skip(self, stream: _Stream, to: int) -> None:
        """Give up what is missing before this number."""
        self._release(stream, to)
        self.dropped += to - stream.next
        stream.next = to

    def _before(self, message: RelayMessage, to_all: bool) -> int:
        """The number of the other stream's last message before this one."""
        if not to_all:
            return message.after
        after = message.fields.get("after")
        # Ours alone may be missing in it, and then there is nothing to wait for.
        return after.get(self._tag, 0) if after else 0

    def _check(self, sender: _Sender, message: RelayMessage, to_all: bool) -> None:
        """:raises Impossible: when the message names another that cannot be."""
        after = message.fields.get("after")
        if after is not None and not isinstance(after, dict):
            raise Impossible("after is no object")
        before = self._before(message, to_all)
        other = sender.to_us if to_all else sender.to_all
        if type(before) is not int or before - other.next > _LARGEST_GAP:
            raise Impossible(f"after number {before!r}")

    def _follows(self, sender: _Sender, message: RelayMessage, to_all: bool) -> bool:
        """Whether nothing of the other stream was sent before this one and is missing."""
        before = self._before(message, to_all)
        other = sender.to_us if to_all else sender.to_all
        if before < other.next:
            return True
        other.knows(before)
        return False

    def _deliverable(self, sender: _Sender) -> list[RelayMessage]:
        delivered: list[RelayMessage] = []
        # To us first: it would say so if it had been sent after the next to all.
        while self._deliver_next(sender, False, delivered) or self._deliver_next(
            sender, True, delivered
        ):
            pass
        return delivered

    def _deliver_next(self, sender: _Sender, to_all: bool, delivered: list[RelayMessage]) -> bool:
        stream = sender.to_all if to_all else sender.to_us
        message = stream.held.get(stream.next)
        if message is None or not sender.placed or not self._follows(sender, message, to_all):
            return False
        if to_all and self._overtakes(sender, message):
            return False
        del stream.held[stream.next]
        self._held_bytes -= _size(message)
        stream.next += 1
        delivered.append(message)
        return True

    def _overtakes(self, sender: _Sender, message: RelayMessage) -> bool:
        """Whether a message to us was sent before this one to all, and is still held.

        The one to all that said so may be lost for good.
        """
        held = sender.to_us.held
        return bool(held) and held[min(held)].after < message.sequence

    def _advance(self, name: str, sender: _Sender) -> Sequence[RelayMessage]:
        delivered = self._deliverable(sender)
        if sender.in_step:
            self._behind.pop(name, None)
            sender.waiting_since = None
        else:
            self._behind[name] = sender
        return delivered


def _sent_from(since: float, stream: _Stream) -> list[int]:
    """The numbers of the messages that have arrived and were sent from then on."""
    return [number for number, message in stream.held.items() if message.time >= since]


def _size(message: RelayMessage) -> int:
    return sum(map(len, message.packets))
