"""Clients on plain sockets that come back to their session, or try to."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

from .takeover_clients import Disconnected, OverWebSocket
from .wire import Closed

#: Sessions until one is at another worker: those go to the worker that has the fewest.
MOST_TRIES = 100


def tag_of(sid: str) -> str:
    return sid.partition(".")[0]


class Returning(OverWebSocket):
    """Asks for its session as socket.io-client does: with its ``pid`` and last offset.

    :ivar recovered: whether it has gone on with a former session.
    """

    def __init__(self, port: int, namespace: str = "") -> None:
        super().__init__(port, namespace)
        self.pid: str | None = None
        self.offset: str | None = None
        self.recovered = False

    def join(self, **data: Any) -> Returning:
        """:param data: of the CONNECT packet."""
        self.transmit(f"40{self._prefix}{json.dumps(data) if data else ''}")
        packet = self.wire.receive_text()
        assert packet.startswith(f"40{self._prefix}"), packet
        answer = json.loads(packet[2 + len(self._prefix) :])
        self.sid = answer["sid"]
        self.pid = answer.get("pid")
        self.recovered = self.pid is not None and self.pid == data.get("pid")
        return self

    def again(self, port: int) -> Returning:
        """Another connection, which has this one's ``pid`` and offset."""
        offset = {} if self.offset is None else {"offset": self.offset}
        return self.again_with(port, pid=self.pid, **offset)

    def again_with(self, port: int, **data: Any) -> Returning:
        other = type(self)(port, self.namespace).join(**data)
        other.offset = data.get("offset")
        return other

    def leave(self) -> None:
        """And not come back."""
        with contextlib.suppress(OSError):
            self.transmit(f"41{self._prefix}")
        self.close()

    def _take(self, packet: str) -> None:
        super()._take(packet)
        if self.pid is not None and packet.startswith(f"42{self._prefix}["):
            name, *args = json.loads(packet[2 + len(self._prefix) :])
            self.offset = args.pop()
            assert isinstance(self.offset, str), packet
            self.events[name][-1] = args[0] if len(args) == 1 else args


class Tab(threading.Thread):
    """A page: a client that is there all the time, and comes back when its connection ends.

    :ivar client: as it is connected now.
    :ivar new: how often it came with a ``pid``, and got a new session.
    :ivar calls: how often it has got an answer since it has this client.
    """

    def __init__(self, port: int, copied: Returning) -> None:
        """:param copied: whose ``pid`` it has to begin with."""
        super().__init__()
        self.new = self.calls = 0
        self.client = copied
        self._port = port
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        self._come()
        while not self._over.wait(0.01):
            try:
                self.client.call("echo", 1)
                self.calls += 1
            except (Closed, Disconnected, OSError):
                self._come()

    def _come(self) -> None:
        former, self.client = self.client, self.client.again(self._port)
        self.calls = 0
        self.new += not self.client.recovered
        self.client.events.update(former.events if self.client.recovered else {})

    def close(self) -> None:
        self._over.set()
        self.join(30)
        self.client.close()


class Connect:
    """Connects clients, and closes them in the end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._made: list[Returning] = []

    def __call__(self, namespace: str = "", at: str = "", apart_from: str = "") -> Returning:
        """
        :param at: the tag of its worker.
        :param apart_from: or of another worker than its.
        """
        others: list[Returning] = []
        try:
            for _ in range(MOST_TRIES):
                client = Returning(self._port, namespace)
                self._made.append(client)
                tag = tag_of(client.session)
                if tag != apart_from and at in ("", tag):
                    return client.join()
                others.append(client)  # while they are there, it is not always that worker's turn
            raise AssertionError("no session came to that worker")
        finally:
            for client in others:
                client.close()

    def close(self) -> None:
        """All leave, and do not come back."""
        for client in self._made:
            client.leave()
