"""The router process as a whole, with a supervisord and workers that the test is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Awaitable, Callable

import pytest

from supervisor_sio.common import channel
from supervisor_sio.common.channel import Message, Packet
from supervisor_sio.common.limits import RUN_ONCE_LEASE
from supervisor_sio.common.rundir import ClusterInfo, OwnedRunDir
from supervisor_sio.router import process
from supervisor_sio.router.events import Event
from supervisor_sio.router.process import Router
from supervisor_sio.settings import parse_settings
from unit.router.harness import Worker, wait_for

HANDSHAKE = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("settings", "sure_at"),
    [
        ({"router_ended": None}, 0),  # it is the first one
        ({"router_ended": 90.0}, 90 + RUN_ONCE_LEASE),
        ({}, 100 + RUN_ONCE_LEASE),  # supervisord runs an older version
    ],
)
def test_until_when_a_task_of_another_router_may_run(
    settings: dict[str, Any], sure_at: float
) -> None:
    assert process._sure_at(settings, 100.0) == sure_at


class Events:
    """Standard input, on which supervisord sends events."""

    def __init__(self, take: Callable[[Event], None], end: Callable[[], None]) -> None:
        self.take = take
        self.end = end

    def listen(self) -> None:
        pass


class Supervisord:
    """What outlives each router: the port, and the sockets of ``run_dir``."""

    def __init__(self, path: Path) -> None:
        self.run_dir = OwnedRunDir(str(path))
        self.run_dir.write_cluster(ClusterInfo())
        self.port = socket.create_server(("127.0.0.1", 0))
        bind = self.run_dir.bind
        shelves = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        self._sockets = [
            self.port,
            bind(self.run_dir.router, socket.SOCK_SEQPACKET),
            bind(self.run_dir.xsub, socket.SOCK_STREAM),
            bind(self.run_dir.xpub, socket.SOCK_STREAM),
            *shelves[0],
            *shelves[1],
        ]
        #: The end of its channel to the router that runs.
        self.channel: socket.socket
        self._others: list[socket.socket] = []

    def start(self, **settings: Any) -> Router:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self._others += [self.channel, theirs]
        message: Message = {
            **vars(parse_settings({})),
            "metrics": False,
            "router_ended": None,
            "log_level": logging.INFO,
            "drained": {},
            "workers": ["workers:a"],
            "supervisord": os.getpid(),
            **settings,
        }
        descriptors = [os.dup(sock.fileno()) for sock in self._sockets]
        return Router(self.run_dir, theirs, Packet(message, descriptors))

    def say(self, **message: Any) -> None:
        channel.send(self.channel, message)

    def client(self, request: bytes = HANDSHAKE) -> socket.socket:
        client = socket.create_connection(self.port.getsockname())
        client.settimeout(20)
        client.sendall(request)
        self._others.append(client)
        return client

    def worker(self, tag: str = "a") -> Worker:
        worker = Worker(self.run_dir.router, tag)
        self._others.append(worker.sock)
        return worker

    def close(self) -> None:
        for sock in [*self._sockets, *self._others]:
            sock.close()
        self.run_dir.close()


@pytest.fixture
def supervisord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisord]:
    monkeypatch.setattr(process, "EventListener", Events)
    monkeypatch.setattr(process, "raise_limit", lambda: 4096)
    package = logging.getLogger("supervisor_sio")
    level = package.level
    made = Supervisord(tmp_path)
    yield made
    made.close()
    package.setLevel(level)


Scenario = Callable[[Router], Awaitable[None]]


def run(supervisord: Supervisord, scenario: Scenario, **settings: Any) -> int:
    """Run a router; supervisord stops it if it still runs at the end of the scenario."""

    async def main() -> int:
        router = supervisord.start(**settings)
        running = asyncio.ensure_future(router.run())
        try:
            await scenario(router)
        finally:
            if not router._stopped.done():
                supervisord.say(type="stopping", pid=0)
                router._stop_by_signal(signal.SIGTERM)
        return await asyncio.wait_for(running, 20)

    return asyncio.run(main())


async def given(worker: Worker, count: int = 1) -> list[Message]:
    """Receive the next connections that the worker gets."""
    found: list[Message] = []

    def look() -> bool:
        found.extend(m for m in worker.hear() if m["type"] == "connection")
        return len(found) >= count

    await wait_for(look)
    return found


def test_a_client_comes_to_a_worker(supervisord: Supervisord) -> None:
    async def scenario(router: Router) -> None:
        worker = supervisord.worker()
        client = supervisord.client()
        (taken,) = await given(worker)
        assert taken["prefix"] == HANDSHAKE and taken["handshake"]
        assert tuple(taken["peer"]) == client.getsockname()

    assert run(supervisord, scenario) == 0


@pytest.mark.parametrize(("wanted", "status"), [(True, 0), (False, 128 + signal.SIGTERM)])
def test_only_what_supervisord_stops_ends_with_0(
    supervisord: Supervisord, caplog: pytest.LogCaptureFixture, wanted: bool, status: int
) -> None:
    """supervisord does not start a router again that has ended with 0."""

    async def scenario(router: Router) -> None:
        if wanted:
            supervisord.say(type="stopping", pid=os.getpid())
        router._stop_by_signal(signal.SIGTERM)

    assert run(supervisord, scenario) == status
    assert ("stopped by SIGTERM, not by supervisord" in caplog.text) is not wanted


def test_a_router_whose_relay_has_ended_leaves(
    supervisord: Supervisord, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(router: Router) -> None:
        assert router._relay.alive
        router._tick()
        assert not router._stopped.done()
        router._relay._command(b"TERMINATE")
        await wait_for(lambda: not router._relay.alive)
        router._tick()
        assert router._stopped.done()

    assert run(supervisord, scenario) == 1
    assert "the relay has stopped, so the router ends and is restarted" in caplog.text


def test_who_waits_for_a_worker_waits_on_at_the_next_router(supervisord: Supervisord) -> None:
    clients: list[socket.socket] = []

    async def first(router: Router) -> None:
        clients.append(supervisord.client())
        clients.append(supervisord.client(HANDSHAKE[:20]))
        await wait_for(lambda: router._waiting() == 2)
        router._stop_by_signal(signal.SIGTERM)

    async def second(router: Router) -> None:
        clients[1].sendall(HANDSHAKE[20:])
        await wait_for(lambda: len(router._placement) == 2)
        worker = supervisord.worker()
        assert {tuple(taken["peer"]) for taken in await given(worker, 2)} == {
            client.getsockname() for client in clients
        }

    assert run(supervisord, first) == 128 + signal.SIGTERM
    assert run(supervisord, second) == 0


def test_who_waits_when_all_stops_is_told(supervisord: Supervisord) -> None:
    clients: list[socket.socket] = []

    async def scenario(router: Router) -> None:
        clients.append(supervisord.client())
        await wait_for(lambda: len(router._placement) == 1)

    assert run(supervisord, scenario) == 0
    assert clients[0].recv(4096).startswith(b"HTTP/1.1 503 ")


def test_a_drained_worker_stays_drained_at_the_next_router(supervisord: Supervisord) -> None:
    async def scenario(router: Router) -> None:
        drained, other = supervisord.worker("a"), supervisord.worker("b")
        await wait_for(lambda: len(list(router._pool)) == 2)
        for _ in range(4):
            supervisord.client()
            await given(other)
        assert not [m for m in drained.hear() if m["type"] == "connection"]

    run(supervisord, scenario, drained={"workers:a": os.getpid()})


def test_a_worker_that_supervisord_stops_is_told_first(
    supervisord: Supervisord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers are in the test's process, so they have fake pids."""
    monkeypatch.setattr(process, "is_descendant", lambda pid, of: False)

    async def scenario(router: Router) -> None:
        worker = supervisord.worker()
        await wait_for(lambda: len(list(router._pool)) == 1)
        supervisord.say(type="stopping", pid=os.getpid())
        heard: list[Message] = []
        await wait_for(lambda: heard.extend(worker.hear()) or "stopping" in kinds(heard))
        (told,) = [message for message in heard if message["type"] == "stopping"]
        assert not told["all"] and not router._stop_wanted
        assert next(iter(router._pool)).draining

    assert run(supervisord, scenario) == 0


def kinds(messages: list[Message]) -> list[str]:
    return [message["type"] for message in messages]


def test_an_option_that_this_python_cannot_do_is_shown(
    supervisord: Supervisord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients are served without the option."""
    figures: list[Message] = []

    async def scenario(router: Router) -> None:
        worker = supervisord.worker()
        supervisord.client()
        await given(worker)
        router._fault("metrics", "needs a package")
        figures.append(router._report.totals())

    assert run(supervisord, scenario) == 0
    assert figures[0]["faults"] == ["metrics: needs a package"]
