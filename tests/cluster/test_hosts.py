"""Several supervisords, joined through a real Redis."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import socketio

from supervisor_sio import ZmqManager

from .conftest import Clients, ClusterFactory
from .harness import Cluster, free_port, wait_until
from .modes import ANY_MODE, NO_WORKER
from .recorder import TestClient

pytestmark = [ANY_MODE, pytest.mark.long]

#: Messages that may wait for Redis here, and more than that.
FEW = 5_000
FLOOD = 12_000

#: The command, with a smaller bound.
SMALL = f"""\
#!{sys.executable}
import sys
from supervisor_sio.common import limits
limits.BRIDGE_MOST_WAITING = {FEW}
from supervisor_sio.cli import main
sys.exit(main())
"""

SMALL_ROUTER = """
[eventlistener:sio]
command = {command} router
events = PROCESS_STATE
stderr_logfile = %(here)s/router.log
"""


class Redis:
    """A redis-server of its own, that can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.socket = directory / "redis.sock"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://user:secret@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = {
            "port": str(self.port),
            "unixsocket": str(self.socket),
            "save": "",
            "dir": str(self._directory),
            "logfile": str(self._directory / "redis.log"),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        acl = ["--user", "user", "on", ">secret", "~*", "&*", "+@all"]
        self._process = subprocess.Popen(["redis-server", *words, *acl])
        client = redis.Redis.from_url(self.url)

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

        wait_until(answers, 60, "redis")
        client.close()

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain("no redis-server: install Debian's redis-server")
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


class Host:
    """One supervisord with two workers, and clients of it."""

    def __init__(self, cluster: Cluster, clients: Clients) -> None:
        self.cluster = cluster
        plan = [("node", ["websocket"]), ("python", ["polling"])] * 2
        self.clients = [clients.connect(cluster, *kind) for kind in plan]
        by_pid = {client.whoami()["pid"]: client for client in self.clients}
        assert len(by_pid) == 2
        self.emitter = next(iter(by_pid.values()))

    @property
    def queue(self) -> dict[str, Any]:
        figures: dict[str, Any] = self.cluster.status()["queue"]
        return figures

    def emit(self, event: str, data: Any, **options: Any) -> None:
        self.emitter.call("emit_all", event, data, options)


def knows_another(cluster: Cluster) -> Callable[[], bool]:
    return lambda: bool(cluster.status()["queue"]["hosts"])


def join(clusters: list[Cluster], clients: Clients) -> list[Host]:
    for cluster in clusters:
        wait_until(knows_another(cluster), 60, "the other host")
    return [Host(cluster, clients) for cluster in clusters]


@pytest.fixture(scope="module")
def two_clusters(
    make_module_cluster: ClusterFactory, queue: Redis, tmp_path_factory: pytest.TempPathFactory
) -> list[Cluster]:
    small = tmp_path_factory.mktemp("small") / "supervisor-sio"
    small.write_text(SMALL)
    small.chmod(0o755)
    options: dict[str, Any] = {
        "message_queue": queue.url,
        "command": "supervisor-sio worker counting_app:app",
        "router": False,
        "extra": SMALL_ROUTER.format(command=small),
    }
    return [make_module_cluster(**options).start() for _ in "ab"]


@pytest.fixture
def hosts(two_clusters: list[Cluster], clients: Clients) -> list[Host]:
    for cluster in two_clusters:
        cluster.wait_ready()
    return join(two_clusters, clients)


def everybody(hosts: list[Host]) -> list[TestClient]:
    return [client for host in hosts for client in host.clients]


def expect(hosts: list[Host], event: str, got: dict[str, list[Any]]) -> None:
    """Who has got what, once a later emit of each host has come everywhere."""
    for host in hosts:
        marker = f"marker-{event}-{host.cluster.port}"
        host.emit(marker, 0)
        for client in everybody(hosts):
            client.wait_for(marker)
    received = {client.name: client.received(event) for client in everybody(hosts)}
    assert received == {name: got.get(name, []) for name in received}


def test_what_one_host_emits_reaches_the_clients_of_both(hosts: list[Host]) -> None:
    names = [client.name for client in everybody(hosts)]
    for number, host in enumerate(hosts):
        for data in ("text", {"b": [b"\x00\xff"], "n": 1}, [1, 2], None):
            event = f"news-{number}-{type(data).__name__}"
            host.emit(event, data)
            expect(hosts, event, dict.fromkeys(names, [[] if data is None else [data]]))
    host.emitter.call("emit_all", "args", [1, b"2", {}], {}, True)
    expect(hosts, "args", dict.fromkeys(names, [[1, b"2", {}]]))


def test_rooms_and_sids_span_hosts(hosts: list[Host]) -> None:
    here, there = hosts
    target = there.clients[1]
    target.call("join", "red")
    here.emitter.call("join", "red")
    here.emit("to-room", 1, room="red")
    expect(hosts, "to-room", {target.name: [[1]], here.emitter.name: [[1]]})
    here.emit("to-sid", b"2", to=target.sid())
    expect(hosts, "to-sid", {target.name: [[b"2"]]})
    here.emit("skipping", 3, room="red", skip_sid=target.sid())
    expect(hosts, "skipping", {here.emitter.name: [[3]]})
    # An answer finds its way back, with bytes too.
    for question in ("why", b"\x00"):
        answer = here.emitter.call("call_sid", target.sid(), "question", question)
        assert answer == {"from": target.name, "got": [question]}
    # Sids of two workers there, and of nobody.
    sids = {client.whoami()["pid"]: client for client in there.clients}
    both = [client.sid() for client in sids.values()]
    here.emit("to-both", 5, room=both)
    expect(hosts, "to-both", {client.name: [[5]] for client in sids.values()})
    here.emit("to-one", 6, room=[target.sid(), "deadbeef.xxxxxxxxxxxxxxxxxxxx"])
    expect(hosts, "to-one", {target.name: [[6]]})
    here.emitter.call("leave_room_of", target.sid(), "red")
    here.emit("left", 4, room="red")
    expect(hosts, "left", {here.emitter.name: [[4]]})
    here.emitter.call("disconnect_sid", target.sid())
    target.wait_disconnected()


def test_operations_span_hosts(
    make_cluster: ClusterFactory, clients: Clients, queue: Redis
) -> None:
    url = f"unix://user:secret@{queue.socket}"
    options = {"message_queue": url, "channel": "another"}
    hosts = join([make_cluster(**options).start() for _ in range(2)], clients)
    here, there = hosts
    emitter = here.emitter

    def operation(name: str, *args: Any, **kwargs: Any) -> Any:
        outcome = json.loads(emitter.call("operation", name, args, kwargs))
        assert not outcome["timed_out"]
        return outcome["value"]

    wait_until(lambda: operation("server_count") == 4, 60, "four workers")
    sids = {client.sid() for client in everybody(hosts)}
    assert {row["sid"] for row in operation("fetch_sockets")} == sids
    operation("sockets_join", "blue")
    wait_until(lambda: operation("fetch_rooms").get("blue") == 8, 60, "all in blue")
    answers = operation("emit_with_acks", "asked", b"?", room="blue")
    assert {answer["from"] for answer in answers} == {c.name for c in everybody(hosts)}
    # A process that serves nobody asks both hosts.
    asker = ZmqManager(f"zmq+ipc://{here.cluster.run_dir}")
    assert asker.server_count() == 4
    assert {socket.sid for socket in asker.fetch_sockets()} == sids
    client = there.clients[0]
    assert asker.call("asked", 1, to=client.sid()) == {"from": client.name, "got": [1]}
    asker.close()
    # A host that is gone is not waited for.
    there.cluster.stop()
    wait_until(lambda: operation("server_count") == 2, 60, "two workers")
    assert len(operation("fetch_sockets")) == 4


#: It prints what it would send to a client of its own.
STOCK_SERVER = """
import sys, time, socketio
server = socketio.Server(async_mode="threading", client_manager=socketio.RedisManager(sys.argv[1]))
server.manager.get_participants = lambda namespace, room: iter([("sid", "eio_sid")])
server.manager.rooms["/"] = {}
server._send_eio_packet = lambda eio_sid, packet: print(packet.data, flush=True)
server.manager_initialized = True
server.manager.initialize()
while not (server.manager.pubsub and server.manager.pubsub.subscribed):
    time.sleep(0.01)
print("subscribed", flush=True)
time.sleep(60)
"""


@NO_WORKER
def test_stock_python_socketio_emits_into_both_and_hears_us(
    hosts: list[Host], queue: Redis
) -> None:
    names = [client.name for client in everybody(hosts)]
    stock = socketio.RedisManager(queue.url, write_only=True)
    stock.emit("stock", {"b": b"\xff"}, namespace="/")
    stock.emit("stock", "second")
    expect(hosts, "stock", dict.fromkeys(names, [[{"b": b"\xff"}], ["second"]]))
    target = hosts[1].clients[0]
    stock.emit("stock-to", 1, room=target.sid())
    expect(hosts, "stock-to", {target.name: [[1]]})

    listener = subprocess.Popen(
        [sys.executable, "-c", STOCK_SERVER, queue.url], stdout=subprocess.PIPE, text=True
    )
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "subscribed\n"
        hosts[0].emit("to-stock", {"n": 1})
        assert listener.stdout.readline() == '2["to-stock",{"n":1}]\n'
    finally:
        listener.kill()
        listener.wait(10)


@NO_WORKER
def test_redis_is_killed_and_comes_back_under_traffic(hosts: list[Host], queue: Redis) -> None:
    here, there = hosts
    emitted = 0

    def emit_some(count: int) -> None:
        nonlocal emitted
        for _ in range(count):
            here.emit("tick", emitted)
            emitted += 1
            time.sleep(0.01)

    def local() -> int:
        return min(len(client.received("tick")) for client in here.clients)

    emit_some(50)
    queue.kill()
    already = there.queue["missed"]
    wait_until(lambda: here.queue["state"] == "away", 60, "it is noticed")
    # More than may wait for Redis.
    there.clients[0].call("join", "there")
    here.emitter.call("count_to_room", "there", "flood", FLOOD, 0, timeout=60)
    emit_some(100)
    wait_until(lambda: local() == emitted, 60, "local delivery goes on")
    queue.start()
    wait_until(lambda: here.queue["state"] == "connected", 60, "connected again")
    emit_some(100)
    # Those that wait are sent some time after the connection; until then there is no room.
    wait_until(lambda: not here.queue["waiting"], 60, "what has waited is sent")
    here.emit("last", 0)
    for client in everybody(hosts):
        client.wait_for("last", timeout=60)
    missed = emitted + FLOOD
    for event in ("tick", "flood"):
        numbers = [args[0] for args in there.clients[0].received(event)]
        assert numbers == sorted(set(numbers))
        missed -= len(numbers)
    assert missed > 0

    def counted() -> bool:
        return there.queue["missed"] == already + missed

    print(f"emitted {emitted + FLOOD}, missed by the other host {missed}")
    print(f"here {here.queue}, there {there.queue}")
    wait_until(counted, 60, f"{missed} messages are counted as missed")
    wait_until(lambda: here.queue["unsent"] == missed, 60, "and as unsent")
    assert local() == emitted
    assert "secret" not in here.cluster.ctl("sio").stdout
    assert f"queue    redis://127.0.0.1:{queue.port}/0 connected" in here.cluster.ctl("sio").stdout


@NO_WORKER
def test_garbage_on_the_queue_is_counted_and_harms_nobody(hosts: list[Host], queue: Redis) -> None:
    client = redis.Redis.from_url(queue.url)
    garbage = [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"method": 1}',
        b"\x80\x04}\x94.",
        b'{"method": "emit"}',
        b'{"method": "emit", "event": "x", "data": [{"a": 1}], "namespace": 5}',
        b'{"method": "emit", "event": "x", "data": [[], "!"], "binary": true}',
        b'{"method": "callback"}',
        b'{"method": "disconnect"}',
        b'{"method": "relay", "to": null, "fields": {"method": "emit"}, "packets": []}',
        b'{"method": "relay", "to": null, "fields": [], "packets": 7}',
        b'{"method": "members", "via": "bridge-x", "seq": 1, "members": [1, 2]}',
        b"[" * 100_000,
    ]
    before = [host.queue["malformed"] for host in hosts]
    for raw in garbage:
        client.publish("socketio", raw)
    for host, count in zip(hosts, before):
        wait_until(
            lambda host=host, count=count: host.queue["malformed"] == count + len(garbage),
            60,
            "all are counted",
        )
    hosts[0].emit("after", 1)
    expect(hosts, "after", {client.name: [[1]] for client in everybody(hosts)})
    client.close()


def test_the_router_of_one_host_is_killed(hosts: list[Host]) -> None:
    here, there = hosts
    old = here.cluster.router_pid
    os.kill(old, signal.SIGKILL)
    for number in range(50):
        here.emit("while-away", number)
    here.cluster.wait_new_router(old)
    here.cluster.wait_ready()
    for host in hosts:
        wait_until(knows_another(host.cluster), 60, "the other host")
    expect(hosts, "while-away", {c.name: [[n] for n in range(50)] for c in everybody(hosts)})
