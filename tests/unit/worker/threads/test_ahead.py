"""Short bodies are read before a thread is used."""

from __future__ import annotations

import socket
from typing import Any, Callable, Iterator

import pytest

from supervisor_sio.common.limits import BODY_AHEAD, BODY_GRACE_SECONDS, STALLED_SECONDS
from supervisor_sio.common.reasons import TOO_SLOW
from supervisor_sio.engine.deadlines import NEVER, Deadlines
from supervisor_sio.engine.http import read_head
from supervisor_sio.worker.threads.ahead import Ahead


class Connection:
    """A connection whose loop the test runs step by step."""

    def __init__(self) -> None:
        self.sock, self.client = socket.socketpair()
        self.sock.setblocking(False)
        self.data = b""
        self.server = self.runtime = self
        self.deadlines = Deadlines(lambda: 0.0)
        self.reader: Callable[[], None] | None = None
        self.tenant: Any = None
        self.counted: list[str] = []
        self.ended = False
        self.ready = 0

    def listen(self) -> None:
        assert self.reader is None
        self.reader = self.tenant.readable

    def stop_reading(self) -> None:
        self.reader = None

    def count(self, reason: str, detail: object = "") -> None:
        self.counted.append(reason)

    def end(self) -> None:
        self.stop_reading()
        self.tenant.lost()
        assert self.tenant is None
        self.ended = True

    def begin(self, fields: bytes, data: bytes = b"") -> Any:
        self.data = data
        head = read_head(b"POST / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n")

        def ready() -> None:
            assert self.reader is None and self.tenant is None
            self.ready += 1

        return Ahead(self, head, ready)  # type: ignore[arg-type]

    def send(self, data: bytes) -> None:
        self.client.sendall(data)
        assert self.reader is not None
        self.reader()


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection()
    yield connection
    connection.sock.close()
    connection.client.close()


LENGTH = b"Content-Length: 6"
CHUNKS = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    "fields, data",
    [(LENGTH, b"abcdef"), (LENGTH, b"abcdefGET /"), (CHUNKS, b"1\r\na\r\n0\r\n\r\nGET /")],
)
def test_all_is_there(connection: Connection, fields: bytes, data: bytes) -> None:
    connection.begin(fields, data)
    assert connection.ready == 1 and connection.data == data


@pytest.mark.parametrize(
    "fields, pieces",
    [(LENGTH, [b"a", b"bcd", b"ef"]), (CHUNKS, [b"1\r", b"\na\r\n0\r\n", b"\r\n"])],
)
def test_it_comes_in_pieces(connection: Connection, fields: bytes, pieces: list[bytes]) -> None:
    ahead = connection.begin(fields, pieces[0])
    for piece in pieces[1:]:
        assert not connection.ready
        connection.send(piece)
    assert connection.ready == 1
    assert connection.data == b"".join(pieces)
    assert ahead.deadline == NEVER


@pytest.mark.parametrize("fields", [b"Content-Length: 1000000", CHUNKS])
def test_of_a_long_one_only_so_much(connection: Connection, fields: bytes) -> None:
    connection.begin(fields, b"fffff\r\n")
    while not connection.ready:
        connection.send(b"x" * 5000)
    assert len(connection.data) == BODY_AHEAD


def test_what_are_no_chunks_is_for_who_reads_it(connection: Connection) -> None:
    connection.begin(CHUNKS, b"no")
    connection.send(b" size\r\n")
    assert connection.ready == 1 and connection.data == b"no size\r\n"


def test_a_client_that_ends_and_listens_is_for_who_reads(connection: Connection) -> None:
    ahead = connection.begin(LENGTH, b"abc")
    connection.client.shutdown(socket.SHUT_WR)
    assert connection.reader is not None
    connection.reader()
    assert connection.ready == 1 and connection.data == b"abc"
    assert ahead.deadline == NEVER


def test_a_client_that_is_gone(connection: Connection) -> None:
    ahead = connection.begin(LENGTH, b"abc")
    connection.sock.send(b"unread")
    connection.client.close()
    assert connection.reader is not None
    connection.reader()
    assert connection.ended and not connection.ready
    assert ahead.deadline == NEVER


def test_a_client_that_sends_nothing(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    ahead = connection.begin(LENGTH, b"abc")
    assert BODY_GRACE_SECONDS <= ahead.deadline - 1000 <= STALLED_SECONDS
    ahead.on_deadline(ahead.deadline)
    assert connection.ended and not connection.ready
    assert connection.counted == [TOO_SLOW]
    assert ahead.deadline == NEVER
