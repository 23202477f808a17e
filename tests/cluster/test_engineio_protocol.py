"""Engine.IO, revision 4, as clients see it: what its document says, and what Node's server does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from .conftest import ClusterFactory
from .harness import Cluster
from .protocol_cluster import (
    PING_INTERVAL,
    PING_TIMEOUT,
    POLLING,
    QUICK,
    start,
    wait_for_reason,
)
from .wire import (
    Answer,
    Closed,
    Refused,
    Request,
    Session,
    WebSocket,
    sid_of,
    target,
)


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Cluster:
    return start(make_module_cluster)


@pytest.fixture
def session(cluster: Cluster) -> Session:
    """By polling; it has joined no namespace."""
    return Session(cluster.port)


@pytest.fixture
def websocket(cluster: Cluster) -> Iterator[WebSocket]:
    """A session with it alone; it has joined no namespace."""
    with WebSocket(cluster.port) as made:
        yield made


def ask(cluster: Cluster, method: str, query: str) -> Answer:
    return Request(cluster.port, method, f"/socket.io/?{query}").answer()


def assert_over(session: Session) -> None:
    assert session.poll().status == 400
    assert session.post('427["echo"]').status == 400


# --- the handshake ---------------------------------------------------------------


def test_a_handshake_is_text(cluster: Cluster) -> None:
    answer = ask(cluster, "GET", "EIO=4&transport=polling")
    assert answer.status == 200
    assert answer.headers["content-type"].lower() == "text/plain; charset=utf-8"


def test_a_refusal_can_be_read_by_a_page_of_another_origin(cluster: Cluster) -> None:
    where = target(EIO="4", transport="polling", sid="none")
    headers = {"Origin": "http://friend.example"}
    answer = Request(cluster.port, "GET", where, headers=headers).answer()
    assert answer.status == 400
    assert answer.headers["access-control-allow-origin"] == "http://friend.example"


def test_a_websocket_where_polling_is_all(cluster: Cluster) -> None:
    with pytest.raises(Refused, match="400"):
        WebSocket(cluster.port, POLLING)
    session = Session(cluster.port, POLLING)
    with pytest.raises(Refused, match="400"):
        session.websocket()
    session.join()
    session.talks()


# --- messages --------------------------------------------------------------------


def test_one_text(session: Session) -> None:
    session.join()
    assert session.post('421["echo","hello €"]').status == 200
    (packet,) = session.poll().packets
    assert (packet[:3], json.loads(packet[3:])) == ("431", ["hello €"])


def test_several_texts(session: Session) -> None:
    session.join()
    assert session.post(*(f'42{n}["echo",{n}]' for n in range(3))).status == 200
    got: list[str] = []
    while len(got) < 3:
        got += session.poll().packets
    assert got == [f"43{n}[{n}]" for n in range(3)]


def test_texts_and_bytes(session: Session) -> None:
    session.join()
    placeholder = '{"_placeholder":true,"num":0}'
    assert session.post(f'451-7["echo",{placeholder}]', "bAQIDBA==").status == 200
    got: list[str] = []
    while len(got) < 2:
        got += session.poll().packets
    assert got == [f"461-7[{placeholder}]", "bAQIDBA=="]


@pytest.mark.parametrize("body", ["abc", "9", "4ok\x1eabc", "bAQIDBA=", "2probe"])
def test_a_post_of_what_is_no_packet_ends_the_session(session: Session, body: str) -> None:
    assert session.post(body).status == 400
    assert_over(session)


def test_a_text_by_websocket(websocket: WebSocket) -> None:
    websocket.join()
    websocket.send('421["echo","hello €"]')
    packet = websocket.receive()
    assert isinstance(packet, str)
    assert (packet[:3], json.loads(packet[3:])) == ("431", ["hello €"])


def test_bytes_by_websocket(websocket: WebSocket) -> None:
    websocket.join()
    placeholder = '{"_placeholder":true,"num":0}'
    websocket.send(f'451-7["echo",{placeholder}]', b"\x01\x02\x03\x04")
    websocket.expect(f"461-7[{placeholder}]", b"\x01\x02\x03\x04")


# --- pings -----------------------------------------------------------------------


def test_pings_by_polling(cluster: Cluster) -> None:
    session = Session(cluster.port, QUICK)
    for _ in range(4):
        began = time.monotonic()
        assert session.poll().packets == ["2"]
        assert time.monotonic() - began < PING_INTERVAL + PING_TIMEOUT
        assert session.post("3").status == 200


def test_a_poll_that_waits_when_the_time_is_over(cluster: Cluster) -> None:
    session = Session(cluster.port, QUICK)
    assert session.poll().packets == ["2"]
    began = time.monotonic()
    answer = session.poll()
    assert answer.status == 400 or answer.packets in (["1"], [""])
    assert time.monotonic() - began < PING_TIMEOUT + 2
    assert_over(session)


def test_pings_by_websocket(cluster: Cluster) -> None:
    with WebSocket(cluster.port, QUICK) as websocket:
        for _ in range(4):
            assert websocket.receive() == "2"
            websocket.send("3")


def test_a_websocket_without_pongs_ends(cluster: Cluster) -> None:
    with WebSocket(cluster.port, QUICK) as websocket:
        began = time.monotonic()
        sid = websocket.join()
        websocket.expect_end()
        # The ping may come a moment before its time, as seen from here.
        assert PING_INTERVAL + PING_TIMEOUT - 0.2 < time.monotonic() - began < 4
    assert wait_for_reason(cluster, sid) == "ping timeout"


# --- the end ---------------------------------------------------------------------


def test_a_close_by_websocket(cluster: Cluster, websocket: WebSocket) -> None:
    sid = websocket.join()
    websocket.send("1")
    websocket.expect_end()
    assert wait_for_reason(cluster, sid) == "client disconnect"


def test_a_websocket_whose_connection_ends(cluster: Cluster, websocket: WebSocket) -> None:
    sid = websocket.join()
    websocket.close()
    assert wait_for_reason(cluster, sid) == "transport close"


def test_a_websocket_that_its_client_closes(cluster: Cluster, websocket: WebSocket) -> None:
    sid = websocket.join()
    websocket.sock.sendall(b"\x88\x82\0\0\0\0\x03\xe8")  # 1000, masked with zeros
    with pytest.raises(Closed) as closed:
        websocket.receive()
    assert closed.value.code == 1000
    assert wait_for_reason(cluster, sid) == "transport close"


def test_the_server_ends_a_session_whose_poll_waits(cluster: Cluster, session: Session) -> None:
    sid = session.join()
    poll = session.start_poll()
    time.sleep(0.1)  # the poll is there first, as a rule
    assert session.post('42["end"]').status == 200
    assert poll.answer().packets == ["1"]
    assert wait_for_reason(cluster, sid) == "server disconnect"
    assert_over(session)


def test_the_server_ends_a_websocket(cluster: Cluster, websocket: WebSocket) -> None:
    sid = websocket.join()
    websocket.send('42["end"]')
    websocket.expect_end()
    assert wait_for_reason(cluster, sid) == "server disconnect"


# --- the upgrade -----------------------------------------------------------------


def test_a_poll_that_waits_at_the_upgrade_ends(session: Session) -> None:
    session.join()
    poll = session.start_poll()
    with session.websocket() as websocket:
        websocket.send("2probe")
        assert websocket.receive() == "3probe"
        assert poll.answer().packets == ["6"]
        websocket.send("5")
        websocket.talks()


@pytest.mark.parametrize("message", ['42["echo"]', "3", "abc", "2"])
def test_a_websocket_that_says_something_else_first(session: Session, message: str) -> None:
    session.join()
    with session.websocket() as websocket:
        websocket.send(message)
        websocket.expect_end()
    session.talks()


def test_the_sid_of_socketio_is_another(session: Session) -> None:
    assert session.post("40").status == 200
    assert sid_of(session.poll().packets[0]) != session.sid
