"""Socket.IO, revision 5, as clients see it: what its document says, and what Node's server does."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .protocol_cluster import PATIENT, STIFF, start, wait_for_reason
from .wire import Session, WebSocket, sid_of

ONE = '{"_placeholder":true,"num":0}'
TWO = '{"_placeholder":true,"num":1}'


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Cluster:
    return start(make_module_cluster)


@pytest.fixture
def websocket(cluster: Cluster) -> Iterator[WebSocket]:
    with WebSocket(cluster.port) as made:
        yield made


# --- CONNECT ---------------------------------------------------------------------


def test_the_main_namespace(websocket: WebSocket) -> None:
    websocket.send("40")
    packet = websocket.receive()
    assert isinstance(packet, str) and packet.startswith("40{")
    assert sid_of(packet) != websocket.sid
    websocket.send('421["auth"]')
    websocket.expect("431[]")


def test_the_main_namespace_with_a_payload(websocket: WebSocket) -> None:
    websocket.join(auth='{"token":"123"}')
    websocket.send('421["auth"]')
    websocket.expect('431[{"token":"123"}]')


@pytest.mark.parametrize("auth", ["", '{"token":"123"}'])
def test_a_custom_namespace(websocket: WebSocket, auth: str) -> None:
    websocket.send(f"40/custom,{auth}")
    packet = websocket.receive()
    assert isinstance(packet, str) and packet.startswith("40/custom,{")
    assert sid_of(packet)
    # Emitted by the handler of `connect`, and behind the answer nevertheless.
    told = websocket.receive()
    assert isinstance(told, str) and told.startswith("42/custom,")
    assert json.loads(told[10:]) == ["auth", json.loads(auth) if auth else {}]


def test_each_namespace_has_a_sid_of_its_own(websocket: WebSocket) -> None:
    assert websocket.join() != websocket.join("/custom")


@pytest.mark.parametrize("text", ["40/random", "40/random,", '40/random,{"token":"1"}'])
def test_a_namespace_that_nobody_has(websocket: WebSocket, text: str) -> None:
    websocket.send(text)
    websocket.expect('44/random,{"message":"Invalid namespace"}')
    websocket.join()
    websocket.talks()


def test_a_namespace_that_nobody_has_by_polling(cluster: Cluster) -> None:
    session = Session(cluster.port)
    assert session.post("40/random,").status == 200
    assert session.poll().packets == ['44/random,{"message":"Invalid namespace"}']
    session.join()
    session.talks()


def test_a_connect_handler_that_refuses(websocket: WebSocket) -> None:
    websocket.send("40/refusing,")
    packet = websocket.receive()
    assert isinstance(packet, str) and packet.startswith("44/refusing,")
    assert json.loads(packet.partition(",")[2]) == {
        "message": "not today",
        "data": {"tomorrow": True},
    }
    websocket.join()
    websocket.talks()


def test_a_connect_handler_that_raises(cluster: Cluster, websocket: WebSocket) -> None:
    """The client is refused and hears nothing of why; the log has it."""
    websocket.send("40/failing,")
    packet = websocket.receive()
    assert isinstance(packet, str) and packet.startswith("44/failing,")
    assert isinstance(json.loads(packet.partition(",")[2])["message"], str)
    assert "as the test wants it" not in packet
    websocket.join()
    websocket.talks()
    wait_until(lambda: "as the test wants it" in cluster.log("workers_00"), 5, "the log")


def test_a_connect_handler_that_raises_by_polling(cluster: Cluster) -> None:
    session = Session(cluster.port)
    assert session.post("40/failing,").status == 200
    (packet,) = session.poll().packets
    assert packet.startswith("44/failing,")
    session.join()
    session.talks()


@pytest.mark.parametrize("text", ["4abc", "4", "49", '42["echo",1]'])
def test_who_begins_with_something_else_does_not_stay(websocket: WebSocket, text: str) -> None:
    websocket.send(text)
    websocket.expect_end()


def test_who_never_connects_does_not_stay(cluster: Cluster) -> None:
    """Although it owes no answer to a ping."""
    with WebSocket(cluster.port, STIFF) as websocket:
        websocket.expect_end()


@pytest.mark.parametrize("before", [(), ("40/refusing,",)], ids=["nothing", "refused"])
def test_who_never_connects_by_polling_does_not_stay(
    cluster: Cluster, before: tuple[str, ...]
) -> None:
    session = Session(cluster.port, STIFF)
    if before:
        assert session.post(*before).status == 200
        assert session.poll().packets[0].startswith("44/refusing,")
    assert session.poll().packets == ["1"]
    assert session.poll().status == 400


# --- DISCONNECT ------------------------------------------------------------------


def test_a_client_leaves_the_main_namespace(cluster: Cluster) -> None:
    with WebSocket(cluster.port, PATIENT) as websocket:
        sid = websocket.join()
        websocket.send("41")
        # The connection stays; the next is its ping.
        websocket.expect("2")
        websocket.send("3")
        assert wait_for_reason(cluster, sid) == "client disconnect"
        assert websocket.join() != sid
        websocket.talks()


def test_a_client_leaves_a_custom_namespace(websocket: WebSocket) -> None:
    websocket.join()
    websocket.join("/custom")
    websocket.expect('42/custom,["auth",{}]')
    websocket.send("41/custom,", '42["message","to the main one"]')
    websocket.expect('42["message-back","to the main one"]')


def test_the_server_disconnects_a_client(cluster: Cluster, websocket: WebSocket) -> None:
    sid = websocket.join()
    websocket.send('42["leave"]')
    websocket.expect("41")
    assert wait_for_reason(cluster, sid) == "server disconnect"
    websocket.join()
    websocket.talks()


# --- events ----------------------------------------------------------------------


def test_a_text(websocket: WebSocket) -> None:
    websocket.join()
    websocket.send('42["message",1,"2",{"3":[true]}]')
    websocket.expect('42["message-back",1,"2",{"3":[true]}]')


def test_a_text_with_an_acknowledgement(websocket: WebSocket) -> None:
    websocket.join()
    websocket.send('42456["echo",1,"2",{"3":[false]}]')
    websocket.expect('43456[1,"2",{"3":[false]}]')


def test_attachments(websocket: WebSocket) -> None:
    websocket.join()
    websocket.send(f'452-["message",{ONE},{TWO}]', b"\1\2\3", b"\4\5\6")
    websocket.expect(f'452-["message-back",{ONE},{TWO}]', b"\1\2\3", b"\4\5\6")


def test_attachments_with_an_acknowledgement(websocket: WebSocket) -> None:
    websocket.join()
    websocket.send(f'452-789["echo",{ONE},{TWO}]', b"\1\2\3", b"\4\5\6")
    websocket.expect(f"462-789[{ONE},{TWO}]", b"\1\2\3", b"\4\5\6")


@pytest.mark.parametrize("text", ["4abc", "42{}", '42abc["echo",1]', "47", '42["echo",'])
def test_what_is_not_a_packet_ends_its_session(
    cluster: Cluster, websocket: WebSocket, text: str
) -> None:
    with WebSocket(cluster.port) as other:
        other.join()
        sid = websocket.join()
        websocket.send(text)
        websocket.expect_end()
        other.talks()
    assert wait_for_reason(cluster, sid) == "transport error"
