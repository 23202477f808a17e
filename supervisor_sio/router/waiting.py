"""The connections that wait at the router.

There are four kinds: requests that open a session, other requests that any worker may serve,
requests of a session whose worker cannot take them now, and idle connections without a request.
"""

from __future__ import annotations

import select
from collections import Counter
from typing import Callable, Iterable, Iterator, Optional

from ..common.request import HANDSHAKE
from .connection import Connection

#: An ordered set.
_Queue = dict[Connection, None]

_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Waiting:
    """Queues of connections, oldest first.

    :param share: number of requests that a network keeps when others need room, and that may wait
        for one worker.
    :param changed: called when a connection begins or stops to wait.
    """

    def __init__(self, share: int, changed: Callable[[], None] = lambda: None) -> None:
        self.share = share
        self._changed = changed
        self._handshakes: _Queue = {}
        self._anybody: _Queue = {}
        self._idle: _Queue = {}
        #: Requests of sessions, by the tag of the worker.
        self._sessions: dict[str, _Queue] = {}
        #: Number of requests of each network.
        self._by_network: Counter[str] = Counter()
        #: The queue that each connection is in.
        self._queues: dict[Connection, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def __iter__(self) -> Iterator[Connection]:
        """All connections, those with a request first."""
        yield from self._handshakes
        yield from self._anybody
        for queue in self._sessions.values():
            yield from queue
        yield from self._idle

    def add(self, connection: Connection, tag: str = "") -> None:
        """:param tag: the worker that has its session; empty if any worker may serve it."""
        if connection.kind is None:
            queue = self._idle
        elif tag:
            queue = self._sessions.setdefault(tag, {})
        elif connection.kind is HANDSHAKE:
            queue = self._handshakes
        else:
            queue = self._anybody
        queue[connection] = None
        self._queues[connection] = queue
        if queue is not self._idle:
            self._by_network[connection.network] += 1
        self._changed()

    def remove(self, connection: Connection) -> None:
        queue = self._queues.pop(connection)
        del queue[connection]
        if queue is not self._idle:
            self._discount(connection, queue)
        self._changed()

    def _discount(self, connection: Connection, queue: _Queue) -> None:
        network = connection.network
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]
        if not queue and self._sessions.get(connection.tag) is queue:
            del self._sessions[connection.tag]

    @property
    def for_any_worker(self) -> Iterator[Connection]:
        """The connections that any worker may take: of each kind the oldest, and the next one when
        the caller has removed that."""
        for queue in (self._handshakes, self._anybody, self._idle):
            while queue:
                first = next(iter(queue))
                yield first
                if next(iter(queue), None) is first:
                    break  # it was not taken, so later ones cannot be either

    @property
    def handshakes(self) -> int:
        """The number of requests that open a session."""
        return len(self._handshakes)

    def first_idle(self) -> Optional[Connection]:
        return next(iter(self._idle), None)

    def first_for(self, tag: str) -> Optional[Connection]:
        return next(iter(self._sessions.get(tag, ())), None)

    def count_for(self, tag: str) -> int:
        return len(self._sessions.get(tag, ()))

    @property
    def tags(self) -> list[str]:
        """The tags of the workers for which requests wait."""
        return list(self._sessions)

    def for_anybody(self, tag: str) -> None:
        """No worker has the sessions with this tag: their requests may go to any worker."""
        for connection in list(self._sessions.get(tag, ())):
            self.remove(connection)
            self.add(connection)

    def overdue(self, now: float) -> list[Connection]:
        return [connection for connection in self._queues if connection.deadline <= now]

    def gone(self) -> list[Connection]:
        """The connections that their clients have closed."""
        return gone(self._queues)

    def greediest(self, network: str) -> Optional[Connection]:
        """The newest request of the network with the most requests, if that network is over its
        share and ``network`` is not."""
        if not self._by_network or self._by_network[network] >= self.share:
            return None
        most, count = self._by_network.most_common(1)[0]
        if count <= self.share:
            return None
        return next(
            connection
            for connection in reversed(self._queues)
            if connection.network == most and connection.kind is not None
        )


def gone(connections: Iterable[Connection]) -> list[Connection]:
    """The connections that their clients have closed."""
    poll = select.poll()
    by_descriptor = {connection.sock.fileno(): connection for connection in connections}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLRDHUP)
    return [by_descriptor[descriptor] for descriptor, events in poll.poll(0) if events & _GONE]
