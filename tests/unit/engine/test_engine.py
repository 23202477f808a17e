"""All sessions of a server: handshakes, refusals, and sessions of another process."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest

from supervisor_sio.common.limits import ENGINE_PATHS, READING_STOPS
from supervisor_sio.engine.session import Session, State
from supervisor_sio.engine.websocket import WebSocket
from unit.engine.fakes import UPGRADE, FakeExchange, FakeLink, World


@pytest.fixture
def world() -> World:
    return World()


def refused(world: World, *args: Any, **more: Any) -> FakeExchange:
    """What a request without a session gets."""
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
        ({"query": "", "method": "OPTIONS"}, 5, "bad-version"),
        ({"query": "EIO=4&j=x"}, 3, "bad-jsonp-index"),
        ({"transport": "websocket"}, 3, "bad-upgrade"),
        ({"Origin": "http://evil.example"}, 3, "bad-origin"),
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


@pytest.mark.parametrize("sid", ["", "unknown"])
def test_a_preflight(sid: str) -> None:
    world = World(cors_allowed_origins="*")
    exchange = refused(world, method="OPTIONS", sid=sid, Origin="http://a.example")
    assert exchange.status == 200
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
    state: dict[str, Any] = json.loads(json.dumps(session.state_as_dict()))
    return state


def full(world: World, state: State) -> Session:
    """A session with as much in it as this state allows."""
    world.owner.handler = lambda session, data: False
    if state is State.WEBSOCKET:
        session = world.open()
        link = world.upgrade(session.sid)
        link.text("2probe")
        world.post(session.sid, "4one", "4two", "bQ")
        link.text("5")
        link.receive(b"\x81")
        return session
    if state is State.OPENING:
        session = world.engine.open(world.request())
        session.send("4x")
        return session
    session = world.open()
    if state is State.CLOSING:
        session.close()
        return session
    if state is State.LEFT:
        world.post(session.sid, "1")
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


ALL = [state for state in State if state is not State.CLOSED]


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
    now = state_of(again)
    for name, value in told.items():
        if isinstance(value, float):
            assert now[name] == pytest.approx(value), name
        elif name not in ("candidate", "post"):
            assert now[name] == value, name
    if told["post"] is not None:
        assert now["post"]["packets"] == told["post"]["packets"]
    with pytest.raises(ValueError, match="sid 'sid1' is here already"):
        there.engine.restore(told, connect, poll, post)


def test_a_session_that_has_ended(world: World) -> None:
    session = world.open()
    session.close("ping timeout")
    there = World()
    again = there.engine.restore(state_of(session), no_websocket)
    assert again.closed and there.get(again.sid).error == 1
    there.engine.forget(again.sid)
    assert not there.engine.sessions


def test_a_post_whose_turn_it_will_be_goes_on_elsewhere(world: World) -> None:
    session = world.open()
    world.post(session.sid, *(f"4{number}" for number in range(50)), "bQ")
    there, post = World(), FakeExchange()
    there.engine.restore(state_of(session), no_websocket, post=post)
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
        there.engine.restore(json.loads(json.dumps(state)), no_websocket, post=post)
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
    """A change of a field, of one in another, or of an item."""

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
        (State.POLLING, "forgotten", 0, "forgotten is not true or false"),
        (State.POLLING, "ping", "never", "ping is not one of later, waits, sent"),
        (State.POLLING, "address", None, "address is not a text"),
        (State.POLLING, "deadline", None, "deadline is not there, in state polling"),
        (State.POLLING, "deadline", "soon", "deadline is not a number of seconds"),
        (State.POLLING, "websocket", {}, "websocket is not null, in state polling"),
        (State.POLLING, "candidate", {}, "candidate is not null, in state polling"),
        (State.POLLING, "queue", "4x", "queue is not a list"),
        (State.POLLING, "queue.1", "9", r"queue\[1\] is not a packet"),
        (State.POLLING, "queue.1", "", r"queue\[1\] is not a packet"),
        (State.POLLING, "queue.1", 5, r"queue\[1\] is not a text"),
        (State.POLLING, "queue.0", "b§", r"queue\[0\] is not base64"),
        (State.POLLING, "queue_age", None, "queue_age is not a number of seconds"),
        (State.POLLING, "poll", [], "poll is not an object"),
        (State.POLLING, "poll.host", 5, "poll.host is not a text"),
        (State.POLLING, "post.step", "jump", "post.step is not one of turn, owner, polls"),
        (State.POLLING, "post.malformed", "5", "post.malformed is not an integer"),
        (State.POLLING, "post.packets", {}, "post.packets is not a list"),
        (State.POLLING, "post.packets.0", "b§", r"post.packets\[0\] is not base64"),
        (State.POLLING, "post.request", None, "post.request is not an object"),
        (State.POLLING, "post.request.fields", [5], r"post.request.fields\[0\] is not a list"),
        (State.PROBING, "candidate", None, "candidate is not there, in state probing"),
        (State.UPGRADING, "candidate.until", None, "candidate.until is not a number of seconds"),
        (State.UPGRADING, "candidate.websocket", 5, "candidate.websocket is not an object"),
        (State.WEBSOCKET, "websocket", None, "websocket is not there, in state websocket"),
        (State.WEBSOCKET, "websocket.held", 5, "websocket.held is not true or false"),
        (State.WEBSOCKET, "websocket.received.data", 5, "websocket.received.data is not base64"),
        (State.WEBSOCKET, "queue", [], "queue is not null, in state websocket"),
        (State.CLOSING, "queue", None, "queue is not there, in state closing"),
        (State.LEFT, "queue", None, "queue is not there, in state left"),
        (State.OPENING, "poll", {}, "poll is not null, in state opening"),
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
