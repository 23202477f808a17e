"""A process's socket for receiving from the relay.

What it does is a generator that yields how long to wait, and for what. Subclasses wait:
:mod:`.green` among greenlets, :mod:`.looped` in an asyncio loop, :mod:`.threaded` in a thread of
its own. Messages are handled by :mod:`.hearing`.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any, Callable, Generator, Iterable, NamedTuple, Optional

import zmq

from ..common.limits import (
    CATCH_UP_BYTES,
    CATCH_UP_WAIT,
    RELAY_BUNDLE_MESSAGES,
    RELAY_HIGH_WATER,
    RELAY_LONGEST_PUSHED,
    RELAY_MOST_FAILURES,
)
from ..common.refusals import Refusals
from ..common.rundir import RunDir
from .hearing import Adoption, Deliver, Hearing
from .listener import Listener
from .message import MessageError, RelayMessage
from .position import Part
from .publisher import NOBLOCK, RECONNECT, Publisher

logger = logging.getLogger("supervisor_sio.relay")

#: Most messages, and seconds, until others get a turn: some messages are for thousands of clients.
#: A bundle fits in, so that its events leave in one write for each client.
_RECEIVED = RELAY_BUNDLE_MESSAGES
_SLICE = 0.01

#: Most own messages that adopted sessions get until others have a turn.
_BATCH = 50

#: Seconds between two looks at what is due.
TICK = 0.25

#: Seconds between two looks whether clients have taken their output.
_LOOK = 0.01

#: Seconds without running after which a process may have missed the end of a stream, and has not
#: read what arrived meanwhile.
STALLED = 1.5


class Deaf(RuntimeError):
    """Nothing can be received from the relay any more; the text says why."""


class Wait(NamedTuple):
    """For how long a subscriber waits. 0 seconds give others a turn."""

    seconds: float
    #: Whether the wait ends as soon as there may be something to receive.
    readable: bool


#: An exception of the wait may be thrown into it: it is counted, and the next wait follows.
Steps = Generator[Wait, None, None]

_TURN = Wait(0.0, False)


class Subscriber(Hearing):
    """Receives what is for this process, with a socket of its own.

    :param tag: by default the name under which the publisher sends.
    :param behind: whether clients of this process have yet to take much of their output.

    The other parameters are those of :class:`.Hearing`.
    """

    def __init__(
        self,
        publisher: Publisher,
        run_dir: RunDir,
        tag: Optional[str] = None,
        hears_all: bool = True,
        lives: Callable[[str], bool] = lambda sender: False,
        living: Callable[[], Iterable[str]] = lambda: (),
        behind: Callable[[], bool] = lambda: False,
        since: Optional[float] = None,
        part: Optional[Part] = None,
    ) -> None:
        self._behind = behind
        #: Bytes delivered since clients last had time to take them.
        self._at_once = 0
        #: Failures to receive since the last message.
        self._failures = 0
        self.closed = False
        self._refusals = Refusals(logger)
        self._topics: set[bytes] = set()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, RELAY_HIGH_WATER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT)
        tag = publisher.sender if tag is None else tag
        super().__init__(publisher, tag, hears_all, lives, living, since, part)
        self._socket.connect(f"ipc://{run_dir.xpub}")

    def steps(self, deliver: Deliver) -> Steps:
        """Deliver messages of other processes, until :meth:`close`.

        :raises Deaf: when nothing can be received any more.
        """
        while not self.closed:
            try:
                yield from self._receive(deliver)
            except Exception as error:
                # Whatever failed, the next message may be received.
                self._refusals.count("relay-receive-failed", repr(error))
                self._failures += 1
                if self._failures > RELAY_MOST_FAILURES:
                    raise Deaf(f"nothing can be received from the relay: {error!r}") from error
                yield Wait(TICK, False)

    def _receive(self, deliver: Deliver) -> Steps:
        due = last = began = time.monotonic()
        count = 0
        receive = self._socket.recv
        while not self.closed:
            now = time.monotonic()
            if not count:
                began = now
            elif count >= _RECEIVED or now - began > _SLICE:
                count = 0
                yield _TURN  # a flood of messages must not keep a worker from its clients
                continue
            messages: Iterable[RelayMessage] = ()
            if now >= due:
                if now - last > STALLED:
                    self._note_stall(now - last)
                last, due = now, now + TICK
                messages = self._look(now)
            elif (piece := next(self._pieces, None)) is not None:
                messages = piece(now)
                count += 1
            elif self._frames:
                messages = self._take_next(now)
                count += 1
            else:
                try:
                    frame = receive(NOBLOCK, False)
                except zmq.Again:
                    count = 0
                    yield Wait(due - now, True)
                    continue
                if frame.more:
                    self._refuse_frames(receive)
                else:
                    self._failures = 0
                    if count:
                        # One does not come alone: those that wait are read, to be joined.
                        self._frames.append(frame.bytes)
                        self._receive_waiting(receive)
                        messages = self._take_next(now)
                    else:
                        messages = self._take_frame(frame.bytes, now)
                count += 1
            if self.catching_up or not self._simple:
                if self._main is not None:
                    self._main.wait(messages)
                yield from self._deliver_pending(deliver)
                self.catching_up = any(one.inbox.waits for one in self._listeners)
                continue
            for message in messages:
                self._failures = 0
                deliver(message)

    def _receive_waiting(self, receive: Callable[[int, bool], Any]) -> None:
        """Receive more frames, as many as wait."""
        size = 0
        while len(self._frames) < _RECEIVED and size < RELAY_LONGEST_PUSHED:
            try:
                frame = receive(NOBLOCK, False)
            except zmq.Again:
                return
            if frame.more:
                self._refuse_frames(receive)
                return
            self._frames.append(frame.bytes)
            size += len(frame.bytes)

    def _refuse_frames(self, receive: Callable[[int, bool], Any]) -> None:
        """Skip the rest of a message of several frames."""
        while receive(NOBLOCK, False).more:
            pass
        self.refuse(MessageError("several frames"))

    def _deliver_pending(self, deliver: Deliver) -> Steps:
        if self._main is not None:
            yield from self._deliver_to(self._main, deliver)
        for adoption in list(self._adoptions):
            yield from self._deliver_to(adoption.listener, adoption.deliver)
            while adoption.own is not None and adoption in self._adoptions:
                yield from self._deliver_own(adoption)

    def _deliver_own(self, adoption: Adoption) -> Steps:
        """Deliver this process's own messages; the manager fetches the last ones."""
        own, listener = adoption.own, adoption.listener
        messages, _ = self._publisher.give(listener.inbox, listener.began, batches=1)
        listener.take(messages)
        if len(messages) > _BATCH:
            yield from self._deliver_to(listener, adoption.deliver)
            return
        for message in listener.next_ones():
            adoption.deliver(message)
        adoption.own = None
        if own is not None:
            own(partial(self._fetch_own, listener))
        self._own_is_given(listener)

    def _deliver_to(self, listener: Listener, deliver: Deliver) -> Steps:
        began = time.monotonic()
        for message in listener.next_ones():
            self._failures = 0
            deliver(message)
            yield from self._give_clients_time(sum(map(len, message.packets)))
            if time.monotonic() - began > _SLICE:
                yield _TURN
                began = time.monotonic()

    def _give_clients_time(self, delivered: int) -> Steps:
        """Wait for slow clients: repeated messages arrive as fast as they can be read.

        Otherwise clients of ordinary speed would be disconnected as too slow.
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
        """Close the socket, when no thread waits for it any more."""
        self._socket.close()
        self._context.term()

    def _subscribe(self, *topics: bytes) -> None:
        for topic in set(topics) - self._topics:
            self._socket.setsockopt(zmq.SUBSCRIBE, topic)
            self._topics.add(topic)

    def _unsubscribe(self, *topics: bytes) -> None:
        # Answers and questions to the process itself use this topic.
        for topic in self._topics.intersection(topics) - {self._to_process}:
            self._socket.setsockopt(zmq.UNSUBSCRIBE, topic)
            self._topics.remove(topic)


class WaitingSubscriber(Subscriber):
    """A subscriber that waits in its caller's thread; subclasses define how."""

    def run(self, deliver: Deliver) -> None:
        """Deliver messages of other processes, until :meth:`close`.

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
