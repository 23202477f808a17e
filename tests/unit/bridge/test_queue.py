from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator
from unittest.mock import Mock

import pytest
import redis

from supervisor_sio.bridge import queue as module
from supervisor_sio.bridge.queue import RedisQueue
from supervisor_sio.bridge.stream import HostStream
from supervisor_sio.bridge.stream_file import Origin
from supervisor_sio.common import memory_file
from supervisor_sio.common.limits import (
    BRIDGE_BATCH,
    BRIDGE_LONGEST,
    BRIDGE_MOST_ON_THEIR_WAY,
    BRIDGE_MOST_ON_THEIR_WAY_BYTES,
    BRIDGE_MOST_UNNUMBERED,
    BRIDGE_MOST_UNNUMBERED_BYTES,
)
from unit.in_the_middle import Other

# --- without a server -----------------------------------------------------------------


def wait_until(condition: Callable[[], Any], timeout: float = 20) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL at which no server listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://user:secret@127.0.0.1:{taken.getsockname()[1]}/0"


@pytest.fixture
def stream() -> Iterator[HostStream]:
    descriptors = [memory_file.write(name, b"") for name in memory_file.HOST_FILES]
    yield HostStream(descriptors, 0.0)
    for descriptor in descriptors:
        os.close(descriptor)


def put(queue: RedisQueue, *messages: bytes) -> None:
    """Add messages to its stream."""
    for message in messages:
        number = queue._stream.last + 1
        queue._stream.add(Origin("w", False, number, 0.0), lambda _, data=message: data)
    queue.wake()


def test_what_has_no_number_is_bounded(nobody: str, stream: HostStream) -> None:
    queue = RedisQueue(nobody, "socketio", stream, Mock())
    queue.say(b"x")
    assert not queue._unnumbered, "nobody would take it"
    queue.connected = True
    for _ in range(BRIDGE_MOST_UNNUMBERED + 2):
        queue.say(b"x")
    assert len(queue._unnumbered) == BRIDGE_MOST_UNNUMBERED


def test_what_has_no_number_is_bounded_in_bytes(nobody: str, stream: HostStream) -> None:
    queue = RedisQueue(nobody, "socketio", stream, Mock())
    queue.connected = True
    half = bytes(BRIDGE_MOST_UNNUMBERED_BYTES // 2)
    for data in (half, half, b"x", b""):
        queue.say(data)
    assert list(queue._unnumbered) == [half, half, b""]


def test_a_long_message_that_was_missed_can_be_sent_again(nobody: str, stream: HostStream) -> None:
    """Else all later messages of this host would wait for it at the other one, for ever."""
    queue = RedisQueue(nobody, "socketio", stream, Mock())
    queue.connected = True
    long = bytes(BRIDGE_MOST_UNNUMBERED_BYTES + 1)
    assert len(long) < BRIDGE_LONGEST
    for data in (bytes(BRIDGE_LONGEST + 1), long, b"x"):
        queue.say(data)
    assert list(queue._unnumbered) == [long]


def test_what_comes_while_a_batch_is_published_is_counted(
    nobody: str, stream: HostStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Long(bytes):
        """A message; another thread adds one when its length is looked at."""

        look = bytes.__len__

        def __len__(self) -> int:
            return type(self).look(self)

    monkeypatch.setattr(module, "BRIDGE_MOST_UNNUMBERED_BYTES", 10)
    queue = RedisQueue(nobody, "socketio", stream, Mock())
    queue.connected = True
    queue.say(Long(b"x"))
    other = Other(queue, queue.say, bytes(8), lock="_changed")
    other.interrupt(monkeypatch, Long, "look")
    monkeypatch.setattr(queue._broker, "publish", lambda messages: [1] * len(messages))
    queue._publish_batch()
    other.result()
    queue.say(bytes(3))
    assert [*queue._unnumbered] == [bytes(8)], "eight of ten bytes are in use"


def test_without_a_server_it_waits_and_ends(
    nobody: str, stream: HostStream, caplog: pytest.LogCaptureFixture
) -> None:
    queue = RedisQueue(nobody, "socketio", stream, Mock())
    queue.start()
    put(queue, b"x")
    wait_until(lambda: caplog.records)
    time.sleep(0.5)
    (record,) = caplog.records  # it tries again, and says so once
    assert record.getMessage().startswith("redis://127.0.0.1:")
    assert "is away, trying again" in record.getMessage()
    assert "secret" not in record.getMessage()
    assert (queue.connected, stream.waiting) == (False, 1)
    began = time.monotonic()
    queue.close()
    assert time.monotonic() - began < 10
    assert not any(thread.is_alive() for thread in queue._threads)


# --- with one ---------------------------------------------------------------------------


class Server:
    """A redis-server on a Unix socket, that can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{directory}/redis.sock"

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--save", "", "--dir", str(self.directory)]
        command += ["--unixsocket", f"{self.directory}/redis.sock"]
        command += ["--logfile", f"{self.directory}/redis.log"]
        self._process = subprocess.Popen(command)
        client = redis.Redis.from_url(self.url)

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

        wait_until(answers)
        client.close()

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Starts a server in a new directory."""
    if shutil.which("redis-server") is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain("no redis-server: install Debian's redis-server")
    made: list[Server] = []

    def make(name: str) -> Server:
        (tmp_path / name).mkdir()
        made.append(Server(tmp_path / name))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def server(make_server: Callable[[str], Server]) -> Server:
    return make_server("redis")


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def queue(server: Server, stream: HostStream, heard: list[bytes]) -> Iterator[RedisQueue]:
    def receive(data: bytes) -> None:
        heard.append(data)
        made.came_back(len(heard))

    made = RedisQueue(server.url, "chat", stream, receive)
    made.start()
    wait_until(lambda: made.connected)
    yield made
    made.close()


def test_messages_come_in_order(queue: RedisQueue, heard: list[bytes]) -> None:
    messages = [b"%d\xff" % number for number in range(1000)]
    put(queue, *messages)
    wait_until(lambda: len(heard) == len(messages))
    assert heard == messages
    queue.say(b"not counted")
    wait_until(lambda: len(heard) == len(messages) + 1)
    wait_until(lambda: queue.sent == len(messages))
    assert queue._stream.waiting == 0


def test_as_many_are_on_their_way_as_may_be(
    server: Server, stream: HostStream, heard: list[bytes]
) -> None:
    queue = RedisQueue(server.url, "chat", stream, heard.append, silence=60)
    queue.start()
    wait_until(lambda: queue.connected)
    put(queue, *[b"x"] * (BRIDGE_MOST_ON_THEIR_WAY + 500))
    wait_until(lambda: queue.sent == BRIDGE_MOST_ON_THEIR_WAY)
    queue.say(b"these may pass")
    wait_until(lambda: heard and heard[-1] == b"these may pass")
    assert stream.waiting == 500 and queue.sent == BRIDGE_MOST_ON_THEIR_WAY
    queue.came_back(400)
    wait_until(lambda: stream.waiting == 100)
    queue.came_back(queue.sent)
    wait_until(lambda: stream.waiting == 0)
    wait_until(lambda: len(heard) == BRIDGE_MOST_ON_THEIR_WAY + 501)
    queue.close()


def test_so_many_bytes_are_on_their_way_as_may_be(
    server: Server, stream: HostStream, heard: list[bytes]
) -> None:
    """They wait in Redis for each host that is slow to receive."""
    size = 100_000
    queue = RedisQueue(server.url, "chat", stream, heard.append, silence=60)
    queue.start()
    wait_until(lambda: queue.connected)
    count = 2 * BRIDGE_MOST_ON_THEIR_WAY_BYTES // size
    put(queue, *[bytes(size)] * count)
    wait_until(lambda: len(heard) * size >= BRIDGE_MOST_ON_THEIR_WAY_BYTES and not queue._due)
    queue.say(b"these may pass")
    wait_until(lambda: b"these may pass" in heard)
    wait_until(lambda: len(heard) == stream.given + 1)
    assert stream.given * size < BRIDGE_MOST_ON_THEIR_WAY_BYTES + BRIDGE_BATCH
    while stream.waiting:
        queue.came_back(stream.given)
        time.sleep(0.01)
    wait_until(lambda: len(heard) == count + 1)
    queue.came_back(stream.given)
    assert queue._bytes_on_their_way == 0
    queue.close()


def test_a_number_that_was_never_used_does_not_come_back(
    queue: RedisQueue, heard: list[bytes]
) -> None:
    """Anybody may have published it; as many as ever would be on their way."""
    put(queue, b"x")
    wait_until(lambda: heard)
    queue.came_back(2**53)
    assert queue._returned == queue._stream.given == 1


def test_it_rests_after_the_messages_that_arrive_together(
    server: Server, stream: HostStream
) -> None:
    heard: list[bytes] = []
    rests: list[int] = []

    def rest() -> None:
        rests.append(len(heard))
        raise RuntimeError("of the receiver")

    queue = RedisQueue(server.url, "chat", stream, heard.append, rest)
    queue.start()
    wait_until(lambda: queue.connected)
    count = 10 * module._BATCH
    client = redis.Redis.from_url(server.url)
    pipeline = client.pipeline(transaction=False)
    for _ in range(count):
        pipeline.publish("chat", b"x")
    pipeline.execute()
    wait_until(lambda: rests and rests[-1] == count)
    assert all(after - before <= module._BATCH for before, after in zip([0, *rests], rests))
    assert len(rests) <= count // 2 and queue.connected
    client.publish("chat", b"one")
    wait_until(lambda: rests[-1] == count + 1)
    client.close()
    queue.close()


class SlowNetwork:
    """Between a server and its clients; after a ``|`` of the server it pauses."""

    def __init__(self, server: Server, path: Path) -> None:
        self.url = f"unix://{path}"
        self._server = server.url[len("unix://") :]
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError), self._listener:
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                before, mark, after = data.partition(b"|")
                target.sendall(before + mark)
                if after:
                    time.sleep(0.1)
                    target.sendall(after)


def test_a_message_may_arrive_in_parts(
    server: Server,
    stream: HostStream,
    heard: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = redis.Redis.from_url(server.url)
    network = SlowNetwork(server, tmp_path / "slow")
    queue = RedisQueue(network.url, "chat", stream, heard.append)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_TICK", 20)  # the machine may be slow, too
        queue.start()
        wait_until(lambda: queue.connected)
        pipeline = client.pipeline(transaction=False)
        pipeline.publish("chat", b"1").publish("chat", b"2|3")
        pipeline.execute()
        wait_until(lambda: len(heard) == 2)
    client.publish("chat", b"4")
    wait_until(lambda: len(heard) == 3)
    assert heard == [b"1", b"2|3", b"4"] and queue.connections == 1
    queue.close()
    network.close()
    client.close()


def test_messages_to_another_server_than_the_subscribed_one_are_sent_again(
    server: Server,
    stream: HostStream,
    heard: list[bytes],
    make_server: Callable[[str], Server],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The former master is back before Sentinel has replaced it, and lets us subscribe."""
    monkeypatch.setattr(module, "_OTHERS_FIRST", 0.0)
    monkeypatch.setattr(module, "_LONGEST_RETRY", 0.05)
    new = make_server("new")
    queue = RedisQueue(server.url, "chat", stream, heard.append, silence=60)
    queue.start()
    wait_until(lambda: queue.connected)
    put(queue, b"1")
    wait_until(lambda: heard)
    former = queue._broker._client  # as long as this is kept, its subscription goes on
    queue._broker._client = redis.Redis.from_url(new.url)
    put(queue, b"2", b"3")
    wait_until(lambda: len(heard) == 3)
    assert heard == [b"1", b"2", b"3"] and queue.connections == 2
    wait_until(lambda: queue.sent == 3)
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert record.getMessage() == (
        f"{queue._shown} is away, trying again: messages are published to another server"
    )
    queue.close()
    former.close()


def test_a_redis_that_never_counts_receivers_is_believed(
    server: Server, stream: HostStream, heard: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = RedisQueue(server.url, "chat", stream, heard.append)
    publish = queue._broker.publish
    monkeypatch.setattr(queue._broker, "publish", lambda data: [0 * one for one in publish(data)])
    queue.start()
    wait_until(lambda: queue.connected)
    put(queue, b"1")
    wait_until(lambda: heard)
    put(queue, b"2")
    wait_until(lambda: queue.sent == 2)
    assert heard == [b"1", b"2"] and queue.connections == 1
    queue.close()


def test_messages_that_come_back_have_reached_somebody(
    server: Server, stream: HostStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cluster behind one address: a node counts only those that subscribed at it."""
    heard: list[bytes] = []

    def receive(data: bytes) -> None:
        heard.append(data)
        queue.came_back(len(heard))

    queue = RedisQueue(server.url, "chat", stream, receive)
    publish, counts = queue._broker.publish, (1, 0, 1, 0)
    monkeypatch.setattr(
        queue._broker, "publish", lambda data: [counts[queue.sent] * n for n in publish(data)]
    )
    queue.start()
    wait_until(lambda: queue.connected)
    for number in range(1, len(counts) + 1):
        put(queue, b"%d" % number)
        wait_until(lambda number=number: queue.sent == len(heard) == number)
    assert heard == [b"1", b"2", b"3", b"4"] and queue.connections == 1
    queue.close()


def test_other_channels_are_not_heard(
    queue: RedisQueue, server: Server, heard: list[bytes]
) -> None:
    client = redis.Redis.from_url(server.url)
    client.publish("socketio", b"other")
    client.publish("chat", b"this")
    wait_until(lambda: heard)
    assert heard == [b"this"]
    client.close()


def test_a_receiver_that_fails_does_not_cut_the_connection(
    server: Server, stream: HostStream, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    def receive(data: bytes) -> None:
        heard.append(data)
        raise RuntimeError("of the receiver")

    queue = RedisQueue(server.url, "chat", stream, receive)
    queue.start()
    wait_until(lambda: queue.connected)
    put(queue, b"x", b"x", b"x")
    wait_until(lambda: len(heard) == 3)
    assert queue.connected
    assert "is away" not in caplog.text
    queue.close()


def test_close_publishes_what_waits(
    queue: RedisQueue, server: Server, stream: HostStream, heard: list[bytes]
) -> None:
    client = redis.Redis.from_url(server.url)
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe("chat")
    subscription.get_message(timeout=5)
    put(queue, *[b"x"] * 500)
    queue.close()
    assert (queue.sent, stream.waiting) == (500, 0)
    received: list[Any] = []
    wait_until(lambda: received.append(subscription.get_message(timeout=1)) or len(received) >= 500)
    assert {message["data"] for message in received if message} == {b"x"}
    subscription.close()
    client.close()


def test_close_waits_for_what_must_come_back_before_the_rest_is_published(
    server: Server, stream: HostStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BRIDGE_MOST_ON_THEIR_WAY", 10)

    def receive(data: bytes) -> None:
        time.sleep(0.01)
        queue.came_back(int(data))

    queue = RedisQueue(server.url, "chat", stream, receive)
    queue.start()
    wait_until(lambda: queue.connected)
    put(queue, *[b"%d" % number for number in range(1, 51)])
    queue.close(timeout=20)
    assert (queue.sent, stream.waiting) == (50, 0)


def test_a_silent_connection_is_given_up(
    server: Server, stream: HostStream, heard: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    queue = RedisQueue(server.url, "chat", stream, heard.append, silence=0.2)
    queue.start()
    wait_until(lambda: "is away, trying again: no message arrives" in caplog.text)
    wait_until(lambda: queue.connected)
    queue.close()


def test_what_is_confirmed_and_does_not_come_back_went_elsewhere(
    server: Server,
    stream: HostStream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server that another one has replaced behaves like this."""
    monkeypatch.setattr(module, "_OTHERS_FIRST", 0.0)
    ours = threading.Event()
    heard: list[bytes] = []

    def receive(data: bytes) -> None:
        heard.append(data)
        if ours.is_set():
            queue.came_back(0)

    queue = RedisQueue(server.url, "chat", stream, receive, silence=0.5)
    queue.start()
    wait_until(lambda: queue.connected)

    def told() -> bool:
        queue.say(b"x")  # so it is not silent
        return "confirmed messages do not come back" in caplog.text

    wait_until(told)
    ours.set()
    caplog.clear()
    wait_until(lambda: queue.connected)
    count = len(heard)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        queue.say(b"x")
        time.sleep(0.02)
    assert len(heard) > count and "do not come back" not in caplog.text
    queue.close()


def test_own_messages_come_back_late_to_a_host_that_is_slow_to_receive(
    server: Server, stream: HostStream
) -> None:
    connections: list[int] = []

    def receive(data: bytes) -> None:
        time.sleep(0.001)
        if data == b"own":
            connections.append(queue.connections)
            queue.came_back(0)

    queue = RedisQueue(server.url, "chat", stream, receive, silence=0.3)
    queue.start()
    wait_until(lambda: queue.connected)
    client = redis.Redis.from_url(server.url)
    pipeline = client.pipeline(transaction=False)
    for _ in range(1000):
        pipeline.publish("chat", b"other")
    pipeline.execute()
    queue.say(b"own")
    wait_until(lambda: connections)
    assert connections == [1]
    queue.close()
    client.close()


def test_redis_goes_and_comes_back(
    queue: RedisQueue, server: Server, heard: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OTHERS_FIRST", 0.3)
    arrived: list[float] = []
    received = queue._received
    monkeypatch.setattr(
        queue, "_received", lambda data: (arrived.append(time.monotonic()), received(data))
    )
    put(queue, b"before")
    wait_until(lambda: heard)
    server.kill()
    wait_until(lambda: not queue.connected)
    put(queue, b"meanwhile")
    server.start()
    wait_until(lambda: len(heard) == 2)
    assert arrived[1] - queue._connected_at >= 0.3  # others may take as long to come back
    assert heard == [b"before", b"meanwhile"]
    assert queue._stream.waiting == 0


def test_what_redis_does_not_confirm_is_not_published_again(
    queue: RedisQueue,
    heard: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Redis may have it, and stock servers would get it twice."""
    monkeypatch.setattr(module, "_LONGEST_RETRY", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(queue._broker, "publish", Mock(side_effect=ConnectionResetError("as told")))
        put(queue, b"1")
        wait_until(lambda: queue._stream.waiting == 0)
        put(queue, b"2")
        wait_until(lambda: queue._stream.waiting == 0)
    put(queue, b"3")
    wait_until(lambda: heard)
    assert heard == [b"3"] and queue._stream.again(1, 2).messages == [b"1", b"2"]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{queue._shown} has not confirmed all, other hosts ask for what they lack: as told"
    )


def is_full(client: redis.Redis, directory: Path) -> None:
    client.config_set("maxmemory", 1)


def cannot_save(client: redis.Redis, directory: Path) -> None:
    client.config_set("save", "3600 1")
    (directory / "dump.rdb").mkdir()  # where the file would be
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")


def is_a_replica(client: redis.Redis, directory: Path) -> None:
    client.config_set("replica-serve-stale-data", "no")
    client.replicaof("127.0.0.1", 1)


@pytest.mark.parametrize(
    ("becomes", "error"),
    [(is_full, "maxmemory"), (cannot_save, "MISCONF"), (is_a_replica, "read only")],
)
def test_a_redis_that_takes_no_writes_passes_messages_on(
    server: Server,
    stream: HostStream,
    becomes: Callable[[redis.Redis, Path], None],
    error: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Redis itself refuses to write then, and not to publish."""
    client = redis.Redis.from_url(server.url)
    becomes(client, server.directory)
    with pytest.raises(redis.ResponseError, match=error):
        client.set("a", 1)
    heard: list[bytes] = []

    def receive(data: bytes) -> None:
        heard.append(data)
        queue.came_back(len(heard))

    queue = RedisQueue(server.url, "chat", stream, receive)
    queue.start()
    put(queue, b"1", b"2")
    wait_until(lambda: len(heard) == 2)
    assert heard == [b"1", b"2"] and not queue.refused and not caplog.records
    queue.close()
    client.close()


REFUSALS = [
    redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
    redis.exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_what_redis_refuses_is_tried_again(
    queue: RedisQueue,
    heard: list[bytes],
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "_LONGEST_RETRY", 0.01)
    tries: list[list[bytes]] = []

    def refuse(messages: list[bytes]) -> list[Any]:
        tries.append(messages)
        return [1 if data == b"1" else error for data in messages]

    with monkeypatch.context() as patch:
        patch.setattr(queue._broker, "publish", refuse)
        put(queue, b"1", b"2", b"3")
        wait_until(lambda: len(tries) > 5)
        wait_until(lambda: queue.sent == 1)
    wait_until(lambda: len(heard) == 2)
    assert heard == [b"2", b"3"]
    assert queue.refused >= 2 * 4
    (record,) = caplog.records
    assert record.getMessage() == f"{queue._shown} refuses messages, trying again: {error}"


@pytest.mark.parametrize("meanwhile", ["nothing", "connects anew"])
@pytest.mark.parametrize("result", [REFUSALS[0], 0], ids=["refused", "reached nobody"])
def test_what_nobody_got_is_not_on_its_way(
    nobody: str, stream: HostStream, result: Any, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not come back: as much as ever may still be sent."""
    queue = RedisQueue(nobody, "socketio", stream, Mock())
    queue._receivers_are_counted = True

    def publish(messages: list[bytes]) -> list[Any]:
        if meanwhile == "connects anew":
            queue.connected = False
            queue._found()
        return [result] * len(messages)

    monkeypatch.setattr(queue._broker, "publish", publish)
    put(queue, bytes(BRIDGE_MOST_ON_THEIR_WAY_BYTES))
    monkeypatch.setattr(module, "_LONGEST_RETRY", 0.01)
    for _ in range(3):
        assert queue._due
        queue._publish_batch()
        assert queue._room == BRIDGE_MOST_ON_THEIR_WAY
    assert queue._bytes_on_their_way == 0 and stream.waiting == 1


def test_a_redis_that_lets_us_publish_no_more(server: Server, stream: HostStream) -> None:
    client = redis.Redis.from_url(server.url)
    client.acl_setuser("chat", enabled=True, nopass=True, channels=["*"], commands=["+@all"])
    heard: list[bytes] = []
    url = server.url.replace("unix://", "unix://chat:any@")
    queue = RedisQueue(url, "chat", stream, heard.append)
    queue.start()
    wait_until(lambda: queue.connected)
    client.acl_setuser("chat", enabled=True, commands=["-publish"])
    put(queue, b"1", b"2")
    wait_until(lambda: queue.refused)
    assert queue.connected
    wait_until(lambda: stream.waiting == 2)  # but for the moments in which it tries
    client.acl_setuser("chat", enabled=True, commands=["+publish"])
    wait_until(lambda: len(heard) == 2)
    assert heard == [b"1", b"2"]
    wait_until(lambda: queue.sent == 2)
    queue.close()
    client.close()


def test_a_redis_that_never_lets_us_publish_is_told_of_once(
    server: Server,
    stream: HostStream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No message comes back, so each connection in turn seems dead."""
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "_TICK", 0.02)
    monkeypatch.setattr(module, "_OTHERS_FIRST", 0.0)
    monkeypatch.setattr(module, "_LONGEST_RETRY", 0.05)
    client = redis.Redis.from_url(server.url)
    client.acl_setuser(
        "chat", enabled=True, nopass=True, channels=["*"], commands=["+@all", "-publish"]
    )
    url = server.url.replace("unix://", "unix://chat:any@")
    queue = RedisQueue(url, "chat", stream, lambda data: queue.came_back(1), silence=0.3)
    queue.start()
    put(queue, b"1")
    wait_until(lambda: queue.refused and queue.connections > 5)
    words = ("connected to", "refuses messages", "no message arrives", "connected to")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(words), lines
    assert all(sum(word in line for line in lines) == words.count(word) for word in words), lines
    client.acl_setuser("chat", enabled=True, commands=["+publish"])
    wait_until(lambda: queue._returned == 1)
    caplog.clear()
    wait_until(lambda: "is away, trying again: no message arrives" in caplog.text)
    queue.close()
    client.close()


def test_who_is_not_let_in_has_sent_nothing(
    server: Server, stream: HostStream, caplog: pytest.LogCaptureFixture
) -> None:
    client = redis.Redis.from_url(server.url)
    client.acl_setuser(
        "chat", enabled=True, passwords=["+secret"], channels=["*"], commands=["+@all"]
    )
    heard: list[bytes] = []
    queue = RedisQueue(server.url.replace("://", "://chat:secret@"), "chat", stream, heard.append)
    queue.start()
    wait_until(lambda: queue.connected)
    client.acl_setuser("chat", enabled=False)
    queue._broker.renew()
    put(queue, b"1", b"2")
    wait_until(lambda: "cannot be reached to publish, trying again: " in caplog.text)
    assert stream.waiting == 2 and "secret" not in caplog.text
    client.acl_setuser("chat", enabled=True)
    wait_until(lambda: len(heard) == 2)
    assert heard == [b"1", b"2"]
    wait_until(lambda: queue.sent == 2)
    queue.close()
    client.close()
