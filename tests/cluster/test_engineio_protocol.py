"""Engine.IO, revision 4, as clients see it: what its document says, and what Node's server does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from .conftest import ClusterFactory
from .harness import Cluster, wait_until, wait_until_idle
from .modes import NO_HANDLER
from .protocol_cluster import (
    PATIENT,
    PING_INTERVAL,
    PING_TIMEOUT,
    POLLING,
    QUICK,
    STIFF,
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
    upgrade_headers,
)

pytestmark = NO_HANDLER

#: Seconds that a client has to complete an upgrade.
UPGRADE_TIMEOUT = 10.0

TRANSPORT = (400, 0, "Transport unknown")
UNKNOWN = (400, 1, "Session ID unknown")
METHOD = (400, 2, "Bad handshake method")
#: What is bad about it is told.
BAD = (400, 3, "")
VERSION = (400, 5, "Unsupported protocol version")


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


def assert_refused(answer: Answer, refusal: tuple[int, int, str]) -> None:
    status, code, message = answer.refusal
    assert (status, code) == refusal[:2]
    assert message == refusal[2] or (message and not refusal[2])


def wait_until_received(cluster: Cluster) -> None:
    """Until the router and the worker have what they were sent before."""
    wait_until_idle(cluster.router_pid)
    wait_until_idle(cluster.workers()[0]["pid"])


def assert_over(session: Session) -> None:
    assert session.poll().status == 400
    assert session.post('427["echo"]').status == 400


# --- the handshake ---------------------------------------------------------------


def test_a_handshake_by_polling(cluster: Cluster) -> None:
    session = Session(cluster.port, QUICK)
    assert session.handshake == {
        "sid": session.sid,
        "upgrades": ["websocket"],
        "pingInterval": 300,
        "pingTimeout": 1000,
        "maxPayload": 1_000_000,
    }
    assert isinstance(session.sid, str)


def test_a_handshake_by_websocket(cluster: Cluster) -> None:
    with WebSocket(cluster.port, QUICK) as websocket:
        assert websocket.handshake == {
            "sid": websocket.sid,
            "upgrades": [],
            "pingInterval": 300,
            "pingTimeout": 1000,
            "maxPayload": 1_000_000,
        }


def test_a_handshake_is_text(cluster: Cluster) -> None:
    answer = ask(cluster, "GET", "EIO=4&transport=polling")
    assert answer.status == 200
    assert answer.headers["content-type"].lower() == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "method, query, refusal",
    [
        ("GET", "EIO=4", TRANSPORT),
        ("GET", "EIO=4&transport=abc", TRANSPORT),
        ("GET", "EIO=4&transport=", TRANSPORT),
        ("GET", "EIO=4&transport=abc&sid=1234", TRANSPORT),
        ("GET", "transport=polling", VERSION),
        ("GET", "EIO=abc&transport=polling", VERSION),
        ("GET", "EIO=3&transport=polling", VERSION),
        ("POST", "EIO=4&transport=polling", METHOD),
        ("PUT", "EIO=4&transport=polling", METHOD),
        ("DELETE", "EIO=4&transport=polling", METHOD),
        ("GET", "EIO=4&transport=websocket", BAD),
        ("GET", "EIO=4&transport=polling&sid=none", UNKNOWN),
        ("POST", "EIO=4&transport=polling&sid=none", UNKNOWN),
        ("GET", "EIO=4&transport=websocket&sid=none", UNKNOWN),
    ],
)
@pytest.mark.parametrize("with_body", [False, True], ids=["status", "body"])
def test_a_request_that_is_refused(
    cluster: Cluster, method: str, query: str, refusal: tuple[int, int, str], with_body: bool
) -> None:
    answer = ask(cluster, method, query)
    assert answer.status == refusal[0]
    if with_body:
        assert_refused(answer, refusal)
        assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("query", ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4"])
def test_a_websocket_that_is_refused(cluster: Cluster, query: str) -> None:
    request = Request(cluster.port, "GET", f"/socket.io/?{query}", headers=upgrade_headers())
    assert request.answer().status == 400


def test_a_method_that_no_session_knows(session: Session) -> None:
    assert Request(session.port, "PUT", session.target, "4").answer().status == 400
    session.join()
    session.talks()


def test_a_polling_session_asked_for_as_a_websocket(session: Session) -> None:
    """Without ``Upgrade``."""
    where = target(EIO="4", transport="websocket", sid=session.sid)
    assert_refused(Request(session.port, "GET", where).answer(), BAD)
    session.join()
    session.talks()


def test_who_may_not_come_is_refused(cluster: Cluster) -> None:
    where = target(EIO="4", transport="polling")
    headers = {"Origin": "http://stranger.example"}
    answer = Request(cluster.port, "GET", where, headers=headers).answer()
    assert_refused(answer, BAD)
    assert "access-control-allow-origin" not in answer.headers


def test_a_refusal_can_be_read_by_a_page_of_another_origin(cluster: Cluster) -> None:
    where = target(EIO="4", transport="polling", sid="none")
    headers = {"Origin": "http://friend.example"}
    answer = Request(cluster.port, "GET", where, headers=headers).answer()
    assert answer.status == 400
    assert answer.headers["access-control-allow-origin"] == "http://friend.example"


@pytest.mark.parametrize("path", [POLLING, STIFF])
def test_no_upgrade_is_offered_where_there_is_none(cluster: Cluster, path: str) -> None:
    assert Session(cluster.port, path).handshake["upgrades"] == []


def test_a_websocket_where_polling_is_all(cluster: Cluster) -> None:
    with pytest.raises(Refused, match="400"):
        WebSocket(cluster.port, POLLING)
    session = Session(cluster.port, POLLING)
    with pytest.raises(Refused, match="400"):
        session.websocket()
    session.join()
    session.talks()


@pytest.mark.parametrize("offered, chosen", [((), None), (("chat",), "chat"), (("b", "a"), "b")])
def test_the_first_protocol_is_chosen(
    cluster: Cluster, offered: tuple[str, ...], chosen: str | None
) -> None:
    with WebSocket(cluster.port, protocols=offered) as websocket:
        assert websocket.headers.get("sec-websocket-protocol") == chosen


# --- messages --------------------------------------------------------------------


def test_a_post_is_answered_with_ok(session: Session) -> None:
    answer = session.post("40")
    assert (answer.status, answer.text) == (200, "ok")
    assert answer.headers["content-type"].partition(";")[0] in ("text/html", "text/plain")


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


def test_a_second_poll_ends_the_session(cluster: Cluster, session: Session) -> None:
    sid = session.join()
    # The one that comes first is not known before both are there.
    polls = [session.start_poll(), session.start_poll()]
    answers = sorted((poll.answer() for poll in polls), key=lambda answer: answer.status)
    assert answers[0].packets == ["1"]
    assert answers[1].status in (400, 500)
    assert_over(session)
    assert wait_for_reason(cluster, sid) == "transport error"


def test_a_poll_that_its_client_cancels_ends_the_session_soon(
    cluster: Cluster, session: Session
) -> None:
    sid = session.join()
    session.start_poll().abandon()
    assert wait_for_reason(cluster, sid) == "transport close"
    assert_over(session)


def test_who_cancels_a_poll_and_polls_at_once(cluster: Cluster, session: Session) -> None:
    session.join()
    for number in range(5):
        poll = session.start_poll()
        if number == 0:
            wait_until_received(cluster)
        poll.abandon()
        session.post(f'42["message",{number}]')
        assert session.poll().packets == [f'42["message-back",{number}]']


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


@pytest.mark.parametrize("message", ["abc", "", "9", "2"])
def test_what_is_no_packet_ends_a_websocket(websocket: WebSocket, message: str) -> None:
    websocket.send(message)
    websocket.expect_end()


# --- pings -----------------------------------------------------------------------


def test_pings_by_polling(cluster: Cluster) -> None:
    session = Session(cluster.port, PATIENT)
    for _ in range(4):
        assert session.poll().packets == ["2"]
        assert session.post("3").status == 200


def test_who_never_polls_is_refused_when_its_time_is_over(cluster: Cluster) -> None:
    session = Session(cluster.port, QUICK)
    time.sleep(PING_INTERVAL + PING_TIMEOUT)
    assert session.poll().status == 400


@pytest.mark.tries(3)
def test_who_has_no_answer_to_a_ping_is_refused(cluster: Cluster) -> None:
    session = Session(cluster.port, QUICK)
    sid = session.join()
    assert session.poll().packets == ["2"]
    time.sleep(PING_TIMEOUT + 0.1)  # a ping may come a moment before its time
    assert session.post("3").status == 400
    assert wait_for_reason(cluster, sid) == "ping timeout"


@pytest.mark.tries(3)
def test_a_poll_that_waits_when_the_time_is_over(cluster: Cluster) -> None:
    session = Session(cluster.port, QUICK)
    assert session.poll().packets == ["2"]
    began = time.monotonic()
    answer = session.poll()
    assert answer.status == 400 or answer.packets in (["1"], [""])
    assert time.monotonic() - began < PING_TIMEOUT + 10
    assert_over(session)


def test_pings_by_websocket(cluster: Cluster) -> None:
    with WebSocket(cluster.port, PATIENT) as websocket:
        for _ in range(4):
            assert websocket.receive() == "2"
            websocket.send("3")


@pytest.mark.tries(3)
def test_a_websocket_without_pongs_ends(cluster: Cluster) -> None:
    began = time.monotonic()
    with WebSocket(cluster.port, QUICK) as websocket:
        sid = websocket.join()
        websocket.expect_end()
        # The ping may come a moment before its time, as seen from here.
        assert PING_INTERVAL + PING_TIMEOUT - 0.2 < time.monotonic() - began
    assert wait_for_reason(cluster, sid) == "ping timeout"


# --- the end ---------------------------------------------------------------------


def test_a_close_that_is_posted(cluster: Cluster, session: Session) -> None:
    sid = session.join()
    poll = session.start_poll()
    wait_until_received(cluster)
    assert session.post("1").status == 200
    assert poll.answer().packets == ["6"]
    assert wait_for_reason(cluster, sid) == "client disconnect"
    assert_over(session)


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


def test_the_server_ends_a_polling_session(cluster: Cluster, session: Session) -> None:
    sid = session.join()
    assert session.post('42["end"]').status == 200
    assert session.poll().packets[-1] == "1"
    assert wait_for_reason(cluster, sid) == "server disconnect"
    assert_over(session)


def test_the_server_ends_a_session_whose_poll_waits(cluster: Cluster, session: Session) -> None:
    sid = session.join()
    poll = session.start_poll()
    wait_until_received(cluster)
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


def test_an_upgrade(session: Session) -> None:
    session.join()
    with session.websocket() as websocket:
        websocket.send("2probe")
        assert websocket.receive() == "3probe"
        assert session.poll().packets == ["6"]
        websocket.send("5")
        websocket.talks()


def test_a_poll_that_waits_at_the_upgrade_ends(session: Session) -> None:
    session.join()
    poll = session.start_poll()
    with session.websocket() as websocket:
        websocket.send("2probe")
        assert websocket.receive() == "3probe"
        assert poll.answer().packets == ["6"]
        websocket.send("5")
        websocket.talks()


def test_an_upgrade_whose_poll_is_left_waiting(session: Session) -> None:
    """A client may say "5" before its poll has been answered."""
    session.join()
    poll = session.start_poll()
    with session.upgrade() as websocket:
        answer = poll.answer()
        assert answer.status == 400 or answer.packets in (["6"], ["1"], [""])
        websocket.talks()


def test_polls_get_messages_until_the_probe(session: Session) -> None:
    """A proxy that swallows the 101 leaves a client that goes on with polling."""
    session.join()
    with session.websocket():
        for _ in range(3):
            session.talks()


@pytest.mark.long  # unit/engine/test_session.py has it without waiting
def test_an_upgrade_that_is_given_up(session: Session) -> None:
    session.join()
    began = time.monotonic()
    with session.websocket() as websocket:
        websocket.send("2probe")
        assert websocket.receive() == "3probe"
        with pytest.raises(Closed):
            websocket.receive()
        assert UPGRADE_TIMEOUT - 1 < time.monotonic() - began < 2 * UPGRADE_TIMEOUT
    session.talks()
    with session.upgrade() as websocket:
        websocket.talks()


@pytest.mark.parametrize("probe", [False, True])
def test_a_websocket_that_goes_before_the_upgrade(session: Session, probe: bool) -> None:
    session.join()
    websocket = session.websocket()
    if probe:
        websocket.send("2probe")
        assert websocket.receive() == "3probe"
    websocket.close()
    # That its end has been seen cannot be seen from here, but in what works again.
    wait_until(lambda: _upgrades(session), 10, "an upgrade")


def _upgrades(session: Session) -> bool:
    try:
        websocket = session.upgrade()
    except Closed:
        return False
    with websocket:
        websocket.talks()
    return True


@pytest.mark.parametrize("message", ['42["echo"]', "3", "abc", "2"])
def test_a_websocket_that_says_something_else_first(session: Session, message: str) -> None:
    session.join()
    with session.websocket() as websocket:
        websocket.send(message)
        websocket.expect_end()
    session.talks()


def test_no_event_is_lost_between_probe_and_upgrade(session: Session) -> None:
    session.join()
    with session.websocket() as websocket:
        websocket.send("2probe")
        assert websocket.receive() == "3probe"
        assert session.post('421["echo",1]').status == 200
        websocket.send("5")
        websocket.expect("431[1]")
        websocket.talks()


def test_requests_for_a_session_with_a_websocket(session: Session) -> None:
    session.join()
    with session.upgrade() as websocket:
        websocket.talks()
        for answer in (session.poll(), session.post('42["echo"]')):
            assert answer.status == 400
        websocket.talks()


def test_requests_for_a_session_that_began_with_a_websocket(websocket: WebSocket) -> None:
    websocket.join()
    port = websocket.sock.getpeername()[1]
    where = target(EIO="4", transport="polling", sid=websocket.sid)
    assert_refused(Request(port, "GET", where).answer(), BAD)
    assert_refused(Request(port, "POST", where, '42["echo"]').answer(), BAD)
    websocket.talks()


def test_a_second_websocket_after_the_upgrade(session: Session) -> None:
    session.join()
    with session.upgrade() as first:
        first.talks()
        with session.websocket() as second:
            with pytest.raises(Closed):
                second.receive()
        first.talks()


def test_a_second_websocket_during_the_upgrade(session: Session) -> None:
    session.join()
    with session.websocket() as first:
        first.send("2probe")
        assert first.receive() == "3probe"
        with session.websocket() as second:
            with pytest.raises(Closed):
                second.receive()
        first.send("5")
        first.talks()


def test_a_second_websocket_for_a_session_that_began_with_one(websocket: WebSocket) -> None:
    websocket.join()
    port = websocket.sock.getpeername()[1]
    with WebSocket(port, sid=websocket.sid) as second:
        with pytest.raises(Closed):
            second.receive()
    websocket.talks()


def test_the_sid_of_socketio_is_another(session: Session) -> None:
    assert session.post("40").status == 200
    assert sid_of(session.poll().packets[0]) != session.sid
