"""No emit is lost, doubled or out of order while the relay or a worker fails.

test_stopped_worker.py has more of it: another process of the tests runs that meanwhile.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from .conftest import Clients, ClusterFactory
from .harness import Cluster, wait_until
from .recorder import TestClient, deviation

#: Many clients for a long time: not for every run of the tests.
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

NUMBERS = 2000
SECONDS = 8.0

#: Seconds after which nothing more will come.
SILENCE = 15.0

APP = "supervisor-sio worker counting_app:app"


def connect(cluster: Cluster, clients: Clients, count: int) -> list[TestClient]:
    """socket.io-client in all transports: it keeps the order of events."""
    transports = [["websocket"], ["polling"], None]
    with ThreadPoolExecutor(8) as pool:
        plan = [transports[index % 3] for index in range(count)]
        return list(pool.map(lambda t: clients.connect(cluster, "node", t), plan))


def by_worker(clients: list[TestClient]) -> dict[int, list[TestClient]]:
    found: dict[int, list[TestClient]] = defaultdict(list)
    for client in clients:
        found[client.whoami()["pid"]].append(client)
    return found


def expect_all_numbers(clients: list[TestClient], events: list[str]) -> None:
    """Every client has every number of every emitter, once and in order.

    But for a client of which a poll was inside the router at the moment of its
    SIGKILL: such a connection ends with it, and so does a session that lives on polls.
    """
    wait_for_the_last(clients, events)
    reconnected = [client.name for client in clients if client.disconnects]
    print(f"reconnected: {reconnected}")
    assert len(reconnected) <= 2 and all(name.startswith("node-polling") for name in reconnected)
    faults = [
        f"{client.name}, {event}: {fault}"
        for client in clients
        if not client.disconnects
        for event in events
        if (fault := deviation([args[0] for args in client.received(event)], NUMBERS))
    ]
    print(f"{len(clients) - len(reconnected)} clients, {len(events)} emitters of {NUMBERS}")
    assert not faults, "\n".join(faults)


def wait_for_the_last(clients: list[TestClient], events: list[str]) -> None:
    """Until everybody has received all of these, or nobody anything more for ``SILENCE`` seconds.

    Few events come with a poll: on a busy machine all of them take their time.
    """
    missing, since = -1, time.monotonic()
    while missing and time.monotonic() < since + SILENCE:
        time.sleep(0.5)
        staying = [client for client in clients if not client.disconnects]
        left = sum(NUMBERS - len(c.received(event)) for c in staying for event in events)
        if left != missing:
            missing, since = left, time.monotonic()


def start_counting(emitters: list[TestClient]) -> list[str]:
    events = [f"count-{emitter.name}" for emitter in emitters]
    for emitter, event in zip(emitters, events):
        emitter.emit("count_slowly", event, NUMBERS, SECONDS)
    return events


def relay(cluster: Cluster) -> dict[str, Any]:
    figures: dict[str, Any] = cluster.status()["relay"]
    print(figures)
    return figures


@pytest.fixture
def three_workers(make_cluster: ClusterFactory) -> Cluster:
    return make_cluster(workers=3, command=APP).start()


def test_while_the_router_is_killed_three_times(three_workers: Cluster, clients: Clients) -> None:
    made = connect(three_workers, clients, 60)
    emitters = [members[0] for members in by_worker(made).values()]
    assert len(emitters) == 3
    events = start_counting(emitters)
    for third in (1, 2, 3):
        wait_until(
            lambda third=third: len(made[0].received(events[0])) > NUMBERS * third / 4,
            30,
            f"{third} quarters of the numbers",
        )
        old = three_workers.router_pid
        # Killed within its startsecs it would count as a failed start.
        started = psutil.Process(old).create_time()
        wait_until(lambda started=started: time.time() > started + 1.2, 5, "the router runs")
        os.kill(old, signal.SIGKILL)
        three_workers.wait_new_router(old)
    expect_all_numbers(made, events)
    assert relay(three_workers)["dropped"] == 0


def here_and_there(cluster: Cluster, clients: Clients) -> tuple[TestClient, TestClient, int]:
    """A client, one of another worker that is in room "there", and that worker's pid."""
    made = [clients.connect(cluster, "node", ["websocket"]) for _ in range(2)]
    (_, (here,)), (pid, (there,)) = by_worker(made).items()
    there.call("join", "there")
    return here, there, pid


def count_while_stopped(
    cluster: Cluster, here: TestClient, pid: int, numbers: int, size: int
) -> float:
    """Emit to room "there" while its worker is stopped; the growth of the router in bytes."""
    router = psutil.Process(cluster.router_pid)
    before = router.memory_info().rss
    os.kill(pid, signal.SIGSTOP)
    try:
        assert here.call("count_to_room", "there", "count", numbers, size, timeout=60) == numbers
        return float(router.memory_info().rss - before)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_overflows_the_buffer_is_counted(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(command=APP, buffer_messages="500").start()
    here, there, pid = here_and_there(cluster, clients)
    numbers = 30_000  # more than may wait in the relay and in the buffer
    count_while_stopped(cluster, here, pid, numbers, 0)
    here.call("emit_all", "last", 0, {})
    there.wait_for("last", timeout=60)
    got = [args[0] for args in there.received("count")]
    assert got == sorted(set(got))
    lost = numbers - len(got)
    print(f"{lost} of {numbers} lost")
    assert lost > 0
    wait_until(lambda: cluster.status()["relay"]["dropped"] == lost, 5, "all are counted")
    wait_until(lambda: "messages were lost" in "".join(cluster.logs().values()), 15, "it is logged")
    lines = [
        line
        for name, text in cluster.logs().items()
        if name.startswith("workers")
        for line in text.splitlines()
        if "messages were lost" in line
    ]
    assert len(lines) == 1 and f" {lost} messages" in lines[0]
    assert f"dropped {lost}" in cluster.ctl("sio").stdout


def test_a_worker_that_is_out_of_touch_while_the_router_restarts(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    """The others take it for gone, and then it is there again."""
    cluster = make_cluster(command=APP).start()
    here, there, pid = here_and_there(cluster, clients)
    for number in range(10):
        here.call("emit_all", "psst", number, {"to": there.sid()})
    old = cluster.router_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        os.kill(old, signal.SIGKILL)
        cluster.wait_new_router(old)
        wait_until(
            lambda: json.loads(here.call("operation", "server_count", [], {}))["value"] == 1,
            10,
            "it counts as gone",
        )
        for number in range(10, 20):
            here.call("emit_all", "psst", number, {"to": there.sid()})
    finally:
        os.kill(pid, signal.SIGCONT)
    cluster.wait_ready()
    for number in range(20, 30):
        here.call("emit_all", "psst", number, {"to": there.sid()})
    there.expect_numbers("psst", 30)
    assert relay(cluster)["dropped"] == 0
