from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from supervisor_sio.router import exporter
from supervisor_sio.router.exporter import BadRequest, Exporter, Pages, Request, parse_request
from supervisor_sio.router.health import Snapshot
from supervisor_sio.router.metrics import Metrics
from supervisor_sio.router.pool import Member


def healthy() -> Snapshot:
    members = (Member("aa", "w", 1, ready=True),)
    return Snapshot(time.monotonic(), relay_alive=True, members=members)


def get(path: str, method: str = "GET", **headers: str) -> Request:
    path, _, query = path.partition("?")
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, query, fields)


@pytest.fixture
def pages() -> Pages:
    metrics = Metrics()
    metrics.update(healthy())
    return Pages(metrics)


def test_a_request() -> None:
    head = b"GET /metrics?name[]=a HTTP/1.1\r\nHost: x\r\nACCEPT: a/b \r\naccept:c/d\r\n\r\n"
    assert parse_request(head) == Request(
        "GET", "/metrics", "name[]=a", {"host": "x", "accept": "a/b,c/d"}
    )
    assert parse_request(b"HEAD / HTTP/1.0\r\n\r\n") == Request("HEAD", "/", "", {})


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nAccept: a\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nAccept: \0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_request(head: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_request(head)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_none(data: bytes) -> None:
    for head in (data, b"GET / HTTP/1.1\r\n" + data):
        try:
            parse_request(head + b"\r\n\r\n")
        except BadRequest:
            pass


def test_pages(pages: Pages) -> None:
    status, headers, body = pages.answer(get("/metrics"))
    assert status == "200 OK"
    assert dict(headers)["Content-Type"].startswith("text/plain; version=0.0.4")
    assert list(text_string_to_metric_families(body.decode()))
    for path in ("/", "/metrics/", "/favicon.ico", "//healthz", "http://x/metrics"):
        status, _, body = pages.answer(get(path))
        assert (status, body) == ("404 Not Found", b"only /metrics and /healthz exist\n")
    for method in ("POST", "OPTIONS", "BREW"):
        status, headers, body = pages.answer(get("/metrics", method))
        assert (status, dict(headers)["Allow"]) == ("405 Method Not Allowed", "GET, HEAD")
        assert body.count(b"\n") == 1


def test_formats(pages: Pages) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1"
    _, headers, body = pages.answer(get("/metrics", accept=accept))
    assert dict(headers)["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    _, headers, body = pages.answer(get("/metrics", accept_encoding="gzip"))
    assert dict(headers)["Content-Encoding"] == "gzip"
    assert b"supervisor_sio_relay_up 1.0" in gzip.decompress(body)
    _, _, body = pages.answer(get("/metrics?name[]=supervisor_sio_relay_up"))
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    assert lines == ["supervisor_sio_relay_up 1.0"]


@pytest.mark.parametrize("version", ["abc", "1.x", "", "9", "1.0.0.0.0", "-1", "²"])
def test_an_accept_that_the_library_does_not_understand(pages: Pages, version: str) -> None:
    for kind in ("application/openmetrics-text", "text/plain"):
        accept = f"{kind};version={version};escaping=x,*/*;q="
        assert pages.answer(get("/metrics", accept=accept)).status == "200 OK"


def test_healthz(pages: Pages) -> None:
    assert pages.answer(get("/healthz"))[::2] == ("200 OK", b"ok\n")
    pages._metrics.update(Snapshot(time.monotonic(), relay_alive=True))
    answer = pages.answer(get("/healthz"))
    assert answer[::2] == ("503 Service Unavailable", b"no worker is ready\n")


# --- over sockets ---------------------------------------------------------------------


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    listener.setblocking(False)
    served = Exporter(listener)
    served.metrics.update(healthy())
    served.start()
    name = listener.getsockname()
    yield name
    served.close()
    assert not any(thread.name == "metrics" for thread in threading.enumerate())


def talk(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, timeout=20) as sock:
        sock.sendall(data)
        answer = b""
        while more := sock.recv(65536):
            answer += more
        return answer


def test_over_a_socket(address: tuple[str, int]) -> None:
    head, _, body = talk(address, b"GET /healthz HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and body == b"ok\n"
    assert b"\r\nContent-Length: 3\r\nConnection: close" in head
    head, _, body = talk(address, b"HEAD /metrics HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and not body
    assert b"Content-Length: 0" not in head
    post = b"POST /metrics HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    assert talk(address, post).startswith(b"HTTP/1.1 405 ")
    assert talk(address, b"\x16\x03\x01\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    try:
        endless = talk(address, b"GET / HTTP/1.1\r\nx: " + b"y" * 1_000_000)
    except ConnectionError:
        pass
    else:
        assert endless.startswith(b"HTTP/1.1 400 ")
    assert talk(address, b"GET /healthz HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\nok\n")


def test_in_pieces(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=20) as sock:
        for byte in b"GET /healthz HTTP/1.1\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert sock.recv(15) == b"HTTP/1.1 200 OK"


def test_the_oldest_make_room(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "EXPORTER_CONNECTIONS", 10)
    idle = [socket.create_connection(address, timeout=20) for _ in range(30)]
    assert talk(address, b"GET /healthz HTTP/1.1\r\n\r\n").endswith(b"ok\n")
    assert idle[0].recv(1) == b""
    idle[-1].sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
    assert idle[-1].recv(15) == b"HTTP/1.1 200 OK"
    for sock in idle:
        sock.close()


def test_who_is_slow_is_cut_off(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_PATIENCE", 0.2)
    with socket.create_connection(address, timeout=20) as sock:
        sock.sendall(b"GET /metrics HTT")
        assert sock.recv(1) == b""


def test_who_asks_without_end_gets_a_part_of_the_time(address: tuple[str, int]) -> None:
    began, cpu = time.monotonic(), time.process_time()
    threads = [
        threading.Thread(
            target=lambda: [talk(address, b"GET /metrics HTTP/1.1\r\n\r\n") for _ in range(10)]
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The threads of the clients count, too.
    assert (time.process_time() - cpu) / (time.monotonic() - began) < 0.6


def test_one_page_is_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one only after a pause that is the longer, the longer that took."""
    monkeypatch.setattr(exporter, "_REST", 1e9)
    with socket.socket() as unused:
        made = Exporter(unused)
    answered: list[Request] = []

    def answer(request: Request) -> None:
        answered.append(request)
        time.sleep(0.001)

    monkeypatch.setattr(made, "_answer", answer)

    async def ask_twice() -> None:
        made._turn = asyncio.Lock()
        tasks = [asyncio.ensure_future(made._in_turn(get("/metrics"))) for _ in range(2)]
        for _ in range(10):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(ask_twice())
    assert len(answered) == 1


def test_health_does_not_wait_for_metrics(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_REST", 1e6)  # whoever is next has no turn for long
    with socket.create_connection(address, timeout=20) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        with socket.create_connection(address, timeout=20) as other:
            other.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert other.recv(15) == b"HTTP/1.1 200 OK"
