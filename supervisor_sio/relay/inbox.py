"""What a process hears: each message once, and each sender's in the order it sent them.

Pure: no sockets and no clocks here. The streams of a sender that concern this process
(see :mod:`.outbox`) are put together again: the one to all, and the one to each of its
tags, of which nearly every process has one. When a number is
missing, later messages of that sender are held, and :meth:`Inbox.questions`
says whom to ask for what; other senders are not held up.

A sender heard for the first time may have sent a lot before this process
listened. It is asked which of its messages came before that.

How far each sender was heard can be saved, for another process to go on from there. If that
one hears already, it brings both to the same point (:meth:`Inbox.level`), and makes them one
(:meth:`Inbox.merge`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, Callable, Container, Iterator, Mapping, NamedTuple, Optional, Sequence

from ..common.limits import (
    RELAY_GIVE_UP,
    RELAY_MOST_GONE,
    RELAY_MOST_HELD,
    RELAY_MOST_HELD_BYTES,
    RELAY_MOST_SENDERS,
)
from .message import RelayMessage

#: Seconds between questions when no answer comes.
_ASK_AGAIN = 0.3

#: A gap that no sender of ours can leave.
_LARGEST_GAP = 2**31 - 1

#: Numbers of messages by the tag to which they are; with ``None``, of those to all.
Numbers = Mapping[Optional[str], int]


class Impossible(ValueError):
    """A number that the sender cannot have reached."""


class Question(NamedTuple):
    """To a sender: send messages ``first`` to ``last`` of a stream again.

    ``first`` 0 asks for its position instead.
    """

    sender: str
    #: To whom; ``None`` for those to all.
    tag: Optional[str]
    first: int
    last: int


class _Stream:
    """One stream of one sender, as far as it has been heard."""

    def __init__(self, next: int = 1, last: int = 0) -> None:
        #: The number that comes next.
        self.next = next
        #: The highest number that is known to exist.
        self.last = last
        self.held: dict[int, RelayMessage] = {}
        self.asked = -math.inf

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
        #: By tag, those of which something is known.
        self.own: dict[str, _Stream] = {}
        #: Whether it is known which messages are the first for this process.
        self.placed = False
        #: Whether nothing is missing, as of the last :meth:`look`.
        self.in_step = False
        #: Since when it is asked in vain.
        self.waiting_since: Optional[float] = None

    def stream(self, tag: Optional[str]) -> _Stream:
        """To read: an empty one where nothing is known."""
        return self.to_all if tag is None else self.own.get(tag) or _Stream()

    def kept(self, tag: Optional[str]) -> _Stream:
        """To change."""
        return self.to_all if tag is None else self.own.setdefault(tag, _Stream())

    @property
    def streams(self) -> dict[Optional[str], _Stream]:
        streams: dict[Optional[str], _Stream] = {None: self.to_all}
        streams.update(self.own.items())
        return streams

    def look(self) -> bool:
        """Whether nothing is missing."""
        self.in_step = self.placed and all(one.last < one.next for one in self.streams.values())
        return self.in_step

    def save(self) -> list[Any]:
        return [
            self.placed,
            self.to_all.next,
            self.to_all.last,
            {tag: [stream.next, stream.last] for tag, stream in self.own.items()},
        ]

    @classmethod
    def restored(cls, placed: bool, next: int, last: int, own: dict[str, list[int]]) -> _Sender:
        sender = cls()
        sender.placed, sender.to_all = placed, _Stream(next, last)
        sender.own = {tag: _Stream(*numbers) for tag, numbers in own.items()}
        sender.look()
        return sender


class Inbox:
    """All senders.

    :param tags: of this process; what is to it alone comes under these names.
    :param since: what was sent before that is not for it, though it may be received: it waited
        for another one in the same process. In seconds of the host's monotonic clock.
    :param most_held: how many messages of a stream may wait for an earlier one; by default
        as many as on a host.
    :param ask_again: seconds between questions when no answer comes.
    """

    def __init__(
        self,
        *tags: str,
        since: float = -math.inf,
        most_held: Optional[int] = None,
        ask_again: float = _ASK_AGAIN,
    ) -> None:
        self.tags = tags
        self._since = since
        self._most_held = RELAY_MOST_HELD if most_held is None else most_held
        self._ask_again = ask_again
        self._senders: OrderedDict[str, _Sender] = OrderedDict()
        #: How far those were heard that have ended. What is on its way of them is not new.
        self._gone: OrderedDict[str, list[Any]] = OrderedDict()
        #: Those of which something is missing.
        self._behind: dict[str, _Sender] = {}
        self._held_bytes = 0
        #: Messages for this process that nobody can send again.
        self.dropped = 0
        #: Is called when something is lost that its sender had sent, and keeps no more. What a
        #: process had not sent when it was killed is not among it: nobody can know whether it
        #: would have been.
        self.on_lost: Callable[[], None] = lambda: None
        #: Gets a sender, and of each of its streams the number of the last message that was not
        #: for this process, when these are known.
        self.on_placed: Callable[[str, Numbers], None] = lambda name, numbers: None

    def receive(self, message: RelayMessage, tag: Optional[str] = None) -> Sequence[RelayMessage]:
        """Take a numbered message; what can be delivered now, in order.

        :param tag: to whom it is, of :attr:`tags`; ``None`` for one to all.
        :raises Impossible: for a number out of all reason; nothing has changed then.
        """
        sender = self._senders.get(message.sender) or self._new(message.sender)
        number = message.sequence
        if tag is None:
            stream = sender.to_all
            after = message.fields.get("after")
            follows = after is None or self._has_own(sender, after)
        else:
            stream = sender.own.get(tag) or _Stream()
            follows = type(message.after) is int and message.after < sender.to_all.next
        # Nearly always: the next one, and nothing is waiting.
        if number == stream.next and follows and sender.in_step:
            stream.next = number + 1
            stream.last = number
            if tag is not None:
                sender.own[tag] = stream
            self._senders.move_to_end(message.sender)
            return (message,)
        before = self._before(message, tag)
        self._check(sender, before)
        stream.knows(number)
        if tag is not None:
            sender.own[tag] = stream
        self._remember(message.sender, sender)
        if sender.placed or message.time >= self._since:
            if number == 1 and not any(last for _, last in before):
                # To us: of those to other tags of this process it says nothing.
                if tag is None or len(self.tags) == 1:
                    sender.placed = True  # it has said nothing before
            self._hold(stream, message)
        return self._advance(message.sender, sender)

    def pass_over(self, name: str, first: int, count: int) -> bool:
        """Note messages to all that are for nobody here.

        :param first: the number of the first; the others follow it.
        :return: whether they are the next, and nothing is missing: else they are to be received.
        """
        sender = self._senders.get(name)
        if sender is None or not sender.in_step or sender.to_all.next != first:
            return False
        stream = sender.to_all
        stream.next = first + count
        stream.last = first + count - 1
        self._senders.move_to_end(name)
        return True

    def position(
        self,
        name: str,
        numbers: Numbers,
        before: Optional[Numbers] = None,
        since: float = math.inf,
    ) -> Sequence[RelayMessage]:
        """What a sender says of its streams: the number of the last message of each.

        :param numbers: of streams to other tags, too; of one that is missing nothing is new.
        :param before: the last message of each stream that was not meant for this
            process: it did not listen yet. Of messages that the sender no longer
            keeps it says the same, as it has forgotten when they were sent.
        :param since: when this process began to listen. Messages sent from then on
            that have arrived are for it, whatever ``before`` says.
        :raises Impossible: for a number out of all reason; nothing has changed then.
        """
        sender = self._senders.get(name) or self._new(name)
        ours = {tag: numbers.get(tag, 0) for tag in (None, *self.tags)}
        for tag, last in ours.items():
            sender.stream(tag).check(last)
        for tag, last in ours.items():
            if last:
                sender.kept(tag).knows(last)
        self._remember(name, sender)
        sender.waiting_since = None
        if not any(ours.values()):
            sender.placed = True
        elif before is not None and not sender.placed:
            self._place(
                name,
                sender,
                {
                    tag: min(
                        before.get(tag, last) + 1, last + 1, *_sent_from(since, sender.stream(tag))
                    )
                    for tag, last in ours.items()
                },
            )
        return self._advance(name, sender)

    def again(
        self,
        name: str,
        tag: Optional[str],
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
        if not self.awaits(name, tag, asked):
            return ()  # an answer that comes twice, or to others in this process
        sender = self._senders[name]
        stream = sender.kept(tag)
        sender.waiting_since = None
        stream.asked = -math.inf
        if first > asked:
            here = min(first, stream.last + 1, *stream.held)
            if start >= asked:
                stream.next = min(start + 1, here)
            self._skip(stream, here)
        for message in messages:
            if message.sequence <= stream.last:
                self._check(sender, self._before(message, tag))
                self._hold(stream, message, asked_for=True)
        return self._advance(name, sender)

    def awaits(self, name: str, tag: Optional[str], asked: int) -> bool:
        """Whether an answer to a question for this number is of use."""
        sender = self._senders.get(name)
        return sender is not None and sender.placed and asked == sender.stream(tag).next

    def has(self, name: str, numbers: Numbers) -> bool:
        """Whether all messages of a sender up to these numbers were delivered or given up."""
        sender = self._senders.get(name)
        return sender is not None and all(
            sender.stream(tag).next > numbers.get(tag, 0) for tag in (None, *self.tags)
        )

    def delivered_to_all(self, name: str) -> int:
        """The number of the last message to all of a sender that was delivered."""
        sender = self._senders.get(name)
        return 0 if sender is None else sender.to_all.next - 1

    def gone(self, name: str) -> Sequence[RelayMessage]:
        """A sender has ended: what is there is all there will be."""
        delivered = self.give_up(name, ended=True)
        sender = self._senders.pop(name, None)
        if sender is not None:
            self._note_gone({name: sender.save()})
        return delivered

    def give_up(self, name: str, ended: bool = False) -> Sequence[RelayMessage]:
        """Wait no longer for what a sender was asked for.

        :param ended: whether it can be asked no more.
        """
        sender = self._senders.get(name)
        self._behind.pop(name, None)
        if sender is None:
            return ()
        sender.waiting_since = None
        if not sender.placed:
            # What it sent before may not have been for us: start with what is here.
            named = (one.after for stream in sender.own.values() for one in stream.held.values())
            known = max(sender.to_all.last, *named, 0)
            self._place(
                name,
                sender,
                {
                    tag: min(stream.held, default=(known if tag is None else stream.last) + 1)
                    for tag, stream in sender.streams.items()
                },
            )
        delivered = self._deliverable(sender)
        while not sender.look():
            # To us first: what is held then says itself whether it was sent before.
            streams = (*sender.own.values(), sender.to_all)
            for stream in streams:
                if stream.missing is not None:
                    self._skip(stream, stream.missing[1] + 1, ended)
                    break
            else:
                # Each waits for the other: no sender of ours says such a thing.
                for stream in streams:
                    self._skip(stream, stream.last + 1, ended)
            delivered += self._deliverable(sender)
        return delivered

    def questions(self, now: float, whom: Optional[Container[str]] = None) -> list[Question]:
        """Whom to ask for what now; each question comes again until it is answered.

        :param whom: who can be asked now; by default everybody.
        """
        asked: list[Question] = []
        for name, sender in self._behind.items():
            if whom is not None and name not in whom:
                continue
            # What is missing takes a look at all that is held: not with each message that comes.
            for question in _lacks(name, sender, now - self._ask_again):
                sender.stream(question.tag).asked = now
                asked.append(question)
                if sender.waiting_since is None:
                    sender.waiting_since = now
        return asked

    def lacks(self, name: str) -> list[Question]:
        """What a sender is to be asked for."""
        sender = self._behind.get(name)
        return [] if sender is None else list(_lacks(name, sender))

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
        """Nobody could answer until now: the ten seconds begin again, and so do the questions."""
        for sender in self._behind.values():
            sender.waiting_since = None
            for stream in sender.streams.values():
                stream.asked = -math.inf

    # --- another process goes on from here --------------------------------------

    def save(self) -> dict[str, Any]:
        """How far each sender was heard, as JSON; what is :attr:`held` goes beside it.

        By name: whether it is placed, the number that comes next to all and the highest that
        is known to exist, those two to each tag, and whether the sender has ended.
        """
        return {
            **{name: [*numbers, True] for name, numbers in self._gone.items()},
            **{name: [*sender.save(), False] for name, sender in self._senders.items()},
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where another inbox was saved; this one has yet to hear anything."""
        for name, (*numbers, gone) in saved.items():
            if gone:
                self._gone[name] = numbers
            else:
                sender = self._senders[name] = _Sender.restored(*numbers)
                self._advance(name, sender)

    @property
    def held(self) -> Iterator[tuple[Optional[str], RelayMessage]]:
        """What has arrived and waits for an earlier one; :meth:`receive` takes it."""
        for sender in self._behind.values():
            for tag, stream in sender.streams.items():
                for message in stream.held.values():
                    yield tag, message

    @property
    def placed(self) -> Iterator[tuple[str, Numbers]]:
        """The senders of which it is known where they begin, and how far each was heard."""
        for name, sender in self._senders.items():
            if sender.placed:
                yield name, {tag: stream.next - 1 for tag, stream in sender.streams.items()}

    def knows(self, name: str) -> bool:
        """Whether it is known which messages of this sender are the first for this process."""
        sender = self._senders.get(name)
        return sender is not None and sender.placed

    def level(self, other: Inbox) -> bool:
        """Let both know how much each sender that both have heard has sent to both.

        :return: whether nothing is missing in either: they stand at the same point.
        """
        both = (None, *(tag for tag in self.tags if tag in other.tags))
        for name in self._senders.keys() & other._senders.keys():
            for tag in both:
                last = max(inbox._senders[name].stream(tag).last for inbox in (self, other))
                for inbox in (self, other):
                    sender = inbox._senders[name]
                    if sender.stream(tag).last < last:
                        sender.kept(tag).last = last
                        inbox._advance(name, sender)  # delivers nothing
        return not self.waits and not other.waits

    def merge(self, other: Inbox) -> None:
        """Hear for the tags of another inbox, too, which stands at the same point."""
        self.tags = (*self.tags, *(tag for tag in other.tags if tag not in self.tags))
        self.dropped += other.dropped
        for name, (placed, next, last, own) in other._gone.items():
            ours = self._gone.get(name, [placed, 1, 0, {}])
            numbers = max(next, ours[1]), max(last, ours[2])
            self._note_gone({name: [placed or ours[0], *numbers, {**ours[3], **own}]})
        for name, theirs in other._senders.items():
            known = self._senders.get(name)
            if known is None:
                self._remember(name, theirs)
            else:
                known.own.update(theirs.own)

    def hear(self, tag: str, numbers: Mapping[str, int]) -> None:
        """Hear what is to another tag, too.

        :param numbers: by sender, of the last message to it that is not for this process. Of one
            that is not known here they wait for it to speak, as it may have ended long ago.
        """
        self.tags = (*self.tags, tag)
        for name, number in numbers.items():
            sender = self._senders.get(name)
            if sender is not None:
                sender.own[tag] = _Stream(number + 1, number)
            else:
                gone = self._gone.get(name, [False, 1, 0, {}])
                gone[3][tag] = [number + 1, number]
                self._note_gone({name: gone})

    def forget(self, tag: str) -> Sequence[RelayMessage]:
        """Nobody is left under this tag; what waited for a message to it need not."""
        self.tags = tuple(one for one in self.tags if one != tag)
        delivered: list[RelayMessage] = []
        for *_, own in self._gone.values():
            own.pop(tag, None)
        for name, sender in self._senders.items():
            stream = sender.own.pop(tag, None)
            if stream is not None:
                self._release(stream, stream.last + 1)
                delivered += self._advance(name, sender)
        return delivered

    # --- the streams of a sender ------------------------------------------------

    def _new(self, name: str) -> _Sender:
        """One that is yet to be remembered."""
        gone = self._gone.get(name)
        if gone is None:
            return _Sender()
        sender = _Sender.restored(*gone)
        sender.in_step = False  # until it is remembered
        return sender

    def _note_gone(self, gone: Mapping[str, list[Any]]) -> None:
        self._gone.update(gone)
        while len(self._gone) > RELAY_MOST_GONE:
            self._gone.popitem(last=False)

    def _remember(self, name: str, sender: _Sender) -> None:
        if name not in self._senders and len(self._senders) >= RELAY_MOST_SENDERS:
            oldest = next((old for old, other in self._senders.items() if other.in_step), None)
            if oldest is not None:
                del self._senders[oldest]
        self._senders[name] = sender
        self._senders.move_to_end(name)

    def _place(self, name: str, sender: _Sender, first: Numbers) -> None:
        """Everything from these numbers on is for this process."""
        sender.placed = True
        for tag, number in first.items():
            stream = sender.kept(tag)
            number = max(number, stream.next)
            self._release(stream, number)
            stream.next = number
            stream.asked = -math.inf  # what it was asked for until now was where to begin
            stream.last = max(stream.last, number - 1)  # others may have told of so many
        self.on_placed(name, {tag: sender.stream(tag).next - 1 for tag in first})

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
                len(stream.held) < self._most_held
                and self._held_bytes + size <= RELAY_MOST_HELD_BYTES
            )
        ):
            stream.held[number] = message
            self._held_bytes += size

    def _skip(self, stream: _Stream, to: int, ended: bool = False) -> None:
        """Give up what is missing before this number."""
        self._release(stream, to)
        if to > stream.next and not ended:
            self.on_lost()
        self.dropped += to - stream.next
        stream.next = to

    def _has_own(self, sender: _Sender, after: Any) -> bool:
        """Whether all to this process was delivered that a message to all says it follows."""
        if not isinstance(after, dict):
            return False
        for tag in self.tags:
            number = after.get(tag, 0)
            if type(number) is not int or number >= sender.stream(tag).next:
                return False
        return True

    def _before(
        self, message: RelayMessage, tag: Optional[str]
    ) -> Sequence[tuple[Optional[str], Any]]:
        """Of other streams, the number of the last message before this one.

        :raises Impossible: when it says so in no form of ours.
        """
        after = message.fields.get("after")
        if after is not None and not isinstance(after, dict):
            raise Impossible("after is no object")
        if tag is not None:
            return ((None, message.after),)
        # Ours alone may be missing in it, and then there is nothing to wait for.
        return [(tag, after.get(tag, 0)) for tag in self.tags] if after else ()

    def _check(self, sender: _Sender, before: Sequence[tuple[Optional[str], Any]]) -> None:
        """:raises Impossible: when a message names another that cannot be."""
        for tag, number in before:
            if type(number) is not int or number - sender.stream(tag).next > _LARGEST_GAP:
                raise Impossible(f"after number {number!r}")

    def _follows(self, sender: _Sender, before: Sequence[tuple[Optional[str], int]]) -> bool:
        """Whether nothing that was sent before is missing."""
        follows = True
        for tag, number in before:
            if number >= sender.stream(tag).next:
                sender.kept(tag).knows(number)
                follows = False
        return follows

    def _deliverable(self, sender: _Sender) -> list[RelayMessage]:
        delivered: list[RelayMessage] = []
        # To us first: it would say so if it had been sent after the next to all.
        while any(self._deliver_next(sender, tag, delivered) for tag in (*sender.own, None)):
            pass
        return delivered

    def _deliver_next(
        self, sender: _Sender, tag: Optional[str], delivered: list[RelayMessage]
    ) -> bool:
        stream = sender.stream(tag)
        message = stream.held.get(stream.next)
        if message is None or not sender.placed:
            return False
        if not self._follows(sender, self._before(message, tag)):
            return False
        if tag is None and self._overtakes(sender, message):
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
        return any(
            stream.held[min(stream.held)].after < message.sequence
            for stream in sender.own.values()
            if stream.held
        )

    def _advance(self, name: str, sender: _Sender) -> Sequence[RelayMessage]:
        delivered = self._deliverable(sender)
        if sender.look():
            self._behind.pop(name, None)
            sender.waiting_since = None
        else:
            self._behind[name] = sender
        return delivered


def _lacks(name: str, sender: _Sender, asked_until: float = math.inf) -> Iterator[Question]:
    """What a sender is to be asked for, of streams of which nothing was asked since then."""
    if not sender.placed:
        if sender.to_all.asked <= asked_until:
            yield Question(name, None, 0, 0)
        return
    for tag, stream in sender.streams.items():
        missing = stream.missing if stream.asked <= asked_until else None
        if missing is not None:
            yield Question(name, tag, *missing)


def _sent_from(since: float, stream: _Stream) -> list[int]:
    """The numbers of the messages that have arrived and were sent from then on."""
    return [number for number, message in stream.held.items() if message.time >= since]


def _size(message: RelayMessage) -> int:
    return sum(map(len, message.packets))
