from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Iterator
from unittest.mock import Mock

import pytest
import redis

from supervisor_sio.bridge import queue as module
from supervisor_sio.bridge.queue import RedisQueue

# --- without a server -----------------------------------------------------------------


def wait_until(condition: Callable[[], Any], timeout: float = 20) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://user:secret@127.0.0.1:{taken.getsockname()[1]}/0"


def test_what_waits_is_bounded(
    nobody: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "BRIDGE_MOST_WAITING", 3)
    queue = RedisQueue(nobody, "socketio", Mock())
    for _ in range(5):
        queue.publish(b"x")
    assert (queue.waiting, queue.unsent, queue.sent) == (3, 2, 0)
    (record,) = caplog.records
    assert "away too long" in record.getMessage() and "secret" not in record.getMessage()


def test_what_waits_is_bounded_in_bytes(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BRIDGE_MOST_WAITING_BYTES", 10)
    queue = RedisQueue(nobody, "socketio", Mock())
    for size in (4, 7, 6, 1, 0):
        queue.publish(b"x" * size)
    assert (queue.waiting, queue.unsent) == (3, 2)


def test_what_does_not_count_is_not_missed(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BRIDGE_MOST_WAITING", 1)
    queue = RedisQueue(nobody, "socketio", Mock())
    queue.publish(b"x", counts=False)
    queue.publish(b"x", counts=False)
    queue.publish(b"x")
    assert (queue.waiting, queue.unsent) == (1, 1)


def test_the_oldest_that_waits_may_be_behind_what_nobody_misses(nobody: str) -> None:
    queue = RedisQueue(nobody, "socketio", Mock())
    assert queue.oldest is None
    queue.publish(b"members", counts=False)
    assert queue.oldest is None
    queue.publish(b"x", since=5.0)
    queue.publish(b"y", since=4.5)
    assert queue.oldest == 4.5


def test_without_a_server_it_waits_and_ends(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    queue = RedisQueue(nobody, "socketio", Mock())
    queue.start()
    queue.publish(b"x")
    wait_until(lambda: caplog.records)
    time.sleep(0.5)
    (record,) = caplog.records  # it tries again, and says so once
    assert record.getMessage().startswith("redis://127.0.0.1:")
    assert "is away, trying again" in record.getMessage()
    assert "secret" not in record.getMessage()
    assert (queue.connected, queue.waiting, queue.unsent) == (False, 1, 0)
    began = time.monotonic()
    queue.close()
    assert time.monotonic() - began < 10
    assert not any(thread.is_alive() for thread in queue._threads)


# --- with one ---------------------------------------------------------------------------


class Server:
    """A redis-server on a Unix socket, that can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{directory}/redis.sock"

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--save", "", "--dir", str(self._directory)]
        command += ["--unixsocket", f"{self._directory}/redis.sock"]
        command += ["--logfile", f"{self._directory}/redis.log"]
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
def server(tmp_path: Path) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain("no redis-server: install Debian's redis-server")
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def queue(server: Server, heard: list[bytes]) -> Iterator[RedisQueue]:
    made = RedisQueue(server.url, "chat", heard.append)
    made.start()
    wait_until(lambda: made.connected)
    yield made
    made.close()


def test_messages_come_in_order(queue: RedisQueue, heard: list[bytes]) -> None:
    messages = [b"%d\xff" % number for number in range(1000)]
    for message in messages:
        queue.publish(message)
    wait_until(lambda: len(heard) == len(messages))
    assert heard == messages
    queue.publish(b"not counted", counts=False)
    wait_until(lambda: len(heard) == len(messages) + 1)
    wait_until(lambda: queue.sent == len(messages))
    assert (queue.waiting, queue.unsent) == (0, 0)


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
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    def receive(data: bytes) -> None:
        heard.append(data)
        raise RuntimeError("of the receiver")

    queue = RedisQueue(server.url, "chat", receive)
    queue.start()
    wait_until(lambda: queue.connected)
    for _ in range(3):
        queue.publish(b"x")
    wait_until(lambda: len(heard) == 3)
    assert queue.connected
    assert "is away" not in caplog.text
    queue.close()


def test_close_publishes_what_waits(server: Server, heard: list[bytes]) -> None:
    listening = RedisQueue(server.url, "chat", heard.append)
    listening.start()
    wait_until(lambda: listening.connected)
    queue = RedisQueue(server.url, "chat", Mock())
    queue.start()
    wait_until(lambda: queue.connected)
    for _ in range(500):
        queue.publish(b"x")
    queue.close()
    assert (queue.sent, queue.waiting) == (500, 0)
    wait_until(lambda: len(heard) == 500)
    listening.close()


def test_a_silent_connection_is_given_up(
    server: Server, heard: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    queue = RedisQueue(server.url, "chat", heard.append, silence=0.2)
    queue.start()
    wait_until(lambda: "is away, trying again: it is silent" in caplog.text)
    wait_until(lambda: queue.connected)
    queue.close()


def test_redis_goes_and_comes_back(
    queue: RedisQueue, server: Server, heard: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OTHERS_FIRST", 0.3)
    queue.publish(b"before")
    wait_until(lambda: heard)
    server.kill()
    wait_until(lambda: not queue.connected)
    queue.publish(b"meanwhile")
    server.start()
    wait_until(lambda: queue.connected)
    assert heard == [b"before"]  # others may take as long to come back
    wait_until(lambda: len(heard) == 2)
    assert heard[1] == b"meanwhile"
    assert (queue.unsent, queue.waiting) == (0, 0)


def test_what_redis_has_not_confirmed_is_the_oldest_until_others_have_asked(
    queue: RedisQueue, heard: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELAY_GIVE_UP", 0.3)
    queue.publish(b"before", since=1.0)
    wait_until(lambda: queue.sent == 1)
    assert queue.oldest is None
    with monkeypatch.context() as patch:
        patch.setattr(queue._client, "pipeline", Mock(side_effect=ConnectionResetError))
        queue.publish(b"members", counts=False)
        queue.publish(b"lost", since=2.0)
        wait_until(lambda: queue._unconfirmed == 2.0)
    queue.publish(b"later", since=3.0)
    wait_until(lambda: queue.sent == 2)
    wait_until(lambda: queue.oldest == 2.0)

    def forgotten() -> bool:
        queue.publish(b"members", counts=False)
        return queue.oldest is None

    wait_until(forgotten)
