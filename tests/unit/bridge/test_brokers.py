"""A Redis Cluster of three nodes, on loopback."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import redis

from supervisor_sio.bridge import queue as module
from supervisor_sio.bridge.brokers import Broker
from supervisor_sio.bridge.queue import RedisQueue
from supervisor_sio.bridge.stream import HostStream
from supervisor_sio.bridge.stream_file import Origin
from supervisor_sio.common import memory_file

#: The slots of a cluster; each node has a third.
SLOTS = 16384


def wait_until(condition: Callable[[], Any], timeout: float = 30) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Free ports whose cluster bus ports, 10,000 higher, are free as well."""
    found: list[int] = []
    # Other tests call random.seed(), after which the module gives the same ports again.
    dice = random.SystemRandom()
    while len(found) < count:
        port = dice.randrange(15000, 22000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10000))
            if port not in found:
                found.append(port)
    return found


class Node:
    def __init__(self, directory: Path, port: int) -> None:
        directory.mkdir()
        self.port = port
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(port=port, socket_timeout=10)

    def start(self) -> None:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "cluster-enabled": "yes",
            "cluster-node-timeout": "2000",
            "save": "",
            "dir": str(self._directory),
            "logfile": "log",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(["redis-server", *words])
        wait_until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    @property
    def id(self) -> str:
        return str(self.client.execute_command("CLUSTER MYID").decode())

    @property
    def is_well(self) -> bool:
        info = self.client.execute_command("CLUSTER INFO")
        return "ok" in (info.get("cluster_state"), info.get(b"cluster_state"))

    @property
    def subscribers(self) -> int:
        """The subscribers of the shard channel at this node."""
        return dict(self.client.pubsub_shardnumsub("chat")).get(b"chat", 0)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    if shutil.which("redis-server") is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain("no redis-server: install Debian's redis-server")
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    if int(version.partition("v=")[2].partition(".")[0]) < 7:
        pytest.skip("sharded pub/sub is of Redis 7")
    directory = tmp_path_factory.mktemp("nodes")
    made = [Node(directory / str(port), port) for port in free_ports(3)]
    try:
        for number, node in enumerate(made):
            node.start()
            node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        for node in made[1:]:
            made[0].client.execute_command("CLUSTER MEET", "127.0.0.1", node.port)
        wait_until(lambda: all(node.is_well for node in made))
        yield made
    finally:
        for node in made:
            node.kill()


@pytest.fixture
def stream() -> Iterator[HostStream]:
    descriptors = [memory_file.write(name, b"") for name in memory_file.HOST_FILES]
    yield HostStream(descriptors, 0.0)
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def queue(
    nodes: list[Node], stream: HostStream, heard: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> Iterator[RedisQueue]:
    monkeypatch.setattr(module, "_OTHERS_FIRST", 0.2)
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)

    def receive(data: bytes) -> None:
        heard.append(data)
        made.came_back(len(heard))

    made = RedisQueue(url, "chat", stream, receive, silence=60)
    made.start()
    wait_until(lambda: made.connected)
    yield made
    made.close()


def put(queue: RedisQueue, *messages: bytes) -> None:
    for message in messages:
        number = queue._stream.last + 1
        queue._stream.add(Origin("w", False, number, 0.0), lambda _, data=message: data)
    queue.wake()


def owner(nodes: list[Node]) -> Node:
    """The node that owns the channel."""
    (found,) = [node for node in nodes if node.subscribers]
    return found


def test_messages_go_through_one_shard(
    queue: RedisQueue, nodes: list[Node], heard: list[bytes]
) -> None:
    messages = [b"%d" % number for number in range(1000)]
    put(queue, *messages)
    wait_until(lambda: len(heard) == 1000)
    assert heard == messages
    assert [node.subscribers for node in nodes].count(1) == 1


def test_who_knows_of_no_shards_is_heard(
    queue: RedisQueue, nodes: list[Node], heard: list[bytes]
) -> None:
    for node in nodes:
        node.client.publish("chat", b"stock")
    wait_until(lambda: len(heard) == len(nodes))
    assert heard == [b"stock"] * len(nodes)


def test_the_channel_moves_to_another_node(
    queue: RedisQueue, nodes: list[Node], heard: list[bytes]
) -> None:
    before = owner(nodes)
    after = next(node for node in nodes if node is not before)
    slot = before.client.execute_command("CLUSTER KEYSLOT", "chat")
    put(queue, b"1")
    wait_until(lambda: heard)
    for node in (after, before, *nodes):
        node.client.execute_command(f"CLUSTER SETSLOT {slot} NODE", after.id)
    put(queue, b"2", b"3")
    wait_until(lambda: after.subscribers == 1)
    wait_until(lambda: queue.sent == 3 or queue._stream.waiting == 0)
    put(queue, b"4")
    wait_until(lambda: heard[-1] == b"4")
    assert heard == sorted(set(heard))


def test_the_node_of_the_channel_is_killed_and_comes_back(
    queue: RedisQueue, nodes: list[Node], heard: list[bytes]
) -> None:
    node = owner(nodes)
    put(queue, b"1")
    wait_until(lambda: heard)
    node.kill()
    wait_until(lambda: not queue.connected)
    put(queue, b"2")
    node.start()
    wait_until(lambda: len(heard) == 2)
    assert heard == [b"1", b"2"]


def test_an_answer_that_the_channel_is_elsewhere_is_a_refusal(nodes: list[Node]) -> None:
    broker = Broker(f"redis+cluster://127.0.0.1:{nodes[0].port}", "chat")
    broker.connect()
    right = broker._cluster.get_node_from_key("chat")
    wrong = next(n for n in broker._cluster.get_nodes() if n.port != right.port)
    broker._node = lambda: (broker._cluster.get_redis_connection(wrong), "SPUBLISH")
    (result,) = broker.publish([b"x"])
    assert isinstance(result, redis.exceptions.ResponseError)
