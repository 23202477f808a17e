"""All sessions of a server: handshakes, refusals, and sessions of another process."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest

from supervisor_sio.common.limits import (
    CROSSED_POLL_SECONDS,
    ENGINE_PATHS,
    LAST_POLL_SECONDS,
    OUTPUT_CEILING,
    READING_STOPS,
    SLOW_OUTPUT_PATIENCE,
    UPGRADE_SECONDS,
)
from supervisor_sio.common.not_movable import NotMovable
from supervisor_sio.common.reasons import HANDLER_RUNNING, MID_REQUEST
from supervisor_sio.engine.deadlines import NEVER, NOWHERE
from supervisor_sio.engine.frames import CLOSE
from supervisor_sio.engine.session import Session, State
from supervisor_sio.engine.websocket import WebSocket
from unit.client_frames import masked
from unit.engine.fakes import UPGRADE, FakeExchange, FakeLink, World


@pytest.fixture
def world() -> World:
    return World()


def refused(world: World, *args: Any, **more: Any) -> FakeExchange:
    """The refusal of a request without a session."""
    exchange = FakeExchange()
    answer = world.engine.check(world.request(*args, **more))
    assert answer is not None
    exchange.answer(answer)
    return exchange


# --- handshakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_the_answer_to_a_handshake(transport: str) -> None:
    world = World(
        ping_interval=0.29, ping_timeout=0.2, ping_interval_grace_period=0.01, cookie="io"
    )
    request = world.request(transport=transport, **(UPGRADE if transport == "websocket" else {}))
    session, exchange = world.engine.open(request), FakeExchange()
    assert world.engine.sessions == {session.sid: session} and session.address == "192.0.2.1"
    world.engine.accept(session, request, exchange)
    if exchange.link is None:
        (packet,) = exchange.packets
        assert "\r\nSet-Cookie: io=sid1; path=/; SameSite=Lax" in exchange.head
    else:
        (packet,) = exchange.link.got
    assert packet[0] == "0" and json.loads(packet[1:]) == {
        "sid": "sid1",
        "upgrades": ["websocket"] if transport == "polling" else [],
        "pingTimeout": 200,
        "pingInterval": 300,
        "maxPayload": 1000000,
    }


def test_the_application_refuses(world: World) -> None:
    request, exchange = world.request(), FakeExchange()
    session = world.engine.open(request)
    assert world.get(session.sid).error == 1, "nobody is let in yet"
    assert world.get(session.sid, transport="websocket", **UPGRADE).error == 1
    world.engine.refuse(session, request, exchange, {"why": "a secret"})
    assert exchange.status == 401 and json.loads(exchange.body) == {"why": "a secret"}
    assert not world.engine.sessions and not world.owner.closed
    assert session.state is State.CLOSED


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code", "kind"),
    [
        ({"transport": ""}, 0, "bad-transport"),
        ({"transport": "flash"}, 0, "bad-transport"),
        ({"sid": "unknown"}, 1, "bad-sid"),
        ({"sid": "unknown", "method": "POST"}, 1, "bad-sid"),
        ({"sid": "unknown", "transport": "websocket", **UPGRADE}, 1, "bad-sid"),
        ({"method": "POST"}, 2, "bad-method"),
        ({"method": "PUT"}, 2, "bad-method"),
        ({"sid": "unknown", "method": "PUT"}, 3, "bad-method"),
        ({"query": ""}, 5, "bad-version"),
        ({"query": "EIO=3"}, 5, "bad-version"),
        ({"query": "EIO=4&j=x"}, 3, "bad-jsonp-index"),
        ({"transport": "websocket"}, 3, "bad-upgrade"),
        ({"Origin": "http://evil.example"}, 3, "bad-origin"),
        ({"Origin": "http://evil.example", "method": "OPTIONS"}, 3, "bad-origin"),
    ],
)
def test_refusals(world: World, more: dict[str, str], code: int, kind: str) -> None:
    exchange = refused(world, **more)
    assert exchange.error == code and world.owner.refused == [kind]
    assert "application/json" in exchange.head


def test_a_websocket_of_another_version_is_told_which_one(world: World) -> None:
    fields = {**UPGRADE, "Sec-WebSocket-Version": "8"}
    exchange = refused(world, transport="websocket", **fields)
    assert exchange.error == 3 and "\r\nSec-WebSocket-Version: 13" in exchange.head
    assert "Sec-WebSocket-Version is not 13" in exchange.body
    session = world.open()
    assert world.get(session.sid, transport="websocket", **fields).error == 3
    assert session.state is State.POLLING


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"sid": "unknown"},
        {"query": "EIO=3"},
        {"query": "EIO=4&j=x"},
        {"transport": "flash"},
        {"transport": "websocket"},
    ],
)
def test_a_preflight(more: dict[str, str]) -> None:
    """Accepted also before a request that will be refused: only then the page learns why."""
    world = World(cors_allowed_origins="*")
    exchange = refused(world, method="OPTIONS", Origin="http://a.example", **more)
    assert exchange.status == 200 and not world.owner.refused
    assert "\r\nAccess-Control-Allow-Methods: OPTIONS, GET, POST" in exchange.head


def test_only_polling() -> None:
    world = World(transports=["polling"])
    session = world.open()
    assert world.get(session.sid, transport="websocket", **UPGRADE).error == 0


def test_a_post_to_a_session_on_a_websocket(world: World) -> None:
    session, link = world.open_websocket()
    assert world.post(session.sid, "4x").error == 3
    assert world.owner.refused == ["unexpected-http"]
    request = world.request("POST", session.sid, transport="websocket", **UPGRADE)
    exchange = FakeExchange()
    world.engine.handle(request, exchange, b"4x")
    assert exchange.error == 3
    link.text("4x")
    assert not session.closed


def test_a_session_that_ends_while_a_body_is_read(world: World) -> None:
    session = world.open()
    request, exchange = world.request("POST", session.sid), FakeExchange()
    assert world.engine.body_limit(request) == 1_000_000
    session.close("ping timeout")
    world.engine.handle(request, exchange, b"4x")
    assert exchange.error == 1 and not world.owner.messages


def test_a_function_that_looks_at_origins_is_called_once_for_a_request() -> None:
    seen: list[Any] = []

    def allow(origin: str, environ: Any) -> bool:
        seen.append(environ)
        return True

    world = World(cors_allowed_origins=allow)
    assert world.engine.may_have_to_wait
    session = world.open()
    request, exchange = world.request(sid=session.sid, Origin="http://a"), FakeExchange()
    request.environ = lambda: {"HTTP_COOKIE": "x"}
    world.engine.handle(request, exchange, None)
    session.send("4x")
    world.turn()
    assert exchange.packets == ["4x"] and seen == [{"HTTP_COOKIE": "x"}]


def test_paths(world: World) -> None:
    world.engine.add_path("/socket.io/")
    world.engine.add_path("/socket.io/")
    assert list(world.engine.paths) == ["/socket.io/"]
    for number in range(2 * ENGINE_PATHS):
        world.engine.add_path(f"/socket.io/{number}")
        world.engine.add_path("/socket.io/")  # is in use
    assert len(world.engine.paths) == ENGINE_PATHS and "/socket.io/" in world.engine.paths


def test_forgetting(world: World) -> None:
    session, link = world.open_websocket()
    world.engine.forget(session.sid)
    assert world.engine.sessions
    link.end()
    assert not world.engine.sessions
    world.engine.forget(session.sid)
    session = world.open()
    session.close("ping timeout")
    assert world.engine.sessions
    world.engine.forget(session.sid)
    assert not world.engine.sessions


# --- sessions of another process ------------------------------------------------------------------


def no_websocket(websocket: WebSocket) -> FakeLink:
    raise AssertionError("there is no websocket")


def state_of(session: Session) -> dict[str, Any]:
    """The state of a session that is taken out."""
    state: dict[str, Any] = json.loads(json.dumps(session._engine.take_out(session.sid)))
    return state


def full(world: World, state: State) -> Session:
    """A movable session, with all optional parts that this state allows."""
    world.owner.handler = lambda session, data: False
    if state is State.WEBSOCKET:
        session = world.open()
        link = world.upgrade(session.sid)
        link.text("2probe")
        world.post(session.sid, "4one", "4two", "bQ")
        link.text("5")
        link.receive(b"\x81")
        return session
    session = world.open()
    if state is State.CLOSING:
        session.close()
        world.engine.forget(session.sid)
        return session
    if state is State.LEFT:
        world.post(session.sid, "1")
        world.engine.forget(session.sid)
        return session
    if state in (State.PROBING, State.UPGRADING):
        link = world.upgrade(session.sid)
        if state is State.UPGRADING:
            link.text("2probe")
    world.get(session.sid)
    world.post(session.sid, "4one", "4two", "bAQ==")
    session.send("4x")
    session.send(b"\x00")
    return session


ALL = [state for state in State if state not in (State.OPENING, State.CLOSED)]


@pytest.mark.parametrize("state", ALL)
def test_a_state_that_goes_round(world: World, state: State) -> None:
    session = full(world, state)
    assert session.state is state
    told = state_of(session)
    there = World()
    links: list[FakeLink] = []

    def connect(websocket: WebSocket) -> FakeLink:
        links.append(FakeLink(websocket))
        return links[-1]

    poll, post = FakeExchange(), FakeExchange()
    again = there.engine.restore(told, connect, poll, post)
    assert there.engine.sessions == {session.sid: again}
    assert len(links) == sum(told[name] is not None for name in ("websocket", "candidate"))
    with pytest.raises(ValueError, match="sid 'sid1' exists already"):
        there.engine.restore(told, connect, poll, post)
    assert state_of(again) == told | {"next_ping": told["next_ping"] and pytest.approx(25)}


@pytest.mark.parametrize("state", ALL)
def test_nothing_is_left_of_a_session_that_was_taken_out(world: World, state: State) -> None:
    session = full(world, state)
    told, closed = session.connections(), list(world.owner.closed)
    websockets = session._websockets
    world.engine.take_out(session.sid)
    assert not world.engine.sessions
    for item in (session, *websockets):
        assert (item.deadline, item.slot) == (NEVER, NOWHERE)
    for call in (
        world.turn,
        session.proceed,
        session.refuse,
        session.close,
        lambda: session.send("4x"),
        *(websocket.proceed for websocket in websockets),
        lambda: world.wait(1000),
    ):
        call()
    assert world.deadlines.next() is None
    assert session.closed and world.owner.closed == closed
    assert not session.connections() and session.waiting == 0
    for exchange in told.values():
        if isinstance(exchange, FakeExchange):
            assert exchange.response is None and exchange.session is None
            world.engine.gone(exchange)
        else:
            assert isinstance(exchange, FakeLink) and not (exchange.ended or exchange.closing)
            exchange.end()
    assert world.owner.closed == closed and world.get(session.sid).error == 1


@pytest.mark.parametrize("state", ALL)
def test_a_restored_session_does_nothing_before_it_is_started(state: State) -> None:
    here, there, post = World(ping_interval=20), World(ping_interval=10), FakeExchange()
    poll = FakeExchange()
    links: list[FakeLink] = []

    def connect(websocket: WebSocket) -> FakeLink:
        links.append(FakeLink(websocket))
        return links[-1]

    session = full(here, state)
    closed = session.closed
    told = state_of(session)
    again = there.engine.restore(told, connect, poll, post, elapsed=19)
    again.send("4sent")
    there.turn()
    assert there.deadlines.next() is None and not there.owner.messages
    there.wait(100)
    assert poll.response is None and post.response is None
    got = {State.WEBSOCKET: [["4sent"]], State.PROBING: [[]], State.UPGRADING: [[]]}
    assert [link.got for link in links] == got.get(state, [])
    again.start()
    there.wait(0.1)
    assert again.closed is closed
    if told["poll"] is not None:
        assert poll.packets == ["4x", "bAA==", "4sent"]
        assert there.poll(again.sid) == ["2"], "it was due meanwhile"


@pytest.mark.parametrize("elapsed", [0.0, 7.0, 100.0])
def test_a_ping_is_sent_when_it_would_have_been_due(elapsed: float) -> None:
    world = World(ping_interval=20, ping_timeout=15)
    session, link = world.open_websocket()
    world.wait(10)
    told, there = state_of(session), World(ping_interval=20, ping_timeout=15)
    again = there.engine.restore(told, lambda websocket: link, elapsed=elapsed)
    link.websocket = again._websocket  # type: ignore[assignment]
    seen = len(link.got)
    again.start()
    if elapsed < 10:
        there.wait(9.5 - elapsed)
        assert link.got[seen:] == []
        there.wait(0.5)
    else:
        there.wait(0.02)
    assert link.got[seen:] == ["2"]
    there.wait(14)
    assert not again.closed
    there.wait(1.1)
    assert there.reason == "ping timeout"


def test_the_first_answer_after_a_move_proves_nothing() -> None:
    """It may answer a ping that was sent before the move."""
    world = World(ping_interval=20, ping_timeout=15)
    session, link = world.open_websocket()
    told, there = state_of(session), World(ping_interval=20, ping_timeout=15)
    again = there.engine.restore(told, lambda websocket: link, elapsed=0)
    link.websocket = again._websocket  # type: ignore[assignment]
    again.start()
    for proves in (False, True):
        there.wait(20.1)
        link.text("3")
        assert (again.proven > 0) is proves
    assert there.owner.behind == [False]


def test_a_pong_has_its_time_anew() -> None:
    world, there = World(ping_interval=20, ping_timeout=15), World(ping_timeout=15)
    session = world.open()
    world.wait(34.9)
    assert not session.closed
    again = there.engine.restore(state_of(session), no_websocket, elapsed=3)
    there.wait(1000)
    again.start()
    there.wait(14.9)
    assert not again.closed and not again.overdue
    assert there.poll(again.sid) == ["2"]
    there.post(again.sid, "3")
    there.wait(20)
    assert not again.closed


@pytest.mark.parametrize("answer", ["before", "after", "never"])
@pytest.mark.parametrize("pause", [1, 29])
def test_the_ping_after_one_that_was_sent_before_a_pause(answer: str, pause: float) -> None:
    """python-engineio's clients wait for ``ping_interval`` plus 5 seconds."""
    world, there = World(), World()
    session, link = world.open_websocket()
    session.ping_early()
    assert link.got.pop() == "2"
    if answer == "before":
        link.text("3")

    def connect(websocket: WebSocket) -> FakeLink:
        link.websocket = websocket
        return link

    again = there.engine.restore(state_of(session), connect, elapsed=pause)
    seen = len(link.got)
    there.wait(0.5)  # before all that has come with it is restored
    again.start()
    if answer == "after":
        link.text("3")
    there.wait(max(0.1, 25 - pause))
    assert link.got[seen:] == ["2"]
    there.wait(19.4)
    assert not again.closed
    if answer != "never":
        link.text("3")
    there.wait(1)
    assert again.closed == (answer == "never")


def test_a_last_poll_has_its_time_anew(world: World) -> None:
    for state, seconds in ((State.CLOSING, LAST_POLL_SECONDS), (State.LEFT, CROSSED_POLL_SECONDS)):
        session = full(world, state)
        world.wait(seconds - 0.1)
        again = world.engine.restore(state_of(session), no_websocket, elapsed=1)
        again.start()
        closed = list(world.owner.closed)
        world.wait(seconds - 0.1)
        assert again.state is state
        assert world.get(again.sid).packets == (["1"] if state is State.CLOSING else ["6"])
        again = world.engine.restore(state_of(full(world, state)), no_websocket)
        again.start()
        world.wait(seconds)
        assert again.state is State.CLOSED and not world.engine.sessions
        assert len(world.owner.closed) == len(closed) + 1, "here, where it was made"


@pytest.mark.parametrize("state", [State.PROBING, State.UPGRADING])
def test_an_upgrade_has_its_time_anew(state: State) -> None:
    world, there = World(ping_interval=100), World(ping_interval=100)
    session = world.open()
    link = world.upgrade(session.sid)
    if state is State.UPGRADING:
        link.text("2probe")
    world.wait(UPGRADE_SECONDS - 0.5)
    assert session.state is state

    def connect(websocket: WebSocket) -> FakeLink:
        link.websocket = websocket
        return link

    again = there.engine.restore(state_of(session), connect, elapsed=5)
    again.start()
    there.wait(UPGRADE_SECONDS - 0.5)
    assert again.state is state
    if state is State.PROBING:
        link.text("2probe")
    link.text("5")
    assert again.state is State.WEBSOCKET and there.owner.upgraded == [again.sid]


def test_an_upgrade_that_is_not_finished_is_given_up_elsewhere(world: World) -> None:
    session, there = full(world, State.UPGRADING), World()
    links: list[FakeLink] = []

    def connect(websocket: WebSocket) -> FakeLink:
        links.append(FakeLink(websocket))
        return links[-1]

    poll = FakeExchange()
    session._outbox = None  # so that the poll waits
    again = there.engine.restore(state_of(session), connect, poll, FakeExchange())
    again.start()
    there.wait(0.2)
    assert poll.packets == ["6"] and poll.closes
    there.wait(UPGRADE_SECONDS)
    assert again.state is State.POLLING and links[0].closing


def test_output_that_nobody_could_take_meanwhile_is_not_slowness(world: World) -> None:
    session = world.open()
    session.send("4" + "x" * (OUTPUT_CEILING // 2))
    world.wait(SLOW_OUTPUT_PATIENCE - 1)
    again = world.engine.restore(state_of(session), no_websocket, elapsed=5)
    world.wait(5)
    again.start()
    again.send("4more")
    assert not again.closed
    world.wait(SLOW_OUTPUT_PATIENCE + 1)
    again.send("4more")
    assert again.closed


def test_a_session_that_is_closed_before_it_is_started(world: World) -> None:
    for state in ALL[:4]:
        session, there, poll = full(world, state), World(), FakeExchange()
        links: list[FakeLink] = []

        def connect(websocket: WebSocket, links: list[FakeLink] = links) -> FakeLink:
            links.append(FakeLink(websocket))
            return links[-1]

        again = there.engine.restore(state_of(session), connect, poll, FakeExchange())
        again.close()
        there.engine.forget(again.sid)
        again.start()
        for link in links:
            link.end()
        there.wait(100)
        assert again.state is State.CLOSED and there.reason == "server disconnect"
        assert not there.engine.sessions and there.deadlines.next() is None
        if state is not State.WEBSOCKET:
            assert poll.packets[-1] == "1"


def test_a_session_that_nobody_starts_is_dropped(world: World) -> None:
    for state in ALL:
        there = World()
        told = state_of(full(world, state))
        there.engine.restore(told, FakeLink, FakeExchange(), FakeExchange())
        there.engine.drop(told["sid"])
        assert not there.engine.sessions and there.deadlines.next() is None
        assert not there.owner.tasks and not there.owner.closed


def test_sessions_that_cannot_be_moved(world: World) -> None:
    def cannot(session: Session, reason: str) -> None:
        before = session.state
        with pytest.raises(NotMovable) as caught:
            world.engine.take_out(session.sid)
        assert caught.value.reason == reason
        assert session.state is before and world.engine.sessions[session.sid] is session

    request = world.request()
    session, exchange = world.engine.open(request), FakeExchange()
    cannot(session, HANDLER_RUNNING)
    world.engine.accept(session, request, exchange)
    link = world.upgrade(session.sid)
    link.close = lambda read_on: None  # type: ignore[method-assign]  # as while output waits
    link.receive(masked(CLOSE, b""))
    cannot(session, MID_REQUEST)
    link.end()
    world.engine.take_out(session.sid)
    session, link = world.open_websocket()
    link.close = lambda read_on: None  # type: ignore[method-assign]
    link.receive(masked(CLOSE, b""))
    assert not session.closed
    cannot(session, MID_REQUEST)
    link.end()
    cannot(session, HANDLER_RUNNING)
    session = world.open()
    world.get(session.sid)
    session.close("ping timeout")
    cannot(session, HANDLER_RUNNING)


def test_a_post_whose_turn_it_will_be_goes_on_elsewhere(world: World) -> None:
    session = world.open()
    world.post(session.sid, *(f"4{number}" for number in range(50)), "bQ")
    there, post = World(), FakeExchange()
    there.engine.restore(state_of(session), no_websocket, post=post).start()
    there.turn()
    messages = world.owner.messages + there.owner.messages
    assert messages == [str(number) for number in range(50)] and there.owner.messages
    assert post.error == 3 and there.owner.counted == ["protocol error"]


def test_a_post_that_waits_for_polls_goes_on_elsewhere(world: World) -> None:
    session = world.open()
    session.send("4" + "x" * READING_STOPS)
    world.post(session.sid, "4one", "bAQ==")
    state = state_of(session)
    assert state["post"]["step"] == "polls"
    for polls in (True, False):
        there, post = World(), FakeExchange()
        there.engine.restore(json.loads(json.dumps(state)), no_websocket, post=post).start()
        there.turn()
        assert post.response is None
        if polls:
            there.poll(session.sid)
            there.turn()
            assert there.owner.messages == ["one", b"\x01"] and post.body == "ok"
        there.wait(20)
        assert bool(there.owner.closed) != polls


def test_the_requests_of_a_session_are_needed(world: World) -> None:
    state = state_of(full(world, State.POLLING))
    there = World()
    with pytest.raises(ValueError, match="^post: "):
        there.engine.restore(state, no_websocket, FakeExchange())
    with pytest.raises(ValueError, match="^poll: "):
        there.engine.restore(state, no_websocket, None, FakeExchange())
    assert not there.engine.sessions and there.deadlines.next() is None


def put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Change a field, a nested field, or an item."""

    def change(state: dict[str, Any]) -> None:
        target: Any = state
        *path, last = [int(key) if key.isdigit() else key for key in name.split(".")]
        for key in path:
            target = target[key]
        target[last] = value

    return change


@pytest.mark.parametrize(
    ("state", "name", "value", "wrong"),
    [
        *((state, "sid", 5, "sid is not a text") for state in ALL),
        (State.POLLING, "state", "asleep", "state is not one of opening, polling, "),
        (State.POLLING, "state", "opening", "state is not one of polling, probing, "),
        (State.CLOSING, "state", "closed", "state is not one of polling, probing, "),
        (State.POLLING, "address", None, "address is not a text"),
        (State.WEBSOCKET, "next_ping", None, "next_ping is not set, in state websocket"),
        (State.CLOSING, "next_ping", 5, "next_ping is not null, in state closing"),
        (State.POLLING, "next_ping", "soon", "next_ping is not a number of seconds"),
        (State.POLLING, "websocket", {}, "websocket is not null, in state polling"),
        (State.POLLING, "candidate", {}, "candidate is not null, in state polling"),
        (State.POLLING, "queue", "4x", "queue is not a list"),
        (State.POLLING, "queue", [], "queue is not a list with packets"),
        (State.POLLING, "queue.1", "9", r"queue\[1\] is not a packet"),
        (State.POLLING, "queue.1", "", r"queue\[1\] is not a packet"),
        (State.POLLING, "queue.1", 5, r"queue\[1\] is not a text"),
        (State.POLLING, "queue.0", "b§", r"queue\[0\] is not base64"),
        (State.POLLING, "poll", [], "poll is not an object"),
        (State.POLLING, "poll.host", 5, "poll.host is not a text"),
        (State.POLLING, "post.step", "jump", "post.step is not one of turn, owner, polls"),
        (State.POLLING, "post.packets", {}, "post.packets is not a list"),
        (State.POLLING, "post.packets.0", "b§", r"post.packets\[0\] is not base64"),
        (State.POLLING, "post.request", None, "post.request is not an object"),
        (State.POLLING, "post.request.fields", [5], r"post.request.fields\[0\] is not a list"),
        (State.PROBING, "candidate", None, "candidate is not set, in state probing"),
        (State.UPGRADING, "candidate.held", 5, "candidate.held is not true or false"),
        (State.UPGRADING, "candidate.received", 5, "candidate.received is not an object"),
        (State.WEBSOCKET, "websocket", None, "websocket is not set, in state websocket"),
        (State.WEBSOCKET, "websocket.held", 5, "websocket.held is not true or false"),
        (State.WEBSOCKET, "websocket.received.data", 5, "websocket.received.data is not base64"),
        (State.WEBSOCKET, "queue", [], "queue is not null, in state websocket"),
        (State.CLOSING, "queue", None, "queue is not set, in state closing"),
        (State.LEFT, "queue", None, "queue is not set, in state left"),
        (State.LEFT, "poll", {}, "poll is not null, in state left"),
    ],
)
def test_a_state_that_was_changed_by_hand(
    world: World, state: State, name: str, value: Any, wrong: str
) -> None:
    told = state_of(full(world, state))
    put(name, value)(told)
    there = World()
    with pytest.raises(ValueError, match=f"^session: {wrong}"):
        there.engine.restore(told, no_websocket, FakeExchange(), FakeExchange())
    assert not there.engine.sessions and there.deadlines.next() is None
    assert not there.owner.tasks


@pytest.mark.parametrize("state", [None, [], "text", 5, {}])
def test_what_is_no_state_at_all(world: World, state: Any) -> None:
    with pytest.raises(ValueError, match="^session"):
        world.engine.restore(state, no_websocket)
