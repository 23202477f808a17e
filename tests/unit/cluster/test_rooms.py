"""Rooms of the clients of one process; across workers see tests/ledger/test_rooms.py."""

from __future__ import annotations

import enum
import random
import time
import uuid
from collections import Counter
from typing import Any, Callable

import pytest
import socketio
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio import ZmqManager
from supervisor_sio.cluster import rooms as rooms_module
from supervisor_sio.cluster.rooms import (
    IndexedManager,
    check_entry,
    check_names,
    tags_of,
)
from supervisor_sio.common import identity
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.methods import MalformedFields
from supervisor_sio.relay.rooms import is_sid, room_hash
from unit.polling import PollingClient, make_server

OTHERS_SID = "0a1b2c3d.AbCdEfGhIjKlMnOpQ-_t"


class Color(enum.Enum):
    RED = "red"


class Shade(str, enum.Enum):
    DARK = "dark"


@pytest.fixture(autouse=True)
def outside_supervisord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def server() -> socketio.Server:
    return make_server(client_manager=ZmqManager())


def test_what_has_the_form_of_a_sid() -> None:
    assert is_sid(OTHERS_SID)
    for room in ("", "room", OTHERS_SID + "\n", OTHERS_SID[1:], OTHERS_SID.upper(), 5, None):
        assert not is_sid(room)


NOT_NAMES = [uuid.uuid4(), b"bytes", Color.RED, 1.0, True, object(), frozenset(), float("nan")]


@pytest.mark.parametrize("room", [*NOT_NAMES, ("a", "b"), ["a"], None])
def test_what_is_not_json_cannot_be_entered(server: socketio.Server, room: Any) -> None:
    client = PollingClient(server)
    for change in (server.enter_room, server.leave_room):
        with pytest.raises(TypeError, match="is not the name of a room: use a str or an int"):
            change(client.sid, room)
    with pytest.raises(TypeError, match="is not the name of a room"):
        server.close_room(room)
    assert server.rooms(client.sid) == [client.sid]
    server.emit("still there", None)
    assert client.event() == ["still there"]


@pytest.mark.parametrize("room", [*NOT_NAMES, ["a", None], ("a", True), {"a"}, {}])
def test_what_is_not_json_selects_nobody(server: socketio.Server, room: Any) -> None:
    manager = server.manager
    PollingClient(server)
    calls: list[Callable[[], Any]] = [
        lambda: server.emit("n", 1, room=room or {"a": 1}),
        lambda: manager.emit("n", 1, except_room=room),
        lambda: manager.emit_with_acks("n", 1, room=room),
        lambda: manager.fetch_sockets(except_room=room),
        lambda: manager.sockets_join("r", room=room),
        lambda: manager.sockets_leave("r", room=room),
        lambda: manager.sockets_join([room]),
        lambda: manager.sockets_leave([room]),
        lambda: manager.disconnect_sockets(room=room),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="is not the name of a room"):
            call()


def test_text_and_integers_of_any_kind_are_names() -> None:
    for room in ("", "r", Shade.DARK, 0, -1, 2**60, None, [], ["a", 1], ("a",)):
        check_names(room)


def test_nobody_enters_the_own_room_of_another_client(server: socketio.Server) -> None:
    client = PollingClient(server)
    with pytest.raises(ValueError, match="it is another client's sid"):
        server.enter_room(client.sid, OTHERS_SID)
    with pytest.raises(ValueError, match="it is another client's sid"):
        server.manager.sockets_join(OTHERS_SID)
    with pytest.raises(ValueError, match="it is a client's sid"):
        server.close_room(OTHERS_SID)
    check_entry(client.sid, client.sid)
    server.enter_room(client.sid, client.sid)
    server.manager.sockets_join(client.sid, room=client.sid)
    assert server.rooms(client.sid) == [client.sid]


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "enter_room", "room": OTHERS_SID},
        {"method": "sockets_join", "rooms": ["r", OTHERS_SID]},
    ],
)
def test_nor_does_another_process_let_it_in(server: socketio.Server, fields: Any) -> None:
    client = PollingClient(server)
    message = RelayMessage("sender", 1, {**fields, "namespace": "/", "sid": client.sid})
    with pytest.raises(MalformedFields, match="it is another client's sid"):
        server.manager.HANDLERS[fields["method"]](server.manager, message)
    assert OTHERS_SID not in server.rooms(client.sid)


def test_a_client_may_leave_its_own_room_and_enter_it_again(server: socketio.Server) -> None:
    client = PollingClient(server)
    server.leave_room(client.sid, client.sid)
    assert server.rooms(client.sid) == []
    server.enter_room(client.sid, client.sid)
    assert server.rooms(client.sid) == [client.sid]


def test_who_has_left_its_own_room_leaves_nothing_behind(server: socketio.Server) -> None:
    client = PollingClient(server)
    server.leave_room(client.sid, client.sid)
    server.disconnect(client.sid)
    assert server.manager.rooms == {}


def test_the_index_says_what_the_rooms_say(server: socketio.Server) -> None:
    """After any changes; the stock manager searches all rooms for the same answer."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    server.namespaces = "*"
    manager = server.manager
    clients = [PollingClient(server, chance.choice(["/", "/other"])) for _ in range(6)]
    spaces = {client.sid: client._namespace[:-1] or "/" for client in clients}
    names: list[Any] = ["a", "b", 1, 2]
    for _ in range(300):
        sid, room = chance.choice(list(spaces)), chance.choice([*names, ""])
        namespace = spaces[sid]
        action = chance.randrange(12)
        if action < 6:
            server.enter_room(sid, room, namespace)
        elif action < 9:
            server.leave_room(sid, room, namespace)
        elif action < 10:
            server.close_room(room, namespace)
        elif action < 11:
            manager.sockets_join(names, room=room, namespace=namespace)
        elif len(spaces) > 2:
            server.disconnect(sid, namespace)
            del spaces[sid]
        for sid, namespace in spaces.items():
            stock = socketio.Manager.get_rooms(manager, sid, namespace)
            assert sorted(map(str, manager.get_rooms(sid, namespace))) == sorted(map(str, stock))
        assert manager.hashes == hashes_of_rooms(manager)
    for sid, namespace in spaces.items():
        server.disconnect(sid, namespace)
    assert manager.rooms == manager._rooms_of == manager.pending_connect == {}
    assert manager.pending_disconnect == manager.hashes == {}


def hashes_of_rooms(manager: IndexedManager) -> dict[int, int]:
    """Of all rooms but the clients' own; an empty room may be left over."""
    return Counter(
        room_hash(namespace, room)
        for namespace, rooms in manager.rooms.items()
        for room, members in rooms.items()
        if members and not is_sid(room)
    )


def test_the_hashes_of_clients_that_are_moved() -> None:
    """Also for sids in another form, and after a change that fails."""
    book = Book()
    for sid in ("own", OTHERS_SID):
        book._take_in(sid, f"eio-{sid}", "/", [sid, "red", 1])
    with pytest.raises(ValueError, match="is in / already"):
        book._take_in("own", "eio-own", "/", ["green"])
    with pytest.raises(KeyError):
        book.basic_enter_room("nobody", "/", "blue")
    assert book.hashes == hashes_of_rooms(book)
    assert len(book.hashes) == 4  # red, 1, everybody, and the one whose id is not ours
    book.basic_enter_room("own", "/", "blue")
    assert book.hashes == hashes_of_rooms(book)
    for sid in ("own", OTHERS_SID):
        book._take_out(sid, "/")
        assert book.hashes == hashes_of_rooms(book)
    assert not book.hashes


def test_two_rooms_of_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as one of them has a client, messages to both are read."""
    monkeypatch.setattr(rooms_module, "room_hash", lambda namespace, room: 7)
    book = Book()
    book._take_in("own", "eio", "/", ["red", "green"])
    book.basic_leave_room("own", "/", "red")
    assert 7 in book.hashes
    book._take_out("own", "/")
    assert 7 not in book.hashes


class Book(IndexedManager):
    """A manager without a cluster."""

    def _publish(self, data: Any) -> None:
        pass


def _seconds_to_disconnect(count: int) -> float:
    book = Book()
    sids = [f"sid-{number}" for number in range(count)]
    for sid in sids:
        book.basic_enter_room(sid, "/", None, eio_sid=f"eio-{sid}")
        book.basic_enter_room(sid, "/", sid, eio_sid=f"eio-{sid}")
        book.basic_enter_room(sid, "/", "all")
    began = time.process_time()
    for sid in sids:
        book.pre_disconnect(sid, "/")
    for sid in sids:
        assert not book.is_connected(sid, "/")
    for sid in sids:
        book.basic_disconnect(sid, "/")
    assert book.rooms == {}
    return time.process_time() - began


@pytest.mark.tries(3)
def test_thousands_that_leave_together_take_no_longer_each() -> None:
    """In python-socketio 20,000 clients take minutes, as the time grows with the square."""
    few = min(_seconds_to_disconnect(1000) for _ in range(3))
    many = min(_seconds_to_disconnect(20_000) for _ in range(3))
    assert many / 20 < few * 4


# --- which workers a room concerns ------------------------------------------------

tags = st.text("0123456789abcdef", min_size=8, max_size=8)
ends = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", min_size=20, max_size=20
)


@given(st.lists(st.tuples(tags, ends), min_size=1))
def test_session_ids_name_their_workers(parts: list[tuple[str, str]]) -> None:
    assert tags_of([f"{tag}.{end}" for tag, end in parts]) == {tag for tag, _ in parts}


@given(tags, ends, st.none() | st.text(max_size=12) | st.integers())
def test_one_other_room_concerns_all(tag: str, end: str, room: Any) -> None:
    assert tags_of([room]) == {None}
    assert tags_of([f"{tag}.{end}", room]) == {None}


@pytest.mark.parametrize(
    "room",
    [
        "0a1b2c3d.short",
        "0a1b2c3d",
        "0A1B2C3D.abcdefghijklmnopqrst",
        "0a1b2c3dabcdefghijklmnopqrst",
        "0a1b2c3d.abcdefghijklmno pqrst",
        "0a1b2c3d.abcdefghijklmnopqrst\n",
        "x0a1b2c3d.abcdefghijklmnopqrst",
        "０a1b2c3d.abcdefghijklmnopqrst",
    ],
)
def test_rooms_that_look_almost_like_a_session(room: str) -> None:
    assert tags_of([room]) == {None}


def test_the_ids_of_this_worker_are_such(server: socketio.Server) -> None:
    assert tags_of([server.eio.generate_id() for _ in range(100)]) == {identity.tag()}


def test_no_rooms_concern_nobody() -> None:
    assert tags_of([]) == set()
