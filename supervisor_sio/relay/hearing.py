"""Handles what the relay brings, and asks and answers the questions between participants.

No sockets here, and nothing waits. Numbered messages go through the :class:`.inbox.Inbox`.

A process that is about to end passes its sessions on: :meth:`Hearing.detach` returns the position
up to which they have received the relay, and another process goes on from there,
:meth:`Hearing.adopt`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import (
    Any,
    Awaitable,
    Callable,
    Container,
    Deque,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from ..common.limits import RELAY_GIVE_UP, RELAY_MOST_STREAMS
from . import other_versions
from .inbox import Inbox, Numbers
from .journal import Journal
from .listener import Listener, read_messages
from .message import (
    Look,
    MessageError,
    OtherVersion,
    RelayMessage,
    look,
    read_number,
    runs,
    sender_of,
    take_run,
    topic_for_all,
    topic_for_one,
    topic_for_publishers,
    unpack_bundle,
    unpack_run,
)
from .methods import ASKED, BRIDGE
from .passed import via_of
from .position import Part, Position
from .proxy import WELCOME, read_welcome
from .publisher import Publisher

logger = logging.getLogger("supervisor_sio.relay")

#: Seconds that a sender's last messages may take through the relay after its end.
_LAST_WORDS = 0.5

#: Seconds between two questions to the same process to confirm: the first, and the longest pause.
FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.2

#: Seconds between two log lines about lost messages.
_QUIET = 10.0

#: Seconds for other processes to say how much they have sent. Those that are known to live are
#: waited for without a limit.
_ANSWERS = 1.0

#: Methods without a number that any process with the tag handles. All others are for the worker
#: that drew the tag.
_TO_A_TAG = ("position", "volatile", "repeat")


#: Returns the messages for clients, when it is called in its turn; takes the time.
Piece = Callable[[float], Iterable[RelayMessage]]


def _as_it_is(message: RelayMessage, now: float) -> Iterable[RelayMessage]:
    """A :data:`Piece` that is in order already."""
    return (message,)


#: Takes a message, and raises nothing.
Deliver = Callable[[RelayMessage], None]

#: Returns messages of this process itself that adopted sessions have yet to get, in order, and how
#: many messages it has published: the sessions need no earlier ones.
Fetch = Callable[[], Tuple[List[RelayMessage], int]]


class Adoption:
    """Adopted sessions, until their position is that of this process's own clients."""

    def __init__(
        self,
        listener: Listener,
        deliver: Deliver,
        own: Optional[Callable[[Fetch], None]],
        merged: Callable[[], None],
    ) -> None:
        self.listener = listener
        self.deliver = deliver
        #: Called once to have this process's own messages fetched; ``None`` from then on.
        self.own = own
        self.merged = merged


class Hearing:
    """Receives what is sent to all, and to the tags of this process.

    A subclass passes what arrives to :meth:`_take_frame`, calls each of ``_pieces`` in its turn,
    and calls :meth:`_look` now and then. These return the messages for this process's own clients;
    messages for adopted sessions wait at their listener.

    :param tag: under which others send to this process.
    :param hears_all: false for a process that only emits: it receives only questions about what it
        has sent.
    :param lives: whether a sender is known to live: it is then waited for without a limit.
    :param living: the senders on this host that are known to live.
    :param since: messages sent from then on are for this process; by default, from when it begins
        to receive. In seconds of the host's monotonic clock.
    :param part: the position from which another process's reception under this tag goes on, instead
        of ``since``.
    """

    def __init__(
        self,
        publisher: Publisher,
        tag: str,
        hears_all: bool,
        lives: Callable[[str], bool],
        living: Callable[[], Iterable[str]],
        since: Optional[float],
        part: Optional[Part],
    ) -> None:
        self._publisher = publisher
        self._lives = lives
        self._living = living
        self._hears_all = hears_all
        #: The tags that receive what is sent to all, once the router has answered.
        self.receivers: Optional[list[str]] = None
        self._for_all = topic_for_all(publisher.channel)
        self._for_us = topic_for_one(publisher.channel, tag)
        self._to_process = topic_for_one(publisher.channel, publisher.sender)
        self._channel_length = len(publisher.channel.encode()) + 1
        #: Receives for this process's own clients; ``None`` once they are passed on.
        self._main: Optional[Listener] = (
            Listener(tag, since=since, refuse=self.refuse)
            if part is None
            else Listener.restored(part, self.refuse)
        )
        #: The hashes of the rooms with a client here, see :mod:`.rooms`: messages to other rooms
        #: are passed over. ``None``: every message is read.
        self.rooms: Optional[Container[int]] = None
        #: The serialization in which clients here may get several messages' packets at once.
        self.packet: Optional[str] = None
        self._sender = publisher.sender.encode()
        self._inbox = self._main.inbox
        #: The other pieces of the bundle that was received last.
        self._pieces: Iterator[Piece] = iter(())
        #: Frames that were received together, and are not handled yet.
        self._frames: Deque[bytes] = deque()
        self._adoptions: List[Adoption] = []
        #: Whether it receives for its own clients only.
        self._simple = True
        #: The tags under which it receives, by topic.
        self._tags = {self._for_us: tag}
        #: Messages lost for good by sessions that were passed on.
        self._dropped_before = 0
        #: Gets the tag of each worker that answers which messages of other hosts it has.
        self.on_passed: Callable[[str, dict[str, int]], None] = lambda tag, numbers: None
        #: Gets the number of a question, and the router's answer: the list of workers.
        self.on_members: Callable[[int, Any], None] = lambda asked, rows: None
        self._ended: dict[str, float] = {}
        # Ask all senders for their positions at once: one of them may end before it sends again.
        self._ask_everybody = True
        #: When all senders were asked last.
        self._asked_at = 0.0
        #: The time of the last probe that came back: everything relayed before it is received.
        self._heard_until = 0.0
        #: Since when the router is to be asked which processes have ended; 0 when it has answered.
        self._missed_ends = 0.0
        #: When it was asked last.
        self._ends_asked = 0.0
        self._dropped_shown = 0
        self._dropped_shown_at = -_QUIET
        #: Whether the relay has carried a message of this process back to it.
        self.joined = False
        #: When the present relay began.
        self._relay_began = 0.0
        self._journal: Optional[Journal] = None
        #: Senders that have ended, and of which the journal has not been told yet.
        self._ended_lately: List[str] = []
        #: Numbered messages delivered.
        self.received = 0
        self.malformed = 0
        self._malformed_logged = False
        #: Whether a bridge to other hosts has asked a question: each does when it starts.
        self.bridged = False
        #: When the last question of another process was answered.
        self._answered_at = 0.0
        #: Whether messages arrive that were asked for: as fast as they can be fetched.
        self.catching_up = False
        topics = (self._to_process, topic_for_publishers(publisher.channel), WELCOME)
        self._subscribe(*topics, *((self._for_all, self._for_us) if hears_all else ()))

    def _subscribe(self, *topics: bytes) -> None:
        """Receive messages under these topics."""
        raise NotImplementedError

    def _unsubscribe(self, *topics: bytes) -> None:
        """Receive them no longer, except the topic of this process."""
        raise NotImplementedError

    @property
    def journal(self) -> Optional[Journal]:
        """The journal of what this process gives to its clients.

        It is told here what is not delivered: losses, ends of senders, where senders begin. The
        manager tells it what is delivered.
        """
        return self._journal

    @journal.setter
    def journal(self, journal: Journal) -> None:
        self._journal = journal
        for listener in self._listeners:
            self._connect_journal(journal, listener)
            for sender, numbers in listener.inbox.placed:
                listener.inbox.on_placed(sender, numbers)
        if self._main is not None and self._main.since is not None:
            journal.began(self._main.since)

    def _own_is_given(self, listener: Listener) -> None:
        if self._journal is not None:
            self._journal.own_given(listener.tags)

    def _connect_journal(self, journal: Journal, listener: Listener) -> None:
        def placed(sender: str, numbers: Numbers) -> None:
            scope = None if listener is self._main else (True, listener.tags)
            for tag, number in numbers.items():
                journal.heard(sender, tag, number, scope=scope)

        listener.inbox.on_lost, listener.inbox.on_placed = journal.lost, placed
        listener.unmeant = []

    def _update_journal(self, journal: Journal) -> None:
        """Tell the journal what it must not know before all earlier messages are delivered."""
        if any(listener.has_pending for listener in self._listeners):
            return
        for listener in self._listeners:
            scope = None if listener is self._main else (True, listener.tags)
            for message in listener.unmeant or ():
                number, after = message.sequence, message.after
                via = via_of(message.fields)
                journal.heard(message.sender, message.stream, number, after, via, scope)
            listener.unmeant = []
        for sender in self._ended_lately:
            journal.ended(sender)
        self._ended_lately.clear()

    @property
    def dropped(self) -> int:
        """Messages for this process that were lost for good."""
        return self._dropped_before + sum(one.inbox.dropped for one in self._listeners)

    @property
    def _listeners(self) -> List[Listener]:
        adopted = [adoption.listener for adoption in self._adoptions]
        return adopted if self._main is None else [self._main, *adopted]

    @property
    def tags(self) -> List[str]:
        """The tags under which this process receives for clients."""
        return [tag for listener in self._listeners for tag in listener.tags]

    def ended(self, sender: str) -> None:
        """A sender has ended: what is missing of it will not come."""
        self._ended[sender] = time.monotonic()

    # --- sessions move from one process to another -------------------------------

    def detach(self) -> Position:
        """Stop receiving for the clients of this process: another one goes on from the result.

        It still receives what is sent to the process itself: questions about what it has published,
        and confirmations. Like the following methods it is called where messages are received.
        """
        heard = [tag for listener in self._listeners for tag in listener.inbox.tags]
        numbers, published = self._publisher.last(heard)
        for listener in self._listeners:
            if listener.since is None:
                listener.since = time.monotonic()
        parts = self.save()
        for part, own_is_due in zip(parts, self._whether_own_is_due()):
            part.dropped, part.has_gap = 0, False  # this process has counted them already
            if not own_is_due:
                part.has(self._publisher.sender, numbers)
        self._dropped_before = self.dropped
        for listener in self._listeners:
            listener.clear()
        self._unsubscribe(self._for_all, *self._tags)
        self._main, self._adoptions, self._simple = None, [], False
        self._inbox = Inbox()
        return Position(self._publisher.channel, parts, published)

    def save(self) -> List[Part]:
        """The positions up to which this process has received, for all its sessions."""
        return [listener.save() for listener in self._listeners]

    def adopt(
        self,
        part: Part,
        deliver: Deliver,
        own: Optional[Callable[[Fetch], None]] = None,
        merged: Callable[[], None] = lambda: None,
    ) -> None:
        """Receive for sessions of another process, too, from its position on.

        :param deliver: gets the messages that these sessions have yet to get. A message to all is
            also delivered separately to this process's own clients.
        :param own: called once, when everything that the former process and the stand-in have kept
            is delivered; then this process's own messages are fetched, see :data:`Fetch`.
        :param merged: called once the sessions' position is that of the own clients: from the next
            message on ``deliver`` of :meth:`steps` gets everything.
        """
        listener = Listener.restored(part, self.refuse)
        if self._journal is not None:
            self._journal.adopting(part)
            self._connect_journal(self._journal, listener)
        self._adoptions.append(Adoption(listener, deliver, own, merged))
        self._simple = False
        self._add_tags(*part.tags, *part.guest_tags)
        self._ask_everybody = True
        self._publisher.probe()  # wakes a subscriber that waits for something to receive

    def hear_for_guests(self, tag: str, numbers: Mapping[str, int]) -> None:
        """Receive what is sent to another worker, too: some of its clients are guests here.

        :param numbers: by sender, the number of the last message to that worker that is not for
            these guests. This process's own number is known here.
        """
        main = self._main
        if main is None or tag in main.inbox.tags:
            return
        own, inbox = self._publisher.sender, main.inbox
        main.guest_tags |= {tag}
        inbox.hear(tag, {name: numbers[name] for name in numbers if name != own})
        if self._journal is not None:
            last, _ = self._publisher.last([tag])
            numbers = {**numbers, own: last.get(tag, 0)}
            self._journal.guests(tag, numbers, lambda name: name == own or inbox.knows(name))
        self._add_tags(tag)

    def hear_no_more(self, tags: Iterable[str]) -> None:
        """The last guest with each of these tags has left."""
        main = self._main
        for tag in tags:
            if main is not None and tag in main.guest_tags:
                main.guest_tags -= {tag}
                self._forget_tag(main, tag)
                self.catching_up = True  # messages that waited for this tag's are pending now

    @property
    def guest_tags(self) -> FrozenSet[str]:
        """Tags of other workers some of whose clients are guests here."""
        if self._simple and self._main is not None:
            return self._main.guest_tags
        return frozenset(tag for one in self._listeners for tag in one.guest_tags)

    def _add_tags(self, *tags: str) -> None:
        self._tags.update((topic_for_one(self._publisher.channel, tag), tag) for tag in tags)
        self._subscribe(self._for_all, *self._tags)

    def _forget_tag(self, listener: Listener, tag: str) -> None:
        if self._journal is not None:
            self._journal.given_up(tag, None if listener is self._main else (True, (tag,)))
        listener.take(listener.inbox.forget(tag))
        if not any(one.hears(tag) for one in self._listeners):
            topic = topic_for_one(self._publisher.channel, tag)
            self._unsubscribe(topic)
            self._tags.pop(topic, None)

    def give_up(self, tag: str) -> None:
        """The last client with an adopted tag has left."""
        for listener in self._listeners:
            if tag in listener.tags:
                self._forget_tag(listener, tag)
        dropped = self.dropped
        self._adoptions = [one for one in self._adoptions if one.listener.tags]
        self._dropped_before += dropped - self.dropped
        self.catching_up = True  # messages that waited for this tag's are pending now
        self._look_whether_simple()

    def _whether_own_is_due(self) -> List[bool]:
        """For each listener, whether this process's own messages have yet to be given to it."""
        due = [adoption.own is not None for adoption in self._adoptions]
        return due if self._main is None else [False, *due]

    def _look_whether_simple(self) -> None:
        self._simple = self._main is not None and not self._adoptions

    def _fetch_own(self, listener: Listener) -> Tuple[List[RelayMessage], int]:
        messages, published = self._publisher.give(listener.inbox, listener.began)
        return listener.meant(messages), published

    def _merge(self, now: float) -> None:
        """Let adopted sessions receive with the own clients, once their positions are the same."""
        main = self._main
        if main is None or self._ask_everybody or self._missed_ends:
            # Some senders may not have been asked yet. Those that have ended cannot be asked: the
            # router says how much they had sent.
            return
        if now - self._asked_at < _ANSWERS:
            return
        if self._heard_until < self._asked_at + _ANSWERS:
            self._publisher.probe(now)  # answers may have arrived that are not received yet
            return
        for adoption in list(self._adoptions):
            listener = adoption.listener
            if listener.has_pending or adoption.own is not None:
                continue
            if self._ask_strangers(main, listener):
                continue
            if main.inbox.level(listener.inbox, self._publisher.sender):
                listener.inbox.gone(self._publisher.sender)
                main.merge(listener)
                if self._journal is not None:
                    self._journal.merged(listener.tags)
                self._adoptions.remove(adoption)
                self._look_whether_simple()
                adoption.merged()

    def _ask_strangers(self, *listeners: Listener) -> bool:
        """Ask living senders that have not said yet how much they have sent. Return whether there
        are any."""
        asked = False
        for sender in set(self._living()) - {self._publisher.sender}:
            for listener in listeners:
                if not listener.inbox.knows(sender):
                    asked = True
                    self._publisher.tell(sender, self._question(listener, None, 0, 0))
        return asked

    # --- received messages ----------------------------------------------------

    def _take_frame(self, data: bytes, now: float) -> Iterable[RelayMessage]:
        """Handle what has arrived: one message, or the first piece of a bundle, whose other pieces
        wait in ``_pieces``. Messages that no client here gets are left out."""
        try:
            topic = self._for_all
            if not data.startswith(topic):
                if data.startswith(WELCOME):
                    self._welcome(read_welcome(data))
                    return ()
                topic = self._for_us
                if not data.startswith(topic):
                    topic = data[: data.index(b"\0", self._channel_length) + 1]
            start = len(topic)
            beginning = look(data, start)
            if beginning.sender == self._sender:  # its own messages to all are delivered already
                if not beginning.first and beginning.messages == 1:
                    self._take_own(RelayMessage.unpack(data, start), now)
                return ()
            if self._passes_over(topic, beginning):
                return ()
            if beginning.messages == 1:
                return self._take(topic, data, start, now)
            self._pieces = self._open_bundle(topic, unpack_bundle(data, start))
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            self.refuse(error)
            return ()
        piece = next(self._pieces, None)
        return () if piece is None else piece(now)

    def _take_next(self, now: float) -> Iterable[RelayMessage]:
        """Handle the first of ``_frames``, and with it those that continue it, like a bundle."""
        frames, topic = self._frames, self._for_all
        whole = frames[0]
        if not whole.startswith(topic):
            return self._take_frame(frames.popleft(), now)
        run = take_run(frames, len(topic))
        if len(run) == 1:
            return self._take_frame(whole, now)
        if self._sender == sender_of(run[0]):
            return ()
        self._pieces = self._open_run(topic, run)
        piece = next(self._pieces, None)
        return () if piece is None else piece(now)

    def _open_bundle(self, topic: bytes, messages: Iterable[bytes]) -> Iterator[Piece]:
        for run in runs(messages):
            yield from self._open_run(topic, run)

    def _open_run(self, topic: bytes, run: Sequence[bytes]) -> Iterator[Piece]:
        try:
            beginning = look(run[0], 0)._replace(messages=len(run))
            passed_over = self._passes_over(topic, beginning)
        except ValueError as error:
            self.refuse(error)
            return
        if passed_over:
            return
        joined = self._join(topic, beginning, run) if len(run) > 1 else None
        if joined is not None:
            yield partial(_as_it_is, joined)
            return
        for data in run:
            yield partial(self._take, topic, data, 0)

    def _join(self, topic: bytes, beginning: Look, run: Sequence[bytes]) -> Optional[RelayMessage]:
        """Join events for the same clients to one; ``None`` if they cannot be joined."""
        if self.packet is None or not self._passes_by(topic):
            return None
        try:
            joined = unpack_run(run)
        except ValueError:
            return None  # they are received one by one
        if not beginning.hashes or joined.fields.get("packet") != self.packet:
            return None
        if "ack" in joined.fields:
            return None
        if beginning.first and not self._inbox.pass_over(joined.sender, *beginning[1:3]):
            return None
        self.received += beginning.messages if beginning.first else 0
        return joined

    def _passes_by(self, topic: bytes) -> bool:
        """Whether messages under this topic may be handled before they are put in order: otherwise
        they would overtake messages that wait."""
        return topic is self._for_all and self._simple and not self.catching_up

    def _passes_over(self, topic: bytes, beginning: Look) -> bool:
        """Whether no client here gets a message: then it is only counted."""
        sender, first, count, hashes, via = beginning
        rooms = self.rooms
        if not hashes or rooms is None or not self._passes_by(topic):
            return False
        for one in hashes:
            if one in rooms:
                return False
        if not first:  # volatile
            return True
        name = sender.decode()
        if not self._inbox.pass_over(name, first, count):
            return False
        self.received += count
        if via is not None and self._main is not None:
            self._main.note_passed(*via)
        if self._journal is not None:
            self._journal.heard(name, None, first + count - 1, via=via)
        return True

    def _take(self, topic: bytes, data: bytes, start: int, now: float) -> Iterable[RelayMessage]:
        """Handle one message: see :data:`Piece`."""
        try:
            to_all = topic is self._for_all
            message = RelayMessage.unpack(data, start)
            if message.sequence:
                tag = None
                if not to_all:
                    tag = self._tags.get(topic)
                    if tag is None and topic == self._to_process:
                        raise MessageError("a numbered message under another topic")
                    if tag is None:
                        return ()  # the tag was given up while the message was on its way
                    message.stream = tag
                if self._journal is not None:
                    message.packed = data[start:] if start else data
                if self._simple:
                    delivered = self._inbox.receive(message, tag)
                else:
                    delivered = self._each(
                        lambda one: one.inbox.receive(message, tag) if one.hears(tag) else ()
                    )
            elif self._is_for_us(topic, message):
                delivered = self._handle_unnumbered(message)
            else:
                return ()
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            self.refuse(error)
            return ()
        if self._inbox.waits or not self._simple:
            self._ask(now)
        self.received += len(delivered)
        for message in delivered:  # nearly always one, from this host, to all
            if "via" in message.fields or "only" in message.fields:
                return self._meant(delivered)
        return delivered

    def _is_for_us(self, topic: bytes, message: RelayMessage) -> bool:
        """False for an answer or a question to the former process of an adopted tag."""
        if topic == self._to_process or topic not in self._tags:
            return True
        return message.fields["method"] in _TO_A_TAG

    def _take_own(self, message: RelayMessage, now: float) -> None:
        """Handle a message of this process that has come back."""
        if self._main is not None and self._main.since is None:
            self._main.since = now
            if self._journal is not None:
                self._journal.began(now)
        self.joined = True
        self._heard_until = max(self._heard_until, message.fields.get("at", 0.0))
        if self._missed_ends and message.fields.get("at") == self._missed_ends:
            if now - self._ends_asked >= _ANSWERS:
                self._ends_asked = now
                self._publisher.ask_router({"method": "ended", "asked": self._missed_ends})

    def _each(self, take: Callable[[Listener], Sequence[RelayMessage]]) -> Sequence[RelayMessage]:
        """Let all listeners take messages. Return those for the own clients; the others' wait."""
        for adoption in self._adoptions:
            adoption.listener.take(take(adoption.listener))
        return () if self._main is None else take(self._main)

    def _meant(self, messages: Iterable[RelayMessage]) -> List[RelayMessage]:
        """The messages that are for the own clients."""
        return [] if self._main is None else self._main.meant(messages)

    def _welcome(self, began: float) -> None:
        """The socket is connected, or again: messages in both directions may be lost."""
        if self._relay_began:
            self._ask_everybody = True
            self._publisher.beat_soon()
        self._relay_began = began

    def refuse(self, error: Exception) -> None:
        """Count a message that is malformed."""
        self.malformed += 1
        if isinstance(error, OtherVersion):
            other_versions.note(error)
        elif not self._malformed_logged:
            self._malformed_logged = True
            logger.warning("a malformed message on the relay is ignored: %s", error)

    def _handle_unnumbered(self, message: RelayMessage) -> Sequence[RelayMessage]:
        fields, sender = message.fields, message.sender
        method = fields["method"]
        if method == "position":
            delivered = self._each(lambda one: one.position(sender, fields))
            if fields.get("confirm"):
                self._confirm(sender, fields)
            return delivered
        if method == "ended":
            self.ended(sender)
            return self._each(lambda one: one.end(sender, fields))
        if method == "all_ended":
            if fields["asked"] == self._missed_ends:
                self._missed_ends = 0.0
            return ()
        if method == "confirmed":
            to_all = read_number(fields["all"])
            for tag, to_it in fields["own"].items():
                self._publisher.note_confirmed(tag, to_all, read_number(to_it))
            return ()
        if method == "ask_passed":
            delivered = self._each(lambda one: one.bridge_began(sender))
            for listener in self._listeners if self._hears_all else ():
                for tag in listener.tags:
                    answer = {"tag": tag, "numbers": listener.numbers_passed}
                    self._publisher.tell(sender, {"method": "passed", **answer})
            return delivered
        if method == "passed":
            numbers_of = {str(name): read_number(last) for name, last in fields["numbers"].items()}
            self.on_passed(str(fields["tag"]), numbers_of)
            return ()
        if method == "receivers":
            self.receivers = [str(tag) for tag in fields["tags"]]
            return ()
        if method == "members":
            self.on_members(read_number(fields["asked"]), fields["members"])
            return ()
        if method in ASKED:
            return (message,)
        if method == "question":
            self._answered_at = time.monotonic()
            tag = str(fields["tag"])
            self.bridged = self.bridged or tag == BRIDGE
            tags = [str(one) for one in fields.get("tags", (tag,))]
            if len(tags) > RELAY_MOST_STREAMS:
                raise MessageError("more tags than there are streams")
            numbers = read_number(fields["first"]), read_number(fields["last"])
            since = float(fields["since"])
            whose = None if fields["to_all"] else tag
            self._publisher.answer(sender, tags, whose, *numbers, since)
        elif method == "again":
            messages = read_messages(sender, message.packets)
            self.catching_up = True
            return self._each(lambda one: one.again(sender, fields, messages))
        elif method == "bye":
            ended = self._each(lambda one: one.end(sender, fields))
            return [*ended, *self._forget(sender)]
        elif method == "volatile":
            return () if self._main is None else (message,)
        elif method != "probe":
            raise MessageError(f"unknown method {method!r}")
        return ()

    def _confirm(self, sender: str, fields: Mapping[str, Any]) -> None:
        if sender in self._ended:
            self.ended(sender)  # it has left the router, but still sends again what is missing
        for listener in self._listeners:
            confirmed = listener.confirms(sender, fields)
            if confirmed is not None and self._may_confirm(sender, confirmed):
                self._publisher.tell(sender, {"method": "confirmed", **confirmed})

    def _may_confirm(self, sender: str, confirmed: Mapping[str, Any]) -> bool:
        """Whether the messages are safe here, so that a sender may end; if not, it asks again."""
        return True

    # --- confirmations by other processes --------------------------------------

    async def wait_confirmed(
        self,
        receivers: Callable[[], Iterable[str]],
        until: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> List[str]:
        """Wait until all receivers have what this process has sent before the call.

        :param receivers: returns the tags of the present receivers.
        :param until: returns when to give up, in seconds of the host's monotonic clock.
        :param sleep: waits for so many seconds, as the caller may.
        :returns: the tags of receivers that have not confirmed in time.
        """
        marks = self._publisher.marks(receivers())
        pause = FIRST_PAUSE
        while True:
            there = set(receivers())
            missing = [
                tag
                for tag, mark in marks.items()
                if tag in there and not self._publisher.has_confirmed(tag, mark)
            ]
            if not missing or time.monotonic() > until():
                return missing
            self._publisher.ask_to_confirm({tag: marks[tag] for tag in missing})
            await sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    # --- what is due ----------------------------------------------------------

    def _look(self, now: float) -> Sequence[RelayMessage]:
        delivered: List[RelayMessage] = []
        for sender in self._ended_by(now - _LAST_WORDS):
            del self._ended[sender]
            if not self._lives(sender):
                delivered += self._forget(sender)
                continue
            for listener in self._listeners:  # the router had only lost it for a moment
                listener.inbox.lives(sender)
        for listener in self._listeners:
            for sender in listener.inbox.silent(now):
                if not self._lives(sender):
                    delivered += self._give_up(sender, listener)
        if self._journal is not None:
            self._update_journal(self._journal)
        self._publisher.beat(now)
        if self._ask_everybody and self._hears_all and self.joined:
            self._ask_everybody = False
            for listener in self._listeners:
                self._publisher.ask_all(self._question(listener, None, 0, 0))
            self._missed_ends = self._asked_at = now
            self._ends_asked = 0.0
        if now - self._missed_ends > RELAY_GIVE_UP:
            # A router of a former version does not say that it has answered.
            self._missed_ends = 0.0
        if self._missed_ends:
            # The relay drops the answer while its queue for this process is full: a probe that
            # comes back shows that there is room.
            self._publisher.probe(self._missed_ends)
        if self._adoptions and not delivered:
            self._merge(now)
        self._ask(now)
        self._log_losses(now)
        self.received += len(delivered)
        return self._meant(delivered)

    def _note_stall(self, seconds: float) -> None:
        """This process did not run for so long: messages may be lost, and answers have arrived that
        are not received yet."""
        self._ask_everybody = True
        for listener in self._listeners:
            listener.inbox.wait_longer(seconds)

    def _ended_by(self, until: float) -> List[str]:
        """Senders that had ended by then, and of which all that the relay has brought is received:
        a process that did not run for a moment has their last messages in its socket."""
        ended = {sender: at + _LAST_WORDS for sender, at in self._ended.items() if at < until}
        received = [sender for sender, at in ended.items() if self._heard_until >= at]
        if len(received) < len(ended):
            self._publisher.probe(until + _LAST_WORDS)
        return received

    def _forget(self, sender: str) -> Sequence[RelayMessage]:
        """A sender has ended. Return what the own clients get, as :meth:`_each`."""
        if self._journal is not None:
            self._ended_lately.append(sender)
        return self._each(lambda one: one.inbox.gone(sender))

    def _give_up(self, sender: str, listener: Listener) -> Sequence[RelayMessage]:
        """Give up on a sender that does not answer one listener. Return the same."""
        return self._each(lambda one: one.inbox.give_up(sender) if one is listener else ())

    def _ask(self, now: float) -> None:
        for listener in self._listeners:
            if listener.since is None:
                continue  # it cannot tell yet which messages are for it
            for sender, tag, first, last in listener.inbox.questions(now):
                self._publisher.tell(sender, self._question(listener, tag, first, last))

    def _question(
        self, listener: Listener, tag: Optional[str], first: int, last: int
    ) -> dict[str, Any]:
        tags = listener.inbox.tags
        return {
            "method": "question",
            "tag": tags[0] if tag is None else tag,
            **({"tags": tags} if len(tags) > 1 else {}),
            "to_all": tag is None,
            "first": first,
            "last": last,
            "since": listener.since,
        }

    def _log_losses(self, now: float) -> None:
        new = self.dropped - self._dropped_shown
        if new and now - self._dropped_shown_at >= _QUIET:
            self._dropped_shown, self._dropped_shown_at = self.dropped, now
            logger.error("%d messages were lost: their senders do not keep them any more", new)
