"""What waits for a client that does not take it costs its worker little, and ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.raw import Poller

from ledger.stranger import PING, TEXT, Stranger, masked
from ledger.victim import MB, Echoes, PeakMemory

#: Many clients for a long time: not for every run of the tests.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Iterator[Cluster]:
    command = "supervisor-sio worker session_app:app"
    yield make_module_cluster(here=Path(__file__).parent, workers=1, command=command).start()


@pytest.fixture
def worker(cluster: Cluster) -> int:
    return int(cluster.workers()[0]["pid"])


def slow(cluster: Cluster) -> int:
    return int(cluster.status()["clients"]["slow_clients"])


@pytest.mark.tries(3)
@pytest.mark.parametrize("payload", [b"", b"x" * 125])
def test_pings_of_a_client_that_never_reads(cluster: Cluster, worker: int, payload: bytes) -> None:
    with Stranger(cluster.port) as stranger, Echoes(cluster.port) as others:
        with PeakMemory(worker) as memory:
            stranger.flood(masked(PING, payload) * 1000, 4)
    assert memory.grown < 8 * MB
    assert others.percentile(0.99) < 0.5


@pytest.mark.tries(3)
def test_echoes_of_a_client_that_never_reads(cluster: Cluster, worker: int) -> None:
    text = '421["echo","' + "x" * 990_000 + '"]'
    with Stranger(cluster.port) as stranger, Echoes(cluster.port) as others:
        with PeakMemory(worker) as memory:
            stranger.flood(masked(TEXT, text.encode()), 4)
    assert memory.grown < 20 * MB
    assert others.percentile(0.99) < 0.5


@pytest.mark.tries(3)
def test_short_answers_of_a_client_that_never_reads(cluster: Cluster, worker: int) -> None:
    with Stranger(cluster.port) as stranger, Echoes(cluster.port) as others:
        with PeakMemory(worker) as memory:
            stranger.flood(masked(TEXT, b'421["echo"]') * 1000, 4)
    assert memory.grown < 8 * MB
    assert others.percentile(0.99) < 0.5


@pytest.mark.parametrize("size", [1, 2])
def test_fragments_cost_what_their_message_costs(cluster: Cluster, worker: int, size: int) -> None:
    text = b'421["echo","' + b"x" * 900_000 + b'"]'
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    frames = [masked(TEXT, parts[0], False), *(masked(0, part, False) for part in parts[1:])]
    data = b"".join(frames)
    with Stranger(cluster.port) as stranger, PeakMemory(worker) as memory:
        stranger.sock.sendall(data)
        stranger.sock.sendall(masked(0, b""))
        stranger.until(b'431["xxx')
    assert memory.grown < 12 * MB


def test_who_takes_15_mb_slowly_gets_it_and_who_takes_nothing_is_cut_off(cluster: Cluster) -> None:
    before = slow(cluster)
    with Stranger(cluster.port) as steady, Stranger(cluster.port) as silent:
        for stranger in (steady, silent):
            stranger.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262144)
            stranger.text('42["emit_long",1000000,15]')
        began, got = time.monotonic(), 0
        while time.monotonic() - began < 14:
            steady.sock.settimeout(10)
            more = steady.sock.recv(20_000)
            assert more, f"cut off after {time.monotonic() - began:.1f} s and {got} bytes"
            got += len(more)
            time.sleep(max(0, got / 400_000 - (time.monotonic() - began)))
        print(f"{got} bytes in {time.monotonic() - began:.1f} s")
        wait_until(lambda: slow(cluster) == before + 1, 5, "the silent one is cut off")
        assert silent.ended()
        while got < 15_000_000:
            more = steady.sock.recv(1 << 20)
            assert more
            got += len(more)
        steady.text('421["echo",1]')
        steady.until(b"431[1]")


def test_much_too_much_at_once_is_not_kept(cluster: Cluster, worker: int) -> None:
    before = slow(cluster)
    with Stranger(cluster.port) as stranger, PeakMemory(worker) as memory:
        stranger.text('42["emit_long",1000000,100]')
        wait_until(lambda: slow(cluster) == before + 1, 5, "cut off at once")
    assert memory.grown < 25 * MB


@pytest.mark.tries(3)
def test_a_session_that_never_polls(cluster: Cluster, worker: int) -> None:
    poller = Poller(cluster.port)
    poller.open()
    poller.join()
    before = slow(cluster)
    body = '421["echo","' + "x" * 900_000 + '"]'
    with Echoes(cluster.port) as others, PeakMemory(worker) as memory:
        deadline = time.monotonic() + 60
        while poller.request("POST", body)[0] == 200:
            poller.request("POST", "3")
            assert time.monotonic() < deadline
    assert memory.grown < 20 * MB
    assert others.percentile(0.99) < 0.5
    wait_until(lambda: slow(cluster) == before + 1, 5, "counted")
    assert poller.request("GET")[0] == 400


def test_long_answers_to_a_session_that_never_polls(cluster: Cluster, worker: int) -> None:
    poller = Poller(cluster.port)
    poller.open()
    poller.join()
    before = slow(cluster)
    with PeakMemory(worker) as memory:
        poller.request("POST", "\x1e".join(['421["answer_long",1000000]'] * 1000))
    assert memory.grown < 50 * MB
    wait_until(lambda: slow(cluster) == before + 1, 5, "counted")
