"""A recipient within a process: its own clients, or sessions that it has adopted.

Pure: no sockets and no clocks here. Most processes have one listener. Sessions that come from
another worker and the own clients are at different positions in the senders' streams: they receive
separately until both positions are the same.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Callable, Deque, Iterable, Iterator, Mapping, Optional, Sequence

from .inbox import Inbox, Numbers
from .message import MessageError, RelayMessage, read_number
from .methods import BRIDGE
from .passed import Passed
from .position import Held, Part


class Listener:
    """Receives for clients with certain tags.

    :param tags: of these clients.
    :param since: messages sent from then on are for them; ``None`` while that is not known. In
        seconds of the host's monotonic clock.
    :param refuse: gets the error for a malformed message.
    """

    def __init__(
        self, *tags: str, since: Optional[float], refuse: Callable[[Exception], None]
    ) -> None:
        self.inbox = Inbox(*tags)
        #: Tags of other workers some of whose clients are guests among these clients.
        self.guest_tags: frozenset[str] = frozenset()
        self.since = since
        self._refuse = refuse
        self._passed = Passed()
        #: Messages that are not for these clients, if the journal needs them.
        self.unmeant: Optional[list[RelayMessage]] = None
        #: Messages to deliver, in order; those of ``_kept``, from other processes, come first.
        self._pending: Deque[RelayMessage] = deque()
        self._kept: Deque[Held] = deque()

    @classmethod
    def restored(cls, part: Part, refuse: Callable[[Exception], None]) -> Listener:
        listener = cls(*part.tags, since=part.since, refuse=refuse)
        listener._passed = Passed(part.passed.items())
        listener.inbox = Inbox(*part.tags, *part.guest_tags, since=part.since)
        listener.guest_tags = frozenset(part.guest_tags)
        listener.inbox.restore(part.senders, part.complete)
        listener.inbox.dropped, listener.inbox.has_gap = part.dropped, part.has_gap
        listener._kept.extend(part.kept)
        for held in part.held:
            try:
                message = _unpack(held)
                listener.take(listener.inbox.receive(message, held.tag))
            except ValueError as error:
                refuse(error)  # it will be asked for again
        return listener

    def save(self) -> Part:
        """The position, for another process."""
        pending = [Held(message.stream, message.pack()) for message in self._pending]
        return Part(
            self.tags,
            0.0 if self.since is None else self.since,
            self.inbox.save(),
            self.numbers_passed,
            [one for one in (*self._kept, *pending) if self.hears(one.tag)],
            [Held(tag, message.pack()) for tag, message in self.inbox.held],
            self.inbox.dropped,
            self.inbox.has_gap,
            tuple(tag for tag in self.inbox.tags if tag in self.guest_tags),
            self.inbox.complete,
        )

    def clear(self) -> None:
        """Drop pending messages: another process delivers them."""
        self._kept.clear()
        self._pending.clear()

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags without those of guests, for which another process answers."""
        if not self.guest_tags:
            return self.inbox.tags
        return tuple(tag for tag in self.inbox.tags if tag not in self.guest_tags)

    @property
    def began(self) -> float:
        return math.inf if self.since is None else self.since

    @property
    def numbers_passed(self) -> dict[str, int]:
        """The last number that arrived from each bridge to other hosts."""
        return self._passed.numbers

    def note_passed(self, bridge: str, number: int) -> None:
        """Note a message of another host that is for no client here."""
        self._passed.note(bridge, number)

    def hears(self, tag: Optional[str]) -> bool:
        """Whether a message to this tag, or to all for ``None``, is for these clients."""
        return tag is None or tag in self.inbox.tags

    def take(self, messages: Iterable[RelayMessage]) -> None:
        """Queue those of these messages that are for these clients."""
        self._pending.extend(self.meant(messages))

    def meant(self, messages: Iterable[RelayMessage]) -> list[RelayMessage]:
        """Those of these messages that are for these clients."""
        meant: list[RelayMessage] = []
        for message in messages:
            if self._is_meant(message):
                meant.append(message)
            elif self.unmeant is not None:
                self.unmeant.append(message)
        return meant

    def wait(self, messages: Iterable[RelayMessage]) -> None:
        """Queue all of these messages."""
        self._pending.extend(messages)

    def next_ones(self) -> Iterator[RelayMessage]:
        """Take the messages that can be delivered now; the queue may be cleared meanwhile."""
        while self.has_pending:
            if not self._kept:
                yield self._pending.popleft()
                continue
            try:
                message = _unpack(self._kept.popleft())
            except MessageError as error:
                self._refuse(error)
            else:
                yield message

    @property
    def has_pending(self) -> bool:
        return bool(self._kept or self._pending)

    def _is_meant(self, message: RelayMessage) -> bool:
        """False for a message to all that is for one other worker without a stream, and for a
        message of another host that has arrived before."""
        try:
            new = self._passed.is_new(message.fields)
        except (ValueError, TypeError, LookupError) as error:
            self._refuse(error)
            return False
        only = message.fields.get("only")
        return new and (only is None or only in self.inbox.tags)

    def bridge_began(self, bridge: str) -> Sequence[RelayMessage]:
        """The bridges before this one have ended: it sends other hosts' messages again that have
        not been delivered here. Return those of stock servers, which no bridge keeps."""
        return [
            message
            for sender in self.inbox.behind
            if sender.startswith(f"{BRIDGE}-") and sender != bridge
            for message in self.inbox.abandon(sender)
            if "via" not in message.fields
        ]

    # --- messages about a sender's streams ------------------------------------------

    def position(self, sender: str, fields: Mapping[str, Any]) -> Sequence[RelayMessage]:
        """:raises ValueError: or another exception, when the fields are malformed."""
        before: Optional[dict[Optional[str], int]] = None
        if "before" in fields:
            if not any(tag in fields["own"] for tag in self.tags):
                return ()  # an answer to another process's question
            own_before = fields["own_before"]
            if not isinstance(own_before, dict):  # one number, for the only tag
                own_before = {tag: own_before for tag in fields["own"]}
            before = {None: read_number(fields["before"])}
            before.update((tag, read_number(last)) for tag, last in own_before.items())
        return self.inbox.position(sender, self._numbers(fields), before, self.began)

    def end(self, sender: str, fields: Mapping[str, Any]) -> Sequence[RelayMessage]:
        """A sender has ended, after a certain number of messages."""
        if self.inbox.has_ended(sender):
            return ()  # the router repeats it; what is missing was counted then
        before: Optional[Numbers] = None
        if self.began <= float(fields["began"]):
            before = {tag: 0 for tag in (None, *self.inbox.tags)}
        return self.inbox.end(
            sender,
            self._numbers(fields),
            before,
            self.began,
            sent=fields["method"] == "bye" or bool(fields.get("sent")),
            lived=float(fields.get("at", -math.inf)) >= self.began,
        )

    def again(
        self, sender: str, fields: Mapping[str, Any], messages: Sequence[RelayMessage]
    ) -> Sequence[RelayMessage]:
        tag = None if fields["to_all"] else fields.get("tag", self.tags[0])
        if not self.hears(tag):
            return ()
        asked, first = read_number(fields["asked"]), read_number(fields["first"])
        start = read_number(fields["start"])
        for message in messages:
            message.stream = tag
        return self.inbox.again(sender, tag, asked, first, messages, start)

    def confirms(self, sender: str, fields: Mapping[str, Any]) -> Optional[dict[str, Any]]:
        """The confirmation for a sender, once everything that it asks for is delivered."""
        numbers = self._numbers(fields)
        own = {tag: numbers[tag] for tag in fields["confirm"] if tag in self.tags}
        if not own or self.has_pending or not self.inbox.has(sender, numbers):
            return None
        return {"all": numbers[None], "own": own}

    def _numbers(self, fields: Mapping[str, Any]) -> dict[Optional[str], int]:
        own = fields["own"]
        numbers: dict[Optional[str], int] = {None: read_number(fields["all"])}
        numbers.update((tag, read_number(own[tag])) for tag in self.inbox.tags if tag in own)
        return numbers

    # --- merging -----------------------------------------------------------------------

    def merge(self, other: Listener) -> None:
        """Take over the clients of another listener, which is at the same position."""
        tags = (*self.tags, *other.tags)
        self.inbox.merge(other.inbox)
        self.guest_tags = (self.guest_tags | other.guest_tags).difference(tags)
        self._passed.merge(other._passed)


def _unpack(held: Held) -> RelayMessage:
    """:raises MessageError: when it is not a message."""
    message = RelayMessage.unpack(held.data)
    message.stream = held.tag
    return message


def read_messages(sender: str, packets: Iterable[Any]) -> list[RelayMessage]:
    """Unpack messages that a sender sends again.

    :raises MessageError: when they are not messages, or another sender's.
    """
    messages = [RelayMessage.unpack(data) for data in packets]
    if any(other.sender != sender for other in messages):
        raise MessageError("messages of another sender")
    return messages
