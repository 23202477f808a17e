"""Those who wait for the workers are spread over all of them, however late they start, and clients
have the same number of neighbours after a restart of their worker.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from socket import socket

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import NO_WORKER
from cluster.raw import Poller, open_websocket

from supervisor_sio.settings import Settings

pytestmark = NO_WORKER


def _make(
    make_cluster: ClusterFactory, seconds: str, more: str = "", spread_timeout: str = "20"
) -> Cluster:
    """A worker for each of these times to start."""
    return make_cluster(
        workers=len(seconds.split()),
        here=Path(__file__).parent,
        command="supervisor-sio worker late_app:app",
        extra=f'environment = SECONDS="{seconds}"{more}',
        spread_timeout=spread_timeout,
    )


def _spawn(cluster: Cluster, autostart: bool) -> None:
    cluster.extra += f"\nautostart = {autostart}\n"
    cluster.spawn()
    state = "starting" if autostart else "stopped"
    wait_until(lambda: cluster.workers(state) or cluster.workers(), 10, "supervisord answers")


@contextmanager
def _clients(cluster: Cluster, count: int, times: list[float] | None = None) -> Iterator[list[int]]:
    """So many come; at the end, how many each worker has, by when it got the first.

    :param times: gets when each has its session.
    """
    with ThreadPoolExecutor(count) as pool:

        def session(_: int) -> str:
            poller = Poller(cluster.port)
            poller.open()
            if times is not None:
                times.append(time.monotonic())
            return poller.sid.partition(".")[0]

        sessions = pool.map(session, range(count))
        counts: list[int] = []
        yield counts
        counts += Counter(sessions).values()


def test_the_first_worker_does_not_get_everybody(make_cluster: ClusterFactory) -> None:
    cluster = _make(make_cluster, "0 0.6 1.2")
    _spawn(cluster, autostart=False)
    with _clients(cluster, 30) as counts:
        wait_until(lambda: cluster.status()["router"]["waiting"] == 30, 10, "they wait")
        assert cluster.ctl("start", "workers:*").returncode == 0
    assert counts == [10, 10, 10]


@pytest.mark.long
def test_one_that_takes_six_seconds_gets_its_share(make_cluster: ClusterFactory) -> None:
    """Those who come while supervisord starts all, the router among them."""
    cluster = _make(make_cluster, "0.2 1 3 6")
    _spawn(cluster, autostart=True)
    with _clients(cluster, 200) as counts:
        pass
    assert counts == [50, 50, 50, 50]


@pytest.mark.tries(3)  # on a machine that stands still, they wait for the processor as well
def test_nobody_waits_longer_for_a_worker_that_starts_slowly(make_cluster: ClusterFactory) -> None:
    """Than half a second from when the first worker is ready, unless ``spread_timeout`` says so."""
    spread_timeout = Settings.spread_timeout
    cluster = _make(make_cluster, "0 300", spread_timeout=f"{spread_timeout:g}")
    _spawn(cluster, autostart=False)
    times: list[float] = []
    with _clients(cluster, 20, times) as counts:
        wait_until(lambda: cluster.status()["router"]["waiting"] == 20, 10, "they wait")
        assert cluster.ctl("start", "workers:*").returncode == 0
    assert counts == [20] and len(cluster.workers("starting")) == 1
    # Half of them are the first worker's share.
    waited = [at - min(times) for at in sorted(times)]
    print(f"sessions after the first one: {', '.join(f'{one:.2f}' for one in waited)} s")
    assert waited[9] < spread_timeout - 0.1 and spread_timeout - 0.1 < waited[10]
    assert waited[-1] < spread_timeout + 0.5


def _open(cluster: Cluster, count: int) -> list[socket]:
    with ThreadPoolExecutor(max(1, count)) as pool:
        return list(pool.map(lambda _: open_websocket(cluster.port), range(count)))


def _counts(cluster: Cluster) -> list[int]:
    return [row["sessions"] for row in cluster.workers()]


def _has_ended(client: socket) -> bool:
    client.setblocking(False)
    try:
        while client.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    client.close()
    return True


@pytest.mark.long
@pytest.mark.parametrize("takeover", [False, True])
def test_all_have_the_same_number_after_each_restart(
    make_cluster: ClusterFactory, takeover: bool
) -> None:
    cluster = _make(make_cluster, "0 0 0 0", ',TAKEOVER="1"' if takeover else "").start()
    clients = _open(cluster, 40)
    ended = 0
    for number in range(4):
        name, other = (f"workers:workers_{one % 4:02d}" for one in (number, number + 1))
        cluster.rpc.supervisor.stopProcess(name)
        cluster.rpc.supervisor.startProcess(name)
        cluster.rpc.sio.undrainWorker(other)  # behind what the router is told of this one
        clients = [client for client in clients if not _has_ended(client)]
        ended += 40 - len(clients)
        clients += _open(cluster, 40 - len(clients))
        wait_until(lambda: _counts(cluster) == [10, 10, 10, 10], 10, "spread")
    assert ended == (0 if takeover else 40)
    for client in clients:
        client.close()
