"""The router's channels to workers, with sockets of the kernel and no worker behind them."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Awaitable, Callable

import pytest

from supervisor_sio.common import channel, figures, handover
from supervisor_sio.common.handover import Handover
from supervisor_sio.common.refusals import Refusals
from supervisor_sio.common.request import Kind
from supervisor_sio.router.connection import Connection
from supervisor_sio.router.placement import Placement
from supervisor_sio.router.pool import Pool
from supervisor_sio.router.workers import Workers

FIGURES = figures.report({})


class Worker:
    """The other end of a channel."""

    def __init__(self, path: str, tag: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(path)
        self.tag = tag
        self.say(type="hello", version=channel.VERSION, tag=tag, name=f"workers:{tag}")
        self.say(type="load", **FIGURES)
        self.say(type="ready", channels=[f"channel-{tag}"])

    def say(self, **message: Any) -> None:
        channel.send(self.sock, message)

    def hear(self) -> list[channel.Message]:
        """All that has come, connections as messages of a type; descriptors are closed."""
        messages: list[channel.Message] = []
        while True:
            try:
                packet = handover.receive(self.sock)
            except BlockingIOError:
                return messages
            if packet is None:
                return [*messages, {"type": "closed"}]
            message, descriptors = packet
            channel.close_all(descriptors)
            if isinstance(message, Handover):
                message = {"type": "connection", **message._asdict()}
            messages.append(message)

    def hand_back(self, sock: socket.socket, data: bytes) -> None:
        channel.send_encoded(self.sock, data, [sock.fileno()])
        sock.close()


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
        self.placement.refuser = self
        self.changes = 0
        self.sockets: list[socket.socket] = [listener]
        self.workers = Workers(
            listener,
            self.placement,
            welcome={"path": "/socket.io/"},
            place_again=self.placement.place,
            drained=lambda name, pid: False,
            refusals=self.refusals,
            ceiling=lambda: 100_000,
            changed=self.count_change,
            members_here=lambda members: None,
            hear_supervisord=lambda: None,
            ended=lambda tag, name, sent: None,
        )
        self.workers._settled = True
        listener.setblocking(False)

    def count_change(self) -> None:
        self.changes += 1

    def refuse(self, connection: Connection, reason: str) -> None:
        self.drop(connection, reason)

    def drop(self, connection: Connection, reason: str) -> None:
        self.refused.append(reason)
        connection.sock.close()

    def start(self, *tags: str) -> list[Worker]:
        started = [Worker(self.path, tag) for tag in tags]
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


async def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Scenario], None]]:
    def run(scenario: Scenario) -> None:
        async def main() -> None:
            harness = Harness(tmp_path / "s")
            try:
                await scenario(harness)
            finally:
                harness.close()

        asyncio.run(main())

    yield run


def connections(messages: list[channel.Message]) -> int:
    return sum(message["type"] == "connection" for message in messages)


def test_a_connection_that_cannot_be_said_is_dropped_and_counted(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        bad = [harness.connection() for _ in range(4)]
        bad[0].peer = b"\0bytes"
        bad[1].prefix = b"x" * 100_000
        bad[2].local = ("::1", 65536)
        bad[3].sock.close()
        for connection in [*bad, harness.connection()]:
            harness.placement.place(connection)
        assert connections(worker.hear()) == 1
        assert harness.refusals.by_reason == {"bad-connection": 4}
        assert not len(harness.placement) and len(harness.workers) == 1
        assert all(connection.sock.fileno() < 0 for connection in bad)

    run(scenario)


def test_what_a_worker_does_not_read_waits_counted(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        slow, quick = harness.start("slow", "quick")
        for _ in range(1000):
            harness.placement.place(harness.connection("slow"))
        # The kernel keeps some, the router a share of max_pending, the others are refused.
        assert len(harness.placement) == 100
        assert harness.refused.count("worker-share") == len(harness.refused) > 300
        assert harness.pool.owner("slow").busy  # type: ignore[union-attr]
        # Sessions that any worker may open do not wait for it.
        quick.hear()
        for _ in range(20):
            harness.placement.place(harness.connection())
        assert connections(quick.hear()) == 20 and len(harness.placement) == 100
        passed = connections(slow.hear())
        assert passed == 900 - len(harness.refused)
        await asyncio.sleep(0.05)
        assert not len(harness.placement)
        assert connections(slow.hear()) == 100

    run(scenario)


def test_nothing_is_lost_or_late_at_a_worker_that_is_slow_to_read(
    run: Callable[[Scenario], None],
) -> None:
    """What it is told, and that it may leave, waits until it reads; after that nothing comes."""

    async def scenario(harness: Harness) -> None:
        (slow,) = harness.start("slow")
        while not harness.pool.owner("slow").busy:  # type: ignore[union-attr]
            harness.placement.place(harness.connection("slow"))
        harness.start(*(f"w{number}" for number in range(50)))
        await asyncio.sleep(0.1)
        slow.say(type="leaving")
        await asyncio.sleep(0.05)
        heard = slow.hear()
        await asyncio.sleep(0.05)
        heard += slow.hear()
        kinds = [message["type"] for message in heard]
        assert kinds[0] == "welcome" and kinds.count("left") == 1 and "closed" not in kinds
        assert "connection" not in kinds[kinds.index("left") :]
        (whole,) = [m for m in heard if m["type"] == "members" and len(m["members"]) > 1]
        assert len(whole["members"]) >= 50

    run(scenario)


def test_workers_that_die_together(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        started = harness.start(*(f"w{number}" for number in range(400)))
        for worker in started:
            worker.sock.close()
        harness.placement.place(harness.connection())
        assert not len(harness.workers) and not list(harness.pool)
        assert len(harness.placement) == 1 and not harness.refused
        harness.placement.waiting.remove(*harness.placement.waiting)

    run(scenario)


def test_hundreds_of_workers_are_told_of_each_other_with_few_messages(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(harness: Harness) -> None:
        started = []
        for number in range(300):
            started += harness.start(f"w{number}")
        await asyncio.sleep(0.2)
        told = [
            [message for message in worker.hear() if message["type"] == "members"]
            for worker in started
        ]
        for messages in told:
            assert messages[0]["first"] and messages[-1]["last"] and len(messages) < 40
            known: set[str] = set()
            for message in messages:
                known = set() if message["first"] else known
                known |= {row[0] for row in message["members"]}
            assert len(known) == 300

    run(scenario)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "hello", "version": ["x" * 60_000]},
        {"type": "\x00" * 10_000},
        {"type": "hello", "version": channel.VERSION, "tag": "t", "name": "n" * 300},
    ],
)
def test_a_stranger_gets_a_short_reason(
    run: Callable[[Scenario], None], message: channel.Message
) -> None:
    async def scenario(harness: Harness) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        harness.sockets.append(sock)
        sock.connect(harness.path)
        channel.send(sock, message)
        harness.workers._accept()
        packet = channel.receive(sock)
        assert packet is not None and packet.message["type"] == "refused"
        assert len(packet.message["reason"]) <= 1000
        assert not len(harness.workers)

    run(scenario)


BACK = handover.encode(Handover(("192.0.2.1", 5), ("::1", 80), "https", False, False, b"GET"))


def test_a_connection_comes_back(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        worker.hear()
        client, sock = socket.socketpair()
        harness.sockets += [client, sock]
        client.sendall(b" / HTTP/1.1\r\n")
        worker.hand_back(sock, BACK)
        await wait_for(lambda: harness.workers.handed_back)
        (message,) = worker.hear()  # the harness places it again at once
        known = {name: message[name] for name in ("peer", "local", "scheme", "prefix")}
        assert known == {
            "peer": ("192.0.2.1", 5),
            "local": ("::1", 80),
            "scheme": "https",
            "prefix": b"GET",
        }
        assert not (message["placed"] or message["handshake"])  # no request is known

    run(scenario)


@pytest.mark.parametrize(
    "data", [BACK[:9], BACK[:20], BACK.replace(b"192", b"\xff92"), b'{"type":"connection"}']
)
def test_a_connection_comes_back_with_addresses_or_not_at_all(
    run: Callable[[Scenario], None], data: bytes
) -> None:
    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        worker.hear()
        client, sock = socket.socketpair()
        harness.sockets += [client, sock]
        worker.hand_back(sock, data)
        await wait_for(lambda: not len(harness.workers))
        assert [message["type"] for message in worker.hear()] == ["refused", "closed"]
        assert client.recv(1) == b""

    run(scenario)


def test_a_stranger_hands_nothing_back(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client, sock = socket.socketpair()
        harness.sockets += [stranger, client, sock]
        stranger.connect(harness.path)
        channel.send_encoded(stranger, BACK, [sock.fileno()])
        sock.close()
        harness.workers._accept()
        assert harness.refusals.by_reason == {"bad-worker": 1}
        assert not harness.workers.handed_back and client.recv(1) == b""

    run(scenario)


def test_a_worker_of_another_version_reads_why_it_is_refused(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has sent more than its hello by then."""

    async def scenario(harness: Harness) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(channel, "VERSION", channel.VERSION + 1)
            worker = Worker(harness.path, "a")
            harness.sockets.append(worker.sock)
        harness.workers._accept()
        refused, closed = worker.hear()
        assert refused["type"] == "refused" and "speaks version" in refused["reason"]
        assert closed["type"] == "closed"

    run(scenario)
