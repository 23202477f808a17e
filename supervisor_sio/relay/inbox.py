"""The messages that a process receives: each one once, and each sender's in their order.

Pure: no sockets and no clocks here. A sender's streams that concern this process (see
:mod:`.outbox`) are merged again: the one to all, and the one to each of its tags, of which most
processes have one. When a number is missing, later messages of that sender are held, and
:meth:`Inbox.questions` says which sender to ask for what; other senders' messages are not held.

A sender from which the first message arrives may have sent many before this process began to
receive. It is asked which of its messages came before that.

The position up to which each sender's messages were received can be saved, for another process to
go on from there. If that process receives already, it brings both inboxes to the same position
(:meth:`Inbox.level`), and merges them (:meth:`Inbox.merge`).
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

#: Seconds until a question without an answer is repeated.
_ASK_AGAIN = 0.3

#: A larger gap is not one of our senders'.
_LARGEST_GAP = 2**31 - 1

#: Numbers of messages by the tag to which they are sent; ``None`` for those to all.
Numbers = Mapping[Optional[str], int]


class Impossible(ValueError):
    """A number that the sender cannot have reached."""


class Question(NamedTuple):
    """A question to a sender: send messages ``first`` to ``last`` of a stream again.

    ``first`` 0 asks for its position instead.
    """

    sender: str
    #: Whose stream; ``None`` for the one to all.
    tag: Optional[str]
    first: int
    last: int


class _Stream:
    """One stream of one sender, as far as it was received."""

    def __init__(self, next: int = 1, last: int = 0) -> None:
        #: The number of the next message to deliver.
        self.next = next
        #: The highest number that is known to exist.
        self.last = last
        #: The highest number that the sender is known to have sent. Messages after it, up to
        #: ``last``, may never have left a sender that was killed.
        self.sent = last
        self.held: dict[int, RelayMessage] = {}
        self.asked = -math.inf

    @property
    def missing(self) -> Optional[tuple[int, int]]:
        """The first gap: its first and last number."""
        if self.last < self.next or self.next in self.held:
            return None
        return self.next, min(self.held, default=self.last + 1) - 1

    def check(self, last: int) -> None:
        """:raises Impossible: when the number is too far ahead."""
        if last - self.next > _LARGEST_GAP:
            raise Impossible(f"number {last} after {self.next - 1}")

    def knows(self, last: int, sent: bool = True) -> None:
        """Note that messages up to ``last`` exist.

        :param sent: whether all of them were sent.
        :raises Impossible: when the number is too far ahead; nothing has changed then.
        """
        self.check(last)
        self.last = max(last, self.last)
        if sent:
            self.sent = max(last, self.sent)

    def save(self, ended: bool) -> list[int]:
        """The next number, and the highest one that is known to exist.

        :param ended: whether the sender has ended: then it is the highest one that the sender is
            known to have sent. The router repeats how many exist.
        """
        return [self.next, max(self.next - 1, self.sent, *self.held) if ended else self.last]


class _Sender:
    """The streams of one sender that concern this process."""

    def __init__(self) -> None:
        self.to_all = _Stream()
        #: By tag, the streams of which something is known.
        self.own: dict[str, _Stream] = {}
        #: Whether it is known which messages are the first ones for this process.
        self.placed = False
        #: Whether nothing is missing, as of the last :meth:`look`.
        self.in_step = False
        #: When the first question without an answer was asked.
        self.waiting_since: Optional[float] = None
        #: Whether this process receives what the sender sends. False after :meth:`Inbox.restore`
        #: until something of the sender arrives: it may have sent more that did not arrive here.
        self.reached = True
        #: Whether the number of its last message is known, see :meth:`Inbox.end`.
        self.ended = False

    def stream(self, tag: Optional[str]) -> _Stream:
        """A stream to read: an empty one if nothing is known."""
        return self.to_all if tag is None else self.own.get(tag) or _Stream()

    def kept(self, tag: Optional[str]) -> _Stream:
        """A stream to change."""
        return self.to_all if tag is None else self.own.setdefault(tag, _Stream())

    @property
    def streams(self) -> dict[Optional[str], _Stream]:
        streams: dict[Optional[str], _Stream] = {None: self.to_all}
        streams.update(self.own.items())
        return streams

    def add(self, own: Mapping[str, list[int]]) -> None:
        """Add the streams to further tags, as :meth:`save` has them."""
        for tag, numbers in own.items():
            self.own.setdefault(tag, _Stream(*numbers))

    def look(self) -> bool:
        """Determine whether nothing is missing."""
        self.in_step = self.placed and all(one.last < one.next for one in self.streams.values())
        return self.in_step

    def ask_anew(self) -> None:
        """All questions are due at once."""
        for stream in self.streams.values():
            stream.asked = -math.inf

    def save(self) -> list[Any]:
        return [
            self.placed,
            *self.to_all.save(self.ended),
            {tag: stream.save(self.ended) for tag, stream in self.own.items()},
        ]

    @classmethod
    def restored(cls, placed: bool, next: int, last: int, own: dict[str, list[int]]) -> _Sender:
        sender = cls()
        sender.placed, sender.to_all = placed, _Stream(next, last)
        sender.own = {tag: _Stream(*numbers) for tag, numbers in own.items()}
        sender.reached = False
        sender.look()
        return sender


class Inbox:
    """The streams of all senders.

    :param tags: of this process: messages to it alone are sent to these.
    :param since: earlier messages are not for it, though it may receive them: they were sent for
        another inbox of the same process. In seconds of the host's monotonic clock.
    :param most_held: how many messages of a stream may wait for an earlier one; by default as many
        as within a host.
    :param ask_again: seconds until a question without an answer is repeated.
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
        #: The positions of senders that have ended: their late messages are not new. Of senders
        #: that are not placed only the streams of guests' tags are known, see :meth:`hear`.
        self._gone: OrderedDict[str, list[Any]] = OrderedDict()
        #: Senders of which something is missing.
        self._behind: dict[str, _Sender] = {}
        self._held_bytes = 0
        #: Whether it goes on from the position of another process.
        self._restored = False
        #: Messages for this process that no process can send again.
        self.dropped = 0
        #: Whether some of them were sent, so that others may have received them. Messages that a
        #: killed process had not sent yet are lost for everybody.
        self.has_gap = False
        #: Called when messages that had been sent are lost.
        self.on_lost: Callable[[], None] = lambda: None
        #: Gets a sender, and for each of its streams the number of the last message that was not
        #: for this process, once these are known.
        self.on_placed: Callable[[str, Numbers], None] = lambda name, numbers: None

    def receive(self, message: RelayMessage, tag: Optional[str] = None) -> Sequence[RelayMessage]:
        """Take a numbered message. Return what can be delivered now, in order.

        :param tag: one of :attr:`tags` to which it was sent; ``None`` for all.
        :raises Impossible: for a number that cannot be; nothing has changed then.
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
        # The usual case: it is the next one, and nothing waits.
        if number == stream.next and follows and sender.in_step:
            stream.next = number + 1
            stream.last = number
            sender.reached = True
            if tag is not None:
                sender.own[tag] = stream
            self._senders.move_to_end(message.sender)
            return (message,)
        before = self._before(message, tag)
        self._check(sender, before)
        stream.knows(number)
        sender.reached = True
        if tag is not None:
            sender.own[tag] = stream
        self._remember(message.sender, sender)
        if sender.placed or message.time >= self._since:
            if number == 1 and not any(last for _, last in before):
                # Messages to one of several tags tell nothing about the other tags.
                if tag is None or len(self.tags) == 1:
                    sender.placed = True  # it has sent nothing before
            self._hold(stream, message)
        return self._advance(message.sender, sender)

    def pass_over(self, name: str, first: int, count: int) -> bool:
        """Note messages to all that are for no client here.

        :param first: the number of the first; the others follow it.
        :return: whether they are the next ones, and nothing is missing; else they must be received.
        """
        sender = self._senders.get(name)
        if sender is None or not sender.in_step or sender.to_all.next != first:
            return False
        stream = sender.to_all
        stream.next = first + count
        stream.last = first + count - 1
        sender.reached = True
        self._senders.move_to_end(name)
        return True

    def position(
        self,
        name: str,
        numbers: Numbers,
        before: Optional[Numbers] = None,
        since: float = math.inf,
    ) -> Sequence[RelayMessage]:
        """Take a sender's position: the number of the last message of each stream.

        :param numbers: also of streams to other tags; streams that are left out have nothing new.
        :param before: by stream, the last message that was not for this process, as it did not
            receive yet. Messages that the sender does not keep any more count as earlier, since
            their time is not known.
        :param since: when this process began to receive. Messages sent from then on that have
            arrived are for it, whatever ``before`` says.
        :raises Impossible: for a number that cannot be; nothing has changed then.
        """
        sender = self._senders.get(name) or self._new(name)
        sender.reached = True
        return self._take_position(name, sender, numbers, before, since, sent=False)

    def end(
        self,
        name: str,
        numbers: Numbers,
        before: Optional[Numbers] = None,
        since: float = math.inf,
        sent: bool = False,
        lived: bool = True,
    ) -> Sequence[RelayMessage]:
        """Take the last position of a sender that has ended, before :meth:`gone`.

        The parameters are those of :meth:`position`, and:

        :param sent: whether all these messages were sent for certain: the last ones of a killed
            process may not have been.
        :param lived: whether it ended after ``since``: else none of its messages is for this
            process.
        :raises Impossible: as there.
        """
        sender = self._senders.get(name)
        if sender is None:
            sender = self._new(name)
            sender.reached = not self._restored
        sender.ended = True
        sender.reached |= not lived
        return self._take_position(name, sender, numbers, before, since, sent)

    def _take_position(
        self,
        name: str,
        sender: _Sender,
        numbers: Numbers,
        before: Optional[Numbers],
        since: float,
        sent: bool,
    ) -> Sequence[RelayMessage]:
        ours = {tag: numbers.get(tag, 0) for tag in (None, *self.tags)}
        for tag, last in ours.items():
            sender.stream(tag).check(last)
        for tag, last in ours.items():
            if last:
                sender.kept(tag).knows(last, sent)
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
        """Take a sender's answer to a question: messages from ``first`` on.

        :param asked: the first number that was asked for. When ``first`` is higher, the sender does
            not keep the messages in between any more.
        :param start: numbers up to this one were never used: nothing is lost.
        :raises Impossible: for a number that cannot be.
        """
        if not self.awaits(name, tag, asked):
            return ()  # the answer is a repeated one, or for another inbox of this process
        sender = self._senders[name]
        stream = sender.kept(tag)
        sender.reached = True
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
        """Whether an answer to a question from this number on is of use."""
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
        """A sender has ended: nothing more of it will come. Return what can be delivered now."""
        delivered = self.give_up(name, ended=True)
        sender = self._senders.pop(name, None)
        if sender is not None:
            self._note_gone({name: sender.save()})
        return delivered

    def give_up(self, name: str, ended: bool = False) -> Sequence[RelayMessage]:
        """Give up what a sender was asked for. Return what can be delivered now.

        :param ended: whether the sender has ended, so that it cannot be asked again.
        """
        sender = self._senders.get(name)
        self._behind.pop(name, None)
        if sender is None:
            return ()
        sender.waiting_since = None
        was_sent = not (ended and sender.reached)
        if not sender.placed:
            # Its earlier messages may not have been for this process: begin with what is held.
            if not sender.reached and any(one.last for one in sender.streams.values()):
                self._note_gap()
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
            # Streams to this process first: their held messages tell whether they came earlier.
            streams = (*sender.own.values(), sender.to_all)
            for stream in streams:
                if stream.missing is not None:
                    self._skip(stream, stream.missing[1] + 1, was_sent)
                    break
            else:
                # Each waits for the other, which cannot be from one of our senders.
                for stream in streams:
                    self._skip(stream, stream.last + 1, was_sent)
            delivered += self._deliverable(sender)
        return delivered

    def lives(self, name: str) -> None:
        """A sender lives, although :meth:`end` has noted its end."""
        sender = self._senders.get(name)
        if sender is not None:
            sender.ended = False

    def abandon(self, name: str) -> Sequence[RelayMessage]:
        """Do not wait for what is missing of a sender any longer: it is not lost, as another one
        sends it. Return what has waited for it."""
        sender = self._behind.pop(name, None)
        if sender is None:
            return ()
        sender.placed, sender.waiting_since = True, None
        waited: list[RelayMessage] = []
        for stream in sender.streams.values():
            waited += (message for _, message in sorted(stream.held.items()))
            self._release(stream, stream.last + 1)
            stream.next = stream.last + 1
        sender.look()
        return waited

    @property
    def behind(self) -> list[str]:
        """The senders of which something is missing."""
        return [*self._behind]

    def questions(self, now: float, whom: Optional[Container[str]] = None) -> list[Question]:
        """The questions that are due now; each is repeated until it is answered.

        :param whom: senders that can be asked now; by default all.
        """
        asked: list[Question] = []
        for name, sender in self._behind.items():
            if whom is not None and name not in whom:
                continue
            # Finding gaps reads all held messages: not done for each message that arrives.
            for question in _lacks(name, sender, now - self._ask_again):
                sender.stream(question.tag).asked = now
                asked.append(question)
                if sender.waiting_since is None:
                    sender.waiting_since = now
        return asked

    def lacks(self, name: str) -> list[Question]:
        """The questions for one sender, whether due or not."""
        sender = self._behind.get(name)
        return [] if sender is None else list(_lacks(name, sender))

    @property
    def waits(self) -> bool:
        """Whether anything is missing."""
        return bool(self._behind)

    def silent(self, now: float) -> list[str]:
        """Senders that have not answered for ten seconds."""
        return [
            name
            for name, sender in self._behind.items()
            if sender.waiting_since is not None and now - sender.waiting_since > RELAY_GIVE_UP
        ]

    def wait_anew(self) -> None:
        """No sender could answer until now: begin the ten seconds and the questions anew."""
        for sender in self._behind.values():
            sender.waiting_since = None
            sender.ask_anew()

    def wait_longer(self, seconds: float) -> None:
        """This process did not run for so long, and its senders could not answer: that is not a
        part of the ten seconds. The questions begin anew."""
        for sender in self._behind.values():
            if sender.waiting_since is not None:
                sender.waiting_since += seconds
            sender.ask_anew()

    # --- another process goes on from here --------------------------------------

    def save(self) -> dict[str, Any]:
        """The position of each sender as JSON, without the messages of :attr:`held`.

        By name: whether the sender is placed, the next number to all and the highest that is known
        to exist, the same two numbers for each tag, and whether the sender has ended.
        """
        return {
            **{name: [*numbers, True] for name, numbers in self._gone.items()},
            **{name: [*sender.save(), False] for name, sender in self._senders.items()},
        }

    @property
    def complete(self) -> list[str]:
        """The senders that have ended, and from which messages were received until then."""
        return [name for name, one in self._senders.items() if one.ended and one.reached]

    def restore(self, saved: Mapping[str, Any], complete: Container[str] = ()) -> None:
        """Go on from a saved position; this inbox must not have received anything.

        :param complete: see :attr:`complete`.
        """
        self._restored = True
        for name, (*numbers, gone) in saved.items():
            if gone:
                self._gone[name] = numbers
            else:
                sender = self._senders[name] = _Sender.restored(*numbers)
                sender.ended = sender.reached = name in complete
                self._advance(name, sender)

    @property
    def held(self) -> Iterator[tuple[Optional[str], RelayMessage]]:
        """Messages that have arrived and wait for an earlier one; :meth:`receive` takes them."""
        for sender in self._behind.values():
            for tag, stream in sender.streams.items():
                for message in stream.held.values():
                    yield tag, message

    @property
    def placed(self) -> Iterator[tuple[str, Numbers]]:
        """The placed senders, with the number of the last delivered message of each stream."""
        for name, sender in self._senders.items():
            if sender.placed:
                yield name, {tag: stream.next - 1 for tag, stream in sender.streams.items()}

    def has_ended(self, name: str) -> bool:
        """Whether it was noted already that a sender has ended."""
        gone = self._gone.get(name)
        return gone is not None and bool(gone[0])

    def knows(self, name: str) -> bool:
        """Whether it is known which messages of a sender are the first ones for this process."""
        sender = self._senders.get(name)
        return sender is not None and sender.placed

    def level(self, other: Inbox, own: str = "") -> bool:
        """Bring two inboxes to the same knowledge of how much each common sender has sent to both.

        If one inbox has noted that a sender has ended, the other one waits until it has noted that,
        too.

        :param own: the name of this process: its messages are not compared, because they do not
            come from the relay.
        :return: whether nothing is missing in either: they are at the same position.
        """
        both = (None, *(tag for tag in self.tags if tag in other.tags))
        for ours, theirs in ((self, other), (other, self)):
            for name, sender in ours._senders.items():
                if name == own:
                    continue
                known = theirs._senders.get(name)
                if known is not None:
                    ours._learn(name, sender, known, both)
                elif theirs.has_ended(name):
                    known = _Sender.restored(*theirs._gone[name])
                    ours._learn(name, sender, known, both, has_ended=True)
        return not self.waits and not other.waits

    def _learn(
        self,
        name: str,
        sender: _Sender,
        known: _Sender,
        tags: Sequence[Optional[str]],
        has_ended: bool = False,
    ) -> None:
        """Note how much another inbox knows that a sender has sent.

        :param has_ended: whether that inbox has noted the sender's end: it may have skipped missing
            messages, so its next number does not show what was sent.
        """
        for tag in tags:
            stream = known.stream(tag)
            if not stream.last:
                continue
            kept = sender.kept(tag)
            before = kept.last
            kept.knows(stream.last, sent=False)
            if not has_ended:
                kept.knows(max(stream.sent, stream.next - 1))
            if kept.last > before:
                self._advance(name, sender)  # delivers nothing

    def merge(self, other: Inbox) -> None:
        """Take over the tags of another inbox, which is at the same position."""
        self.tags = (*self.tags, *(tag for tag in other.tags if tag not in self.tags))
        self.dropped += other.dropped
        self.has_gap |= other.has_gap
        for name, theirs in other._gone.items():
            known = self._senders.get(name)
            if known is None:
                self._note_gone({name: _merged(self._gone.get(name), theirs)})
            elif theirs[0]:  # one of the two knows that it has ended
                del self._senders[name]
                self._note_gone({name: _merged(known.save(), theirs)})
            else:
                known.add(theirs[3])
        for name, sender in other._senders.items():
            known, gone = self._senders.get(name), self._gone.get(name)
            if known is not None:
                known.own.update(sender.own)
            elif gone is not None and gone[0]:
                self._note_gone({name: _merged(gone, sender.save())})
            else:
                if gone is not None:
                    sender.add(gone[3])
                self._remember(name, sender)

    def hear(self, tag: str, numbers: Mapping[str, int]) -> None:
        """Receive messages to another tag, too.

        :param numbers: by sender, of the last message to that tag that is not for this process.
            Numbers of senders that are not known here are kept until they send: they may have ended
            long ago.
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
        """Forget a tag. Return messages that had waited for one to that tag."""
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
        """A sender that is not remembered yet."""
        gone = self._gone.get(name)
        if gone is None:
            return _Sender()
        sender = _Sender.restored(*gone)
        sender.in_step = False  # set when it is remembered
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
        self._gone.pop(name, None)
        self._senders[name] = sender
        self._senders.move_to_end(name)

    def _place(self, name: str, sender: _Sender, first: Numbers) -> None:
        """From these numbers on, messages are for this process."""
        sender.placed = True
        for tag, number in first.items():
            stream = sender.kept(tag)
            number = max(number, stream.next)
            self._release(stream, number)
            stream.next = number
            stream.asked = -math.inf  # the question until now was where to begin
            stream.last = max(stream.last, number - 1)  # earlier numbers exist as well
        self.on_placed(name, {tag: sender.stream(tag).next - 1 for tag in first})

    def _release(self, stream: _Stream, before: int) -> None:
        for number in [number for number in stream.held if number < before]:
            self._held_bytes -= _size(stream.held.pop(number))

    def _hold(self, stream: _Stream, message: RelayMessage, asked_for: bool = False) -> None:
        number, size = message.sequence, _size(message)
        if number < stream.next or number in stream.held:
            return  # it has arrived before
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

    def _skip(self, stream: _Stream, to: int, was_sent: bool = True) -> None:
        """Give up the missing messages before this number.

        :param was_sent: whether all of them were sent; if not, those up to ``stream.sent`` were.
        """
        self._release(stream, to)
        if to > stream.next and (was_sent or stream.sent >= stream.next):
            self._note_gap()
        self.dropped += to - stream.next
        stream.next = to

    def _note_gap(self) -> None:
        self.has_gap = True
        self.on_lost()

    def _has_own(self, sender: _Sender, after: Any) -> bool:
        """Whether all messages to this process that came before one to all are delivered."""
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
        """For the other streams, the number of the last message before this one.

        :raises Impossible: when the field is malformed.
        """
        after = message.fields.get("after")
        if after is not None and not isinstance(after, dict):
            raise Impossible("after is not an object")
        if tag is not None:
            return ((None, message.after),)
        # A tag of this process may be absent: then there is nothing to wait for.
        return [(tag, after.get(tag, 0)) for tag in self.tags] if after else ()

    def _check(self, sender: _Sender, before: Sequence[tuple[Optional[str], Any]]) -> None:
        """:raises Impossible: when a message names an earlier one that cannot be."""
        for tag, number in before:
            if type(number) is not int or number - sender.stream(tag).next > _LARGEST_GAP:
                raise Impossible(f"after number {number!r}")

    def _follows(self, sender: _Sender, before: Sequence[tuple[Optional[str], int]]) -> bool:
        """Whether no earlier message is missing."""
        follows = True
        for tag, number in before:
            if number >= sender.stream(tag).next:
                sender.kept(tag).knows(number)
                follows = False
        return follows

    def _deliverable(self, sender: _Sender) -> list[RelayMessage]:
        delivered: list[RelayMessage] = []
        # Streams to this process first: their messages say if they follow the next one to all.
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
        """Whether a message to this process is held that was sent before this one to all.

        The message to all that said so may be lost for good.
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


def _merged(ours: Optional[list[Any]], theirs: list[Any]) -> list[Any]:
    """What is known of a sender, in the form of :meth:`_Sender.save`, by two inboxes."""
    if ours is None:
        return theirs
    (placed, next, last, own), (their_placed, their_next, their_last, their_own) = ours, theirs
    return [
        placed or their_placed,
        max(next, their_next),
        max(last, their_last),
        {**own, **their_own},
    ]


def _lacks(name: str, sender: _Sender, asked_until: float = math.inf) -> Iterator[Question]:
    """The questions for a sender, for streams of which nothing was asked since ``asked_until``."""
    if not sender.placed:
        if sender.to_all.asked <= asked_until:
            yield Question(name, None, 0, 0)
        return
    for tag, stream in sender.streams.items():
        missing = stream.missing if stream.asked <= asked_until else None
        if missing is not None:
            yield Question(name, tag, *missing)


def _sent_from(since: float, stream: _Stream) -> list[int]:
    """The numbers of held messages that were sent from then on."""
    return [number for number, message in stream.held.items() if message.time >= since]


def _size(message: RelayMessage) -> int:
    return sum(map(len, message.packets))
