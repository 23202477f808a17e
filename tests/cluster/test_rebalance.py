"""``supervisorctl sio rebalance``: clients of workers that have too many come to the others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .conftest import Clients, ClusterFactory
from .harness import BIN, Cluster, environment, wait_until
from .modes import NO_WORKER
from .numbered import numbers
from .recorder import deviation
from .recovery_clients import Returning
from .takeover_ledger import Ledger
from .wire import Closed, Refused

#: Of a client that does not come back at once because its connection has just been refused.
_PAUSE = 0.1


class Visitor(threading.Thread):
    """A client that is there all the time: it comes back when its connection ends.

    :param after: seconds until it comes back.
    :ivar came: of each time that it has come back, whether it was to its session.
    """

    def __init__(self, port: int, after: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.client = Returning(port).join()
        self.sid = self.client.sid
        self.came: list[bool] = []
        self._port = port
        self._after = after
        self._over = False
        self._wait_long()
        self.start()

    def _wait_long(self) -> None:
        # Pings come each 25 seconds.
        self.client.wire.sock.settimeout(60)

    def run(self) -> None:
        while not self._over:
            try:
                self.client.read()
            except (Closed, OSError):
                time.sleep(self._after)
                self._come()

    def _come(self) -> None:
        while not self._over:
            try:
                again = self.client.again(self._port)
            except (Closed, Refused, OSError, AssertionError):
                time.sleep(_PAUSE)
                continue
            again.events = self.client.events
            self.client = again
            self._wait_long()
            self.came.append(again.recovered)
            return

    def close(self) -> None:
        self._over = True
        with contextlib.suppress(OSError):
            self.client.wire.sock.shutdown(socket.SHUT_RDWR)
        self.join(30)
        self.client.close()


@pytest.fixture
def visit() -> Iterator[Callable[..., list[Visitor]]]:
    made: list[Visitor] = []

    def visit(cluster: Cluster, count: int, after: float = 0.0) -> list[Visitor]:
        with ThreadPoolExecutor(8) as pool:
            visitors = list(pool.map(lambda _: Visitor(cluster.port, after), range(count)))
        made.extend(visitors)
        return visitors

    yield visit
    for visitor in made:
        visitor.close()


def counts_of(cluster: Cluster, total: int) -> list[int]:
    """The sessions of each worker, once the figures are of all clients."""

    def counts() -> list[int]:
        found = [row["sessions"] for row in cluster.workers()]
        return sorted(found) if sum(found) == total else []

    return wait_until(counts, 30, f"{total} sessions, {cluster.workers()}")


def is_spread(cluster: Cluster, total: int) -> None:
    """Within 10 % of each other, once the figures are of now: the sum of old ones may be right."""
    counts: list[int] = []

    def spread() -> bool:
        counts[:] = counts_of(cluster, total)
        return counts[-1] - counts[0] <= counts[-1] * 0.1

    with contextlib.suppress(AssertionError):  # what there is says more
        wait_until(spread, 10, "the sessions are spread")
    print(f"sessions: {counts}")
    assert spread(), counts


def come_back(visitors: list[Visitor], times: int) -> None:
    """Altogether; a worker counts a session before its client has noticed that it has one."""

    def came() -> int:
        return sum(len(visitor.came) for visitor in visitors)

    with contextlib.suppress(AssertionError):  # what there is says more
        wait_until(lambda: came() == times, 10, "they are back")
    assert came() == times


def rebalance(cluster: Cluster) -> dict[str, Any]:
    done = cluster.ctl("sio", "rebalance", "--json")
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["ok"] and document["result"] == "even"
    return document


def scale(cluster: Cluster, count: int) -> None:
    done = cluster.ctl("sio", "scale", "workers", str(count))
    assert done.returncode == 0, done.stdout
    cluster.wait_ready(count)


@pytest.mark.timeout(180)
def test_new_workers_get_their_share(
    cluster: Cluster, clients: Clients, visit: Callable[[Cluster, int], list[Visitor]]
) -> None:
    made = clients.mixed(cluster, 24)
    visitors = visit(cluster, 56)
    assert counts_of(cluster, 80) == [40, 40]
    scale(cluster, 4)
    assert counts_of(cluster, 80) == [0, 0, 40, 40]
    document = rebalance(cluster)
    is_spread(cluster, 80)
    assert 36 <= document["closed"] <= 44 and document["result"] == "even"
    assert [row["before"] for row in document["workers"]] == [40, 40, 0, 0]
    # Nobody said to a client that it is not to come back.
    for client in made:
        client.wait_talking()
        assert all(
            reason in ("transport close", "transport error") for reason in client.disconnects
        ), client.disconnects
    come_back(visitors, document["closed"] - sum(len(client.disconnects) for client in made))
    assert rebalance(cluster)["closed"] == 0, "an even load stays as it is"
    assert not [name for name, text in cluster.logs().items() if "Traceback" in text]


@pytest.mark.long
@pytest.mark.timeout(180)
def test_with_recovery_nobody_misses_anything(
    make_cluster: ClusterFactory,
    clients: Clients,
    visit: Callable[[Cluster, int], list[Visitor]],
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path / "happened")
    cluster = make_cluster(command=ledger.command(variables="RECOVERY=60")).start()
    transports = (["websocket"], ["polling"], None)
    pages: Any = [clients.connect(cluster, "node", transports[n % 3]) for n in range(24)]
    visitors = visit(cluster, 56)
    assert counts_of(cluster, 80) == [40, 40]
    sids = [page.sid() for page in pages] + [visitor.sid for visitor in visitors]
    scale(cluster, 4)
    with numbers(cluster, pause=0.02) as sent:
        wait_until(lambda: len(sent) > 20, 10, "numbers")
        document = rebalance(cluster)
        is_spread(cluster, 80)
        more = len(sent) + 20
        wait_until(lambda: len(sent) > more, 10, "more numbers")
    for page in pages:
        page.wait_connected()
        page.expect_numbers("number", len(sent))
        assert page.recovered["/"] == [False] + [True] * (len(page.recovered["/"]) - 1)

    def faults() -> list[str]:
        found = [deviation(visitor.client.events["number"], len(sent)) for visitor in visitors]
        return [fault for fault in found if fault]

    with contextlib.suppress(AssertionError):
        wait_until(lambda: not faults(), 10, "all numbers")
    assert not faults()
    assert document["closed"] >= 36
    come_back(visitors, document["closed"] - sum(len(page.disconnects) for page in pages))
    assert all(all(visitor.came) for visitor in visitors)
    assert [visitor.client.sid for visitor in visitors] == sids[24:]
    assert [page.sid() for page in pages] == sids[:24]

    def called() -> list[str]:
        return [line["what"] for line in ledger.all()]

    wait_until(lambda: called().count("recovery") >= document["closed"], 10, "its handlers")
    happened = called()
    assert happened.count("connect") == 80 and "disconnect" not in happened
    assert happened.count("recovery") == document["closed"]
    assert cluster.status()["recovery"]["not_recovered"] == {}


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_worker_that_dies_meanwhile_is_no_error(
    cluster: Cluster, visit: Callable[[Cluster, int], list[Visitor]]
) -> None:
    visit(cluster, 80)
    scale(cluster, 4)
    victim = cluster.workers()[0]["pid"]

    def kill() -> None:
        wait_until(lambda: cluster.status()["rebalancing"]["state"] != "idle", 10, "a rebalance")
        os.kill(victim, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    document = rebalance(cluster)
    thread.join()
    cluster.wait_ready(4)
    if document["not_ready"]:  # its new process has taken longer than it is waited for
        rebalance(cluster)
    is_spread(cluster, 80)


def refused(cluster: Cluster) -> str:
    done = cluster.ctl("sio", "rebalance")
    assert done.returncode == 1, done.stdout
    (line,) = done.stdout.splitlines()
    match = re.fullmatch(r"rebalance: ERROR \((.*)\)", line)
    assert match, line
    return match[1]


@NO_WORKER
def test_what_is_refused(cluster: Cluster) -> None:
    first, second = (row["name"] for row in cluster.workers())
    cluster.rpc.sio.drainWorker(second)
    assert refused(cluster).startswith(f"{second} is drained: a reload, a scale or a restart may")
    why = "at least two workers must be ready; 1 is ready"
    wait_until(lambda: refused(cluster) == why, 10, "it stays drained")
    assert json.loads(cluster.ctl("sio", "rebalance", "--json").stdout) == {
        "error": f"rebalance: {why}"
    }
    cluster.rpc.sio.undrainWorker(second)
    assert cluster.ctl("stop", second).returncode == 0
    wait_until(lambda: refused(cluster) == why, 10, "it stays stopped")
    assert cluster.ctl("stop", "sio").returncode == 0
    assert refused(cluster).startswith("no router is running; ")


@pytest.mark.long
@pytest.mark.timeout(180)
@NO_WORKER
def test_one_at_a_time_and_ctrl_c(cluster: Cluster) -> None:
    leaves = [Returning(cluster.port).join() for _ in range(24)]  # and none comes back
    scale(cluster, 4)
    command = [f"{BIN}/supervisorctl", "-c", str(cluster.conf), "sio", "rebalance"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        wait_until(lambda: cluster.status()["rebalancing"]["state"] == "waiting", 20, "it waits")
        assert "\nrebalance " in cluster.ctl("sio", "status").stdout
        assert refused(cluster) == "another rebalance is under way"
        first.send_signal(signal.SIGINT)
        said, _ = first.communicate(timeout=30)
    finally:
        first.kill()
        first.wait()
    assert first.returncode == 1 and "interrupted" in said
    rebalancing = cluster.status()["rebalancing"]
    assert (rebalancing["state"], rebalancing["result"]) == ("idle", "stopped")
    assert counts_of(cluster, 12) == [0, 0, 6, 6]
    for client in leaves:
        client.close()


#: One after the other. Ten end as three do, in four minutes.
RELOADS = 3


def reload(cluster: Cluster) -> None:
    done = cluster.ctl("sio", "reload")
    assert done.returncode == 0, done.stdout


@pytest.mark.long
@pytest.mark.timeout(900)
def test_after_reloads(
    make_cluster: ClusterFactory, visit: Callable[[Cluster, int], list[Visitor]]
) -> None:
    cluster = make_cluster(workers=4).start()
    visit(cluster, 80)
    for _ in range(RELOADS):
        reload(cluster)
    counts = counts_of(cluster, 80)
    print(f"after {RELOADS} reloads: {counts}")
    document = rebalance(cluster)
    is_spread(cluster, 80)
    assert bool(document["closed"]) or counts[-1] - counts[0] <= 2


@pytest.mark.long
@pytest.mark.timeout(600)
def test_with_time_to_wait_reloads_change_no_share(
    make_cluster: ClusterFactory, visit: Callable[..., list[Visitor]]
) -> None:
    """Of clients that come back after a second, as those of client libraries do."""
    cluster = make_cluster(workers=2, spread_timeout="20").start()
    visitors = visit(cluster, 40, after=1.0)
    for number in range(1, RELOADS + 1):
        reload(cluster)
        come_back(visitors, 40 * number)
        is_spread(cluster, 40)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_with_takeover_reloads_change_no_share(
    make_cluster: ClusterFactory,
    visit: Callable[[Cluster, int], list[Visitor]],
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path / "happened")
    cluster = make_cluster(workers=4, command=ledger.command()).start()
    visitors = visit(cluster, 80)
    before = counts_of(cluster, 80)
    for _ in range(RELOADS):
        reload(cluster)
    with contextlib.suppress(AssertionError):  # what there is says more
        wait_until(lambda: counts_of(cluster, 80) == before, 10, "all have as many as before")
    assert counts_of(cluster, 80) == before
    assert not any(visitor.came for visitor in visitors)
    assert rebalance(cluster)["closed"] == 0


@pytest.mark.long
@pytest.mark.timeout(300)
def test_with_takeover_those_of_a_removed_worker_are_spread(
    make_cluster: ClusterFactory,
    visit: Callable[..., list[Visitor]],
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path / "happened")
    cluster = make_cluster(workers=3, command=ledger.command()).start()
    visitors = visit(cluster, 45)
    assert counts_of(cluster, 45) == [15, 15, 15]
    done = cluster.ctl("sio", "scale", "workers", "2")
    assert done.returncode == 0 and "supervisorctl sio rebalance spreads them" in done.stdout
    assert rebalance(cluster)["closed"] == 7  # as soon as it says so
    is_spread(cluster, 45)
    come_back(visitors, 7)
