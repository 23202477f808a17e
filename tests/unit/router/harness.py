"""The router's channels to workers, with sockets of the kernel and no worker behind them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator, Optional, Sequence

from supervisor_sio.common import channel, figures, handover
from supervisor_sio.common.handover import Handover
from supervisor_sio.common.limits import MAX_DESCRIPTORS
from supervisor_sio.common.refusals import Refusals
from supervisor_sio.common.request import Kind
from supervisor_sio.router.connection import Connection
from supervisor_sio.router.held import Held
from supervisor_sio.router.held_shelf import HeldShelf
from supervisor_sio.router.journals import Journal
from supervisor_sio.router.placement import Placement
from supervisor_sio.router.pool import Pool
from supervisor_sio.router.workers import Workers

FIGURES = figures.report({})


class Worker:
    """The worker's end of a channel."""

    def __init__(
        self,
        path: str,
        tag: str,
        name: str = "",
        takes: int = 0,
        recovers: int = 0,
        ready: bool = True,
    ) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(path)
        self.tag = tag
        self.say(type="hello", version=channel.VERSION, tag=tag, name=f"workers:{name or tag}")
        self.say(type="load", **FIGURES)
        self._formats = {"takes": takes, "recovers": recovers}
        if ready:
            self.say_ready()

    def say_ready(self) -> None:
        self.say(type="ready", channels=[f"channel-{self.tag}"], **self._formats)

    def say(self, **message: Any) -> None:
        channel.send(self.sock, message)

    def hear(self) -> list[channel.Message]:
        """All received packets, connections as messages of a type; descriptors are closed."""
        messages: list[channel.Message] = []
        for message, descriptors in self.packets():
            channel.close_all(descriptors)
            messages.append(message)
        return messages

    def packets(self) -> Iterator[tuple[channel.Message, list[int]]]:
        """All received packets with their descriptors, which the caller closes."""
        while True:
            try:
                packet = handover.receive(self.sock, MAX_DESCRIPTORS)
            except BlockingIOError:
                return
            if packet is None:
                yield {"type": "closed"}, []
                return
            message, descriptors = packet
            if isinstance(message, Handover):
                message = {"type": "connection", **message._asdict()}
            yield message, descriptors

    def hand_back(self, sock: socket.socket, data: bytes) -> None:
        channel.send_encoded(self.sock, data, [sock.fileno()])
        sock.close()


class Listener:
    """A listener in place of a worker, which has received one message."""

    def __init__(
        self,
        listeners: list[Listener],
        position: int,
        keep: Optional[Callable[[int], None]],
        confirm: bool,
    ) -> None:
        self.keep, self.confirm = keep, confirm
        self.heard = os.pread(position, 1000, 0)
        if self.heard == b"not understood":
            raise ValueError("it is not understood")
        listeners.append(self)
        self._listeners = listeners
        self.discarded = False

    def stop(self) -> int:
        self._listeners.remove(self)
        return memory(self.heard + b" and more")

    def discard(self) -> None:
        self._listeners.remove(self)
        self.discarded = True


def memory(data: bytes) -> int:
    """Make a memory file."""
    descriptor = os.memfd_create("test")
    os.write(descriptor, data)
    return descriptor


def place(journal: Journal, tags: list[str], given: Sequence[int]) -> int:
    """Fails as the journal reader does for a malformed journal."""
    (*_, last) = journal.logs["events"].values()
    data = os.pread(last, 1000, 0)
    if data == b"not understood":
        raise ValueError("it is not understood")
    positions = [b"%s of %s" % (data, ",".join(tags).encode())]
    positions += [os.pread(one, 1000, 0) for one in given]
    return memory(b"; ".join(positions))


class Harness:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.path)
        listener.listen(1000)
        self.listener = listener
        self.refusals = Refusals(logging.getLogger("test"))
        self.refused: list[str] = []
        self.pool = Pool("round-robin")
        self.placement = Placement(self.pool, 30, 400)
        self.placement.entrance = self
        #: What the members of this host were told to be last.
        self.members: list[Any] = []
        self.all_stop = False
        self.drained: set[str] = set()
        self.ceiling = 100_000
        self.hold_timeout = 30.0
        self.listeners: list[Listener] = []
        self.held = self.make_held(None)
        self.changes = 0
        self.sockets: list[socket.socket] = [listener]
        self.workers = Workers(
            listener,
            self.placement,
            welcome={"path": "/socket.io/"},
            place_again=self.placement.place,
            drained=lambda name, pid: name in self.drained,
            refusals=self.refusals,
            ceiling=lambda: self.ceiling,
            changed=self.count_change,
            members_here=lambda members: setattr(self, "members", members),
            hear_supervisord=lambda: None,
            ended=lambda tag, name, sent: None,
            held=self.held,
        )
        self.workers._settled = True
        listener.setblocking(False)

    def make_held(self, shelf: Optional[HeldShelf]) -> Held:
        return Held(
            pool=self.pool,
            placement=self.placement,
            carriers=lambda: self.workers,
            hold_timeout=self.hold_timeout,
            shelf=shelf,
            ceiling=lambda: self.ceiling,
            refusals=self.refusals,
            listen=lambda *args: Listener(self.listeners, *args),
            place=place,
            members_changed=lambda: self.workers.members_changed(),
            all_stops=lambda: self.all_stop,
        )

    def count_change(self) -> None:
        self.changes += 1

    def examine_again(self, connection: Connection) -> None:
        raise NotImplementedError

    def refuse(self, connection: Connection, reason: str) -> None:
        self.drop(connection, reason)

    def drop(self, connection: Connection, reason: str) -> None:
        self.refused.append(reason)
        connection.sock.close()

    def start(self, *tags: str, **known: Any) -> list[Worker]:
        started = [Worker(self.path, tag, **known) for tag in tags]
        self.sockets += [worker.sock for worker in started]
        self.workers._accept()
        return started

    def connection(self, tag: str = "", prefix: bytes = b"") -> Connection:
        client, sock = socket.socketpair()
        self.sockets.append(client)
        connection = Connection(sock, ("10.0.0.1", 1), "", "http", prefix)
        connection.kind = Kind.SESSION if tag else Kind.HANDSHAKE
        connection.tag = tag
        return connection

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


Scenario = Callable[[Harness], Awaitable[None]]


async def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def connections(messages: list[channel.Message]) -> int:
    return sum(message["type"] == "connection" for message in messages)
