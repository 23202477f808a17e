"""What goes wrong in a takeover: its clients are taken over later, or closed as without it."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .conftest import ClusterFactory
from .harness import MODE, Cluster, wait_until
from .modes import OWN_MODES
from .takeover_cases import Scene
from .takeover_clients import Disconnected, OverPolling, OverWebSocket, Talk
from .takeover_ledger import Ledger
from .test_takeover import ctl
from .wire import Closed


class Setting:
    """A cluster whose workers write a ledger, and fail as a file asks them to.

    :param workers: with 0 it is yet to be started.
    :param beside: the command of one more worker, in a group of its own.
    """

    def __init__(
        self,
        make: ClusterFactory,
        directory: Path,
        workers: int = 1,
        variables: str = "",
        beside: str = "",
        **options: Any,
    ) -> None:
        self.directory = directory
        self._counted: Counter[str] = Counter()
        self.ledger = Ledger(directory / "happened")
        command = self.ledger.command("takeover_faults", variables)
        self.cluster: Cluster = make(workers=workers, command=command, **options)
        if beside:
            self.cluster.extra = self.cluster.program("beside", beside)
        if workers:
            self.cluster.spawn()
            self.cluster.wait_ready(workers + bool(beside))

    def scene(self, name: str) -> Scene:
        """For clients of this worker, once it is ready."""

        def tag() -> str:
            return next((row["tag"] for row in self.cluster.workers() if row["name"] == name), "")

        return Scene(self.cluster, self.ledger, wait_until(tag, 30, name), self.directory)

    def fail(self, how: str) -> None:
        (self.directory / how).touch()

    def wait_not_moved(self, **reasons: int) -> None:
        """So many sessions, by reason, were closed instead of moved; since the last such call."""
        wanted = Counter({name.replace("_", "-"): count for name, count in reasons.items()})
        wait_until(lambda: self._not_moved() - self._counted == wanted, 10, f"{wanted}")
        self._counted += wanted

    def _not_moved(self) -> Counter[str]:
        return Counter(self.cluster.status()["takeover"]["not_moved"])


MODES = ("eventlet", "asyncio", "threading")
#: Of the worker that all goes well with: less than supervisord waits for it, 15, and by far more
#: than it needs.
DRAIN_TIMEOUT = "14"

FIRST, SECOND = "workers:workers_00", "workers:workers_01"


@pytest.fixture(scope="module")
def one(make_module_cluster: ClusterFactory, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """One worker; who counts its sessions is the first of its tests, who ends it the last."""
    return Setting(make_module_cluster, tmp_path_factory.mktemp("one"), drain_timeout=DRAIN_TIMEOUT)


@pytest.fixture
def two(make_cluster: ClusterFactory, tmp_path: Path) -> Setting:
    return Setting(make_cluster, tmp_path, workers=2, hold_timeout="1")


def expect_closed(*clients: Talk) -> None:
    """Of a websocket the end comes, a poll is refused or ends; soon."""
    for client in clients:
        with pytest.raises(
            (Disconnected, Closed, AssertionError, ConnectionError, http.client.HTTPException)
        ):
            while True:
                client.read()


# --- adopters ------------------------------------------------------------------------------


def test_another_format(one: Setting) -> None:
    """The state of another version is refused; else it is read as what it is not."""
    scene = one.scene(FIRST)
    client = scene.websocket()
    one.fail("other-format")
    ctl(one.cluster, "restart", FIRST)
    expect_closed(client)
    one.wait_not_moved(other_format=1)
    again = OverWebSocket(one.cluster.port).join()
    assert again.call("echo", 1) == 1
    again.close()
    one.ledger.wait_for(again.sid, "disconnect")
    ctl(one.cluster, "restart", FIRST)  # in the usual format


def test_an_adopter_that_is_killed_while_it_adopts(one: Setting) -> None:
    """The next one gets the same; else the clients end with a process that never had them."""
    scene = one.scene(FIRST)
    clients: list[Talk] = [scene.websocket(), scene.polling()]
    one.fail("die-in-adoption")
    ctl(one.cluster, "restart", FIRST)
    for client in clients:
        scene.goes_on(client)
    assert not (one.directory / "die-in-adoption").exists()


def test_the_only_worker_waits_for_an_answer_of_its_client(one: Setting) -> None:
    """It comes on a kept connection, which waits at the router for its next request; else that is
    not read before there is a worker for it, which is after drain_timeout."""
    scene = one.scene(FIRST)
    client = scene.polling()
    kept = http.client.HTTPConnection("127.0.0.1", one.cluster.port, timeout=20)

    def post(packet: str) -> None:
        kept.request("POST", client.wire.target, packet)
        assert kept.getresponse().read() == b"ok"

    with contextlib.closing(kept):
        post('42100["ask_me","well?"]')
        number = client.wait_for_question()
        stopping = threading.Thread(target=ctl, args=(one.cluster, "restart", FIRST))
        stopping.start()
        try:
            wait_until(lambda: one.cluster.workers("draining"), 10, "draining")
            began = time.monotonic()
            post(f'43{number}["well"]')
            took = time.monotonic() - began
        finally:
            stopping.join(60)
        assert client.answer(100) == "well"
        scene.goes_on(client)
    assert took < 10
    one.wait_not_moved()


def test_an_answer_by_polling_to_a_worker_that_passes_others_on(
    make_cluster: ClusterFactory, tmp_path: Path
) -> None:
    """Else it waits at the router for the next worker, and the handler that waits for it keeps its
    session here, which is closed then."""
    (tmp_path / "pass-early").touch()
    setting = Setting(make_cluster, tmp_path, drain_timeout=DRAIN_TIMEOUT)
    scene = setting.scene(FIRST)
    client, other, idle = scene.polling(), scene.polling(), scene.websocket()
    asked = client.ask("ask_me", "well?")
    number = client.wait_for_question()
    stopping = threading.Thread(target=ctl, args=(setting.cluster, "restart", FIRST))
    stopping.start()
    try:
        wait_until(lambda: setting.cluster.status()["takeover"]["held"] == 2, 10, "passed on")
        other.start_poll()
        client.reply(number, "well")
    finally:
        stopping.join(60)
    assert client.answer(asked) == "well"
    for one in (client, other, idle):
        scene.goes_on(one)
    setting.wait_not_moved()
    scene.close()


# --- the router and supervisord --------------------------------------------------------------


def stop(cluster: Cluster) -> float:
    """All of it; its seconds. With what has to time out it would be DRAIN_TIMEOUT."""
    began = time.monotonic()
    assert cluster.stop() == 0
    return time.monotonic() - began


@pytest.mark.parametrize("how", ["kill", pytest.param("restart", marks=pytest.mark.long)])
def test_the_router_ends_while_it_holds(one: Setting, how: str) -> None:
    """The next one holds what it held; else a deploy at a bad moment ends all of them."""
    scene = one.scene(FIRST)
    cluster = one.cluster
    websocket, polling, waiting = scene.websocket(), scene.polling(), scene.polling()
    waiting.start_poll()
    websocket.call("join", "red")
    ctl(cluster, "stop", FIRST)
    number = websocket.ask("number", 1)
    cluster.end_router(how)
    ctl(cluster, "start", FIRST)
    assert websocket.answer(number) == 1
    scene.goes_on(websocket, "number")
    websocket.call("emit_to", waiting.sid, "here", 1)
    assert waiting.wait_for("here") == [1]
    for client in (polling, waiting):
        scene.goes_on(client)
    polling.call("emit_to", "red", "here", 2)
    assert websocket.wait_for("here") == [2]


def test_all_of_supervisord_stops(one: Setting) -> None:
    """Nobody is held for a successor that does not come: it ends as fast as without takeover."""
    scene = one.scene(FIRST)
    websocket, polling = scene.websocket(), scene.polling()
    polling.start_poll()
    assert stop(one.cluster) < 13
    expect_closed(websocket, polling)
    for client in (websocket, polling):
        scene.ledger.expect(client.sid, "connect", "disconnect")


# --- times ------------------------------------------------------------------------------------


@pytest.mark.long
def test_nobody_adopts_within_hold_timeout(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """They are closed then; else they hang until their pings time out."""
    setting = Setting(make_cluster, tmp_path, hold_timeout="2")
    scene = setting.scene(FIRST)
    websocket, poll = scene.websocket(), scene.polling()
    poll.start_poll()
    began = time.monotonic()
    ctl(setting.cluster, "stop", FIRST)
    expect_closed(websocket, poll)
    assert 1.5 < time.monotonic() - began < 25  # pings time out after 45
    setting.wait_not_moved(not_adopted=2)
    # The next worker knows nothing of them.
    ctl(setting.cluster, "start", FIRST)
    setting.cluster.wait_ready()  # which may take longer than hold_timeout
    assert OverPolling(setting.cluster.port).join().call("echo", 1) == 1


@pytest.mark.long
def test_another_worker_adopts_after_hold_timeout(two: Setting) -> None:
    """No successor comes; else its clients are closed beside a worker that has room for them."""
    scene = two.scene(SECOND)
    clients: list[Talk] = [scene.websocket(), scene.polling()]
    ctl(two.cluster, "stop", SECOND)
    for client in clients:
        assert client.call("whoami")["name"] == "workers_00"
        scene.goes_on(client)


def test_a_handler_that_does_not_end(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """Its client is closed, after drain_timeout; the others move."""
    setting = Setting(make_cluster, tmp_path, drain_timeout="2")
    scene = setting.scene(FIRST)
    stuck, fine = scene.websocket(), scene.websocket()
    stuck.ask("wait", str(tmp_path / "never"))
    wait_until((tmp_path / "never.begun").exists, 10, "the handler")
    ctl(setting.cluster, "restart", FIRST)
    scene.goes_on(fine)
    expect_closed(stuck)
    assert "takeover" not in scene.ledger.of(stuck.sid)
    setting.wait_not_moved(handler_running=1)


# --- again and again -------------------------------------------------------------------------


@pytest.mark.long
def test_tags_of_three_workers_at_one(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """One worker has the clients of others; then they move again, all of them, by one restart."""
    setting = Setting(make_cluster, tmp_path, workers=3)
    names = [f"workers:workers_{number:02}" for number in range(3)]
    scenes = [setting.scene(name) for name in names]
    clients: list[Talk] = []
    for scene in scenes:
        clients += [scene.websocket(), scene.polling()]
    ctl(setting.cluster, "sio", "scale", "workers", "1")
    assert {client.call("whoami")["name"] for client in clients} == {"workers_00"}
    ctl(setting.cluster, "sio", "reload")
    (pid,) = {client.call("whoami")["pid"] for client in clients}
    assert [row["pid"] for row in setting.cluster.workers()] == [pid]
    for client in clients:
        for other in clients:
            other.call("emit_to", client.sid, f"from {other.sid}", 1)
            assert client.wait_for(f"from {other.sid}") == [1]
        what = setting.ledger.of(client.sid)
        assert what.count("connect") == 1 and "disconnect" not in what
    assert [setting.ledger.of(client.sid).count("takeover") for client in clients] == [
        1, 1, 2, 2, 2, 2,
    ]  # fmt: skip


@pytest.mark.long
def test_pings_go_on(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """Who answers them stays, who does not is closed; else the adopter forgets to ask."""
    setting = Setting(make_cluster, tmp_path, variables="PING_INTERVAL=1 PING_TIMEOUT=8")
    scene = setting.scene(FIRST)
    answers, silent = scene.websocket(), scene.websocket()
    ended = threading.Event()

    def answer() -> None:
        while not ended.is_set():
            answers.read()

    answering = threading.Thread(target=answer)
    answering.start()
    try:
        ctl(setting.cluster, "restart", FIRST)
        line = setting.ledger.wait_for(silent.sid, "disconnect")
        assert line["reason"] == "ping timeout"
    finally:
        ended.set()
        answering.join()
    scene.goes_on(answers)


# --- those that take nothing over ---------------------------------------------------------------

PLAIN = "supervisor-sio worker cluster_app:app"


@pytest.mark.long
def test_a_worker_without_takeover_adopts_nobody(
    make_cluster: ClusterFactory, tmp_path: Path
) -> None:
    """Else clients end up at an application that has not asked for them."""
    setting = Setting(make_cluster, tmp_path, beside=PLAIN, hold_timeout="1")
    scene = setting.scene(FIRST)
    client = scene.websocket()
    ctl(setting.cluster, "stop", FIRST)
    expect_closed(client)
    setting.wait_not_moved(other_format=1)


@pytest.mark.long
def test_a_worker_without_takeover_closes_its_clients(
    make_cluster: ClusterFactory, tmp_path: Path
) -> None:
    setting = Setting(make_cluster, tmp_path, beside=PLAIN)
    client = setting.scene("beside:beside_00").websocket()
    ctl(setting.cluster, "restart", "beside:*")
    expect_closed(client)
    setting.wait_not_moved()


@OWN_MODES
@pytest.mark.long
def test_from_one_mode_to_another(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """An application moves to another mode as it moves to another version: nobody reconnects."""
    setting = Setting(make_cluster, tmp_path, workers=0)
    ledger, cluster = setting.ledger, setting.cluster
    for mode in MODES:
        command = ledger.command(variables=f"{MODE}={mode}")
        command = command.replace(" worker ", f" worker --async-mode={mode} ")
        cluster.extra += cluster.program(mode, command)
    cluster.spawn()
    cluster.wait_ready(3)
    eventlet, asyncio, threading = (f"{mode}:{mode}_00" for mode in MODES)
    for name in (asyncio, threading):
        ctl(cluster, "stop", name)
    scene = setting.scene(eventlet)
    clients: list[Talk] = [scene.websocket(), scene.polling()]
    before = [client.call("about") for client in clients]
    # From each to each.
    way = (eventlet, asyncio, threading, asyncio, eventlet, threading, eventlet)
    for old, new in zip(way, way[1:]):
        ctl(cluster, "start", new)
        cluster.wait_ready(2)
        ctl(cluster, "sio", "drain", old)
        ctl(cluster, "stop", old)
        for client, was in zip(clients, before):
            assert new.endswith(client.call("whoami")["name"]), f"{old} to {new}"
            assert client.call("about")["session"] == was["session"]
            scene.goes_on(client)
