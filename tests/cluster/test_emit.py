"""What one worker emits reaches every client of every worker, exactly once and in order."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Clients
from .harness import Cluster, server_environment, wait_until
from .recorder import TestClient

NAMESPACES = ["/", "/room"]

_numbers = itertools.count()


class Crowd:
    """Forty clients, and who of them is at which worker."""

    def __init__(self, clients: list[TestClient]) -> None:
        self.clients = clients
        self.by_worker: dict[int, list[TestClient]] = defaultdict(list)
        for client in clients:
            self.by_worker[client.whoami()["pid"]].append(client)
        #: One client at each worker.
        self.emitters = [members[0] for members in self.by_worker.values()]

    def pair(self) -> tuple[TestClient, TestClient]:
        """Two clients of different workers."""
        return self.emitters[0], self.emitters[1]

    def gather(
        self, event: str, emit: Callable[[str, Any], Any], namespace: str = "/"
    ) -> dict[str, list[list[Any]]]:
        """Who got ``event`` how often: complete once a later emit has come everywhere."""
        marker = f"marker-{next(_numbers)}"
        emit(marker, namespace)
        for client in self.clients:
            client.wait_for(marker, namespace=namespace)
        return {client.name: client.received(event, namespace) for client in self.clients}


@pytest.fixture(scope="module")
def crowd(shared_cluster: Cluster, module_clients: Clients) -> Iterator[Crowd]:
    crowd = Crowd(module_clients.mixed(shared_cluster, 40, NAMESPACES))
    yield crowd
    assert not [client.name for client in crowd.clients if client.disconnects]


def emit_from(client: TestClient) -> Callable[[str, Any], Any]:
    """Emits through the worker of ``client``, as its last word."""
    return lambda event, namespace: client.call("emit_all", event, 0, {"namespace": namespace})


def deliver(
    crowd: Crowd, emitter: TestClient, data: Any, as_tuple: bool = False, **options: Any
) -> dict[str, list[list[Any]]]:
    """Emit from the worker of ``emitter``; who got it, by name."""
    event = f"news-{next(_numbers)}"
    emitter.call("emit_all", event, data, options, as_tuple)
    return crowd.gather(event, emit_from(emitter), options.get("namespace", "/"))


def expect(clients: list[TestClient], crowd: Crowd, args: list[Any]) -> dict[str, list[Any]]:
    """Once for these clients, not at all for the others."""
    names = {client.name for client in clients}
    return {c.name: [args] if c.name in names else [] for c in crowd.clients}


def test_clients_are_spread_evenly(crowd: Crowd) -> None:
    counts = [len(members) for members in crowd.by_worker.values()]
    assert len(counts) == 4 and max(counts) - min(counts) <= 2, counts
    kinds = Counter(client.transport for client in crowd.clients)
    assert kinds["websocket"] > kinds["polling"] > 10


@pytest.mark.parametrize(
    "data", ["text", {"b": [b"\x00\xff", b""], "n": 1}], ids=["text", "binary"]
)
def test_every_client_gets_it_once_from_any_worker(crowd: Crowd, data: Any) -> None:
    for emitter in crowd.emitters:
        assert deliver(crowd, emitter, data) == expect(crowd.clients, crowd, [data])


def test_tuples_arrive_as_arguments(crowd: Crowd) -> None:
    got = deliver(crowd, crowd.emitters[1], ["a", b"b", {"c": 3}], as_tuple=True)
    assert got == expect(crowd.clients, crowd, ["a", b"b", {"c": 3}])


def test_many_emits_stay_in_order(crowd: Crowd) -> None:
    """Of each emitter's, while all emit at the same time."""
    for emitter in crowd.emitters:
        emitter.emit("count", f"count-{emitter.name}", 40)
    for emitter in crowd.emitters:
        event = f"count-{emitter.name}"
        for client in crowd.clients:
            client.wait_for(event, 40)
        crowd.gather(event, emit_from(emitter))
        for client in crowd.clients:
            client.expect_numbers(event, 40)


def test_namespace(crowd: Crowd) -> None:
    got = deliver(crowd, crowd.emitters[2], b"news", namespace="/room")
    assert got == expect(crowd.clients, crowd, [b"news"])


def test_room_and_list_of_rooms(crowd: Crowd) -> None:
    red, blue = crowd.clients[::3], crowd.clients[::4]
    for room, members in (("red", red), ("blue", blue)):
        for client in members:
            client.call("join", room)
    for emitter in crowd.emitters:
        assert deliver(crowd, emitter, b"r", room="red") == expect(red, crowd, [b"r"])
        # Who is in both rooms gets it once.
        both = [client for client in crowd.clients if client in red or client in blue]
        assert deliver(crowd, emitter, "2", room=["red", "blue"]) == expect(both, crowd, ["2"])
    for client in red:
        client.call("leave", "red")
    assert deliver(crowd, crowd.emitters[0], "r", room="red") == expect([], crowd, ["r"])


def test_skip_sid(crowd: Crowd) -> None:
    here, there = crowd.pair()
    rest = [client for client in crowd.clients if client is not there]
    assert deliver(crowd, here, 1, skip_sid=there.sid()) == expect(rest, crowd, [1])
    rest.remove(here)
    got = deliver(crowd, here, 2, skip_sid=[here.sid(), there.sid()])
    assert got == expect(rest, crowd, [2])


def test_to_one_client_of_another_worker(crowd: Crowd) -> None:
    here, there = crowd.pair()
    assert deliver(crowd, here, "psst", to=there.sid()) == expect([there], crowd, ["psst"])


@pytest.mark.parametrize("question", ["why", {"bytes": b"\x00\xff"}], ids=["text", "binary"])
def test_call_returns_the_answer_of_a_client_of_another_worker(crowd: Crowd, question: Any) -> None:
    here = crowd.emitters[0]
    for there in (members[-1] for members in crowd.by_worker.values()):
        answer = here.call("call_sid", there.sid(), "question", question)
        assert answer == {"from": there.name, "got": [question]}


def test_callback_runs_where_it_was_given(crowd: Crowd) -> None:
    here, there = crowd.pair()
    here.call("emit_with_callback", there.sid(), "asked", b"?")
    assert here.wait_for("callback_result") == [[{"from": there.name, "got": [b"?"]}]]
    assert there.received("asked") == [[b"?"]]


def test_rooms_of_clients_of_another_worker(crowd: Crowd) -> None:
    here, there = crowd.pair()

    def members_are(members: list[TestClient]) -> Callable[[], bool]:
        return lambda: deliver(crowd, here, 1, room="far") == expect(members, crowd, [1])

    here.call("enter_room_of", there.sid(), "far")
    wait_until(members_are([there]), 5, "in the room")
    here.call("join", "far")
    wait_until(members_are([here, there]), 5, "both in the room")
    here.call("leave_room_of", there.sid(), "far")
    wait_until(members_are([here]), 5, "out of the room")
    there.call("close_room", "far")
    wait_until(members_are([]), 5, "the room is closed")


def test_disconnects_a_client_of_another_worker(
    crowd: Crowd, shared_cluster: Cluster, clients: Clients
) -> None:
    for transports in (["polling"], ["websocket"]):
        victim = clients.connect(shared_cluster, "python", transports)
        pid = victim.whoami()["pid"]
        other = next(e for e in crowd.emitters if e not in crowd.by_worker[pid])
        other.call("disconnect_sid", victim.sid())
        victim.wait_disconnected()
    wait_until(
        lambda: sum(row["sessions"] for row in shared_cluster.workers()) == len(crowd.clients),
        10,
        "the sessions are gone",
    )


PLAIN_PROCESS = """
from supervisor_sio import ZmqManager
emitter = ZmqManager(write_only=True)
emitter.emit("from-outside", {"b": b"bytes"})
emitter.emit("from-outside", "second")
emitter.emit("last-from-outside", 0)
"""


def test_a_plain_process_emits_to_all(crowd: Crowd, shared_cluster: Cluster) -> None:
    variables = server_environment(SUPERVISOR_SIO_RUN_DIR=str(shared_cluster.run_dir))
    subprocess.run([sys.executable, "-c", PLAIN_PROCESS], env=variables, check=True, timeout=30)
    for client in crowd.clients:
        client.wait_for("last-from-outside")
    got = crowd.gather("from-outside", emit_from(crowd.emitters[0]))
    assert got == {client.name: [[{"b": b"bytes"}], ["second"]] for client in crowd.clients}
