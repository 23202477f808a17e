"""What clients name their rooms must not keep the operator from seeing them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import ANY_MODE
from cluster.raw import Poller


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Iterator[Cluster]:
    yield make_module_cluster(
        here=Path(__file__).parent, command="supervisor-sio worker rooms_app:app"
    ).start()


def one_at_each_worker(cluster: Cluster) -> list[Poller]:
    """Sessions are placed in turn."""
    found: dict[str, Poller] = {}
    while len(found) < len(cluster.workers()):
        poller = Poller(cluster.port)
        poller.open()
        poller.join()
        found.setdefault(poller.sid.partition(".")[0], poller)
    return list(found.values())


def ask(cluster: Cluster, *words: str) -> Any:
    answer = cluster.ctl("sio", *words, "--json")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout)


def test_long_names_hide_nobody_and_end_no_worker(cluster: Cluster) -> None:
    first, second = one_at_each_worker(cluster)
    first.call("join", [chr(0x1F600 + number) * 200 for number in range(50)])
    # A row of just under a packet passed one channel, and was too long for the next.
    second.call("join", ["x" * 65_485, "plain"])
    second.call("join", ['"\x00' * 9_000])
    pids = [row["pid"] for row in cluster.workers()]
    for _ in range(3):
        sockets = ask(cluster, "sockets")
        assert sockets["missing"] == 0 and sockets["total"] == len(sockets["sockets"])
        rooms_of = {row["worker"]: row["rooms"] for row in sockets["sockets"] if row["rooms"]}
        assert len(rooms_of) == 2
        for rooms in rooms_of.values():
            assert len(json.dumps(rooms)) < 5000
        assert any(rooms[-1].endswith(" more") for rooms in rooms_of.values())
        assert any("plain" in rooms for rooms in rooms_of.values())
        listed = ask(cluster, "rooms")
        assert listed["missing"] == 0 and {"room": "plain", "sockets": 1} in listed["rooms"]
        assert sum(row["room"].endswith("…") for row in listed["rooms"]) >= 50
    wait_until(lambda: [row["pid"] for row in cluster.workers()] == pids, 5, "the same workers")


@ANY_MODE
def test_more_rooms_than_are_shown_are_counted_right(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(
        here=Path(__file__).parent, command="supervisor-sio worker rooms_app:app"
    ).start()
    first, second = one_at_each_worker(cluster)
    # 18,000 rooms, 6,000 of them with a client at each worker.
    first.call("join_numbered", 0, 12_000)
    second.call("join_numbered", 6_000, 18_000)
    rooms = ask(cluster, "rooms")
    assert rooms["total"] == 18_000 and len(rooms["rooms"]) == 10_000
    sizes = {row["room"]: row["sockets"] for row in rooms["rooms"]}
    assert list(sizes.values()) == [2] * 6_000 + [1] * 4_000
    assert all(sizes.get(f"room-{number:06}") == 2 for number in range(6_000, 12_000))
    assert "10000 of 18000 rooms" in cluster.ctl("sio", "rooms").stdout
    # Over 25,000 at one worker: those that are counted are counted at all workers.
    first.call("join_numbered", 12_000, 30_000)
    rooms = ask(cluster, "rooms")
    sizes = {row["room"]: row["sockets"] for row in rooms["rooms"]}
    assert rooms["total"] == 30_000 and len(sizes) == 10_000
    assert list(sizes.values()) == [2] * 10_000
    wait_until(lambda: not cluster.workers("hung"), 10, "all workers report")
