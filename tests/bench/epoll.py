"""Many connections in one process that costs little: generators on one epoll.

What a client does is a generator, a *task*. It yields the :class:`Wire` of which it wants to know
more, or the seconds for which it waits, and goes on when something has come or the time is over.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import select
import socket
import time
from collections.abc import Generator
from typing import Callable, TypeVar, Union

from frames import Failure

Result = TypeVar("Result")
Steps = Generator[Union["Wire", float], None, Result]

READ_SIZE = 65536
#: Of Linux, which Python does not name: the port is chosen when it is known where to.
IP_BIND_ADDRESS_NO_PORT = 24
#: Seconds between looks for tasks whose time is over.
LOOK = 0.25

#: Edge-triggered: a connection that nobody waits for causes one event, not one for each turn.
_READS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_WRITES = _READS | select.EPOLLOUT
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Wire:
    """A connection.

    :ivar data: what came and was not used yet.
    :ivar ended: nothing more comes.
    """

    __slots__ = ("_loop", "_sock", "data", "ended", "error", "fd", "task")

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self.fd = sock.fileno()
        self.data = b""
        self.ended = False
        self.error = ""
        self.task: Task | None = None

    def write(self, data: bytes) -> None:
        """:raises Failure: when it does not go at once; what a client sends is short."""
        try:
            sent = self._sock.send(data)
        except OSError as error:
            raise Failure(_reason(error)) from None
        if sent != len(data):
            raise Failure("a client could not send")

    def read(self, events: int) -> None:
        """Take what has come."""
        more = True
        while more:
            try:
                data = self._sock.recv(READ_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                self.ended, self.error = True, _reason(error)
                return
            self.data = self.data + data if self.data else data
            self.ended = not data
            # The end may have come behind what was read, and is not told of again.
            more = len(data) == READ_SIZE or bool(data and events & _ENDED)

    def more(self) -> Steps[None]:
        """Wait for more data than there are."""
        before = len(self.data)
        while len(self.data) == before:
            if self.ended:
                raise Failure(self.error or "closed")
            yield self

    def take(self, size: int) -> Steps[bytes]:
        while len(self.data) < size:
            yield from self.more()
        data, self.data = self.data[:size], self.data[size:]
        return data

    def take_until(self, separator: bytes) -> Steps[bytes]:
        """The bytes before the separator, which is dropped."""
        while (end := self.data.find(separator)) < 0:
            yield from self.more()
        data, self.data = self.data[:end], self.data[end + len(separator) :]
        return data

    def close(self) -> None:
        if self.fd >= 0:
            self._loop.forget(self)
            self._sock.close()
            self.fd = -1


class Task:
    """:ivar deadline: when it fails with a time-out, unless it is told another time before."""

    __slots__ = ("deadline", "steps", "waits_for")

    def __init__(self, steps: Steps[None]) -> None:
        self.steps = steps
        self.waits_for: Wire | None = None
        self.deadline = float("inf")


class Loop:
    """Runs tasks."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wires: dict[int, Wire] = {}
        self.tasks: set[Task] = set()
        self._sleeping: list[tuple[float, int, Task]] = []
        self._numbers = itertools.count()
        self._next_look = 0.0
        self._current: Task | None = None

    def start(self, steps: Steps[None]) -> None:
        task = Task(steps)
        self.tasks.add(task)
        self._resume(task)

    def allow(self, seconds: float) -> None:
        """Give the running task so many seconds from now: then it gets a :class:`Failure`."""
        assert self._current is not None
        self._current.deadline = time.monotonic() + seconds

    def open(self, host: str, port: int, first: bytes, source: str = "") -> Steps[Wire]:
        """A connection on which the first bytes were sent.

        :param source: the client's address.
        """
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(self, sock)
        self._wires[wire.fd] = wire
        try:
            if source:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source, 0))
            failed = sock.connect_ex((host, port))
            if failed not in (0, errno.EINPROGRESS):
                raise Failure(_reason(OSError(failed, os.strerror(failed))))
            self._epoll.register(wire.fd, _READS)
            try:
                sock.send(first)  # is there at once, unless the backlog of the server is full
            except BlockingIOError:
                self._epoll.modify(wire.fd, _WRITES)
                yield wire
                self._epoll.modify(wire.fd, _READS)
                wire.write(first)
        except OSError as error:
            wire.close()
            raise Failure(_reason(error)) from None
        except BaseException:
            wire.close()
            raise
        return wire

    def forget(self, wire: Wire) -> None:
        self._wires.pop(wire.fd, None)

    def run(self, until: Callable[[], bool] = lambda: False, also: int = -1) -> None:
        """Until no task is left, the condition is true, or another descriptor can be read.

        The condition is looked at after each turn, every quarter of a second at least.

        :param also: the other descriptor.
        """
        if also >= 0:
            self._epoll.register(also, select.EPOLLIN)
        try:
            while self.tasks and not until():
                ready = self._epoll.poll(self._patience())
                for fd, events in ready:
                    wire = self._wires.get(fd)
                    if wire is None:
                        continue
                    wire.read(events)
                    task, wire.task = wire.task, None
                    if task is not None:
                        self._resume(task)
                self._wake_sleepers()
                if any(fd == also for fd, _ in ready):
                    return
        finally:
            if also >= 0:
                self._epoll.unregister(also)

    def _patience(self) -> float:
        if not self._sleeping:
            return LOOK
        return min(LOOK, max(0.0, self._sleeping[0][0] - time.monotonic()))

    def _wake_sleepers(self) -> None:
        now = time.monotonic()
        while self._sleeping and self._sleeping[0][0] <= now:
            self._resume(heapq.heappop(self._sleeping)[2])
        if now < self._next_look:
            return
        self._next_look = now + LOOK
        for task in [task for task in self.tasks if task.deadline < now]:
            if task.waits_for is not None:  # else it sleeps
                task.waits_for.task = None
                self._resume(task, Failure("timeout"))

    def _resume(self, task: Task, failure: Failure | None = None) -> None:
        before, self._current = self._current, task
        task.waits_for = None
        try:
            if failure is None:
                wanted = task.steps.send(None)
            else:
                task.deadline = float("inf")
                wanted = task.steps.throw(failure)
        except StopIteration:
            self.tasks.discard(task)
        else:
            if isinstance(wanted, Wire):
                wanted.task = task
                task.waits_for = wanted
            else:
                heapq.heappush(
                    self._sleeping, (time.monotonic() + wanted, next(self._numbers), task)
                )
        finally:
            self._current = before


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionError):
        return "reset"
    return str(error)
