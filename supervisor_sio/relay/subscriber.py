"""A process's socket to hear the relay.

What it does is a generator that says when it has to wait, and for what. The waiting is for a
subclass: :mod:`.green` among greenlets, :mod:`.looped` on an asyncio loop, :mod:`.threaded` in a
thread of its own. What is numbered goes through the :class:`.inbox.Inbox`, and the participants'
questions to each other are asked and answered here.
"""

from __future__ import annotations

import logging
import math
import time
from typing import (
    Any,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
)

import zmq

from ..common.limits import (
    CATCH_UP_BYTES,
    CATCH_UP_WAIT,
    RELAY_HIGH_WATER,
    RELAY_MOST_FAILURES,
)
from ..common.refusals import Refusals
from ..common.rundir import RunDir
from .inbox import Inbox
from .message import (
    MessageError,
    RelayMessage,
    read_number,
    topic_for_all,
    topic_for_one,
    topic_for_publishers,
)
from .methods import BRIDGE
from .passed import Passed
from .proxy import WELCOME, read_welcome
from .publisher import RECONNECT, Publisher

logger = logging.getLogger("supervisor_sio.relay")

_NOBLOCK = int(zmq.NOBLOCK)  # the enum is slow to convert for each message

#: Messages received before others get a turn, and seconds: some are for thousands of clients.
_BATCH = 50
_SLICE = 0.01

#: Seconds between looks at what is due.
TICK = 0.25

#: Seconds between looks whether clients have taken what they were sent.
_LOOK = 0.01

#: A process that did not run for so many seconds may have missed the end of something.
_STALLED = 1.5

#: Seconds that the last words of a sender may take through the relay after its end.
_LAST_WORDS = 0.5

#: Seconds between two questions whether somebody has everything: at first, at most.
_FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.2

#: Seconds between lines about the same trouble.
_QUIET = 10.0


#: Takes a message, and raises nothing.
Deliver = Callable[[RelayMessage], None]


class Deaf(RuntimeError):
    """Nothing can be received from the relay any more; the text says why."""


class Wait(NamedTuple):
    """For how long a subscriber does nothing. With 0, others have a turn."""

    seconds: float
    #: Whether it ends as soon as there may be something to receive.
    readable: bool


#: An exception of a wait may be thrown into it: it is counted, and the next wait follows.
Steps = Generator[Wait, None, None]

_TURN = Wait(0.0, False)


class Subscriber:
    """Receives what is for all and what is for its own tag.

    :param tag: under which others send to this process alone.
    :param hears_all: false for a process that only emits: it listens for
        questions about what it has sent.
    :param lives: whether the sender of this name is known to live: it is waited
        for as long as it takes.
    :param behind: whether clients of this process have yet to take much of what they were sent.
    :param since: what was sent from then on is for this process; by default, from
        when it begins to hear the relay. In seconds of the host's monotonic clock.
    """

    def __init__(
        self,
        publisher: Publisher,
        run_dir: RunDir,
        tag: Optional[str] = None,
        hears_all: bool = True,
        lives: Callable[[str], bool] = lambda sender: False,
        behind: Callable[[], bool] = lambda: False,
        since: Optional[float] = None,
    ) -> None:
        self._publisher = publisher
        self._tag = publisher.sender if tag is None else tag
        self._lives = lives
        self._behind = behind
        self._hears_all = hears_all
        #: Who hears what is sent to all, once the router has said so.
        self.receivers: Optional[list[str]] = None
        self._for_all = topic_for_all(publisher.channel)
        self._for_us = topic_for_one(publisher.channel, self._tag)
        self._channel_length = len(publisher.channel.encode()) + 1
        self._inbox = Inbox(self._tag)
        self._passed = Passed()
        #: Gets the tag of each worker that answers what has come from other hosts.
        self.on_passed: Callable[[str, dict[str, int]], None] = lambda tag, numbers: None
        self._ended: dict[str, float] = {}
        # Where all stand who are there already is known before one of them ends.
        self._ask_everybody = True
        #: When the router was to be asked who has ended; 0 when that is done.
        self._missed_ends = 0.0
        self._dropped_shown = 0
        self._dropped_shown_at = -_QUIET
        self._since = since
        #: Whether the relay has carried a message of this process back to it.
        self.joined = False
        #: When the relay began that it hears.
        self._relay_began = 0.0
        #: Numbered messages delivered.
        self.received = 0
        self.malformed = 0
        #: Whether a bridge to other hosts has asked for something: each does when it starts.
        self.bridged = False
        #: When a question of another was last answered.
        self._answered_at = 0.0
        #: Whether messages come that were asked for: as fast as they can be fetched.
        self.catching_up = False
        #: Bytes of messages delivered since clients had time for them.
        self._at_once = 0
        #: Failures to receive since the last message.
        self._failures = 0
        self.closed = False
        self._refusals = Refusals(logger)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, RELAY_HIGH_WATER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT)
        for topic in {
            topic_for_one(publisher.channel, publisher.sender),
            topic_for_publishers(publisher.channel),
            *((self._for_all, self._for_us) if hears_all else ()),
            WELCOME,
        }:
            self._socket.setsockopt(zmq.SUBSCRIBE, topic)
        self._socket.connect(f"ipc://{run_dir.xpub}")

    @property
    def dropped(self) -> int:
        """Messages for this process that were lost for good."""
        return self._inbox.dropped

    def ended(self, sender: str) -> None:
        """That sender is gone: what is missing of it will not come any more."""
        self._ended[sender] = time.monotonic()

    def steps(self, deliver: Deliver) -> Steps:
        """Deliver what the others send, until :meth:`close`.

        :raises Deaf: when nothing can be received any more.
        """
        while not self.closed:
            try:
                yield from self._receive(deliver)
            except Exception as error:
                # Whatever it was, the next message may be received.
                self._refusals.count("relay-receive-failed", repr(error))
                self._failures += 1
                if self._failures > RELAY_MOST_FAILURES:
                    raise Deaf(f"the relay is not heard any more: {error!r}") from error
                yield Wait(TICK, False)

    def _receive(self, deliver: Deliver) -> Steps:
        due = last = began = time.monotonic()
        count = 0
        receive = self._socket.recv
        while not self.closed:
            now = time.monotonic()
            if not count:
                began = now
            elif count == _BATCH or now - began > _SLICE:
                count = 0
                yield _TURN  # a flood must not keep a worker from its clients
                continue
            messages: Iterable[RelayMessage] = ()
            if now >= due:
                if now - last > _STALLED:
                    self._ask_everybody = True
                last, due = now, now + TICK
                messages = self._look(now)
            else:
                try:
                    frame = receive(_NOBLOCK, False)
                except zmq.Again:
                    count = 0
                    yield Wait(due - now, True)
                    continue
                if frame.more:
                    while receive(_NOBLOCK, False).more:
                        pass
                    self.refuse(MessageError("several frames"))
                else:
                    messages = self._take(frame.bytes, now)
                count += 1
            for message in messages:
                self._failures = 0
                deliver(message)
                if self.catching_up:
                    yield from self._give_clients_time(sum(map(len, message.packets)))
            if self.catching_up:
                self.catching_up = self._inbox.waits

    def _give_clients_time(self, delivered: int) -> Steps:
        """What is sent again comes in as fast as it can be read, and clients may take it slower.

        Without this, one that is as fast as others would be cut off as too slow.
        """
        self._at_once += delivered
        if self._at_once < CATCH_UP_BYTES:
            return
        self._at_once = 0
        until = time.monotonic() + CATCH_UP_WAIT
        yield _TURN
        while self._behind() and time.monotonic() < until:
            yield Wait(_LOOK, False)

    def close(self) -> None:
        self.closed = True

    def release(self) -> None:
        """Close the socket, where nobody waits for it any more."""
        self._socket.close()
        self._context.term()

    # --- what comes -----------------------------------------------------------

    def _take(self, data: bytes, now: float) -> Iterable[RelayMessage]:
        try:
            if data.startswith(WELCOME):
                self._welcome(read_welcome(data))
                return ()
            to_all = data.startswith(self._for_all)
            topic = self._for_all if to_all else self._for_us
            if not to_all and not data.startswith(topic):
                topic = data[: data.index(b"\0", self._channel_length) + 1]
            message = RelayMessage.unpack(data, len(topic))
            if message.sender == self._publisher.sender:
                # Its own; what it says to all is delivered here already.
                if self._since is None:
                    self._since = now
                self.joined = True
                if self._missed_ends and message.fields.get("at") == self._missed_ends:
                    self._missed_ends = 0.0
                    self._publisher.ask_router({"method": "ended"})
                return ()
            if message.sequence:
                if not to_all and topic != self._for_us:
                    raise MessageError("a numbered message under another topic")
                delivered = self._inbox.receive(message, to_all)
            else:
                delivered = self._heed(message)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            self.refuse(error)
            return ()
        if self._inbox.waits:
            self._ask(now)
        self.received += len(delivered)
        for message in delivered:  # nearly always one, of this host, and for all
            if "via" in message.fields or "only" in message.fields:
                return [message for message in delivered if self._is_meant(message)]
        return delivered

    def _is_meant(self, message: RelayMessage) -> bool:
        """False for what is to all because one more worker has no stream, and for what
        has come from another host before."""
        try:
            new = self._passed.is_new(message.fields)
        except (ValueError, TypeError, LookupError) as error:
            self.refuse(error)
            return False
        return bool(new and message.fields.get("only", self._tag) == self._tag)

    def _welcome(self, began: float) -> None:
        """Connected, or connected again: what was on its way may be lost, both ways."""
        if self._relay_began:
            self._ask_everybody = True
            self._publisher.beat_soon()
        self._relay_began = began

    def refuse(self, error: Exception) -> None:
        """Count a message that cannot be understood."""
        self.malformed += 1
        if self.malformed == 1:
            logger.warning("a malformed message on the relay is ignored: %s", error)

    def _heed(self, message: RelayMessage) -> Sequence[RelayMessage]:
        fields, sender = message.fields, message.sender
        method = fields["method"]
        if method == "position":
            to_all, to_us = read_number(fields["all"]), read_number(fields["own"].get(self._tag, 0))
            before = None
            if "before" in fields:
                before = read_number(fields["before"]), read_number(fields["own_before"])
            delivered = self._inbox.position(sender, to_all, to_us, before, self._began_to_listen)
            if fields.get("confirm") and self._inbox.has(sender, to_all, to_us):
                confirmed = {"tag": self._tag, "all": to_all, "own": to_us}
                self._publisher.tell(sender, {"method": "confirmed", **confirmed})
            return delivered
        if method == "ended":
            self.ended(sender)
            return self._take_end(sender, fields)
        if method == "confirmed":
            numbers = read_number(fields["all"]), read_number(fields["own"])
            self._publisher.note_confirmed(str(fields["tag"]), *numbers)
            return ()
        if method == "ask_passed":
            if self._hears_all:
                answer = {"tag": self._tag, "numbers": self._passed.numbers}
                self._publisher.tell(sender, {"method": "passed", **answer})
            return ()
        if method == "passed":
            numbers_of = {str(name): read_number(last) for name, last in fields["numbers"].items()}
            self.on_passed(str(fields["tag"]), numbers_of)
            return ()
        if method == "receivers":
            self.receivers = [str(tag) for tag in fields["tags"]]
            return ()
        if method == "question":
            self._answered_at = time.monotonic()
            self.bridged = self.bridged or fields["tag"] == BRIDGE
            self._publisher.answer(
                sender,
                str(fields["tag"]),
                bool(fields["to_all"]),
                read_number(fields["first"]),
                read_number(fields["last"]),
                float(fields["since"]),
            )
        elif method == "again":
            messages = [RelayMessage.unpack(data) for data in message.packets]  # type: ignore[arg-type]
            if any(other.sender != sender for other in messages):
                raise MessageError("somebody else's messages")
            asked, first = read_number(fields["asked"]), read_number(fields["first"])
            start = read_number(fields["start"])
            self.catching_up = True
            return self._inbox.again(sender, bool(fields["to_all"]), asked, first, messages, start)
        elif method == "bye":
            return [*self._take_end(sender, fields), *self._inbox.gone(sender)]
        elif method != "probe":
            raise MessageError(f"unknown method {method!r}")
        return ()

    @property
    def _began_to_listen(self) -> float:
        return math.inf if self._since is None else self._since

    def _take_end(self, sender: str, fields: Mapping[str, Any]) -> Sequence[RelayMessage]:
        """A sender has ended, with so many messages in all."""
        before = (0, 0) if self._began_to_listen <= float(fields["began"]) else None
        to_all, to_us = read_number(fields["all"]), read_number(fields["own"].get(self._tag, 0))
        return self._inbox.position(sender, to_all, to_us, before, self._began_to_listen)

    # --- whether the others have everything ------------------------------------

    async def wait_confirmed(
        self,
        receivers: Callable[[], Iterable[str]],
        until: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> List[str]:
        """Wait until they all have what this process has sent before the call.

        :param receivers: the tags of those who are there, whenever it is called.
        :param until: when to give up, by the host's monotonic clock, in seconds.
        :param sleep: waits for so many seconds, as the caller may.
        :returns: the tags of those who did not say so in time.
        """
        marks = self._publisher.marks(receivers())
        pause = _FIRST_PAUSE
        while True:
            there = set(receivers())
            missing = [
                tag
                for tag, mark in marks.items()
                if tag in there and not self._publisher.has_confirmed(tag, *mark)
            ]
            if not missing or time.monotonic() > until():
                return missing
            for tag in missing:
                self._publisher.ask_to_confirm(tag, *marks[tag])
            await sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    # --- what is due ----------------------------------------------------------

    def _look(self, now: float) -> list[RelayMessage]:
        delivered: list[RelayMessage] = []
        for sender in [name for name, at in self._ended.items() if now - at > _LAST_WORDS]:
            del self._ended[sender]
            if not self._lives(sender):  # it was not only out of touch
                delivered += self._inbox.give_up(sender)
        for sender in self._inbox.silent(now):
            if not self._lives(sender):
                delivered += self._inbox.give_up(sender)
        self._publisher.beat(now)
        if self._ask_everybody and self._hears_all and self.joined:
            self._ask_everybody = False
            self._publisher.ask_all(self._question(True, 0, 0))
            self._missed_ends = now
        if self._missed_ends:
            # Nobody says it again, and the relay drops the answer while what waits there
            # for this process is as much as can: a probe is let in behind that.
            self._publisher.probe(self._missed_ends)
        self._ask(now)
        self._tell_of_losses(now)
        self.received += len(delivered)
        return [message for message in delivered if self._is_meant(message)]

    def _ask(self, now: float) -> None:
        if self._since is None:
            return  # it could not say which messages are for it
        for sender, to_all, first, last in self._inbox.questions(now):
            self._publisher.tell(sender, self._question(to_all, first, last))

    def _question(self, to_all: bool, first: int, last: int) -> dict[str, Any]:
        return {
            "method": "question",
            "tag": self._tag,
            "to_all": to_all,
            "first": first,
            "last": last,
            "since": self._since,
        }

    def _tell_of_losses(self, now: float) -> None:
        new = self._inbox.dropped - self._dropped_shown
        if new and now - self._dropped_shown_at >= _QUIET:
            self._dropped_shown, self._dropped_shown_at = self._inbox.dropped, now
            logger.error("%d messages were lost: their senders keep them no more", new)


class WaitingSubscriber(Subscriber):
    """One that waits where it is called: a subclass knows how."""

    def run(self, deliver: Deliver) -> None:
        """Deliver what the others send, until :meth:`close`.

        :raises Deaf: when nothing can be received any more.
        """
        steps = self.steps(deliver)
        try:
            wait = next(steps)
            while True:
                try:
                    self._wait(wait)
                except Exception as error:
                    wait = steps.throw(error)
                else:
                    wait = next(steps)
        except StopIteration:
            pass

    def _wait(self, wait: Wait) -> None:
        raise NotImplementedError
