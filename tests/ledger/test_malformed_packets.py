"""What is not a packet ends its session, and is counted, at a line a second; no traceback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.raw import PATH, Poller, exchange

from ledger.stranger import CLOSED, Stranger
from ledger.victim import log_lines

MALFORMED = [
    *("46", '46["x"]', '461["x"]', '450-["x"', '451-["x"]', '421-["x"]', "45", "451-", "46-"),
    *('43["x"]', '430["x"]', "4300[]", '431{"a":1}', '431"x"', "431", '42["echo", {]', "4²", "48"),
    *('42["connect"]', '42["disconnecting"]', "44{}", "4"),
]
#: For a handler that takes other arguments.
WRONG = ['42["one"]', '42["one",1,2]', '421["one"]']
#: To nobody: the answer to an event that was not emitted, and an event without a handler.
USELESS = ["43300[]", "42[5,1,2,3]"]


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Iterator[Cluster]:
    command = "supervisor-sio worker session_app:app"
    yield make_module_cluster(here=Path(__file__).parent, workers=1, command=command).start()


@pytest.fixture(autouse=True)
def no_traceback(cluster: Cluster) -> Iterator[None]:
    yield
    assert "Traceback" not in cluster.log("workers_00")


@pytest.mark.long
def test_a_flood_of_packets_that_mean_nothing(cluster: Cluster) -> None:
    began = time.monotonic()
    with Stranger(cluster.port) as stranger, log_lines(cluster, "workers_00") as lines:
        for _ in range(40):
            for text in (*WRONG, *USELESS):
                stranger.text(text)
                stranger.text('422["echo",1]')
                stranger.until(b"432[1]")
            for text in MALFORMED:
                with Stranger(cluster.port) as one:
                    one.text(text, '422["echo",1]')
                    assert b"432" not in one.until(CLOSED)
    seconds = time.monotonic() - began
    counted = 40 * (len(WRONG) + len(MALFORMED))
    figures = cluster.status()["clients"]
    wait_until(lambda: cluster.status()["clients"]["protocol_errors"] >= counted, 5, str(figures))
    assert lines() <= 2 * (seconds + 2)


@pytest.mark.parametrize("text", MALFORMED)
def test_the_same_with_polling(cluster: Cluster, text: str) -> None:
    poller = Poller(cluster.port)
    poller.open()
    poller.join()
    assert poller.request("POST", f'{text}\x1e421["echo",1]')[0] == 400
    assert poller.request("GET")[0] == 400


def test_what_nobody_needs_with_polling(cluster: Cluster) -> None:
    poller = Poller(cluster.port)
    poller.open()
    poller.join()
    for text in (*WRONG, *USELESS):
        poller.must("POST", text)
        assert poller.call("echo", 1) == 1


def test_a_post_to_a_session_that_has_ended(cluster: Cluster) -> None:
    for body in ("40", '421["echo",1]', "3", "1", ""):
        poller = Poller(cluster.port)
        poller.open()
        poller.join()
        poller.must("POST", "1")
        assert poller.request("POST", body)[0] == 400
        assert poller.request("GET")[0] == 400


def test_what_follows_a_close_in_its_post(cluster: Cluster) -> None:
    poller = Poller(cluster.port)
    poller.open()
    poller.join()
    assert poller.request("POST", '1\x1e42["echo"]\x1e40\x1e7')[0] == 200
    assert poller.request("POST", "40")[0] == 400


@pytest.mark.parametrize(
    "headers",
    [
        "Upgrade: websocket",
        "Upgrade: websocket\r\nConnection: close",
        "Upgrade: WebSocket\r\nConnection: keep-alive",
        "Upgrade: h2c\r\nConnection: Upgrade",
        "Connection: Upgrade",
        "Upgrade: websocket\r\nConnection: Upgrade",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: \xe4\xf6",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: \xff\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: AAAA",
    ],
)
@pytest.mark.parametrize("with_session", [False, True])
def test_bad_headers_of_an_upgrade(cluster: Cluster, headers: str, with_session: bool) -> None:
    sid = ""
    if with_session:
        poller = Poller(cluster.port)
        poller.open()
        sid = f"&sid={poller.sid}"
    head = f"GET {PATH}websocket{sid} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"
    if with_session and "Connection: Upgrade" not in headers:
        head += "Connection: close\r\n"
        poller.must("POST", "40")  # a poll has something to take
    answer = exchange_closing(cluster.port, head)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 ")), answer
    if not with_session:
        assert answer.startswith(b"HTTP/1.1 400 ")


def exchange_closing(port: int, head: str) -> bytes:
    """One request; a second one, which ends the connection, is behind it."""
    end = "\r\nGET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    return exchange(port, (head + end).encode("latin-1"))
