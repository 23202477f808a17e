"""The metrics as Prometheus reads them, against what clients see."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from .conftest import Clients, ClusterFactory
from .harness import Cluster, free_port, wait_until
from .modes import ANY_MODE, NO_WORKER
from .raw import exchange
from .test_bad_input import SECTION, the_error
from .test_hosts import Redis, queue

__all__ = ["queue"]  # a fixture

PREFIX = "supervisor_sio_"


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Cluster:
    return with_metrics(make_module_cluster, workers=3, event_metrics="on").start()


@pytest.fixture(autouse=True)
def all_workers_stay(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test of the shared cluster finds, it leaves."""
    yield
    if "cluster" in request.fixturenames:
        shared: Cluster = request.getfixturevalue("cluster")
        shared.wait_ready()


def with_metrics(make: ClusterFactory, **options: object) -> Cluster:
    return make(metrics=f"127.0.0.1:{free_port()}", **options)


def port_of(cluster: Cluster) -> int:
    return int(cluster.settings["metrics"].rpartition(":")[2])


def get(cluster: Cluster, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(cluster), timeout=20)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Scrape(dict[tuple[str, str], float]):
    """Values by name, without our prefix, and label values in the order of the labels' names."""

    def total(self, name: str) -> float:
        return sum(value for (found, _), value in self.items() if found == name)

    def by(self, name: str) -> dict[str, float]:
        return {label: value for (found, label), value in self.items() if found == name}


def scrape(cluster: Cluster) -> Scrape:
    status, text = get(cluster, "/metrics")
    assert status == 200
    found = Scrape()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix(PREFIX)
            key = name, ",".join(value for _, value in sorted(sample.labels.items()))
            assert key not in found, sample
            found[key] = sample.value
    return found


def wait_for(cluster: Cluster, condition: Callable[[Scrape], object], message: str) -> Scrape:
    found = Scrape()

    def holds() -> bool:
        nonlocal found
        found = scrape(cluster)
        return bool(condition(found))

    try:
        wait_until(holds, 15, message)
    except AssertionError:
        raise AssertionError(f"{message}: {found}") from None
    return found


def health(cluster: Cluster) -> tuple[int, str]:
    return get(cluster, "/healthz")


def test_events_are_counted_by_name(cluster: Cluster, clients: Clients) -> None:
    before = scrape(cluster)
    for client in clients.mixed(cluster, 3):
        client.call("whoami")
        client.emit("made up by a client")

    def counted(found: Scrape, event: str) -> float:
        name = "worker_event_handlers_total"
        rows = (value for (n, labels), value in found.items() if n == name and event in labels)
        return sum(rows)

    found = wait_for(
        cluster,
        lambda s: all(counted(s, e) == counted(before, e) + 3 for e in ("whoami", "(other)")),
        "each is counted",
    )
    assert not any("made up" in labels for _, labels in found)
    # A router that is new has them as well, of workers that are not.
    cluster.end_router("kill")
    cluster.wait_ready()
    wait_for(cluster, lambda s: counted(s, "whoami") >= 3, "they are told again")


def test_sessions_are_what_clients_see(cluster: Cluster, clients: Clients) -> None:
    before = wait_for(cluster, lambda s: s.total("worker_sessions") == 0, "no session")
    made = clients.mixed(cluster, 12)
    seen = Counter(client.call("whoami")["name"] for client in made)
    found = wait_for(
        cluster,
        # The histogram is of now, the counter up to a second old.
        lambda s: (
            s.total("worker_sessions") == 12
            and s["handover_seconds_count", ""] == s["connections_handed_over_total", ""]
        ),
        "sessions",
    )
    sessions = found.by("worker_sessions")
    assert sessions == {name: seen[name.partition(":")[2]] for name in sessions}
    websockets = sum(client.transport == "websocket" for client in made)
    assert found.total("worker_connections") >= websockets > 0
    for name in ("worker_sessions_opened_total", "sessions_placed_total"):
        assert found.total(name) - before.total(name) == 12, name
    over = found["connections_handed_over_total", ""]
    assert over - before["connections_handed_over_total", ""] >= 12
    assert found["handover_seconds_count", ""] == found["handover_seconds_bucket", "+Inf"] == over
    assert 0 < found["handover_seconds_sum", ""] < 60
    clients.close()
    wait_for(cluster, lambda s: s.total("worker_sessions") == 0, "no session")
    wait_for(cluster, lambda s: s.total("worker_connections") == 0, "no connection")


@ANY_MODE
def test_workers_and_router(cluster: Cluster) -> None:
    found = wait_for(cluster, lambda s: s["connections_waiting", ""] == 0, "nobody waits")
    rows = {row["name"]: row for row in cluster.workers()}
    assert len(rows) == 3
    states = [name for name, value in found.by("worker_state").items() if value]
    assert sorted(states) == sorted(f"ready,{name}" for name in rows)
    for name, row in rows.items():
        memory = found["worker_resident_memory_bytes", name] / 1024
        assert memory == pytest.approx(row["memory"], rel=0.5)
        assert found["worker_cpu_seconds_total", name] > 0.05
    assert found["relay_up", ""] == 1
    assert found.total("build_info") == 1
    wait_for(cluster, lambda s: s.total("worker_hub_lag_seconds_count") > 3, "lag")
    assert not found.by("queue_connected")


@ANY_MODE
def test_counters_move_with_traffic(cluster: Cluster, clients: Clients) -> None:
    first, *others = clients.mixed(cluster, 6)
    before = scrape(cluster)
    for number in range(20):
        assert first.call("echo", number) == number
        first.call("emit_all", "news", number, {})
    for client in others:
        client.wait_for("news", 20)
    for _ in range(3):
        assert exchange(cluster.port, b"\x00\r\n\r\n").startswith(b"HTTP/1.1 400 ")

    def moved(name: str, label: str | None = None) -> Callable[[Scrape], float]:
        if label is None:
            return lambda s: s.total(name) - before.total(name)
        return lambda s: s.get((name, label), 0) - before.get((name, label), 0)

    for wanted, measure in (
        (40, moved("worker_events_received_total")),
        (20 + 20 + 20 * 6, moved("worker_events_sent_total")),
        (20, moved("relay_messages_total")),
        (40, moved("relay_delivered_total")),
        (3, moved("connections_refused_total", "garbage")),
    ):
        wait_for(cluster, lambda s, m=measure, w=wanted: m(s) >= w, f"{wanted} more")  # type: ignore[misc]
    found = scrape(cluster)
    assert moved("connections_refused_total", "garbage")(found) == 3
    assert moved("worker_cpu_seconds_total")(found) > 0
    assert not moved("relay_dropped_total")(found)


@NO_WORKER
def test_a_waiting_connection(make_cluster: ClusterFactory) -> None:
    cluster = with_metrics(make_cluster, workers=1).start()
    assert health(cluster) == (200, "ok\n")
    assert cluster.ctl("stop", "workers:*").returncode == 0
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(
            exchange, cluster.port, b"GET /pid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        found = wait_for(cluster, lambda s: s["connections_waiting", ""] == 1, "it waits")
        assert not found.by("worker_sessions")
        assert cluster.ctl("start", "workers:*").returncode == 0
        assert answer.result().startswith(b"HTTP/1.1 200 ")
    found = wait_for(cluster, lambda s: s["connections_waiting", ""] == 0, "it waits no more")
    # It waited while a program was stopped and started.
    assert found["handover_seconds_sum", ""] > 0.1
    assert found["handover_seconds_bucket", "0.1"] < found["handover_seconds_count", ""]


@pytest.mark.long
@NO_WORKER
def test_the_queue(make_cluster: ClusterFactory, clients: Clients, queue: Redis) -> None:
    here, there = (
        with_metrics(make_cluster, workers=1, message_queue=queue.url).start() for _ in range(2)
    )
    for cluster in (here, there):
        wait_for(cluster, lambda s: s["queue_hosts", ""] == 1, "the other host")
    emitter, receiver = clients.connect(here), clients.connect(there)
    for number in range(10):
        emitter.call("emit_all", "news", number, {})
    receiver.wait_for("news", 10)
    found = wait_for(here, lambda s: s["queue_sent_total", ""] >= 10, "sent")
    assert found["queue_connected", ""] == 1 and found["queue_unsent_total", ""] == 0
    found = wait_for(there, lambda s: s["queue_received_total", ""] >= 10, "received")
    assert found["queue_missed_total", ""] == found["queue_malformed_total", ""] == 0


@NO_WORKER
def test_health(cluster: Cluster) -> None:
    assert health(cluster) == (200, "ok\n")
    assert cluster.ctl("stop", "workers:*").returncode == 0
    wait_until(lambda: health(cluster) == (503, "no worker is ready\n"), 10, "503")
    wait_for(cluster, lambda s: not s.by("worker_sessions"), "no worker")
    assert cluster.ctl("start", "workers:*").returncode == 0
    wait_until(lambda: health(cluster) == (200, "ok\n"), 20, "200")
    cluster.wait_ready()
    for row in cluster.workers():
        assert cluster.ctl("sio", "drain", row["name"]).returncode == 0
    wait_until(lambda: health(cluster) == (503, "no worker is ready\n"), 10, "503")
    for row in cluster.workers("drained"):
        assert cluster.ctl("sio", "undrain", row["name"]).returncode == 0
    wait_until(lambda: health(cluster) == (200, "ok\n"), 10, "200")


@NO_WORKER
def test_the_port_outlives_the_router(cluster: Cluster, clients: Clients) -> None:
    clients.mixed(cluster, 6)
    opened = wait_for(cluster, lambda s: s.total("worker_sessions") == 6, "sessions").total(
        "worker_sessions_opened_total"
    )
    started = scrape(cluster)["start_time_seconds", ""]
    old = cluster.router_pid
    os.kill(old, signal.SIGKILL)
    assert scrape(cluster)["start_time_seconds", ""] > started  # of the next router
    cluster.wait_new_router(old)
    wait_until(lambda: health(cluster) == (200, "ok\n"), 20, "200")
    found = wait_for(cluster, lambda s: s.total("worker_sessions") == 6, "sessions")
    assert found.total("worker_sessions_opened_total") == opened

    assert cluster.ctl("stop", "sio").returncode == 0
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(scrape, cluster)
        assert cluster.ctl("start", "sio").returncode == 0
        assert answer.result()["relay_up", ""] == 1
    cluster.wait_ready()


def test_garbage_and_idle_connections(cluster: Cluster, clients: Clients) -> None:
    client = clients.connect(cluster)
    router = cluster.router_pid

    def relay_is_complete() -> bool:
        # Of a new router: a socket that listens, and one for each of three workers and the router.
        sockets = psutil.Process(router).net_connections("unix")
        names = [Path(one.laddr).name for one in sockets]
        return names.count("xpub.sock") == names.count("xsub.sock") == 1 + 3 + 1

    wait_until(relay_is_complete, 20, "the workers are connected to the relay")
    descriptors = len(os.listdir(f"/proc/{router}/fd"))
    dice = random.Random(5)
    address = "127.0.0.1", port_of(cluster)
    seeds = [b"GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"]

    def garbage(number: int) -> None:
        data = bytearray(seeds[number % 2] * (1 + number % 3))
        for _ in range(number % 4):
            data[dice.randrange(len(data))] = dice.randrange(256)
        with socket.create_connection(address, timeout=20) as sock:
            if number % 3 == 0:  # close with a reset
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            try:
                sock.sendall(data)
                if number % 2:
                    sock.shutdown(socket.SHUT_WR)
                    sock.recv(65536)
            except OSError:  # it may not even be connected any more
                pass

    with ExitStack() as idle:
        for number in range(50):
            sock = idle.enter_context(socket.create_connection(address, timeout=20))
            if number % 2:
                sock.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert health(cluster) == (200, "ok\n")
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(garbage, range(500)))
        # Those of the tests before may take a moment to end.
        wait_for(cluster, lambda s: s.total("worker_sessions") == 1, "one session")
        assert client.call("echo", 1) == 1
        assert clients.connect(cluster).call("echo", 2) == 2
    assert get(cluster, "/metrics", "HEAD") == (200, "")
    assert get(cluster, "/metrics", "POST") == (405, "use GET or HEAD\n")
    assert get(cluster, "/nowhere") == (404, "only /metrics and /healthz exist\n")
    wait_until(
        # A client that polls leaves a connection that is kept for its next request.
        lambda: len(os.listdir(f"/proc/{router}/fd")) <= descriptors + 3,
        15,
        "no descriptor left",
    )
    assert cluster.router_pid == router
    assert "Traceback" not in cluster.log("router")


@NO_WORKER
def test_a_unix_socket(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1)
    path = cluster.short / "metrics.sock"
    cluster.settings["metrics"] = f"unix:{path}"
    cluster.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
    cluster.stop()
    assert not path.exists()


@NO_WORKER
def test_a_port_in_use(make_cluster: ClusterFactory) -> None:
    cluster = with_metrics(make_cluster)
    with socket.create_server(("127.0.0.1", port_of(cluster))):
        line = the_error(cluster)
    assert f"{SECTION} metrics: {cluster.settings['metrics']}" in line and "in use" in line


@pytest.mark.long
@NO_WORKER
def test_without_the_library(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['prometheus_client'] = None\n"
    )
    wrapper = ["env", f"PYTHONPATH={tmp_path}"]
    cluster = with_metrics(make_cluster, wrapper=wrapper).start()  # clients are served
    fault = f"metrics: needs the prometheus_client package: {sys.executable} -m pip install "
    cluster.wait_log("router", f"{SECTION} {fault}")
    done = cluster.ctl("sio", "status")
    assert done.returncode == 3 and f"fault    {fault}" in done.stdout
