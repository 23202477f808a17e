"""Connections of a worker: the resources that a request may use, and what an application sees."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
    from eventlet import hubs

from supervisor_sio.common.limits import READS_PER_TURN
from supervisor_sio.common.reasons import PROTOCOL, TOO_SLOW
from supervisor_sio.common.request import Kind, Request
from supervisor_sio.worker import connection, patience
from supervisor_sio.worker.body import BadBody, ClientGone
from supervisor_sio.worker.connection import Connection
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from supervisor_sio.worker.refused import refusals
from supervisor_sio.worker.server import Server
from supervisor_sio.worker.taker import EXCHANGE
from unit.worker.turns import let_run

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"


def post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length


class Worker:
    """A server, and an application whose behaviour the test sets."""

    def __init__(self) -> None:
        self.serve: Callable[[dict[str, Any]], bytes] = lambda environ: b"served"
        self.seen: list[dict[str, Any]] = []
        self.kept: Callable[[Request], bool] = lambda request: True
        #: What came back to the router: descriptors are not moved here.
        self.handed_back: list[bytes] = []
        self.takes_back = True
        runtime = HubRuntime.of_this_process()
        self.server = Server(
            self._app, runtime, lambda r: self.kept(r), self._hand_back, lambda: None
        )
        self.server.paths = (b"/socket.io/",)
        self._clients: list[Client] = []

    def _app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.seen.append(dict(environ))
        body = self.serve(environ)
        start_response("200 OK", [])
        return [body]

    def _hand_back(self, connection: Connection, prefix: bytes) -> None:
        self.handed_back.append(prefix)
        connection.moved(self.takes_back)

    def connect(self, **options: Any) -> Client:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        made = Connection(self.server, ours, ("192.0.2.1", 5), ("192.0.2.2", 80), **options)
        hubs.get_hub().schedule_call_global(0, made.open)
        self._clients.append(Client(theirs))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.sock.close()
        with eventlet.Timeout(20):
            while self.server.connections:
                eventlet.sleep(0.002)


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""

    def send(self, data: bytes) -> None:
        with eventlet.Timeout(20):
            while data:
                try:
                    data = data[self.sock.send(data) :]
                except BlockingIOError:
                    eventlet.sleep(0)

    def until(self, part: bytes) -> bytes:
        """Read up to this part; the next call begins behind it."""
        with eventlet.Timeout(20, AssertionError(f"no {part!r} in {self.data!r}")):
            while part not in self.data:
                if not self._read():
                    raise AssertionError(f"ended without {part!r}: {self.data!r}")
        before, _, self.data = self.data.partition(part)
        return before

    def ended(self, within: float = 20) -> bytes:
        with eventlet.Timeout(within, AssertionError("still open")):
            while self._read():
                pass
        return self.data

    def _read(self) -> bool:
        while True:
            try:
                more = self.sock.recv(65536)
            except BlockingIOError:
                eventlet.sleep(0.002)
                continue
            except ConnectionResetError:
                return False
            self.data += more
            return bool(more)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


def read_all(environ: dict[str, Any]) -> bytes:
    return hashlib.sha256(environ["wsgi.input"].read()).hexdigest().encode()


# --- time -----------------------------------------------------------------------------


@pytest.mark.parametrize("head", [post(1000), CHUNKED + b"400;"], ids=["length", "chunks"])
def test_a_body_has_a_least_rate(
    worker: Worker, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "BODY_GRACE_SECONDS", 0.3)
    worker.serve = read_all
    client = worker.connect()
    client.send(head)
    before = refusals.by_reason[TOO_SLOW]
    began = time.monotonic()
    let_run(0.01)
    with eventlet.Timeout(20):
        while worker.server.connections:
            try:
                client.send(b"x")
            except (BrokenPipeError, ConnectionResetError):
                break
            eventlet.sleep(0.05)
    assert 0.3 < time.monotonic() - began
    assert refusals.by_reason[TOO_SLOW] == before + 1


@pytest.mark.tries(4)
def test_who_is_slow_but_not_too_slow_is_served(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "BODY_GRACE_SECONDS", 0.3)
    worker.serve = read_all
    client = worker.connect()
    client.send(post(1000))
    for _ in range(10):
        eventlet.sleep(0.05)
        client.send(b"x" * 100)  # 2000 bytes a second
    client.until(hashlib.sha256(b"x" * 1000).hexdigest().encode())


def test_the_time_that_the_application_takes_is_not_the_clients(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "BODY_GRACE_SECONDS", 0.2)

    def slowly(environ: dict[str, Any]) -> bytes:
        eventlet.sleep(0.4)
        return bytes(environ["wsgi.input"].read())

    worker.serve = slowly
    client = worker.connect()
    client.send(post(4))
    client.send(b"body")
    client.until(b"body")


def test_who_sends_nothing_after_a_refusal_is_not_waited_for(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.2)
    client = worker.connect()
    client.send(b"nonsense\r\n\r\n")
    client.until(b"HTTP/1.1 400 ")
    client.ended()
    with eventlet.Timeout(20):
        while worker.server.connections:
            eventlet.sleep(0.01)


def test_who_sends_on_after_a_refusal_reads_the_answer(worker: Worker) -> None:
    client = worker.connect()
    client.send(post(10**9))
    for _ in range(20):
        client.send(b"x" * 65536)
    client.until(b"HTTP/1.1 200 ")
    client.until(b"served")
    client.ended()


def test_a_connection_that_never_begins_is_closed_without_a_word(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.server.head_timeout = 0.1
    assert worker.connect().ended() == b""
    assert not caplog.records


def test_a_reader_gives_others_a_turn(worker: Worker) -> None:
    turns = [0]

    def other() -> None:
        while True:
            turns[0] += 1
            eventlet.sleep(0)

    def read(environ: dict[str, Any]) -> bytes:
        # All of it is there before reading begins.
        before = turns[0]
        environ["wsgi.input"].read()
        return b"turns: %d\n" % (turns[0] - before)

    worker.serve = read
    green = eventlet.spawn(other)
    chunks = b"1\r\nx\r\n" * 20_000
    client = worker.connect()
    client.send(CHUNKED + chunks + b"0\r\n\r\n")
    client.until(b"turns: ")
    green.kill()
    least = len(chunks) // 8192 // READS_PER_TURN // 2
    assert int(client.until(b"\n")) >= least


def test_pipelined_requests_give_others_a_turn(worker: Worker) -> None:
    order = []

    def note(environ: dict[str, Any]) -> bytes:
        order.append(environ["PATH_INFO"])
        return b""

    worker.serve = note
    clients = [worker.connect(), worker.connect()]
    for name, client in zip((b"a", b"b"), clients):
        client.send(GET.replace(b"/", b"/" + name, 1) * 10)
    for client in clients:
        for _ in range(10):
            client.until(b"HTTP/1.1 200 ")
    together = order[1:-1]
    assert all(one != next_ for one, next_ in zip(together, together[1:])), order


# --- what an application sees -----------------------------------------------------------


def test_environ(worker: Worker) -> None:
    client = worker.connect(scheme="https")
    client.send(
        b"POST /a%20b%0A%C3%A4?c=%20d HTTP/1.1\r\nHost: x:1\r\n"
        b"User-Agent: one\r\nuser-agent: two\r\n"
        b"Content-Type: a/b\r\nContent-Type: c/d\r\nX_Real_Ip: forged\r\nX-Latin: \xe4\r\n"
        b"Content-Length: 0\r\nTransfer: x\r\n\r\n"
    )
    client.until(b"served")
    (environ,) = worker.seen
    text = {name: value for name, value in environ.items() if isinstance(value, str)}
    assert text == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "RAW_PATH_INFO": "/a%20b%0A%C3%A4",
        "PATH_INFO": "/a b\n\xc3\xa4",
        "QUERY_STRING": "c=%20d",
        "SERVER_NAME": "192.0.2.2",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "5",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTPS": "on",
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "x:1",
        "HTTP_USER_AGENT": "one,two",
        "HTTP_X_LATIN": "\xe4",
        "HTTP_TRANSFER": "x",
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": "0",
    }


def test_the_url_names_the_host(worker: Worker) -> None:
    client = worker.connect()
    client.send(b"GET http://y/z HTTP/1.1\r\nHost: x\r\n\r\n")
    client.until(b"served")
    assert (worker.seen[0]["HTTP_HOST"], worker.seen[0]["PATH_INFO"]) == ("y", "/z")


@pytest.mark.parametrize("chunked", [False, True])
def test_reading_in_every_way(worker: Worker, chunked: bool) -> None:
    data = b"one\ntwo\n\nthree and more\n" + b"x" * 100_000 + b"\nend"
    results: list[Any] = []

    def read(environ: dict[str, Any]) -> bytes:
        body = environ["wsgi.input"]
        results.append(body.read(2))
        results.append(body.readline())
        results.append(body.readline(2))
        results.append(body.read(0))
        results.append(body.readlines(2))
        results.append(body.readline(-1))
        results.append(b"".join(body))
        results.append(body.read())
        results.append(body.readline())
        return b"read"

    worker.serve = read
    client = worker.connect()
    if chunked:
        pieces = [data[i : i + 7001] for i in range(0, len(data), 7001)]
        client.send(CHUNKED + b"".join(b"%X\r\n%b\r\n" % (len(p), p) for p in pieces))
        client.send(b"0\r\n\r\n" + GET)
    else:
        client.send(post(len(data)) + data + GET)
    client.until(b"read")
    client.until(b"read")
    assert results[:6] == [b"on", b"e\n", b"tw", b"", [b"o\n"], b"\n"]
    assert b"".join(results[6:9]) == data[len(b"one\ntwo\n\n") :]


def test_100_continue_is_sent_when_the_body_is_read(worker: Worker) -> None:
    worker.serve = read_all
    client = worker.connect()
    client.send(post(2).replace(b"\r\n\r\n", b"\r\nExpect: 100-Continue\r\n\r\n"))
    client.until(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.send(b"hi" + GET)
    client.until(b"HTTP/1.1 200 ")
    client.until(b"HTTP/1.1 200 ")


def test_100_continue_is_not_sent_where_nobody_reads(worker: Worker) -> None:
    client = worker.connect()
    client.send(post(2).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert client.until(b"served").startswith(b"HTTP/1.1 200 ")
    client.ended()


@pytest.mark.parametrize(
    "head, offered",
    [
        (UPGRADE + b"\r\n", True),
        (UPGRADE.replace(b"Connection: ", b"X: ") + b"\r\n", False),
        (UPGRADE.replace(b"1.1", b"1.0") + b"\r\n", False),
        (UPGRADE + b"Content-Length: 1\r\n\r\nx", False),
    ],
)
def test_upgrades_are_for_requests_without_a_body(
    worker: Worker, head: bytes, offered: bool
) -> None:
    client = worker.connect()
    client.send(head)
    client.until(b"served")
    assert ("eventlet.set_idle" in worker.seen[0]) is offered
    assert ("HTTP_UPGRADE" in worker.seen[0]) is offered


def test_an_answer_is_taken_when_it_is_written_not_when_the_application_ends(
    worker: Worker,
) -> None:
    """The client may poll again on another connection before that."""
    client = worker.connect()
    taken: list[Any] = []
    before_its_end: list[Any] = []

    class Session:
        def taken(self, exchange: Connection) -> None:
            exchange.session = None
            taken.append(exchange)

    def serve(environ: dict[str, Any]) -> bytes:
        _, made = environ[EXCHANGE].take()
        made.session = Session()  # type: ignore[assignment]
        made.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        before_its_end.extend(taken)
        return b""

    worker.serve = serve
    client.send(GET)
    client.until(b"200 OK")
    worker.serve = lambda environ: b"the next"
    client.send(GET)
    client.until(b"the next")
    assert len(taken) == 1 and before_its_end == taken


def test_what_becomes_a_websocket_when_all_were_ended(worker: Worker) -> None:
    def serve(environ: dict[str, Any]) -> bytes:
        environ["eventlet.set_idle"]()
        received: bytes = environ["eventlet.input"].get_socket().recv(1)
        return received

    worker.serve = serve
    worker.server.end_websockets()
    client = worker.connect()
    client.send(UPGRADE + b"\r\n")
    client.ended()


def test_a_copied_environment_lets_go_of_the_connection(worker: Worker) -> None:
    client = worker.connect()
    client.send(UPGRADE + b"\r\n")
    client.until(b"served")
    copy = worker.seen[0]
    with pytest.raises(RuntimeError):
        copy[EXCHANGE].take()
    copy["eventlet.set_idle"]()
    assert copy["wsgi.input"].read() == b"" and copy["wsgi.input"].get_socket() is None


@pytest.mark.parametrize("error", [ClientGone, BadBody])
def test_a_body_that_cannot_be_read_is_no_error_of_the_application(
    worker: Worker, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    worker.serve = read_all
    client = worker.connect()
    client.send(CHUNKED + (b"5\r\nabc" if error is ClientGone else b"5\r\nabcdef\r\n"))
    client.sock.shutdown(socket.SHUT_WR)
    answer = client.ended()
    if error is BadBody:
        assert answer.startswith(b"HTTP/1.1 400 ")
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


# --- connections that move on -----------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_request_for_another_worker_goes_back_with_every_byte(worker: Worker, size: int) -> None:
    worker.kept = lambda request: request.kind is not Kind.SESSION
    other = b"POST /socket.io/?sid=b.c HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody" + GET
    client = worker.connect()
    stream = post(4) + b"1234" + CHUNKED + b"2\r\nab\r\n0\r\n\r\n\r\n" + other
    worker.serve = lambda environ: bytes(environ["wsgi.input"].read())
    for begin in range(0, len(stream), size):
        with contextlib.suppress(BrokenPipeError):  # it has gone back already
            client.send(stream[begin : begin + size])
        if size == 7:
            eventlet.sleep(0)
    client.until(b"1234")
    client.until(b"ab")
    with eventlet.Timeout(20):
        while not worker.handed_back:
            eventlet.sleep(0.002)
    (prefix,) = worker.handed_back
    # What was not read yet is still in the socket, which the router has now.
    assert other.startswith(prefix) and prefix.startswith(b"POST /socket.io/")
    assert len(worker.seen) == 2


@pytest.mark.parametrize("part", [b"", b"GET /", GET[:-2]])
def test_a_draining_worker_gives_back_what_has_begun(worker: Worker, part: bytes) -> None:
    client = worker.connect()
    client.send(GET)
    client.until(b"served")
    client.send(part)
    let_run(0.02)
    worker.server.draining = True
    worker.server.release_idle()
    let_run(0.02)
    assert worker.handed_back == [part]
    assert not worker.server.connections


def test_a_draining_worker_gives_back_an_idle_connection_that_comes_yet(worker: Worker) -> None:
    """The router sent it before it knew that the worker drains."""
    worker.server.draining = True
    worker.server.release_idle()
    worker.connect()
    with eventlet.Timeout(20):
        while not worker.handed_back:
            eventlet.sleep(0.002)
    assert worker.handed_back == [b""] and not worker.server.connections


def test_without_a_router_a_draining_worker_serves_what_has_begun(worker: Worker) -> None:
    worker.takes_back = False
    client = worker.connect()
    client.send(GET)
    client.until(b"served")
    client.send(GET[:10])
    let_run(0.02)
    worker.server.draining = True
    worker.server.release_idle()
    let_run(0.02)
    client.send(GET[10:])
    client.until(b"served")
    assert client.ended() == b""


def test_bad_requests_are_counted_and_told_once_a_second(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    before = refusals.by_reason[PROTOCOL]
    for _ in range(50):
        client = worker.connect()
        client.send(b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n")
        client.until(b"HTTP/1.1 400 ")
    assert refusals.by_reason[PROTOCOL] == before + 50
    assert len(caplog.records) <= 3
    assert not [record for record in caplog.records if record.exc_info]
