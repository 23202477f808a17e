from __future__ import annotations

from typing import Any

import pytest
import socketio

from supervisor_sio import ZmqManager
from supervisor_sio.cluster.fetching import RemoteSocket, RoomSizes
from supervisor_sio.cluster.gathering import Answers
from supervisor_sio.common import identity
from unit.cluster.others import OTHER, Sent, from_another, numbers
from unit.in_loop import InLoop
from unit.polling import ADDRESS, PollingClient


def test_a_client_as_it_is_described(manager: ZmqManager, server: socketio.Server) -> None:
    client = PollingClient(server)
    server.enter_room(client.sid, "room")
    (socket,) = manager.fetch_sockets()
    assert socket == RemoteSocket(
        sid=client.sid,
        namespace="/",
        rooms=socket.rooms,
        worker=identity.process_name(),
        transport="polling",
        # engineio says this of every client of an ASGI application; the worker knows better.
        address="127.0.0.1" if isinstance(manager, InLoop) else ADDRESS,
        data={},
    )
    assert sorted(socket.rooms) == sorted([client.sid, "room"])


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    ("room", "except_room", "selected"),
    [
        (None, None, [0, 1, 2, 3]),
        ("even", None, [0, 2]),
        (["even", "low"], None, [0, 1, 2]),
        (("odd", "low"), None, [0, 1, 3]),
        ("nobody", None, []),
        ([], None, []),
        (None, "even", [1, 3]),
        (None, ["even", "low"], [3]),
        (None, [], [0, 1, 2, 3]),
        (None, "nobody", [0, 1, 2, 3]),
        ("even", "low", [2]),
        ("low", ["even", "odd"], []),
    ],
)
def test_who_is_selected(
    manager: ZmqManager,
    clients: list[PollingClient],
    room: Any,
    except_room: Any,
    selected: list[int],
    local: bool,
) -> None:
    sockets = manager.fetch_sockets(room, except_room=except_room, local=local)
    assert isinstance(sockets, Answers)
    assert numbers(clients, sockets) == selected
    assert (sockets.timed_out, sockets.missing) == (False, 0)


def test_a_room_of_one(manager: ZmqManager, clients: list[PollingClient]) -> None:
    sids = [clients[1].sid, clients[2].sid]
    assert numbers(clients, manager.fetch_sockets(sids[0])) == [1]
    assert numbers(clients, manager.fetch_sockets(sids)) == [1, 2]
    assert numbers(clients, manager.fetch_sockets(except_room=sids)) == [0, 3]


def test_namespaces_are_apart(
    manager: ZmqManager, server: socketio.Server, clients: list[PollingClient]
) -> None:
    other = PollingClient(server, "/chat")
    server.enter_room(other.sid, "low", namespace="/chat")
    (socket,) = manager.fetch_sockets(namespace="/chat")
    assert (socket.sid, socket.namespace) == (other.sid, "/chat")
    assert len(manager.fetch_sockets()) == 4
    assert manager.fetch_rooms(namespace="/chat") == {"low": 1}
    assert manager.fetch_sockets(namespace="/none") == []
    assert manager.fetch_rooms(namespace="/none") == {}


def test_only_the_shared_keys_of_a_session_are_shown(
    manager: ZmqManager, server: socketio.Server, clients: list[PollingClient]
) -> None:
    server.save_session(clients[0].sid, {"user": "ann", "secret": 1, "age": 7})
    server.save_session(clients[1].sid, {"secret": 2})
    assert all(socket.data == {} for socket in manager.fetch_sockets())
    manager.share_session_keys("user")
    manager.share_session_keys("age", "shoes")
    data = {socket.sid: socket.data for socket in manager.fetch_sockets()}
    assert [data[client.sid] for client in clients] == [{"user": "ann", "age": 7}, {}, {}, {}]


def test_rooms(manager: ZmqManager, server: socketio.Server, clients: list[PollingClient]) -> None:
    sizes = manager.fetch_rooms()
    assert isinstance(sizes, RoomSizes)
    assert sizes == {"even": 2, "odd": 2, "low": 2}
    assert sizes["nobody"] == 0
    assert (sizes.timed_out, sizes.missing) == (False, 0)
    server.leave_room(clients[0].sid, "low")
    server.close_room("odd")
    assert manager.fetch_rooms(local=True) == {"even": 2, "low": 1}


def test_any_room_that_can_be_entered_counts(
    manager: ZmqManager, server: socketio.Server, clients: list[PollingClient]
) -> None:
    for room in ("", 0, 7):
        server.enter_room(clients[0].sid, room)
    sizes = manager.fetch_rooms()
    assert (sizes[""], sizes[0], sizes[7], sizes[clients[0].sid]) == (1, 1, 1, 0)


def test_another_fetches(manager: ZmqManager, clients: list[PollingClient], sent: Sent) -> None:
    question = {"method": "request", "request": 1, "room": "low"}
    from_another(manager, **question, operation="fetch_sockets", except_room="even")
    from_another(manager, **question, operation="fetch_rooms", reply_to="0a1b2c3d")
    (first, _, (sockets,)), (second, _, (rooms,)) = sent
    assert (first, second) == (OTHER, "0a1b2c3d")
    assert [socket["sid"] for socket in sockets] == [clients[1].sid]
    assert RemoteSocket(**sockets[0]) in manager.fetch_sockets()
    assert sorted(rooms) == [["even", 2], ["low", 2], ["odd", 2]]
