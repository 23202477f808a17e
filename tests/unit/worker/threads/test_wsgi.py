"""Requests through a WSGI application, in a thread."""

from __future__ import annotations

import io
import logging
import os
import random
import re
import select
import socket
import sys
import threading
from types import SimpleNamespace
from typing import Any, Callable, Iterator, Optional

import pytest
import simple_websocket

from supervisor_sio.common.reasons import PROTOCOL, TOO_SLOW
from supervisor_sio.engine.http import find_end, read_head
from supervisor_sio.worker import patience
from supervisor_sio.worker.taker import EXCHANGE
from supervisor_sio.worker.threads import client as clients
from supervisor_sio.worker.threads import wsgi
from supervisor_sio.worker.threads.upgraded import SOCKET, UpgradedSocket
from unit.client_frames import masked

DATE = "Thu, 01 Jan 1970 00:00:00 GMT"


class Threads:
    """Makes calls for the loop at once."""

    def run(self, size: int, call: Callable[..., Any], *args: Any) -> None:
        call(*args)


class Server:
    """Serves one connection, and its requests one after the other in a thread."""

    def __init__(self) -> None:
        self.app: Any = None
        self.sock, self.client = socket.socketpair()
        self.sock.setblocking(False)
        self.client.settimeout(20)
        self.runtime = SimpleNamespace(date=lambda: DATE)
        self.server = self
        self.peer, self.local, self.scheme = ("192.0.2.1", 5000), ("192.0.2.2", 80), "http"
        self.address = "192.0.2.1"
        self.data = b""
        self.upgraded = False
        self.refused: list[str] = []
        #: What the connection was told at the end of each request.
        self.ends: list[tuple[Any, ...]] = []
        self.thread: Optional[threading.Thread] = None
        self.pool: Any = SimpleNamespace(waiting=0)

    def note_upgrade(self) -> None:
        self.upgraded = True

    def count(self, reason: str, detail: object = "") -> None:
        self.refused.append(reason)

    def application_ended(self, close: bool, unread: bool) -> None:
        self.ends.append(("application", close, unread))
        if close or unread:
            self.sock.shutdown(socket.SHUT_WR)

    def leave_to_engine(self, unread: bool) -> None:
        self.ends.append(("engine", unread))

    def end(self) -> None:
        self.ends.append(("gone",))
        self.sock.close()

    def failed(self, error: Exception) -> None:
        raise error

    def _serve(self, requests: int) -> None:
        for _ in range(requests):
            while not find_end(self.data):
                select_readable(self.sock)
                self.data += self.sock.recv(65536)
            end = find_end(self.data)
            head, self.data = read_head(self.data[:end]), self.data[end:]
            wsgi.serve(self, head, Threads(), self.pool)  # type: ignore[arg-type]

    def begin(self, request: bytes, requests: int = 1) -> None:
        self.thread = threading.Thread(target=self._serve, args=(requests,), daemon=True)
        self.thread.start()
        self.client.sendall(request)

    def wait(self) -> tuple[Any, ...]:
        assert self.thread is not None
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.ends[-1]

    def ask(self, request: bytes) -> bytes:
        """The complete response to one request."""
        self.begin(request)
        self.wait()
        self.sock.shutdown(socket.SHUT_WR)
        return self.read_all()

    def read_all(self) -> bytes:
        return b"".join(iter(lambda: self.client.recv(65536), b""))


def select_readable(sock: socket.socket) -> None:
    assert select.select([sock], [], [], 10)[0]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.client.close()
    server.sock.close()


GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"


def post(data: bytes, more: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (more, len(data)) + data


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def answers(*pieces: Any, status: str = "200 OK", headers: Any = ()) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(headers))
        return list(pieces) if len(pieces) != 1 else iter(pieces)

    return app


# --- answers ------------------------------------------------------------------------


def test_an_answer_of_one_piece_has_a_length(server: Server) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['PATH_INFO']} {environ['QUERY_STRING']}".encode()]

    server.app = app
    assert server.ask(GET) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n"
        b"Date: " + DATE.encode() + b"\r\n\r\n/a b=c"
    )
    assert server.ends == [("application", False, False)]


def test_pieces_leave_at_once_in_chunks(server: Server) -> None:
    go_on = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"one"
        go_on.wait(30)
        yield b""  # no chunk: that would be the last one
        yield b"two"

    server.app = app
    server.begin(GET)
    begin = b""
    while not begin.endswith(b"\r\n\r\n3\r\none\r\n"):
        begin += server.client.recv(65536)
    assert b"Transfer-Encoding: chunked\r\n" in begin
    go_on.set()
    assert server.wait() == ("application", False, False)
    server.sock.shutdown(socket.SHUT_WR)
    assert server.read_all() == b"3\r\ntwo\r\n0\r\n\r\n"


def test_an_old_client_gets_all_until_the_end_of_the_connection(server: Server) -> None:
    server.app = answers(b"one", b"two")
    answer = server.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.endswith(b"\r\nConnection: close\r\n\r\nonetwo")
    assert server.ends == [("application", True, False)]


def test_an_old_client_is_told_that_the_connection_stays(server: Server) -> None:
    server.app = answers(b"one", headers=[("Content-Length", "3")])
    answer = server.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.endswith(b"\r\nConnection: keep-alive\r\n\r\none")
    assert server.ends == [("application", False, False)]


def test_an_empty_answer(server: Server) -> None:
    server.app = answers()
    assert b"\r\nContent-Length: 0\r\n" in server.ask(GET)


@pytest.mark.parametrize(
    "method, status", [(b"HEAD", "200 OK"), (b"GET", "204 No Content"), (b"GET", "304 Unchanged")]
)
@pytest.mark.parametrize("pieces", [(b"a body",), (b"a", b"b"), ()])
def test_no_body_where_there_may_be_none(
    server: Server, method: bytes, status: str, pieces: tuple[bytes, ...]
) -> None:
    server.app = answers(*pieces, status=status)
    answer = server.ask(GET.replace(b"GET", method))
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1
    assert b"chunked" not in answer
    assert server.ends == [("application", False, False)]


def test_head_has_the_length_that_the_application_says(server: Server) -> None:
    server.app = answers(b"", headers=[("Content-Length", "7")])
    assert b"\r\nContent-Length: 7\r\n" in server.ask(GET.replace(b"GET", b"HEAD"))
    assert server.ends == [("application", False, False)]


def test_more_than_its_length_is_not_sent(server: Server) -> None:
    server.app = answers(b"ab", b"cd", b"ef", headers=[("Content-Length", "3")])
    assert server.ask(GET).endswith(b"\r\n\r\nabc")


def test_less_than_its_length_ends_the_connection(server: Server) -> None:
    server.app = answers(b"ab", headers=[("Content-Length", "3")])
    assert server.ask(GET).endswith(b"\r\n\r\nab")
    assert server.ends == [("application", True, False)]


def test_the_write_function(server: Server) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [])
        write(b"a")
        write(b"b")
        return [b"c"]

    server.app = app
    assert server.ask(GET).endswith(b"\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n")


def test_fields_between_us_and_the_client_are_ours(server: Server) -> None:
    headers = [("Transfer-Encoding", "chunked"), ("connection", "Close"), ("Keep-Alive", "9")]
    server.app = answers(b"x", headers=[*headers, ("Content-Length", "1"), ("X-Y", "z")])
    answer = server.ask(GET)
    assert answer.count(b"Connection: close") == 1
    assert not re.search(rb"(?i)transfer-encoding|keep-alive", answer)
    assert b"\r\nX-Y: z\r\n" in answer
    assert server.ends == [("application", True, False)]


def test_long_pieces_arrive_whole(server: Server) -> None:
    pieces = [os.urandom(300_000), b"small", os.urandom(100_000)]
    server.app = answers(*pieces)
    server.begin(GET)
    collected = b""
    while not collected.endswith(b"0\r\n\r\n"):
        collected += server.client.recv(65536)
    assert server.wait() == ("application", False, False)
    body = collected.split(b"\r\n\r\n", 1)[1]
    for piece in pieces:
        assert body.startswith(b"%x\r\n" % len(piece) + piece + b"\r\n")
        body = body[len(b"%x\r\n" % len(piece)) + len(piece) + 2 :]
    assert body == b"0\r\n\r\n"


def test_a_file(server: Server) -> None:
    content = os.urandom(200_000)
    file = io.BytesIO(content)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return environ["wsgi.file_wrapper"](file, 8192)

    server.app = app
    server.begin(GET)
    collected = b""
    while not collected.endswith(content):
        collected += server.client.recv(65536)
    server.wait()
    assert collected.endswith(content)
    assert file.closed


# --- applications that fail ---------------------------------------------------------


BROKEN_HEADS: list[tuple[Any, Any]] = [
    ("200 OK", [("X-Y", "a\r\nX-Z: b")]),
    ("200 OK", [("X Y", "a")]),
    ("200 OK", [("X-Y", "\u20ac")]),
    ("200 OK\r\nX-Z: b", []),
    ("OK", []),
    ("101 Switching Protocols", []),
    ("200 OK", [("Content-Length", "-1")]),
    ("200 OK", [("Content-Length", "1_0")]),
    (200, []),
    ("200 OK", [("X-Y", 1)]),
]


@pytest.mark.parametrize("status, headers", BROKEN_HEADS)
def test_a_broken_head_of_an_answer(
    server: Server, status: Any, headers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.app = answers(b"x", status=status, headers=headers)
    answer = server.ask(GET)
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"X-Z" not in answer
    assert server.ends == [("application", True, False)]
    assert len(caplog.records) == 1


def broken_at_once(environ: Any, start_response: Any) -> Any:
    raise ValueError("broken")


def broken_later(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    raise ValueError("broken")
    yield b""


def never_started(environ: Any, start_response: Any) -> Any:
    return [b"x"]


def started_twice(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"x"]


def text(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return ["text"]


def texts(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return iter(["text"])


def nothing(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])


def exits(environ: Any, start_response: Any) -> Any:
    sys.exit(3)


@pytest.mark.parametrize(
    "app",
    [broken_at_once, broken_later, never_started, started_twice, text, texts, nothing, exits],
)
def test_it_fails_before_anything_is_sent(
    server: Server, app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.app = app
    answer = server.ask(GET)
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    (record,) = caplog.records
    assert record.exc_info is not None
    assert server.ends == [("application", True, False)]


def test_it_fails_in_the_middle(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"x"
        raise ValueError("broken")

    server.app = app
    assert server.ask(GET).endswith(b"\r\n\r\n1\r\nx\r\n")  # the last chunk is missing
    assert server.ends == [("application", True, False)]
    assert len(caplog.records) == 1


def test_an_error_answer_replaces_the_head_that_was_not_sent(server: Server) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("X-Y", "z")])
        try:
            raise ValueError("broken")
        except ValueError:
            start_response("503 Later", [], sys.exc_info())
        return [b"x"]

    server.app = app
    answer = server.ask(GET)
    assert answer.startswith(b"HTTP/1.1 503 Later\r\n")
    assert b"X-Y" not in answer


def test_an_error_answer_after_the_head_raises_the_error(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"x"
        try:
            raise ValueError("the first")
        except ValueError:
            start_response("503 Later", [], sys.exc_info())

    server.app = app
    server.ask(GET)
    (record,) = caplog.records
    assert record.exc_info is not None and str(record.exc_info[1]) == "the first"


class Closing:
    """A result that has to be closed."""

    def __init__(self, pieces: Iterator[bytes], error: Optional[Exception] = None) -> None:
        self.pieces, self.error = pieces, error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    def close(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("broken", [False, True])
def test_what_it_returns_is_closed_once(
    server: Server, broken: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x"
        if broken:
            raise ValueError("broken")

    closing = Closing(pieces())

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return closing

    server.app = app
    server.ask(GET)
    assert closing.closed == 1
    assert len(caplog.records) == broken


def test_an_error_of_close_is_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Closing(iter([b"x"]), ValueError("broken"))

    server.app = app
    assert server.ask(GET).endswith(b"0\r\n\r\n")
    assert len(caplog.records) == 1


# --- clients that go, or stop ---------------------------------------------------------


def test_an_endless_answer_ends_when_the_client_goes(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    closed = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 10_000
        finally:
            closed.set()

    server.app = app
    server.begin(GET)
    server.client.recv(1000)
    server.client.close()
    assert server.wait() == ("gone",)
    assert closed.is_set()
    assert not [one for one in caplog.records if one.levelno > logging.DEBUG]


def test_a_client_that_takes_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "STALLED_SECONDS", 0.2)
    server.app = answers(b"x" * 10_000_000)
    server.begin(GET)
    assert server.wait() == ("gone",)
    assert server.refused == [TOO_SLOW]


@pytest.mark.parametrize("waiting", [0, 1])
@pytest.mark.parametrize("sends", [False, True])
def test_a_client_may_pause_while_nobody_needs_the_thread(
    server: Server, monkeypatch: pytest.MonkeyPatch, waiting: int, sends: bool
) -> None:
    monkeypatch.setattr(clients, "SLOW_CLIENT_SECONDS", 0.1)
    server.pool.waiting = waiting
    content = b"x" * 10_000_000
    server.app = echo if sends else answers(content, headers=[("Content-Length", "10000000")])
    server.begin(post(b"abcdef")[:-3] if sends else GET)
    if waiting:
        assert server.wait() == ("gone",)
        assert server.refused == [TOO_SLOW]
        return
    assert server.thread is not None
    server.thread.join(0.6)
    assert server.thread.is_alive()
    if sends:
        server.client.sendall(b"def")
    else:
        collected = 0
        while collected < len(content):
            collected += len(server.client.recv(1_000_000))
    assert server.wait() == ("application", False, False)


def test_a_client_that_takes_a_little_at_a_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "STALLED_SECONDS", 5)
    content = os.urandom(2_000_000)
    server.app = answers(content, headers=[("Content-Length", str(len(content)))])
    server.begin(GET)
    collected = b""
    while not collected.endswith(content):
        collected += server.client.recv(random.randint(1, 50_000))
    assert collected.endswith(content)
    assert server.wait() == ("application", False, False)


def test_an_error_of_the_application_is_not_the_clients(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise ConnectionResetError("its database")

    server.app = app
    assert server.ask(GET).startswith(b"HTTP/1.1 500 ")
    assert len(caplog.records) == 1


# --- bodies -----------------------------------------------------------------------------


def echo(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


def ignore(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [b"x"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_ends_where_it_ends(server: Server, chunked: bool) -> None:
    server.app = echo
    request = CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n" if chunked else post(b"abc")
    server.begin(request + GET, requests=2)
    server.wait()
    assert server.ends == [("application", False, False)] * 2
    server.sock.shutdown(socket.SHUT_WR)
    first, second = server.read_all().split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert first.endswith(b"\r\n\r\nabc")
    assert second.endswith(b"\r\n\r\n")


def test_a_body_that_comes_in_pieces(server: Server) -> None:
    server.app = echo
    server.begin(post(b"abcdef")[:-3])
    server.client.sendall(b"def")
    server.wait()
    server.sock.shutdown(socket.SHUT_WR)
    assert server.read_all().endswith(b"\r\n\r\nabcdef")


def test_a_short_body_that_is_not_read_does_not_harm(server: Server) -> None:
    server.app = ignore
    server.begin(post(b"abc") + GET, requests=2)
    server.wait()
    assert server.ends == [("application", False, False)] * 2


def test_a_long_body_that_is_not_read_ends_the_connection(server: Server) -> None:
    server.app = ignore
    server.begin(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
    assert server.wait() == ("application", False, True)


def test_a_body_that_is_not_asked_for_is_not_awaited(server: Server) -> None:
    server.app = ignore
    head = post(b"abc", b"Expect: 100-continue\r\n")[:-3]
    answer = server.ask(head)
    assert b"100 Continue" not in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert server.ends == [("application", True, True)]


def test_a_body_is_asked_for_when_it_is_read(server: Server) -> None:
    server.app = echo
    server.begin(post(b"abc", b"Expect: 100-continue\r\n")[:-3])
    assert server.client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    server.client.sendall(b"abc")
    assert server.wait() == ("application", False, False)
    server.sock.shutdown(socket.SHUT_WR)
    assert server.read_all().endswith(b"\r\n\r\nabc")


@pytest.mark.parametrize("begin", [post(b"abcdef")[:-3], CHUNKED + b"5\r\nabc"])
def test_a_body_that_ends_too_early_is_not_taken_for_a_whole_one(
    server: Server, begin: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server.app = echo
    server.begin(begin)
    server.client.shutdown(socket.SHUT_WR)
    assert server.wait() == ("gone",)
    assert server.read_all() == b""
    assert not [one for one in caplog.records if one.levelno > logging.DEBUG]


def test_a_client_that_sends_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BODY_GRACE_SECONDS", 0.2)
    server.app = echo
    server.begin(post(b"abcdef")[:-3])
    assert server.wait() == ("gone",)
    assert server.refused == [TOO_SLOW]


def test_chunks_that_are_none(server: Server) -> None:
    server.app = echo
    assert server.ask(CHUNKED + b"no size\r\n").startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert server.refused == [PROTOCOL]
    assert server.ends == [("application", True, True)]


# --- websockets of the application --------------------------------------------------------

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize("ends_with", [StopIteration(), ValueError("broken"), None])
def test_a_websocket_of_the_application(
    server: Server, ends_with: Optional[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        websocket = simple_websocket.Server.accept(environ)
        kept.append(websocket)
        websocket.send(websocket.receive())
        if ends_with is not None:
            raise ends_with
        start_response("200 OK", [])
        return [b"nobody wants it"]

    server.app = app
    server.begin(UPGRADE + masked(1, b"early"))
    assert server.wait() == ("gone",)
    assert server.upgraded and not server.data
    answer = server.read_all()
    assert answer.startswith(b"HTTP/1.1 101 ") and answer.endswith(b"\x81\x05early")
    kept[0].thread.join(30)
    assert not kept[0].thread.is_alive()
    assert len(caplog.records) == isinstance(ends_with, ValueError)
    with pytest.raises(ConnectionError):
        kept[0].environ.get(SOCKET, UpgradedSocket(None, None)).recv(1)  # type: ignore[arg-type]


def test_an_application_that_does_not_upgrade(server: Server) -> None:
    server.app = answers(b"no", status="400 Bad Request")
    assert server.ask(UPGRADE).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert server.ends == [("application", False, False)] and not server.upgraded


# --- the engine ---------------------------------------------------------------------------

HANDSHAKE = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n"


def test_the_engine_takes_a_request(server: Server) -> None:
    taken: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        taken.append(environ[EXCHANGE].take())
        taken.append(dict(environ))
        return ()

    server.app = app
    assert server.ask(HANDSHAKE) == b""
    assert server.ends == [("engine", False)]
    (request, exchange), environ = taken
    assert request.transport == "polling"
    assert request.address == "192.0.2.1"
    assert exchange is server
    kept = request.environ()
    assert kept["QUERY_STRING"] == "EIO=4&transport=polling"
    # Neither the session nor a copy of the environment keeps the connection.
    assert EXCHANGE not in kept
    assert kept["wsgi.input"].read() == b""
    with pytest.raises(RuntimeError, match="the request has ended"):
        environ[EXCHANGE].take()
    assert environ["wsgi.input"].read() == b""


def test_the_application_refuses_a_handshake(server: Server) -> None:
    server.app = answers(b"not you", status="401 Unauthorized")
    assert server.ask(HANDSHAKE).startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert server.ends == [("application", False, False)]


def test_it_fails_after_the_engine_has_the_request(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ[EXCHANGE].take()
        raise ValueError("broken")

    server.app = app
    assert server.ask(HANDSHAKE) == b""
    assert server.ends == [("engine", False)]
    assert len(caplog.records) == 1


def test_middleware_that_answers_around_the_engine(server: Server) -> None:
    """What the engine answers is not answered by middleware, too."""

    def app(environ: Any, start_response: Any) -> Any:
        environ[EXCHANGE].take()
        start_response("200 OK", [])
        return [b"x"]

    server.app = app
    assert server.ask(HANDSHAKE) == b""
