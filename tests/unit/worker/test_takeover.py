"""Sessions leave one worker and arrive at another; both are in this process."""

from __future__ import annotations

import itertools
import os
from typing import Any, Callable, Iterator, Optional

import pytest

from supervisor_sio.common import memory_file
from supervisor_sio.common.channel import close_all
from supervisor_sio.common.limits import TAKEOVER_HANDLERS
from supervisor_sio.common.reasons import (
    HANDLER_RUNNING,
    NO_ROUTER,
    NOT_RESTORED,
    SESSION_DATA,
)
from supervisor_sio.common.request import tag_of
from supervisor_sio.common.takeover import FORMAT
from supervisor_sio.engine.frames import BINARY, TEXT
from supervisor_sio.relay.position import Part, Position
from supervisor_sio.worker import takeover
from supervisor_sio.worker.adoption import Adopter
from supervisor_sio.worker.arriving import Adoption
from supervisor_sio.worker.refused import refusals
from supervisor_sio.worker.takeover import Departure
from unit.client_frames import masked
from unit.worker.served import APPS, App, Client, connect, end, open_session, serve_by, upgrade

PLACE = '{"_placeholder":true,"num":%d}'


@pytest.fixture(params=APPS, ids=[app.mode for app in APPS])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    serve_by(request.param, monkeypatch)
    before = len(os.listdir("/proc/self/fd"))
    servers: list[Any] = []
    monkeypatch.setattr(takeover.sessions, "servers", lambda: servers)

    def make_app(**options: Any) -> App:
        app: App = request.param(takeover=True, **options)
        app.servers = servers  # type: ignore[attr-defined]
        return app

    yield make_app
    assert len(os.listdir("/proc/self/fd")) <= before + 8, "descriptors are left"


class Router:
    """Holds what one worker passes on, and offers it to another."""

    all_stop = False
    welcomed = up = True

    def __init__(self, takes: Optional[int] = None, why: str = NO_ROUTER) -> None:
        #: How many batches it takes.
        self.takes = takes
        self.not_passed = why
        self.batches: list[tuple[str, int, list[int]]] = []
        self.said: list[Any] = []
        #: The adoptions for which the worker receives.
        self.heard_of: list[int] = []

    async def pass_on(self, positions: Any, batches: Any) -> bool:
        for _, _, descriptor in positions:
            os.close(descriptor)
        try:
            while self.takes is None or len(self.batches) < self.takes:
                try:
                    tag, count, descriptors = await batches.__anext__()
                except StopAsyncIteration:
                    return True
                self.batches.append((tag, count, [os.dup(one) for one in descriptors]))
                close_all(descriptors)
            await batches.__anext__()  # which it does not take
            return False
        finally:
            await batches.aclose()

    def adoption(self, number: int = 1, format: int = FORMAT) -> Any:
        batches, self.batches = self.batches, []
        tags = list(dict.fromkeys(tag for tag, _, _ in batches))
        return Adoption(number, tags, format, [], batches, {})

    def adopted(self, number: int, count: int) -> None:
        self.said.append(("adopted", number, count))

    def not_adopted(self, number: int, reason: str) -> None:
        self.said.append(("not adopted", number, reason))

    def heard(self, number: int) -> None:
        self.heard_of.append(number)

    def tags(self, tags: list[str]) -> None:
        self.said.append(("tags", tags))


def run(app: App, coroutine: Any) -> Any:
    """Run it in the loop of the worker."""
    done: list[Any] = []

    async def call() -> None:
        done.append(await coroutine)

    app.runtime.call_soon(app.runtime.spawn, call())
    app.settle(lambda: done)
    return done[0]


def pass_on(app: App, router: Any = None, seconds: float = 5.0) -> Any:
    router = router or Router()
    app.servers[:] = [app.sio]  # type: ignore[attr-defined]
    app.departure = Departure(app.runtime, app.http, router)  # type: ignore[attr-defined]
    run(app, app.departure.pass_on(seconds))  # type: ignore[attr-defined]
    return router


def adopt(app: App, router: Any, go: bool = True) -> Adopter:
    app.servers[:] = [app.sio]  # type: ignore[attr-defined]
    adopter = Adopter(app.runtime, app.http, router)
    adoption = router.adoption()
    app.runtime.call_soon(adopter.on_adopt, adoption)
    app.settle(lambda: router.said)
    if go:
        app.runtime.call_soon(adopter.on_go, adoption.id)
        app.settle(lambda: not adopter._arrivals and not adopter._starting)
    return adopter


def move(app: App, make: Callable[..., App], prepare: Callable[[App], None]) -> App:
    """Move all sessions of an application to another, with their clients."""
    router = pass_on(app)
    assert not app.sio.eio.sockets and not app.sio.environ and not app.sio.manager.rooms
    other = make()
    prepare(other)
    adopt(other, router)
    assert router.said == [("adopted", 1, len(other.sio.eio.sockets))]
    for client in app.clients:
        client._sleep = other.sleep
    other.clients += app.clients
    app.clients.clear()
    return other


def nothing(app: App) -> None:
    async def must_not(sid: str, environ: Any) -> None:
        app.seen.append("connect")

    app.on("connect", must_not)


def tell_takeover(app: App) -> None:
    nothing(app)

    async def on_takeover(sid: str, environ: dict[str, Any]) -> None:
        app.seen.append(("takeover", sid, environ["REMOTE_ADDR"]))

    app.sio.manager.on_takeover(app.as_handler(on_takeover))


def test_a_websocket_goes_on(make: Any) -> None:
    app = make()
    client = connect(app)
    client.text('421["echo","before"]')
    client.until(b'431["before"]')
    sid = app.sid
    app.do(app.sio.enter_room(sid, "kitchen"))
    app.do(app.sio.save_session(sid, {"name": "ä"}))
    other = move(app, make, tell_takeover)
    client.until(b"\x81\x012")  # a ping, for the pause that is before it
    client.text("3")
    assert app.seen == [("before",)] and other.sid == sid
    other.settle(lambda: other.seen)
    assert other.seen == [("takeover", sid, "192.0.2.1")]
    assert other.do(other.sio.get_session(sid)) == {"name": "ä"}
    other.emit("news", 5, to="kitchen")
    client.until(b'42["news",5]')
    client.text('422["echo","after"]')
    client.until(b'432["after"]')
    client.text("1")
    other.gone()
    assert other.seen[1:] == [("after",), "client disconnect"]


def test_polling_with_a_poll_that_waits(make: Any) -> None:
    app = make()
    polling, posting = Client(app), Client(app)
    sid = open_session(app, polling)
    polling.send(
        f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    )
    posting.http("POST", sid, '42["echo",1]')
    app.settle(lambda: app.session._poll is not None)
    other = move(app, make, nothing)
    other.emit("news", 5)
    polling.until(b"\r\n\r\n")
    polling.until(b'42["news",5]')
    posting = Client(other)
    assert posting.http("POST", sid, '421["echo",2]') == "ok"
    assert polling.http("GET", sid) == "431[2]"
    posting.http("POST", sid, "1")
    other.gone()
    # The first moves along when no thread has begun it.
    assert app.seen + other.seen == [(1,), (2,), "client disconnect"]


def test_in_the_middle_of_an_upgrade(make: Any) -> None:
    app = make()
    polling, websocket, sid = upgrade(app)
    websocket.text("2probe")
    websocket.until(b"3probe")
    other = move(app, make, nothing)
    websocket.text("5", '421["echo",1]')
    websocket.until(b"431[1]")
    assert other.sio.eio.transport(sid) == "websocket"
    end(other)


def test_in_the_middle_of_frames_and_of_attachments(make: Any) -> None:
    app = make()
    client = connect(app)
    event = masked(TEXT, f'452-["echo",{PLACE % 0},{PLACE % 1}]'.encode())
    data = event + masked(BINARY, b"one") + masked(BINARY, b"two") + masked(TEXT, b'42["echo",3]')
    cut = len(event) + 11
    client.send(data[:cut])
    app.settle(lambda: app.sio.manager._outlet._partials)
    other = move(app, make, nothing)
    client.send(data[cut:])
    other.settle(lambda: len(other.seen) == 2)
    assert other.seen == [(b"one", b"two"), (3,)] and app.seen == []
    end(other)


def test_events_wait_for_the_handler_of_the_takeover(make: Any) -> None:
    app = make()
    client = connect(app)

    def prepare(other: App) -> None:
        async def on_takeover(sid: str, environ: Any) -> None:
            other.seen.append("takeover begins")
            await other.settled(other.go_on.wait())
            other.seen.append("takeover ends")

        other.sio.manager.on_takeover(other.as_handler(on_takeover))

    other = move(app, make, prepare)
    other.settle(lambda: other.seen)
    client.text('42["echo",1]', '42["echo",2]')
    other.emit("news", 5)
    client.until(b'42["news",5]')
    other.sleep(0.02)
    assert other.seen == ["takeover begins"]
    other.go_on.set()
    client.text('421["echo",3]')
    client.until(b"431[3]")
    assert other.seen == ["takeover begins", "takeover ends", (1,), (2,), (3,)]
    assert other.sio.eio.on_message == other.sio.manager._outlet.on_message
    end(other)


def test_a_handler_that_waits_keeps_no_other_client_waiting(make: Any) -> None:
    app = make()
    clients = [connect(app) for _ in range(3)]
    keep_all(app)
    for number, client in enumerate(clients):
        client.text(f'421{number}["wait"]', f'422{number}["echo",{number}]')
    app.settle(lambda: all(map(len, map(kept_of(app), app.sio.eio.sockets.values()))))
    other = move(app, make, nothing)
    for number, client in enumerate(clients):
        client.until(f"432{number}[{number}]".encode())
    other.go_on.set()
    for number, client in enumerate(clients):
        client.until(f'431{number}["waited"]'.encode())
    end(other)


def keep_all(app: App) -> None:
    hold = app.sio.manager._outlet.hold
    app.runtime.call_soon(hold.keep_all)
    app.settle(lambda: hold._all)


def kept_of(app: App) -> Callable[[Any], list[Any]]:
    kept: Callable[[Any], list[Any]] = app.sio.manager._outlet.hold.kept
    return kept


def test_a_handler_that_waits_and_the_end_of_its_client(make: Any) -> None:
    app = make()
    client = connect(app)
    session = app.session
    keep_all(app)
    client.text('42["wait"]', '42["echo",1]')
    app.settle(lambda: len(kept_of(app)(session)) == 2)
    ended: list[Any] = []

    async def close() -> None:
        session.close(abort=True)
        ended.append(True)

    app.runtime.call_soon(app.runtime.spawn, close())
    app.settle(lambda: ended and len(app.seen) == 2)
    assert set(app.seen) == {(1,), "server disconnect"}
    app.go_on.set()
    app.gone()


def test_who_leaves_during_the_handler_of_the_takeover(make: Any) -> None:
    app = make()
    client = connect(app)

    def prepare(other: App) -> None:
        async def on_takeover(sid: str, environ: Any) -> None:
            await other.settled(other.go_on.wait())
            other.seen.append("takeover")

        other.sio.manager.on_takeover(other.as_handler(on_takeover))

    other = move(app, make, prepare)
    client.text('42["echo",1]', "1")
    other.settle(lambda: other.session.closed)
    other.sleep(0.02)
    assert other.seen == []
    other.go_on.set()
    other.gone()
    other.settle(lambda: len(other.seen) == 3)  # threads may not have done all
    assert other.seen[0] == "takeover" and set(other.seen[1:]) == {(1,), "client disconnect"}


def test_handlers_end_first_and_what_came_meanwhile_goes_along(make: Any) -> None:
    app = make()
    client = connect(app)
    client.text('421["wait"]')
    app.settle(lambda: app.waiting)
    router, other = Router(), make()
    app.servers[:] = [app.sio]
    departure = Departure(app.runtime, app.http, router)  # type: ignore[arg-type]
    done: list[Any] = []

    async def leave() -> None:
        await departure.pass_on(5)
        done.append(True)

    app.runtime.call_soon(app.runtime.spawn, leave())
    app.settle(lambda: app.sio.eio.on_message != app.sio.manager._outlet.on_message)
    client.text('422["echo",1]')
    app.settle(lambda: app.sio.manager._outlet.hold.kept(app.session))
    app.sleep(0.05)
    assert not done and app.seen == []
    app.go_on.set()
    app.settle(lambda: done)
    client.until(b'431["waited"]')
    adopt(other, router)
    client.until(b"432[1]")
    assert app.seen == [] and other.seen == [(1,)]
    client.sock.close()
    app.clients.clear()
    other.gone()


@pytest.mark.tries(4)
def test_what_cannot_be_moved_is_counted_and_stays(make: Any) -> None:
    app = make()
    clients = [connect(app) for _ in range(3)]
    sids = [sid for sid, _ in app.sio.manager.get_participants("/", None)]
    app.do(app.sio.save_session(sids[1], {"lock": object()}))
    clients[0].text('421["wait"]')
    app.settle(lambda: app.waiting)
    before = dict(refusals.by_reason)
    router = pass_on(app, seconds=0.5)
    assert sum(count for _, count, _ in router.batches) == 1
    assert len(app.sio.eio.sockets) == 2
    for reason in (HANDLER_RUNNING, SESSION_DATA):
        assert refusals.by_reason[reason] == before.get(reason, 0) + 1
    app.go_on.set()
    for session in list(app.sio.eio.sockets.values()):
        session.close(abort=True)
    app.settle(lambda: len(app.seen) == 2)
    assert app.seen == ["server disconnect"] * 2
    for _, _, descriptors in router.batches:
        close_all(descriptors)
    app.gone()


def test_no_router_takes_them(make: Any) -> None:
    app = make()
    client = connect(app)
    client.text('421["echo",0]')
    client.until(b"431[0]")
    before = refusals.by_reason[NO_ROUTER]
    pass_on(app, Router(takes=0))
    assert refusals.by_reason[NO_ROUTER] == before + 1
    session = app.session
    client.text('42["echo",1]')
    app.settle(lambda: app.sio.manager._outlet.hold.kept(session))
    # As Life.finish() does it then.
    session.close(abort=True)
    app.settle(lambda: len(app.seen) == 3)  # a handler in a thread may be the last
    app.gone()
    assert app.seen[0] == (0,) and set(app.seen[1:]) == {(1,), "server disconnect"}


@pytest.mark.parametrize("up", [False, True])
def test_a_router_that_comes_in_time_is_waited_for(make: Any, up: bool) -> None:
    app = make()
    connect(app)
    router = Router()
    router.welcomed, router.up = False, up
    app.runtime.call_later(0.2, lambda: setattr(router, "welcomed", True))
    pass_on(app, router)
    assert not app.sio.eio.sockets
    close_all([one for _, _, descriptors in router.batches for one in descriptors])
    app.clients[0].sock.close()


@pytest.mark.parametrize("up, seconds", [(False, 5), (True, 0.3)])
def test_no_router_comes(make: Any, up: bool, seconds: float) -> None:
    app = make()
    connect(app)
    router = Router()
    router.welcomed, router.up = False, up
    before = refusals.by_reason[NO_ROUTER]
    pass_on(app, router, seconds)
    assert refusals.by_reason[NO_ROUTER] == before + 1
    end(app)


def test_all_of_supervisord_stops(make: Any) -> None:
    app = make()
    connect(app)
    before = sum(refusals.by_reason.values())
    router = Router()
    router.welcomed, router.all_stop = False, True
    pass_on(app, router)
    assert sum(refusals.by_reason.values()) == before
    end(app)


def test_another_format_is_refused_and_nothing_is_left(make: Any) -> None:
    app = make()
    client = connect(app)
    router, other = pass_on(app), make()
    other.servers[:] = [other.sio]
    adopter = Adopter(other.runtime, other.http, router)
    other.runtime.call_soon(adopter.on_adopt, router.adoption(format=FORMAT + 1))
    other.settle(lambda: router.said)
    assert router.said == [("not adopted", 1, f"sessions of format {FORMAT + 1}, not {FORMAT}")]
    client.ended()
    app.clients.clear()
    assert not other.sio.eio.sockets and not other.sio.environ and not other.http.connections


def test_what_is_discarded_is_let_go_without_a_word(make: Any) -> None:
    app = make()
    client = connect(app)
    router, other = pass_on(app), make()
    kept = [os.dup(one) for one in router.batches[0][2]]
    tell_takeover(other)
    adopter = adopt(other, router, go=False)
    other.emit("news", "for nobody")
    client.text('42["echo",1]')
    other.sleep(0.02)
    other.runtime.call_soon(adopter.on_discard, 1)
    other.settle(lambda: not other.sio.eio.sockets)
    assert not other.sio.environ and not other.http.connections and not other.sio.manager.rooms
    assert other.seen == []
    # Another worker gets the same.
    tag = tag_of(app.sio.eio.generate_id())
    router.batches, router.said = [(tag, 1, kept)], []
    third = make()
    adopt(third, router)
    third.settle(lambda: third.seen)
    assert third.seen == [(1,)]
    client.text('421["echo",2]')
    assert b"nobody" not in client.until(b"431[2]")
    client.sock.close()
    app.clients.clear()
    third.gone()


def test_a_request_that_comes_before_they_are_this_workers(make: Any) -> None:
    """The router gets it back and holds it; otherwise it would be refused as of an unknown session,
    or lost if another worker gets the sessions.
    """
    app = make()
    sid = open_session(app, Client(app))
    router, other = pass_on(app), make()
    other.servers[:] = [other.sio]
    adopter = Adopter(other.runtime, other.http, router)
    handed_back: list[bytes] = []

    def hand_back(connection: Any, prefix: bytes) -> None:
        handed_back.append(prefix)
        connection.moved(True)

    other.http.keeps = lambda request: request.tag in adopter.tags
    other.http.hand_back = hand_back

    def post() -> Client:
        """POST on an idle connection."""
        client = Client(other)
        other.settle(lambda: other.http.connections)
        other.http.unsettle()
        client.send(
            f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n"
            'Content-Length: 13\r\n\r\n42["echo",12]'.encode()
        )
        return client

    nothing(other)
    adoption = router.adoption()
    post()
    other.settle(lambda: len(handed_back) == 1)
    other.runtime.call_soon(adopter.on_adopt, adoption)
    post()
    other.settle(lambda: len(handed_back) == 2 and router.said)
    assert sid in other.sio.eio.sockets
    post()
    other.settle(lambda: len(handed_back) == 3)
    assert all(prefix.endswith(b'42["echo",12]') for prefix in handed_back)
    other.runtime.call_soon(adopter.on_go, 1)
    other.settle(lambda: not adopter._arrivals and not adopter._starting)
    client = post()
    client.until(b"HTTP/1.1 200 OK")
    other.settle(lambda: other.seen)
    assert other.seen == [(12,)] and len(handed_back) == 3
    other.sio.eio.sockets[sid].close(abort=True)
    app.clients.clear()
    other.gone()


@pytest.mark.parametrize("go", [True, False])
@pytest.mark.parametrize("place", ["", "later", "not understood"])
def test_they_hear_the_relay_when_they_are_this_workers(
    make: Any,
    monkeypatch: pytest.MonkeyPatch,
    go: bool,
    place: str,
) -> None:
    app = make()
    connect(app)
    router, other = pass_on(app), make()
    tag = tag_of(next(iter(other.servers)).eio.generate_id())
    position = Position("socketio", [Part((tag,), 1.0, {}, {})])
    manager, said = other.sio.manager, []
    monkeypatch.setattr(type(manager), "hears", "socketio")
    for name in ("expect", "adopt", "not_adopted"):
        monkeypatch.setattr(manager, name, lambda what, name=name: said.append((name, what)))
    # It comes later: the adopter of an earlier test may say so here.
    monkeypatch.setattr(manager, "give_up", lambda tag: None)
    other.servers[:] = [other.sio]
    adopter = Adopter(other.runtime, other.http, router)
    adoption = router.adoption()
    adoption.positions.append(("socketio", position.write()))
    other.runtime.call_soon(adopter.on_adopt, adoption)
    other.settle(lambda: router.said)
    assert said == [("expect", (tag,))]
    later = Position("socketio", [Part((tag,), 2.0, {}, {})])
    if place:
        descriptor = later.write() if place == "later" else memory_file.write("place", b"odd")
        done: list[Optional[Exception]] = []

        def give() -> None:
            try:
                adopter.on_place(1, "socketio", descriptor)
            except ValueError as error:
                done.append(error)
            else:
                done.append(None)

        other.runtime.call_soon(give)
        other.settle(lambda: done)
        assert (done[0] is None) == (place == "later")
    other.runtime.call_soon(adopter.on_go if go else adopter.on_discard, 1)
    other.settle(lambda: len(said) > 1)
    if go:
        assert said[1][0] == "adopt" and said[1][1].tags == (tag,)
        assert said[1][1].parts[0].since == (2.0 if place == "later" else 1.0)
    else:
        assert said[1] == ("not_adopted", (tag,))
    assert len(said) == 2
    if place:
        os.close(descriptor)
    monkeypatch.undo()
    app.clients[0].sock.close()
    app.clients.clear()
    other.gone()


def test_many_sessions_with_handlers(make: Any) -> None:
    app = make()
    many = 2 * TAKEOVER_HANDLERS + 5
    for _ in range(many):
        connect(app)
    running = [0, 0]

    def prepare(other: App) -> None:
        async def on_takeover(sid: str, environ: Any) -> None:
            running[0] += 1
            running[1] = max(running)
            await other.nap(0.001)
            running[0] -= 1
            other.seen.append(sid)

        other.sio.manager.on_takeover(other.as_handler(on_takeover))

    other = move(app, make, prepare)
    other.settle(lambda: len(other.seen) == many)
    assert len(set(other.seen)) == many and running[1] <= TAKEOVER_HANDLERS
    for number, client in enumerate(other.clients):
        client.text(f'421["echo",{number}]')
        client.until(f"431[{number}]".encode())
    end(other)


def test_a_batch_that_is_damaged(make: Any) -> None:
    app = make()
    for _ in range(3):
        connect(app)
    router, other = pass_on(app), make()
    ((_, _, descriptors),) = router.batches
    data = os.pread(descriptors[0], 1_000_000, 0)
    where = data.index(b'"descriptors"', data.index(b'"descriptors"') + 1)
    os.pwrite(descriptors[0], b'"descriptorx"', where)
    before = refusals.by_reason[NOT_RESTORED]
    adopt(other, router)
    assert router.said == [("adopted", 1, 1)]
    assert refusals.by_reason[NOT_RESTORED] == before + 2
    other.clients += app.clients
    app.clients.clear()
    end(other)


def test_the_smallest_of_too_many_tags_is_closed(make: Any, monkeypatch: Any) -> None:
    app = make()
    count = 9
    numbers = itertools.count()
    app.sio.eio.generate_id = lambda: _sid(next(numbers))
    for _ in range(count):
        connect(app)
    tags = {tag_of(sid) for sid in app.sio.eio.sockets}
    assert len(tags) == (count + 1) // 2  # the last one has one session
    monkeypatch.setattr("supervisor_sio.worker.adoption.TAKEOVER_TAGS", len(tags))
    router, other = pass_on(app), make()
    adopter = adopt(other, router)
    other.settle(lambda: len(other.sio.eio.sockets) == count - 1)
    assert other.seen == ["server disconnect"]
    other.settle(lambda: len(adopter.tags) == len(tags) - 1)
    assert ("tags", list(adopter.tags)) in router.said
    other.clients += app.clients
    app.clients.clear()
    end(other)


def _sid(number: int) -> str:
    """The sids of two clients have the same tag; each client has an Engine.IO sid, too."""
    return f"{number // 4:08x}.{number:020d}"
