"""Clients that lose their connection, and return to the same worker."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from engineio import packet

from supervisor_sio.cluster import recovery_base
from supervisor_sio.cluster.budget import Share
from supervisor_sio.cluster.relaying import Relaying
from supervisor_sio.common import identity
from supervisor_sio.common.reasons import CLAIMS_FULL, NO_OWNER, UNKNOWN_OFFSET, UNKNOWN_PID
from supervisor_sio.common.recovery import Source
from supervisor_sio.relay.position import Part, Position
from supervisor_sio.worker import life, takeover
from supervisor_sio.worker import recovery as module
from supervisor_sio.worker.adoption import Adopter, Arrival
from supervisor_sio.worker.arriving import Adoption, Journal
from supervisor_sio.worker.claims import no_answer
from supervisor_sio.worker.journals import Journals
from supervisor_sio.worker.life import Life
from supervisor_sio.worker.recovery import recoveries
from supervisor_sio.worker.refused import refusals
from unit.worker.served import APPS, App, Client, serve_by

#: Longer than any test.
LONG = 60

#: As the server writes JSON.
dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@pytest.fixture(params=APPS, ids=[app.mode for app in APPS])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    serve_by(request.param, monkeypatch)
    monkeypatch.setattr(module, "_LOOK", 0.05)

    def make_app(**options: Any) -> App:
        app: App = request.param(recovery=LONG, **options)
        note(app)
        return app

    return make_app


def note(app: App, namespace: str = "/") -> None:
    """Record the calls of handlers."""

    async def connect(sid: str, environ: Any, auth: Any = None) -> None:
        app.seen.append(("connect", sid, auth))

    async def disconnect(sid: str, reason: str) -> None:
        environ = app.sio.get_environ(sid, namespace)
        session = await app.settled(app.sio.get_session(sid, namespace))
        app.seen.append(("disconnect", sid, reason, environ["REMOTE_ADDR"], session))

    async def recovered(sid: str, environ: Any) -> None:
        app.seen.append(("recovered", sid, environ["REMOTE_ADDR"]))

    app.on("connect", connect, namespace)
    app.on("disconnect", disconnect, namespace)
    app.sio.manager.on_recovery(app.as_handler(recovered), namespace=namespace)


class Visitor:
    """A client like socket.io-client, in one namespace."""

    def __init__(self, app: App, namespace: str = "/") -> None:
        self.app = app
        self.namespace = namespace
        self._prefix = "" if namespace == "/" else f"{namespace},"
        self.sid = self.pid = ""
        self.offset: Optional[str] = None
        self.events: list[Any] = []
        self.connection: Client

    def come(self, **auth: Any) -> bool:
        """Connect, for the first time or again; return whether the client is recovered."""
        before = self.pid
        self.connection = Client(self.app)
        self.connection.open_websocket()
        self.connection.until(b'"maxPayload":')
        if self.pid:
            auth = {"pid": self.pid, **auth}
            if self.offset is not None:
                auth["offset"] = self.offset
        data = dumps(auth) if auth else ""
        self.connection.text(f"40{self._prefix}{data}")
        self.connection.until(f"40{self._prefix}".encode() + b'{"sid":')
        answer = json.loads(b'{"sid":' + self.connection.until(b"}") + b"}")
        self.sid, self.pid = answer["sid"], answer.get("pid", "")
        return self.pid == before

    def lose(self) -> None:
        """Lose the connection."""
        before = self.app.sio.manager.lost
        self.connection.sock.close()
        self.app.settle(lambda: self.app.sio.manager.lost == before + 1)

    def gets(self, *event: Any) -> None:
        """Receive the next event."""
        self.connection.until(f"42{self._prefix}".encode() + dumps(event)[:-1].encode())
        self.connection.until(b',"')
        self.offset = self.connection.until(b'"]').decode()


def look(app: App, seconds: float) -> None:
    """Check the lost clients as if this much time had passed."""
    done: list[None] = []

    def look() -> None:
        for recovery in recoveries(app.runtime):
            recovery._expire(time.monotonic() + seconds)
        done.append(None)

    app.runtime.call_soon(look)
    app.settle(lambda: done)


def counted(reason: str) -> int:
    return refusals.by_reason[reason]


def test_what_was_emitted_comes_before_what_the_server_sends(make: Any) -> None:
    """Events of this turn may still be collected: they are sent first."""
    app = make()
    eio = app.sio.eio
    assert eio.before_sending == app.sio.manager.send_collected
    visitor = Visitor(app)
    visitor.come()
    (session,) = eio.engine.sessions.values()

    def collected() -> None:
        if not session.closed:
            eio.deliver(session.sid, packet.Packet(packet.MESSAGE, '2["emitted"]'))

    eio.before_sending = collected
    visitor.connection.text('421["echo"]')
    visitor.connection.until(b'42["emitted"]')
    visitor.connection.until(b"431[")
    app.do(eio.send(session.sid, "sent"))
    visitor.connection.until(b'42["emitted"]')
    visitor.connection.until(b"4sent")
    app.do(eio.disconnect(session.sid))
    assert b'42["emitted"]' in visitor.connection.ended()


def test_a_client_comes_back(make: Any) -> None:
    app = make()
    visitor = Visitor(app)
    visitor.come(token=5)
    sid, pid = visitor.sid, visitor.pid
    assert pid and pid != sid
    app.do(app.sio.save_session(sid, {"name": "ä"}))
    app.do(app.sio.enter_room(sid, "kitchen"))
    app.emit("news", 1)
    visitor.gets("news", 1)
    visitor.lose()
    app.emit("news", 2)
    app.emit("dinner", 3, to="kitchen")
    app.emit("secret", 4, to="cellar")
    assert visitor.come(token=5)
    assert (visitor.sid, visitor.pid) == (sid, pid)
    visitor.gets("news", 2)
    visitor.gets("dinner", 3)
    app.emit("dinner", 5, to="kitchen")
    visitor.gets("dinner", 5)
    assert app.do(app.sio.get_session(sid)) == {"name": "ä"}
    visitor.connection.text('421["echo","after"]')
    visitor.connection.until(b'431["after"]')
    assert app.seen == [
        ("connect", sid, {"token": 5}),
        ("recovered", sid, "192.0.2.1"),
        ("after",),
    ]
    visitor.connection.text("41")
    app.settle(lambda: len(app.seen) == 4)
    assert app.seen[3][:3] == ("disconnect", sid, "client disconnect")
    app.gone()
    app.settle(lambda: not app.sio.eio.lost)


def test_its_answers_to_pings_say_what_it_has(make: Any) -> None:
    """Its state tells whether its pongs are late."""
    app = make()
    visitor = Visitor(app)
    visitor.come()
    (session,) = app.sio.eio.engine.sessions.values()
    client = app.sio.manager._known[visitor.sid]
    for behind in (True, False):
        app.runtime.call_soon(app.sio.eio.on_behind, session, behind)
        app.settle(lambda behind=behind: client.behind is behind)
    app.runtime.call_soon(session.ask)
    visitor.connection.until(b"2")
    visitor.connection.text("3")
    app.settle(lambda: session.proven)
    visitor.lose()
    assert client.known == session.proven - 1


def test_nothing_is_made_for_clients_of_whom_nothing_is_stored(make: Any) -> None:
    app = make()
    visitor = Visitor(app)
    visitor.come()
    (session,) = app.sio.eio.engine.sessions.values()
    visitor.lose()
    assert session.data is None
    assert visitor.come()


def test_twice_in_a_row_and_without_any_event(make: Any) -> None:
    app = make()
    visitor = Visitor(app)
    visitor.come()
    visitor.lose()
    assert visitor.come()
    visitor.lose()
    app.emit("news", 1)
    assert visitor.come()
    visitor.gets("news", 1)
    visitor.lose()
    assert visitor.come()
    visitor.connection.text("41")
    app.settle(lambda: len(app.seen) == 5)
    assert [one[0] for one in app.seen] == ["connect", *["recovered"] * 3, "disconnect"]
    app.gone()


def test_whoever_does_not_come_back_in_time_is_gone(make: Any) -> None:
    app = make()
    visitor = Visitor(app)
    visitor.come()
    sid = visitor.sid
    app.do(app.sio.save_session(sid, {"name": "ä"}))
    visitor.lose()
    look(app, LONG - 1)
    assert len(app.seen) == 1
    look(app, LONG + 1)
    app.settle(lambda: len(app.seen) == 2)
    assert app.seen[1] == ("disconnect", sid, "transport close", "192.0.2.1", {"name": "ä"})
    before = counted(UNKNOWN_PID)
    assert not visitor.come()
    assert counted(UNKNOWN_PID) == before + 1
    visitor.connection.text("41")
    app.settle(lambda: len(app.seen) == 4)
    app.gone()
    app.settle(lambda: not app.sio.eio.lost)


def test_whoever_answers_no_ping_is_lost(make: Any) -> None:
    app = make()
    visitor = Visitor(app)
    for _ in range(2):
        visitor.come()
        app.runtime.call_soon(app.session.close, "ping timeout")
        app.settle(lambda: app.sio.manager.lost == 1)
    app.settle(lambda: len(app.seen) == 2)
    assert app.seen[1][0] == "recovered"
    look(app, LONG + 1)
    app.settle(lambda: len(app.seen) == 3)
    assert app.seen[2] == ("disconnect", visitor.sid, "ping timeout", "192.0.2.1", {})
    app.gone()


def test_an_orderly_end_is_told_at_once(make: Any) -> None:
    app = make()
    visitor = Visitor(app)
    visitor.come()
    app.seen.clear()
    visitor.connection.text("41")
    app.settle(lambda: app.seen)
    assert app.seen[0][2] == "client disconnect"
    assert not visitor.come()
    app.seen.clear()
    app.do(app.sio.disconnect(visitor.sid))
    assert app.seen[0][2] == "server disconnect"
    visitor.connection.sock.close()
    app.gone()


def test_a_session_that_its_client_ends_is_lost(make: Any) -> None:
    """socket.io-client does so when a poll has failed, and then returns."""
    app = make()
    visitor = Visitor(app)
    visitor.come()
    sid = visitor.sid
    visitor.connection.text("1")
    app.settle(lambda: app.sio.manager.lost)
    app.emit("news", 1)
    assert visitor.come() and visitor.sid == sid
    visitor.gets("news", 1)
    app.settle(lambda: len(app.seen) == 2)
    assert app.seen[1][0] == "recovered"
    visitor.connection.text("41", "1")
    app.settle(lambda: len(app.seen) == 3)
    assert app.seen[2][:3] == ("disconnect", sid, "client disconnect")
    app.gone()
    assert not app.sio.manager.lost


def test_a_lost_client_can_be_disconnected(make: Any) -> None:
    app = make()
    visitor = Visitor(app)
    visitor.come()
    visitor.lose()
    app.do(app.sio.disconnect(visitor.sid))
    assert app.seen[1:] == [("disconnect", visitor.sid, "server disconnect", "192.0.2.1", {})]
    assert not visitor.come()
    visitor.connection.text("41")
    app.settle(lambda: len(app.seen) == 4)
    app.gone()


def test_an_offset_that_was_not_given_is_refused(make: Any) -> None:
    app = make()
    visitor = Visitor(app)
    visitor.come()
    app.emit("news", 1)
    visitor.gets("news", 1)
    visitor.lose()
    visitor.offset = f"{visitor.pid[:8]}.fffff"
    before = counted(UNKNOWN_OFFSET)
    sid = visitor.sid
    assert not visitor.come()
    assert counted(UNKNOWN_OFFSET) == before + 1
    assert visitor.sid != sid
    visitor.connection.text("41")
    app.settle(lambda: len(app.seen) == 3)


def test_a_flood_of_pids_that_nobody_knows(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions to other workers are limited; a client of this worker recovers all the same."""
    monkeypatch.setattr(module, "CLAIMS_IN_VAIN", 0.0)
    monkeypatch.setattr(module, "CLAIMS_IN_VAIN_AT_ONCE", 3)
    app = make()
    *_, recovery = (one for one in module.recoveries(app.runtime) if one.manager is app.sio.manager)
    asked: list[Any] = []

    def ask(tag: str, question: Any, answered: Any) -> None:
        asked.append(tag)
        answered(no_answer(UNKNOWN_PID if tag == "ffffffff" else NO_OWNER))

    recovery.ask_others = ask
    visitor, stranger = Visitor(app), Visitor(app)
    visitor.come()
    visitor.lose()
    reasons = Counter(refusals.by_reason)
    for number in range(8):
        # Of whom it is not said that nobody knows them do not count.
        stranger.pid = f"{'eeeeeeee' if number == 0 else 'ffffffff'}.{number:020}"
        assert not stranger.come()
    assert asked == ["eeeeeeee", *["ffffffff"] * 3]
    reasons = Counter(refusals.by_reason) - reasons
    assert (reasons[NO_OWNER], reasons[UNKNOWN_PID], reasons[CLAIMS_FULL]) == (1, 3, 4)
    assert visitor.come()


@pytest.mark.parametrize("answers", [True, False])
def test_the_word_that_a_client_is_here_now_is_taken_in_the_loop(make: Any, answers: bool) -> None:
    """At once, also beside threads: no other thread has to wake up first."""
    app = make()
    visitor = Visitor(app)
    visitor.come()
    *_, recovery = (one for one in module.recoveries(app.runtime) if one.manager is app.sio.manager)
    threads = app.runtime.threads
    happened: list[Any] = []
    said = {"moved": "t"}, [["x"]]

    def ask(tag: str, question: Any, answered: Any) -> None:
        if answers:
            app.runtime.call_soon(answered, said)
        else:
            app.runtime.call_soon(happened.append, "no answer")

    def then(answer: Any) -> None:
        happened.append((answer, threads is None or threads.here))

    async def asks() -> None:
        happened.append(await recovery._ask("t", {"do": "taken"}, (), then))

    recovery.ask_others = ask
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CLAIM_TIMEOUT", 5.0 if answers else 0.05)
        app.runtime.call_soon(app.runtime.run, app.sio.eio.call, asks)
        app.settle(lambda: len(happened) == 2)
    assert happened == ([(said, True), said] if answers else ["no answer", no_answer()])
    visitor.connection.text("41")
    app.settle(lambda: len(app.seen) == 2)
    app.gone()


@pytest.mark.parametrize("do", ["taken", "fetch"])
def test_a_client_is_given_away_in_the_loop(make: Any, do: str) -> None:
    """And the answer is sent from there at once; other questions may wait in a thread."""
    app = make()
    visitor = Visitor(app)
    visitor.come()
    *_, recovery = (one for one in module.recoveries(app.runtime) if one.manager is app.sio.manager)
    threads = app.runtime.threads
    happened: list[Any] = []

    async def answer_claim(question: Any, messages: Any) -> Any:
        happened.append(threads is None or threads.here)
        return {}, ()

    recovery.manager.answer_claim = answer_claim
    app.runtime.call_soon(recovery.answer, ({"do": do}, ()), happened.append)
    app.settle(lambda: len(happened) == 2)
    assert happened == [do == "taken" or not app.runtime.has_threads, ({}, ())]
    visitor.connection.text("41")
    app.settle(lambda: len(app.seen) == 2)
    app.gone()


def test_a_client_that_has_another_connection(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_base, "CLIENT_ANSWERS", 0.05)
    app = make()
    visitor = Visitor(app)
    visitor.come()
    app.emit("news", 1)
    visitor.gets("news", 1)
    old = visitor.connection
    assert visitor.come()
    old.ended()
    app.emit("news", 2)
    visitor.gets("news", 2)
    visitor.connection.text("41")
    app.settle(lambda: len(app.seen) == 3)
    assert [one[0] for one in app.seen] == ["connect", "recovered", "disconnect"]
    app.gone()


def test_each_namespace_comes_back(make: Any) -> None:
    app = make()
    note(app, "/room")
    visitor, other = Visitor(app), Visitor(app, "/room")
    visitor.come()
    other.connection = visitor.connection
    visitor.connection.text("40/room,")
    visitor.connection.until(b"40/room,")
    answer = json.loads(visitor.connection.until(b"}") + b"}")
    other.sid, other.pid = answer["sid"], answer["pid"]
    visitor.connection.sock.close()
    app.settle(lambda: app.sio.manager.lost == 2)
    app.emit("news", 1, namespace="/room")
    assert other.come()
    other.gets("news", 1)
    assert app.sio.manager.lost == 1
    assert visitor.come()
    visitor.connection.text("41")
    other.connection.text("41/room,")
    app.settle(lambda: len(app.seen) == 6)
    app.gone()


def test_who_does_not_know_of_recovery_is_served_as_ever(make: Any) -> None:
    app = make()
    client = Client(app)
    handshake = (
        "GET /socket.io/?transport=websocket&EIO=4 HTTP/1.1\r\nHost: x\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    client.send(handshake.encode())
    client.until(b'"maxPayload":')
    client.text("40")
    client.until(b"40{")
    assert b"pid" not in client.until(b"}")
    app.emit("news", 1)
    client.until(b'42["news",1]')
    client.sock.close()
    app.settle(lambda: len(app.seen) == 2)
    assert app.seen[1][2] == "transport close"
    app.gone()


def test_all_are_told_at_the_end(make: Any) -> None:
    app = make()
    visitor = Visitor(app)
    visitor.come()
    visitor.lose()
    for recovery in recoveries(app.runtime):
        app.runtime.call_soon(recovery.finish)
    app.settle(lambda: len(app.seen) == 2)
    assert app.seen[1:] == [("disconnect", visitor.sid, "transport close", "192.0.2.1", {})]
    last = Visitor(app)
    last.come()
    last.connection.sock.close()
    app.settle(lambda: len(app.seen) == 4)
    app.gone()


class Ending(Life):
    """The end of a worker with one application."""

    def __init__(self, app: App, is_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        # Servers of earlier tests have their clients in this process still.
        own = [one for one in recoveries(app.runtime) if one._server is app.sio]
        assert own
        monkeypatch.setattr(life, "recoveries", lambda runtime: own)
        monkeypatch.setattr(app.runtime, "engines", [app.sio.eio.engine])
        self.runtime, self.server = app.runtime, app.http
        self.run_once: Any = SimpleNamespace(unfinished=False)
        self.signals: Any = SimpleNamespace(wait=self.leave)
        self.over = False
        self._is_last = is_last
        app.runtime.call_soon(app.runtime.spawn, self._end())

    @property
    def _has_connections(self) -> bool:
        return bool(self.server.connections)  # handlers of earlier tests may wait in the runtime

    async def is_last(self) -> bool:
        return self._is_last

    async def _end(self) -> None:
        await self._drain()
        self.over = True


def lose_to_a_handler_that_waits(app: App, count: int) -> tuple[list[Visitor], list[str]]:
    """:return: lost clients, and the sids of those whose handlers have started."""
    begun: list[str] = []

    async def disconnect(sid: str, reason: str) -> None:
        begun.append(sid)
        if sid == visitors[0].sid:
            await app.settled(app.go_on.wait())

    app.on("disconnect", disconnect)
    visitors = [Visitor(app) for _ in range(count)]
    for visitor in visitors:
        visitor.come()
        visitor.lose()
    return visitors, begun


def test_what_another_worker_will_have_is_told_of_there(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running handler is waited for: otherwise the other worker would call it again."""
    monkeypatch.setattr(module, "LOST_HANDLERS", 1)
    app = make()
    (first, second), begun = lose_to_a_handler_that_waits(app, 2)
    look(app, LONG + 1)
    app.settle(lambda: begun)
    connected = Visitor(app)
    connected.come()
    ending = Ending(app, False, monkeypatch)
    connected.connection.ended()
    app.settle(lambda: not app.http.connections)
    look(app, LONG + 1)
    app.sleep(0.1)
    assert not ending.over
    app.go_on.set()
    app.settle(lambda: ending.over)
    assert begun == [first.sid]
    assert set(app.sio.manager.journal._clients) == {second.pid, connected.pid}


def test_a_handler_that_hangs_does_not_keep_the_others_from_being_told(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make()
    (hanging, lost), begun = lose_to_a_handler_that_waits(app, 2)
    connected = Visitor(app)
    connected.come()
    ending = Ending(app, True, monkeypatch)
    app.settle(lambda: len(begun) == 3)
    assert set(begun) == {hanging.sid, lost.sid, connected.sid}
    assert not ending.over
    app.go_on.set()
    app.settle(lambda: ending.over)


class Router:
    """Records what a worker answers to an adoption."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.posted: list[Any] = []
        self.journals = Journals(self)
        #: The adoptions for which the worker receives.
        self.heard_of: list[int] = []

    def heard(self, number: int) -> None:
        self.heard_of.append(number)

    def post(self, message: Any, descriptors: Any = ()) -> None:
        self.posted.append(message)

    def withdraw(self, descriptors: Any) -> None:
        pass

    def adopted(self, number: int, count: int) -> None:
        self.said.append(("adopted", number, count))

    def not_adopted(self, number: int, reason: str) -> None:
        self.said.append(("not adopted", number, reason))

    def tags(self, tags: list[str]) -> None:
        self.said.append(("tags", tags))


def journal_of(app: App) -> Journal:
    """The journal that the router has if its worker dies now."""
    manager = app.sio.manager
    logs: dict[str, dict[int, int]] = {"events": {}, "states": {}}
    for log, number, descriptor in manager.journal.segments():
        logs[log][number] = os.dup(descriptor)
    return Journal(Source(manager.host_id, "socketio"), LONG, time.monotonic(), logs)


def inherit(app: App, *journals: Journal, go: bool = True) -> Router:
    """Let this worker inherit the journals of workers that have died."""
    router: Any = Router()
    adopter = Adopter(app.runtime, app.http, router)
    of = {journal.source: journal for journal in journals}
    tags = [source.tag for source in of]
    # Only while nothing is heard there is no place in the relay.
    place = Position("socketio", [Part(tuple(tags), 0.0, {}, {})])
    positions = [] if go else [("socketio", place.write())]
    adoption = Adoption(1, tags, 0, positions, [], of)
    app.runtime.call_soon(adopter.on_adopt, adoption)
    app.settle(lambda: router.said)
    app.runtime.call_soon(adopter.on_go if go else adopter.on_discard, 1)
    app.settle(lambda: not adopter._arrivals and not adopter._starting)
    assert router.heard_of == [1] * go
    return router  # type: ignore[no-any-return]


@pytest.fixture
def workers(make: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Creates applications, each as a worker with the given tag."""
    monkeypatch.setattr(Relaying, "hears", "socketio")
    servers: list[Any] = []
    monkeypatch.setattr(takeover.sessions, "servers", lambda: servers)

    def make_worker(tag: str, **options: Any) -> App:
        with monkeypatch.context() as patch:
            patch.setattr(identity, "tag", lambda: tag)
            app: App = make(**options)
        app.sio.manager._begin_journal()  # as initialize() does in a worker
        servers[:] = [app.sio]
        return app

    return make_worker


def test_a_client_of_a_worker_that_died_comes_back_to_another_one(
    workers: Any, no_leak: Any
) -> None:
    dead = workers("11111111")
    visitor = Visitor(dead)
    visitor.come()
    sid, pid = visitor.sid, visitor.pid
    dead.do(dead.sio.enter_room(sid, "kitchen"))
    dead.do(dead.sio.save_session(sid, {"name": "ä"}))
    dead.emit("news", 1)
    visitor.gets("news", 1)
    dead.emit("dinner", 2, to="kitchen")  # which it has not read yet
    journal = journal_of(dead)

    visitor.app = app = workers("22222222")
    router = inherit(app, journal)
    assert router.said == [("adopted", 1, 0)]
    assert [message["type"] for message in router.posted] == ["journal"] * 2
    assert {message["tag"] for message in router.posted} == {"11111111"}
    app.emit("dinner", 3, to="kitchen")
    assert visitor.come() and (visitor.sid, visitor.pid) == (sid, pid)
    visitor.gets("dinner", 2)
    visitor.gets("dinner", 3)
    assert app.do(app.sio.get_session(sid)) == {"name": "ä"}
    visitor.lose()
    app.emit("news", 4)
    assert visitor.come()
    visitor.gets("news", 4)
    visitor.connection.text("41")
    app.settle(lambda: len(app.seen) == 3)
    assert [one[0] for one in app.seen] == ["recovered", "recovered", "disconnect"]
    app.gone()
    router.journals.close()


def test_the_session_of_a_client_of_a_worker_that_died(workers: Any) -> None:
    """It can be read and written while the client is away, and is kept when it returns."""
    dead = workers("11111111")
    visitor = Visitor(dead)
    visitor.come()
    sid = visitor.sid
    dead.do(dead.sio.save_session(sid, {"name": "ä"}))
    journal = journal_of(dead)
    visitor.app = app = workers("22222222")
    router = inherit(app, journal)
    assert app.do(app.sio.get_session(sid)) == {"name": "ä"}
    app.do(app.sio.save_session(sid, {"name": "ö"}))
    assert app.do(app.sio.get_session(sid)) == {"name": "ö"}
    with pytest.raises(KeyError):
        app.sio.eio._stored("nobody")
    assert visitor.come() and visitor.sid == sid
    assert app.do(app.sio.get_session(sid)) == {"name": "ö"}
    app.settle(lambda: not app.sio.eio.lost)
    visitor.connection.text("41")
    app.settle(lambda: app.seen[-1][0] == "disconnect")
    app.gone()
    router.journals.close()


def test_so_many_sessions_that_have_ended_are_looked_at(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limited number at a time; all are checked, and those of returned clients are removed."""
    monkeypatch.setattr(module, "_LOOK", 0.01)
    monkeypatch.setattr(module, "_LOOKED_AT", 2)
    app = make()
    visitors = [Visitor(app) for _ in range(5)]
    for visitor in visitors:
        visitor.come()
        visitor.lose()
    for visitor in visitors[:2]:
        assert visitor.come()
    app.settle(lambda: len(app.sio.eio.lost) == 3)
    for visitor in visitors[2:]:
        assert app.do(app.sio.get_session(visitor.sid)) == {}
        assert visitor.come()
    app.settle(lambda: not app.sio.eio.lost)
    for visitor in visitors:
        visitor.connection.text("41")
    app.settle(lambda: not app.sio.manager.rooms)
    app.gone()


def test_the_end_of_a_client_of_a_worker_that_died_is_told_once(workers: Any) -> None:
    dead = workers("11111111")
    visitor = Visitor(dead)
    visitor.come()
    dead.do(dead.sio.save_session(visitor.sid, {"name": "ä"}))
    journal = journal_of(dead)
    app = workers("22222222")
    inherit(app, journal).journals.close()
    look(app, LONG + 1)
    app.settle(lambda: app.seen)
    assert app.seen == [("disconnect", visitor.sid, "server error", "", {"name": "ä"})]
    app.settle(lambda: not app.sio.eio.lost)
    assert not app.sio.manager.rooms and not app.sio.environ


def test_clients_that_are_another_workers_after_all(workers: Any, no_leak: Any) -> None:
    dead = workers("11111111")
    visitor = Visitor(dead)
    visitor.come()
    journal = journal_of(dead)
    app = workers("22222222")
    inherit(app, journal, go=False)
    visitor.app = app
    assert not visitor.come()
    assert not app.sio.manager.lost


def test_a_journal_that_cannot_be_read_is_left_alone(
    workers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    nonsense = {"events": {1: os.memfd_create("nonsense")}, "states": {}}
    source = Source("11111111", "socketio")
    app = workers("22222222")
    router = inherit(app, Journal(source, LONG, time.monotonic(), nonsense))
    assert router.said == [("adopted", 1, 0)]
    app.settle(lambda: "the journal of 11111111 cannot be read" in caplog.text)
    router.journals.close()


@pytest.mark.parametrize("settled", [True, False])
def test_the_heir_of_a_worker_dies_too(workers: Any, settled: bool) -> None:
    dead = workers("11111111")
    visitor, gone = Visitor(dead), Visitor(dead)
    for one in (visitor, gone):
        one.come()
    dead.emit("news", 1)
    visitor.gets("news", 1)
    first = journal_of(dead)

    heir = workers("22222222")
    inherit(heir, first._replace(logs=copied(first))).journals.close()
    if settled:  # that they are its own is in its journal
        heir.sio.manager._save_states_of(["11111111"])
        heir.sio.manager._note_heir_of(["11111111"])
        gone.app = heir
        assert gone.come()
        gone.connection.text("41")
        heir.settle(lambda: len(heir.seen) == 2)
    second = journal_of(heir)
    if not settled:  # it dies before it has written anything
        second = journal_of(workers("22222222"))

    visitor.app = app = workers("33333333")
    inherit(app, first, second).journals.close()
    assert app.sio.manager.lost == (1 if settled else 2)
    assert visitor.come()
    app.emit("news", 2)
    visitor.gets("news", 2)
    visitor.connection.text("41")
    app.settle(lambda: len(app.seen) == 2)


def test_others_get_a_turn_while_an_heir_writes_down_whom_it_has(
    workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = workers("22222222")
    happened: list[str] = []

    def write(arrival: Arrival) -> bool:
        happened.append("writes")
        app.runtime.call_soon(happened.append, "another one")
        return happened.count("writes") == 3

    monkeypatch.setattr(Arrival, "write", write)
    monkeypatch.setattr(Arrival, "hear", lambda arrival: happened.append("hears"))
    inherit(app).journals.close()
    app.settle(lambda: len(happened) == 7)
    assert happened == [*["writes", "another one"] * 2, "writes", "hears", "another one"]


def copied(journal: Journal) -> dict[str, dict[int, int]]:
    """A copy of its logs."""
    return {
        log: {number: os.dup(one) for number, one in segments.items()}
        for log, segments in journal.logs.items()
    }


def test_a_client_whose_next_worker_never_had_it_is_told_of(make: Any) -> None:
    """That worker was killed meanwhile, and no other has the client."""
    app = make()
    visitor = Visitor(app)
    visitor.come()
    app.do(app.sio.save_session(visitor.sid, {"name": "x"}))
    visitor.lose()
    manager = app.sio.manager
    client = manager._known[visitor.sid]
    manager._fetched(client, manager._missed(client, None), "ffffffff", Share())
    manager._hand_over(client, "ffffffff")
    assert manager.unconfirmed == 1 and not manager.lost
    app.settle(lambda: len(app.seen) == 2)
    assert app.seen[1] == ("disconnect", visitor.sid, "transport close", "", {"name": "x"})
    app.settle(lambda: not manager.unconfirmed)
