from __future__ import annotations

import time
from typing import Any

import pytest
import socketio

from supervisor_sio import ZmqManager
from unit.cluster.others import eventually, numbers
from unit.polling import PollingClient


@pytest.mark.parametrize("rooms", ["new", ["new", "newer"], ("newer", "new")])
@pytest.mark.parametrize("local", [False, True])
def test_sockets_join_and_leave(
    manager: ZmqManager, clients: list[PollingClient], rooms: Any, local: bool
) -> None:
    manager.sockets_join(rooms, room="even", except_room=clients[0].sid, local=local)
    assert numbers(clients, manager.fetch_sockets("new")) == [2]
    manager.sockets_join(rooms, local=local)
    manager.sockets_join(rooms)
    assert numbers(clients, manager.fetch_sockets("new")) == [0, 1, 2, 3]
    manager.sockets_leave(rooms, room="odd", local=local)
    manager.sockets_leave(rooms, room=["odd", "nobody"])
    assert numbers(clients, manager.fetch_sockets("new")) == [0, 2]
    expected = {"even": 2, "odd": 2, "low": 2, "new": 2}
    assert manager.fetch_rooms() == {**expected, **({} if rooms == "new" else {"newer": 2})}
    manager.sockets_leave(rooms, except_room="nobody")
    assert manager.fetch_sockets("new") == []


def test_nobody_is_selected(manager: ZmqManager, clients: list[PollingClient]) -> None:
    before = manager.fetch_rooms()
    manager.sockets_join("new", room=[])
    manager.sockets_join("new", room="nobody")
    manager.sockets_join([])
    manager.sockets_leave("even", room=[])
    manager.disconnect_sockets(room=[])
    manager.disconnect_sockets(room="nobody")
    time.sleep(0.05)
    assert manager.fetch_rooms() == before


def test_disconnect_sockets(
    manager: ZmqManager, server: socketio.Server, clients: list[PollingClient]
) -> None:
    gone: list[str] = []
    server.on("disconnect", lambda sid, reason: gone.append(sid))
    manager.disconnect_sockets("even", except_room="low")
    eventually(lambda: gone == [clients[2].sid])
    assert numbers(clients, manager.fetch_sockets()) == [0, 1, 3]
    manager.disconnect_sockets(local=True)
    eventually(lambda: len(gone) == 4)
    assert set(gone) == {client.sid for client in clients}
    assert manager.fetch_sockets() == [] and manager.fetch_rooms() == {}
