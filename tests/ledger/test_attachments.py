"""What the attachments of an event can cost a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.raw import Poller

from ledger.stranger import CLOSED, Stranger
from ledger.victim import MB, Echoes, PeakMemory

PLACEHOLDER = '{"_placeholder":true,"num":%d}'


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Iterator[Cluster]:
    command = "supervisor-sio worker session_app:app"
    yield make_module_cluster(here=Path(__file__).parent, workers=1, command=command).start()


@pytest.fixture
def worker(cluster: Cluster) -> int:
    return int(cluster.workers()[0]["pid"])


def errors(cluster: Cluster) -> int:
    return int(cluster.status()["clients"]["protocol_errors"])


def counted(cluster: Cluster, count: int) -> None:
    wait_until(lambda: errors(cluster) >= count, 5, "counted")


def event(number: int, *named: int, ack: int = 1) -> str:
    places = ",".join(PLACEHOLDER % one for one in named)
    return f'45{number}-{ack}["echo",{places}]'


@pytest.mark.tries(4)
def test_a_number_of_attachments_costs_nothing_before_connect(
    cluster: Cluster, worker: int
) -> None:
    before = errors(cluster)
    with Echoes(cluster.port) as others, PeakMemory(worker) as memory:
        for digits in range(6, 11):
            with Stranger(cluster.port, connect=False) as stranger:
                stranger.text(f'45{"5" * digits}-["x"]')
                stranger.until(CLOSED)
    assert memory.grown < 5 * MB
    assert others.percentile(1) < 1
    counted(cluster, before + 5)


def test_attachments_without_end_are_not_kept(cluster: Cluster, worker: int) -> None:
    before = errors(cluster)
    with Stranger(cluster.port) as stranger, PeakMemory(worker) as memory:
        stranger.text(event(300, *range(300)))
        stranger.binary(bytes(900_000))
        stranger.until(CLOSED)
    assert memory.grown < 12 * MB
    counted(cluster, before + 1)


def test_attachments_of_a_client_that_has_left_are_not_kept(cluster: Cluster, worker: int) -> None:
    """Its event may have been on its way when it was disconnected: the session goes on."""
    before = errors(cluster)
    with Stranger(cluster.port) as stranger, PeakMemory(worker) as memory:
        stranger.text("41")
        for _ in range(3):
            stranger.text(event(10, *range(10)))
            for _ in range(10):
                stranger.binary(bytes(900_000))
        stranger.text("40", '422["echo",1]')
        stranger.until(b"432[1]")
    assert memory.grown < 12 * MB
    assert errors(cluster) == before


def test_attachments_over_polling_are_not_kept_before_connect(
    cluster: Cluster, worker: int
) -> None:
    poller = Poller(cluster.port)
    poller.open()
    before = errors(cluster)
    with PeakMemory(worker) as memory:
        assert poller.request("POST", event(10, *range(10)))[0] == 400
        assert poller.request("POST", "b" + "A" * 900_000)[0] == 400
    assert memory.grown < 12 * MB
    counted(cluster, before + 1)


def test_one_attachment_is_not_sent_back_hundreds_of_times(cluster: Cluster, worker: int) -> None:
    before = errors(cluster)
    with Stranger(cluster.port) as stranger, PeakMemory(worker) as memory:
        stranger.text(event(1, *[0] * 400))
        stranger.binary(bytes(900_000))
        assert len(stranger.until(CLOSED)) < 1000
    assert memory.grown < 12 * MB
    counted(cluster, before + 1)


@pytest.mark.parametrize(
    ("number", "named"),
    [(11, range(11)), (2, [0]), (2, [1, 1]), (2, [0, 2]), (1, []), (1, [-1]), (2, [0, 1, 1])],
)
def test_what_does_not_name_each_attachment_once(
    cluster: Cluster, number: int, named: list[int]
) -> None:
    before = errors(cluster)
    with Stranger(cluster.port) as stranger:
        stranger.text(event(number, *named), '422["echo",1]')
        assert b"61-" not in stranger.until(CLOSED)
    counted(cluster, before + 1)


def test_ten_long_attachments_come_back(cluster: Cluster, worker: int) -> None:
    with Stranger(cluster.port) as stranger, PeakMemory(worker) as memory:
        stranger.text(event(10, *reversed(range(10))))
        stranger.binary(*[bytes([n]) * 900_000 for n in range(10)])
        stranger.until(b'4610-1[{"_placeholder":true,"num":0}')
        for n in reversed(range(10)):
            stranger.until(bytes([n]) * 900_000)
    assert memory.grown < 60 * MB
