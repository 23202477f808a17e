"""The messages of a worker to the router, and when they are sent."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import eventlet
import pytest

from supervisor_sio.common import channel, memory_file, recovery
from supervisor_sio.common.blocking import run_blocking
from supervisor_sio.common.handover import Handover
from supervisor_sio.common.limits import LINK_MESSAGES
from supervisor_sio.worker import ancestors, reporting
from supervisor_sio.worker import link as module
from supervisor_sio.worker.claims import pack
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from unit.worker.linked import KNOWN, Router, Worker, until
from unit.worker.turns import let_run


class Connection:
    """A connection that is handed back to the router."""

    def __init__(self) -> None:
        self.sock, self.client = socket.socketpair()
        self.told: list[bool] = []

    @property
    def ended(self) -> bool:
        return self.sock.fileno() < 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def moved(self, gone: bool) -> None:
        self.told.append(gone)

    def close(self) -> None:
        self.sock.close()
        self.client.close()


@pytest.fixture
def runtime() -> HubRuntime:
    return HubRuntime()


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    made = Router(str(tmp_path / "router.sock"))
    yield made
    made.close()


@pytest.fixture
def worker(
    runtime: HubRuntime, router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Worker]:
    monkeypatch.setattr(module, "_RETRY", 0.02)
    made = Worker(runtime, SimpleNamespace(router=str(tmp_path / "router.sock")))
    made.link.start()
    yield made
    made.link.close()


@pytest.fixture
def connections() -> Iterator[list[Connection]]:
    made = [Connection() for _ in range(3)]
    yield made
    for connection in made:
        connection.close()


def fill(worker: Worker, connection: Connection) -> int:
    """Hand connections back until the router has to read; return how many were sent."""
    while not worker.link._blocked:
        worker.link.hand_back(KNOWN, connection)
    return len(connection.told)


def test_the_next_router_is_told_the_state_anew(worker: Worker, router: Router) -> None:
    router.accept()
    router.expect("load")
    worker.link.ready({"a": None, "b": 0})
    assert router.expect("tally")["descriptors"] == 1
    assert router.expect("ready")["channels"] == ["a", "b"]
    router.welcome()
    until(lambda: worker.link.welcomed)
    worker.link.draining()
    router.expect("draining")
    router.die()
    until(lambda: not worker.link.up)
    assert not worker.link.welcomed
    router.accept()
    for kind in ("load", "tally", "ready", "draining"):
        router.expect(kind)
    assert worker.link.generation == 2 and len(worker.settings) == 1


def test_a_worker_that_drains_knows_whether_all_of_supervisord_stops(
    worker: Worker, router: Router
) -> None:
    """The signal may come before the router's message, but not before its answer."""
    router.accept()
    router.welcome()
    until(lambda: worker.link.welcomed)
    worker.link.draining()
    waiting = eventlet.spawn(run_blocking, worker.link.drains())
    router.expect("draining")
    eventlet.sleep(0.05)
    assert not waiting.dead
    router.send({"type": "stopping", "all": True})
    router.send({"type": "drains"})
    waiting.wait()
    assert worker.link.all_stop
    router.die()
    until(lambda: not worker.link.welcomed)
    run_blocking(worker.link.drains())  # nobody could say


def test_connections_come_after_what_was_said_before_them(worker: Worker, router: Router) -> None:
    """Also while handling that message takes long, for example in a slow log handler."""
    router.accept()
    go_on = eventlet.event.Event()
    worker.on_members = go_on.wait
    router.send({"type": "members", "first": True, "last": True, "gone": [], "members": [["a"]]})
    router.pass_on(0)
    until(lambda: worker.link._handling)
    let_run(0.05)
    assert not worker.taken and not worker.members
    go_on.send()
    until(lambda: worker.taken)
    assert worker.members == [["a"]] and worker.taken == [b"GET /"]


def test_one_message_that_cannot_be_used_ends_nothing(
    worker: Worker, router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    router.accept()
    router.send({"type": "members"})
    router.send({"type": "query", "id": 1})
    until(lambda: worker.questions)
    assert worker.link.up
    assert "refused 1 (router-message), last from members: KeyError('first')" in caplog.text


def test_who_is_refused_does_not_come_back(worker: Worker, router: Router) -> None:
    router.accept()
    router.send({"type": "refused", "reason": "a stranger"})
    until(lambda: worker.refused)
    assert str(worker.refused[0]) == "a stranger"
    router.die()
    let_run(0.1)
    assert not worker.link.up


def test_what_is_not_understood_is_tried_with_the_next_router(
    worker: Worker, router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    router.accept()
    router.send({"type": "nonsense"})
    until(lambda: not worker.link.up)
    router.die()
    router.accept()
    assert "invalid message from the router: unexpected type 'nonsense'" in caplog.text


def test_a_router_of_another_version_is_not_followed(
    worker: Worker, router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    router.accept()
    router.send({"type": "welcome", "version": channel.VERSION + 1, "supervisord": os.getppid()})
    until(lambda: not worker.link.up)
    assert "after an upgrade of supervisor-sio, restart supervisord" in caplog.text
    assert not worker.settings and not worker.link.welcomed


def test_a_router_that_reads_nothing_keeps_nobody_waiting(
    worker: Worker, router: Router, connections: list[Connection]
) -> None:
    router.accept()
    filler, one, other = connections
    fill(worker, filler)
    worker.link.hand_back(KNOWN._replace(prefix=b"one"), one)
    worker.link.hand_back(KNOWN._replace(prefix=b"other"), other)
    worker.link.draining()
    assert one.told == other.told == []
    other.close()  # its client is gone meanwhile
    moved = [router.expect("connection").prefix for _ in range(len(filler.told))]
    assert set(moved) == {KNOWN.prefix}
    until(lambda: one.told == [True], "moved")
    router.expect("draining")
    while True:
        prefix = router.expect("connection").prefix
        if prefix != KNOWN.prefix:
            break
    assert prefix == b"one" and other.told == [False]


def test_a_connection_waits_for_the_next_router(
    worker: Worker, router: Router, connections: list[Connection]
) -> None:
    router.accept()
    router.die()
    until(lambda: not worker.link.up)
    worker.link.hand_back(KNOWN, connections[0])
    assert not connections[0].told
    router.accept()
    assert router.expect("connection") == KNOWN._replace(placed=True)
    assert connections[0].told == [True]


@pytest.mark.parametrize("when", ["before", "after"])
def test_while_it_drains_and_no_router_is_there_a_connection_stays(
    worker: Worker, router: Router, connections: list[Connection], when: str
) -> None:
    router.accept()
    router.die()
    until(lambda: not worker.link.up)
    worker.link._connecting.cancel()  # type: ignore[union-attr]
    if when == "before":
        worker.link.draining()
    worker.link.hand_back(KNOWN, connections[0])
    if when == "after":
        worker.link.draining()
    assert connections[0].told == [False]


def test_a_router_that_goes_while_the_worker_drains_gets_no_more(
    worker: Worker, router: Router, connections: list[Connection]
) -> None:
    router.accept()
    filler, one, _ = connections
    went = fill(worker, filler)
    worker.link.draining()
    worker.link.hand_back(KNOWN, one)
    router.die()
    until(lambda: one.told == [False])
    assert filler.told[:went] == [True] * went


def test_what_was_for_one_router_is_not_sent_to_the_next(
    worker: Worker, router: Router, connections: list[Connection]
) -> None:
    router.accept()
    fill(worker, connections[0])
    worker.link.post({"type": "for the first"})
    router.die()
    until(lambda: not worker.link.up)
    router.accept()
    worker.link.post({"type": "for the second"})
    kinds: list[str] = []

    def came() -> bool:
        while (packet := router.read()) is not None:
            message, descriptors = packet
            channel.close_all(descriptors)
            kinds.append("connection" if isinstance(message, Handover) else message["type"])
        return "for the second" in kinds

    until(came)
    assert "for the first" not in kinds


def test_an_answer_waits_for_those_before_it(
    runtime: HubRuntime, worker: Worker, router: Router, connections: list[Connection]
) -> None:
    router.accept()
    fill(worker, connections[0])
    sent: list[bool] = []

    async def answer(number: int) -> None:
        sent.append(await worker.link.send({"type": "answer", "id": number}))

    for number in range(LINK_MESSAGES):
        runtime.spawn(answer(number))
    let_run(0.05)
    assert not sent and not worker.link._outgoing._messages
    numbers = [router.expect("answer")["id"] for _ in range(LINK_MESSAGES)]
    assert sorted(numbers) == list(range(LINK_MESSAGES))


def test_an_answer_for_a_router_that_is_gone_is_dropped(
    runtime: HubRuntime, worker: Worker, router: Router, connections: list[Connection]
) -> None:
    router.accept()
    fill(worker, connections[0])
    sent: list[bool] = []

    async def answer() -> None:
        sent.append(await worker.link.send({"type": "answer"}))

    runtime.spawn(answer())
    let_run(0.01)
    worker.link.close()
    until(lambda: sent == [False])


def test_it_leaves_when_the_router_says_so_or_says_nothing(
    runtime: HubRuntime, worker: Worker, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVE_TIMEOUT", 0.05)
    router.accept()
    left: list[str] = []

    async def leave(name: str) -> None:
        await worker.link.leave()
        left.append(name)

    runtime.spawn(leave("no answer"))
    until(lambda: left)
    monkeypatch.setattr(module, "LEAVE_TIMEOUT", 60)
    runtime.spawn(leave("answer"))
    router.expect("leaving")
    router.expect("leaving")
    assert left == ["no answer"]
    router.send({"type": "left"})
    until(lambda: left == ["no answer", "answer"])


def test_its_last_figures_are_with_the_router_before_it_leaves(
    runtime: HubRuntime, worker: Worker, router: Router
) -> None:
    router.accept()
    assert router.expect("load")["figure"] == 0
    worker.figure = 42
    runtime.spawn(worker.link.leave())
    assert router.expect("load")["figure"] == 42
    router.expect("leaving")
    router.send({"type": "left"})


def test_figures_come_when_they_change_and_as_a_sign_of_life(
    worker: Worker, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.accept()
    assert router.expect("load")["figure"] == 0
    worker.figure = 1
    worker.link.changed()
    worker.link.changed()
    assert router.expect("load")["figure"] == 1
    worker.link._reporting.report()
    assert router.read() is None  # nothing has changed
    monkeypatch.setattr(reporting, "_HEARTBEAT", 0)
    worker.link._reporting.report()
    assert router.expect("load")["figure"] == 1


def test_without_supervisord_it_stops(
    worker: Worker, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.accept()
    monkeypatch.setattr(ancestors, "has_parent", lambda pid, parent: False)
    router.die()
    until(lambda: worker.stopping)
    assert worker.stopping == [False]


@pytest.mark.parametrize("known", [False, True])
def test_who_never_saw_its_parents_leaves_when_supervisord_has_no_socket(
    worker: Worker, router: Router, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """The start script ended before the worker looked, and supervisord before it was ready."""
    monkeypatch.setattr(ancestors, "_GONE", 0.1)
    monkeypatch.setattr(ancestors.identity, "of_supervisord", lambda: True)
    router.accept()
    if known:
        router.welcome()
        until(lambda: worker.link.welcomed)
    router.close()
    until(lambda: not worker.link.up)
    if known:
        eventlet.sleep(0.3)
        assert not worker.stopping  # its parents are there
    else:
        until(lambda: worker.stopping)
        assert worker.stopping == [False]


def test_without_a_descriptor_for_a_client_it_is_answered_and_told(
    worker: Worker, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[Handover] = []
    worker.link._on_lost = lost.append
    monkeypatch.setattr(module, "ceiling", lambda reserve: 0)
    router.accept()
    ours, client = socket.socketpair()
    router.pass_on(ours.fileno())
    ours.close()
    until(lambda: lost)
    client.settimeout(5)
    assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
    client.close()


def test_the_child_of_a_fork_leaves_the_channel_alone(worker: Worker, router: Router) -> None:
    router.accept()
    parents = os.dup(worker.link._sock.fileno())  # type: ignore[union-attr]
    worker.link.abandon()
    assert not worker.link.up
    with pytest.raises(BlockingIOError):
        while True:  # what it had said before, and not the end
            assert router._sock is not None and router._sock.recv(65536)
    os.close(parents)
    with pytest.raises(OSError) as error:
        os.fstat(worker.link._reading._listener.fileno)  # type: ignore[union-attr]
    assert error.value.errno == errno.EBADF


def test_each_router_gets_the_journals(worker: Worker, router: Router) -> None:
    router.accept()
    source = recovery.Source("11111111", "socketio")
    segment = recovery.Segment(source, "events", 1, recovery.FORMAT, 120.0, None)
    worker.link.journals.add(segment, os.memfd_create("segment"))
    told = {**recovery.segment(segment), "descriptors": 1}
    assert router.expect("journal") == told
    router.send({"type": "journals"})
    assert router.expect("journal") == told
    router.die()
    router.accept()
    assert router.expect("journal") == told
    worker.link.journals.drop(source, "events", 1)
    assert router.expect("journal-dropped")["number"] == 1


def test_questions_about_clients(worker: Worker, router: Router) -> None:
    router.accept()
    said = {"do": "claim"}, [["2[]"]]
    router.send(recovery.claim(5, "11111111", {}), memory_file.write("claim", pack(said)))
    until(lambda: worker.claims, "asked")
    ((question, answered),) = worker.claims
    assert question == said
    answered(({}, []))
    assert router.expect("claimed") == {**recovery.claimed(5, {}), "descriptors": 1}

    answers: list[Any] = []
    worker.link.claims.ask("22222222", said, answers.append)
    router.expect("claim")
    router.die()
    router.accept()
    number = router.expect("claim")["id"]
    router.send(recovery.not_claimed(number, "unknown-pid"))
    until(lambda: answers, "answered")
    assert answers == [({"reason": "unknown-pid"}, ())]
