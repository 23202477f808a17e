"""A client that is saved in one server and restored in another, both with real frameworks."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime
from typing import Any, Iterator

import pytest
import socketio
from engineio import async_socket
from engineio import socket as eio_socket

from supervisor_sio import AsyncZmqManager, ZmqManager
from supervisor_sio.cluster import environs, moving
from supervisor_sio.cluster.acks import Asked
from supervisor_sio.common.blocking import run_blocking, settle
from supervisor_sio.common.limits import CLIENT_STATE
from supervisor_sio.common.not_movable import NotMovable
from supervisor_sio.common.reasons import HANDLER_RUNNING, SESSION_DATA, STATE_TOO_LONG
from unit.cluster.others import eventually
from unit.in_loop import InLoop, make_async_server
from unit.polling import ADDRESS, PollingClient, make_server


@pytest.fixture(autouse=True)
def another_process() -> Iterator[None]:
    moving._told.clear()
    yield
    environs.serve(None)


def sync_server() -> Any:
    return make_server(client_manager=ZmqManager(takeover=True), namespaces="*")


class Pair:
    """Two servers of the same kind."""

    def __init__(self, request: Any, kind: str) -> None:
        #: engineio makes one up for a client of an AsyncServer.
        self.address = ADDRESS if kind == "sync" else "127.0.0.1"
        if kind == "sync":
            self.old, self.new = sync_server(), sync_server()
            return
        loop = request.getfixturevalue("loop")
        self.old, self.new = (
            make_async_server(loop, client_manager=AsyncZmqManager(takeover=True), namespaces="*")
            for _ in range(2)
        )

    def plain(self, server: Any) -> Any:
        return server.target if isinstance(server, InLoop) else server

    def call(self, function: Any, server: Any, *args: Any) -> Any:
        """Call a function in the loop, if there is one."""
        plain = self.plain(server)
        if plain is server:
            result = function(server, *args)
            return run_blocking(settle(result))

        async def called() -> Any:
            return await settle(function(plain, *args))

        return server.run(called())

    def on(self, event: str, handler: Any, namespace: str = "/") -> None:
        for server in (self.old, self.new):
            self.plain(server).on(event, handler, namespace=namespace)

    def save(self, client: PollingClient) -> Any:
        data = self.plain(self.old).eio.sockets[client.eio_sid].session
        return json.loads(
            json.dumps(self.call(moving.save_client, self.old, client.eio_sid, data or None))
        )

    def restore(self, eio_sid: str, state: Any) -> None:
        add_session(self.plain(self.new), eio_sid)
        self.call(moving.restore_client, self.new, eio_sid, state)

    def move(self, client: PollingClient) -> Any:
        state = self.save(client)
        self.call(moving.remove_client, self.old, client.eio_sid)
        self.restore(client.eio_sid, state)
        return state


def add_session(server: Any, eio_sid: str) -> None:
    """Restore the Engine.IO session, as the worker does it before."""
    module = async_socket if server.is_asyncio_based() else eio_socket
    kind = module.AsyncSocket if server.is_asyncio_based() else module.Socket
    server.eio.sockets[eio_sid] = kind(server.eio, eio_sid)


@pytest.fixture(params=["sync", "async"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request, request.param)


def nobody_is_told(*args: Any) -> None:
    raise AssertionError("a handler was called")


def test_namespaces_rooms_data_and_environ(pair: Pair) -> None:
    client = PollingClient(pair.old)
    chat = client_in(pair, client, "/chat")
    pair.on("connect", nobody_is_told)
    pair.on("disconnect", nobody_is_told)
    for room in ("red", 7):
        pair.old.enter_room(client.sid, room)
    pair.old.enter_room(chat, "blue", namespace="/chat")
    pair.old.save_session(client.sid, {"user": {"name": "x", "at": (1, 2)}})
    pair.old.save_session(chat, {"n": 1}, namespace="/chat")
    pair.move(client)
    manager = pair.plain(pair.new).manager
    assert manager.sid_from_eio_sid(client.eio_sid, "/") == client.sid
    assert set(pair.new.rooms(client.sid)) == {client.sid, "red", 7}
    assert set(pair.new.rooms(chat, namespace="/chat")) == {chat, "blue"}
    assert pair.new.get_session(client.sid) == {"user": {"name": "x", "at": (1, 2)}}
    assert pair.new.get_session(chat, namespace="/chat") == {"n": 1}
    assert pair.new.get_environ(client.sid)["REMOTE_ADDR"] == pair.address
    assert manager.is_connected(client.sid, "/") and manager.is_connected(chat, "/chat")
    old = pair.plain(pair.old)
    assert old.environ == {} and old.manager.rooms == {} and old.manager._rooms_of == {}


def client_in(pair: Pair, client: PollingClient, namespace: str) -> str:
    client.send(f"0{namespace},")
    (answer,) = client.receive()
    return str(json.loads(answer.partition(",")[2])["sid"])


def test_one_that_left_its_own_room_and_one_without_data(pair: Pair) -> None:
    client = PollingClient(pair.old)
    pair.old.leave_room(client.sid, client.sid)
    state = pair.move(client)
    assert state["data"] is None
    assert list(pair.new.rooms(client.sid)) == []
    assert pair.plain(pair.new).manager.is_connected(client.sid, "/")


def test_it_may_be_moved_again_and_again(pair: Pair) -> None:
    client = PollingClient(pair.old)
    pair.old.enter_room(client.sid, "red")
    states = []
    for _ in range(3):
        states.append(pair.move(client))
        pair.plain(pair.old).eio.sockets.pop(client.eio_sid)
        pair.old, pair.new = pair.new, pair.old
    assert states[0] == states[1] == states[2]


def test_events_of_a_moved_client(pair: Pair) -> None:
    client = PollingClient(pair.old)
    pair.old.save_session(client.sid, {"name": "x"})
    pair.move(client)
    got: list[Any] = []
    pair.on("who", lambda sid: got.append((sid, pair.plain(pair.new).environ[client.eio_sid])))
    new = pair.plain(pair.new)
    pair.call(lambda server: server._handle_eio_message(client.eio_sid, '2["who"]'), pair.new)
    eventually(lambda: bool(got))
    assert got == [(client.sid, new.environ[client.eio_sid])]


@pytest.mark.parametrize(
    ("namespace", "session", "detail"),
    [
        ("/", {"user": {"avatar": datetime(2026, 1, 1)}}, "session data `user.avatar` is of type"),
        ("/chat", {"seen": {1}}, "session data in /chat `seen` is of type set"),
        ("/", {"a": [b"x"]}, "session data `a[0]` is of type bytes"),
    ],
)
def test_data_that_is_not_json_is_named_once(
    pair: Pair, namespace: str, session: Any, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = PollingClient(pair.old)
    sid = client.sid if namespace == "/" else client_in(pair, client, namespace)
    pair.old.save_session(sid, session, namespace=namespace)
    for _ in range(3):
        with pytest.raises(NotMovable) as caught:
            pair.save(client)
        assert caught.value.reason == SESSION_DATA
        assert detail in caught.value.detail
    lines = [record for record in caplog.records if detail in record.getMessage()]
    assert len(lines) == 1 and lines[0].levelno == logging.WARNING
    assert pair.plain(pair.old).manager.is_connected(sid, namespace)


def test_data_that_is_not_by_namespace_is_refused() -> None:
    server = sync_server()
    client = PollingClient(server)
    for data in ({1: {}}, ["a"], "text"):
        with pytest.raises(NotMovable, match="not a dictionary by namespace"):
            moving.save_client(server, client.eio_sid, data)


def test_a_state_that_is_too_long(pair: Pair) -> None:
    client = PollingClient(pair.old)
    pair.old.save_session(client.sid, {"blob": "x" * (CLIENT_STATE + 1)})
    with pytest.raises(NotMovable, match="too long at blob") as caught:
        pair.save(client)
    assert caught.value.reason == STATE_TOO_LONG


def test_one_that_connects_or_disconnects_yet_is_not_moved() -> None:
    server = sync_server()
    manager = server.manager
    with pytest.raises(NotMovable):
        moving.save_client(server, "unknown", None)
    server.environ["eio"] = {}
    sid = manager.pre_connect("eio", "/")
    assert not moving.is_settled(server, "eio")
    with pytest.raises(NotMovable) as caught:
        moving.save_client(server, "eio", None)
    assert caught.value.reason == HANDLER_RUNNING
    manager.connect(sid, "/")
    assert moving.is_settled(server, "eio")
    moving.save_client(server, "eio", None)
    manager.pre_disconnect(sid, "/")
    assert not moving.is_settled(server, "eio")


# --- what is wrong with a state --------------------------------------------------------


def test_a_state_that_is_wrong_changes_nothing(pair: Pair) -> None:
    client = PollingClient(pair.old)
    pair.old.enter_room(client.sid, "red")
    good = pair.save(client)
    wrong: list[Any] = [[], {}, {**good, "data": []}, {**good, "environ": 1}]
    for field, value in (
        ("rooms", [True]),
        ("rooms", ["aaaaaaaa.aaaaaaaaaaaaaaaaaaaa"]),
        ("sid", 1),
        ("asked", [["x"]]),
        ("connected_at", "x"),
    ):
        wrong.append({**good, "namespaces": [{**good["namespaces"][0], field: value}]})
    wrong.append({**good, "namespaces": good["namespaces"] * 2})
    new = pair.plain(pair.new)
    for state in wrong:
        with pytest.raises(ValueError, match="client|room|sid|already"):
            pair.restore(client.eio_sid, state)
        assert (new.environ, new.manager.rooms, new.manager._rooms_of) == ({}, {}, {})
    pair.restore(client.eio_sid, good)
    with pytest.raises(ValueError, match="has .* already"):
        pair.restore(client.eio_sid, good)
    assert set(pair.new.rooms(client.sid)) == {client.sid, "red"}


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Each container in a state, and each of its keys."""
    if not isinstance(value, (dict, list)):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    found = [(value, key) for key in keys]
    for key in keys:
        found += nodes(value[key])
    return found


def test_a_state_with_anything_in_it_is_restored_or_refused() -> None:
    pytest.importorskip("flask")
    side = FlaskSide()
    environs.serve(side.app)
    eio_sid, sid = side.handshake()
    manager = side.server.manager
    manager._awaited.ask([sid], manager._question(7, Asked("bbbbbbbb", "/"), 30))
    text = json.dumps(moving.save_client(side.server, eio_sid, {"/": {"a": (1, {2: 3})}}))
    count = len(nodes(json.loads(text)))
    assert count > 40
    junk: list[Any] = [None, -1, 10**400, 1e308, "", "\0", [], {}, [[]], [{}], {"\0tuple": 1}]
    refused = 0
    for number in range(count):
        for value in junk:
            state = json.loads(text)
            container, key = nodes(state)[number]
            container[key] = value
            server = sync_server()
            add_session(server, eio_sid)
            try:
                moving.restore_client(server, eio_sid, state)
            except ValueError:
                refused += 1
                assert (server.environ, server.manager.rooms) == ({}, {})
    assert refused > count


# --- acknowledgements -----------------------------------------------------------------


def test_acknowledgements_that_others_wait_for(pair: Pair, monkeypatch: Any) -> None:
    client = PollingClient(pair.old)
    old, new = (pair.plain(server).manager for server in (pair.old, pair.new))
    told: list[Any] = []
    for manager in (old, new):
        monkeypatch.setattr(
            manager, "_send_to", lambda tags, fields, *args: told.append((list(tags), dict(fields)))
        )
    gone: list[str] = []
    old._awaited.ask([client.sid], old._question(7, Asked("bbbbbbbb", "/"), 30))
    old._awaited.ask([client.sid], old._question(8, Asked("cccccccc", "/", 5, "aaaaaaaa"), 30))
    own = moving_question(9, gone)
    old._awaited.ask([client.sid], own)
    pair.move(client)
    assert gone == ["own"] and told == []
    pair.call(lambda server: server.manager._acknowledged(client.sid, 7, ["yes"]), pair.new)
    pair.call(lambda server: server.manager._acknowledged(client.sid, 8, ["no"]), pair.new)
    pair.call(lambda server: server.manager._acknowledged(client.sid, 9, ["what"]), pair.new)
    (first, fields), (second, answer) = told
    assert first == ["bbbbbbbb"] and (fields["method"], fields["ack"]) == ("callback", 7)
    assert second == ["cccccccc"]
    assert (answer["method"], answer["request"], answer["worker"]) == ("answer", 5, "aaaaaaaa")


def moving_question(number: int, gone: list[str]) -> Any:
    from supervisor_sio.cluster.acks import Question

    return Question(number, lambda *args: None, lambda: gone.append("own"))


# --- on_takeover ------------------------------------------------------------------------


def test_handlers_of_a_takeover(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    client = PollingClient(pair.old)
    chat = client_in(pair, client, "/chat")
    pair.move(client)
    manager = pair.plain(pair.new).manager
    assert not moving.has_on_takeover(pair.plain(pair.new))
    called: list[Any] = []

    @manager.on_takeover
    def taken_over(sid: str, environ: Any) -> None:
        called.append((sid, environ["REMOTE_ADDR"]))

    @manager.on_takeover(namespace="/chat")
    def in_chat(sid: str, environ: Any) -> None:
        called.append(sid)
        raise ValueError("of the application")

    assert moving.has_on_takeover(pair.plain(pair.new))
    pair.call(moving.run_on_takeover, pair.new, client.eio_sid)
    assert called == [(client.sid, pair.address), chat]
    assert "of the application" in caplog.text
    pair.call(moving.run_on_takeover, pair.new, "unknown")
    assert len(called) == 2


def test_a_handler_of_a_takeover_may_be_a_coroutine(loop: asyncio.AbstractEventLoop) -> None:
    manager = AsyncZmqManager(takeover=True)
    server = make_async_server(loop, client_manager=manager)
    client = PollingClient(server)
    called: list[str] = []

    @manager.on_takeover()
    async def taken_over(sid: str, environ: Any) -> None:
        await asyncio.sleep(0)
        called.append(sid)

    server.run(moving.run_on_takeover(server.target, client.eio_sid))
    assert called == [client.sid]


# --- an Admin UI --------------------------------------------------------------------------


def test_an_admin_ui_hears_nothing_and_can_list_it(pair: Pair) -> None:
    client = PollingClient(pair.old)
    pair.old.enter_room(client.sid, "red")
    old, new = (pair.plain(server).manager for server in (pair.old, pair.new))
    old._timestamps, new._timestamps = {client.sid: 1.5, "other": 1.0}, {}
    for manager in (old, new):  # what it is told by
        manager.basic_enter_room = manager.basic_leave_room = nobody_is_told
    pair.move(client)
    # It looks there when the client disconnects, too.
    assert (old._timestamps, new._timestamps) == ({"other": 1.0}, {client.sid: 1.5})
    assert set(pair.new.rooms(client.sid)) == {client.sid, "red"}


# --- Flask-SocketIO -------------------------------------------------------------------------


class FlaskSide:
    def __init__(self, **options: Any) -> None:
        flask = pytest.importorskip("flask")
        flask_socketio = pytest.importorskip("flask_socketio")
        self.app = flask.Flask(__name__)
        self.app.secret_key = "secret"
        self.socketio = flask_socketio.SocketIO(
            self.app,
            async_mode="threading",
            client_manager=ZmqManager(takeover=True),
            monitor_clients=False,
            **options,
        )
        self.server = self.socketio.server
        self.seen: list[Any] = []

        @self.app.route("/login")
        def login() -> str:
            flask.session["user"] = "x"
            return "ok"

        @self.socketio.on("connect")
        def connect(auth: Any) -> None:
            flask.session["connected"] = True

        @self.socketio.on("who")
        def who(*args: Any) -> str:
            request = flask.request
            flask.session["asked"] = flask.session.get("asked", 0) + 1
            self.seen.append(
                (
                    request.sid,
                    request.namespace,
                    request.remote_addr,
                    request.headers["User-Agent"],
                    request.args["EIO"],
                    dict(flask.session),
                    flask.current_app._get_current_object() is self.app,
                    flask.url_for("login"),
                )
            )
            return "you"

    def handshake(self) -> tuple[str, str]:
        """:return: Engine.IO sid and sid."""
        http = self.app.test_client()
        http.get("/login")
        fields = {"User-Agent": "a browser"}
        path = "/socket.io/?EIO=4&transport=polling"
        opened = http.get(path, headers=fields, environ_overrides={"REMOTE_ADDR": "192.0.2.9"})
        eio_sid = json.loads(opened.text[1:])["sid"]
        http.post(f"{path}&sid={eio_sid}", data="40")
        sid = self.server.manager.sid_from_eio_sid(eio_sid, "/")
        return eio_sid, sid

    def who(self, eio_sid: str) -> Any:
        before = len(self.seen)
        self.server._handle_eio_message(eio_sid, '2["who"]')
        eventually(lambda: len(self.seen) > before)
        return self.seen[-1]


@pytest.mark.parametrize("wrapped", [False, True])
def test_flask_socketio(wrapped: bool) -> None:
    from werkzeug.middleware.proxy_fix import ProxyFix

    old, new = FlaskSide(), FlaskSide()
    environs.serve(ProxyFix(old.app) if wrapped else old.app)
    eio_sid, sid = old.handshake()
    before = old.who(eio_sid)
    assert before[5] == {"user": "x", "connected": True, "asked": 1}
    state = json.loads(json.dumps(moving.save_client(old.server, eio_sid, None)))
    moving.remove_client(old.server, eio_sid)
    environs.serve(ProxyFix(new.app) if wrapped else new.app)
    add_session(new.server, eio_sid)
    moving.restore_client(new.server, eio_sid, state)
    after = new.who(eio_sid)
    assert after == (*before[:5], {**before[5], "asked": 2}, True, before[7])
    assert new.who(eio_sid)[5]["asked"] == 3
    session = new.server.environ[eio_sid]["saved_session"]
    session.permanent = True
    assert session["_permanent"] is True and session.modified


def test_flask_socketio_with_a_namespace_class_and_flask_s_own_sessions() -> None:
    flask_socketio = pytest.importorskip("flask_socketio")
    flask = pytest.importorskip("flask")
    seen: list[Any] = []

    class Chat(flask_socketio.Namespace):  # type: ignore[misc]
        def on_who(self) -> None:
            seen.append((flask.request.sid, dict(flask.session)))

    old, new = FlaskSide(manage_session=False), FlaskSide(manage_session=False)
    for side in (old, new):
        side.socketio.on_namespace(Chat("/chat"))
    environs.serve(old.app)
    eio_sid, _ = old.handshake()
    old.server._handle_eio_message(eio_sid, "0/chat,")
    state = json.loads(json.dumps(moving.save_client(old.server, eio_sid, None)))
    environs.serve(new.app)
    add_session(new.server, eio_sid)
    moving.restore_client(new.server, eio_sid, state)
    new.server._handle_eio_message(eio_sid, '2/chat,["who"]')
    eventually(lambda: bool(seen))
    assert seen == [(new.server.manager.sid_from_eio_sid(eio_sid, "/chat"), {"user": "x"})]


def test_what_flask_keeps_that_is_not_json_is_named() -> None:
    side = FlaskSide()
    environs.serve(side.app)
    eio_sid, _ = side.handshake()
    side.server.environ[eio_sid]["saved_session"]["cart"] = [object()]
    with pytest.raises(NotMovable, match=r"environ `saved_session\.cart\[0\]` is of type object"):
        moving.save_client(side.server, eio_sid, None)


# --- Django ----------------------------------------------------------------------------------


def test_django() -> None:
    django = pytest.importorskip("django")
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIRequest

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="x", ROOT_URLCONF=())
        django.setup()
    old, new = sync_server(), sync_server()
    client = PollingClient(old)
    environ = old.environ[client.eio_sid]
    environ.update({"HTTP_HOST": "example.org", "HTTP_COOKIE": "sessionid=abc", "SCRIPT_NAME": ""})
    environs.serve(socketio.WSGIApp(old, object()))
    state = json.loads(json.dumps(moving.save_client(old, client.eio_sid, None)))
    environs.serve(socketio.WSGIApp(new, object()))
    add_session(new, client.eio_sid)
    moving.restore_client(new, client.eio_sid, state)
    request = WSGIRequest(new.environ[client.eio_sid])
    assert request.COOKIES == {"sessionid": "abc"} and request.body == b""
    assert request.GET["transport"] == "polling" and request.get_host() == "example.org"


# --- Starlette and FastAPI ---------------------------------------------------------------------


def handshake_of(app: Any, server: Any, **more: Any) -> str:
    """A handshake through an ASGI application; returns the Engine.IO sid."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("192.0.2.9", 1),
        "root_path": "",
        "path": "/ws/socket.io/",
        "raw_path": b"/ws/socket.io/",
        "query_string": b"EIO=4&transport=polling",
        "headers": [(b"host", b"example.org"), (b"cookie", b"a=b")],
        **more,
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: Any) -> None:
        sent.append(event)

    server.run(app(scope, receive, send))
    (eio_sid,) = server.target.environ
    return str(eio_sid)


@pytest.mark.parametrize("kind", ["starlette", "fastapi", "sub-application"])
def test_an_application_that_mounts_it(loop: asyncio.AbstractEventLoop, kind: str) -> None:
    applications = pytest.importorskip("starlette.applications")
    sessions = pytest.importorskip("starlette.middleware.sessions")
    requests = pytest.importorskip("starlette.requests")

    def make() -> tuple[Any, Any]:
        server = make_async_server(loop, client_manager=AsyncZmqManager(takeover=True))
        if kind == "starlette":
            app: Any = applications.Starlette()
        else:
            app = pytest.importorskip("fastapi").FastAPI()
        app.state.database = object()
        target = app
        if kind == "sub-application":
            target = applications.Starlette()
            app.mount("/ws", target)
            target.mount("/", socketio.ASGIApp(server.target, socketio_path="ws/socket.io"))
        else:
            target.mount("/ws", socketio.ASGIApp(server.target, socketio_path="ws/socket.io"))
        if kind == "starlette":
            pytest.importorskip("itsdangerous")
            app.add_middleware(sessions.SessionMiddleware, secret_key="x")
        return app, server

    (old_app, old), (new_app, new) = make(), make()
    pools = {"old": object(), "new": object()}
    environs.serve(old_app, lambda: {"pool": pools["old"]})
    eio_sid = handshake_of(old_app, old, state={"pool": pools["old"]})
    before = old.target.environ[eio_sid]["asgi.scope"]
    state = json.loads(json.dumps(moving.save_client(old.target, eio_sid, None)))
    environs.serve(new_app, lambda: {"pool": pools["new"]})
    add_session(new.target, eio_sid)
    moving_in(new, eio_sid, state)
    scope = new.target.environ[eio_sid]["asgi.scope"]
    if kind == "sub-application":
        assert scope["app"] is not before["app"] and type(scope["app"]) is type(before["app"])
    else:
        assert scope["app"] is new_app
    request = requests.Request(scope)
    assert request.cookies == {"a": "b"} and request.client.host == "192.0.2.9"
    assert request.state.pool is pools["new"]
    assert request.url.path == "/ws/socket.io/"
    if kind == "starlette":
        assert request.session == {}
    assert new.target.environ[eio_sid]["HTTP_COOKIE"] == "a=b"


def moving_in(server: Any, eio_sid: str, state: Any) -> None:
    async def restore() -> None:
        moving.restore_client(server.target, eio_sid, state)

    server.run(restore())
