"""Commands to all workers about their clients: rooms, and disconnecting."""

from __future__ import annotations

import itertools
from typing import Any, Callable, ClassVar, Coroutine, Mapping, Optional

from ..relay.message import RelayMessage
from .asking import Asking
from .rooms import Room, check_entry, check_name, check_names, refuse_entry
from .takeover import Underway


class Steering(Asking):
    """The part of a manager that moves and disconnects clients of all workers."""

    # From the manager and its other parts.
    basic_enter_room: Callable[..., None]
    basic_leave_room: Callable[..., None]
    _participants: Callable[..., list[tuple[str, str]]]
    _run_where_served: Callable[..., None]
    _disconnect_here: Callable[[list[str], str], Coroutine[Any, Any, None]]
    _underway: Underway

    async def sockets_join(
        self,
        rooms: Room,
        room: Room = None,
        namespace: Optional[str] = None,
        except_room: Room = None,
        local: bool = False,
    ) -> None:
        """Add clients to a room or to a list of rooms.

        :raises TypeError: when a room is not named by a ``str`` or an ``int``.
        :raises ValueError: when a name in ``rooms`` has the form of a sid: such a room is a
            client's own.
        """
        names = _list(rooms)
        for name in names:
            # A client that is selected by its sid may enter its own room.
            check_entry(room if isinstance(room, str) else "", name)
        await self._command("sockets_join", namespace, room, except_room, local, rooms=names)

    async def sockets_leave(
        self,
        rooms: Room,
        room: Room = None,
        namespace: Optional[str] = None,
        except_room: Room = None,
        local: bool = False,
    ) -> None:
        """Remove clients from a room or from a list of rooms.

        :raises TypeError: when a room is not named by a ``str`` or an ``int``.
        """
        await self._command(
            "sockets_leave", namespace, room, except_room, local, rooms=_list(rooms)
        )

    async def disconnect_sockets(
        self,
        room: Room = None,
        namespace: Optional[str] = None,
        except_room: Room = None,
        local: bool = False,
    ) -> None:
        """Disconnect clients from the namespace."""
        await self._command("disconnect_sockets", namespace, room, except_room, local)

    async def _command(
        self,
        method: str,
        namespace: Optional[str],
        room: Room,
        except_room: Room,
        local: bool,
        **more: Any,
    ) -> None:
        """Send a command to all workers; there is no answer."""
        check_names(room)
        check_names(except_room)
        fields = {
            "method": method,
            "namespace": namespace or "/",
            "room": room,
            "except_room": except_room,
            **more,
        }
        self._need_cluster()
        await self._begin(not local)
        with self._underway:
            message = RelayMessage(self.host_id, 0, fields)
            if self._run_dir is not None and not local:
                message.scope = self._send_to([None], fields, (), method)
            if self.server is not None:
                self._run_where_served(self.HANDLERS[method], self, message)

    def _selected(self, message: RelayMessage) -> list[tuple[str, str]]:
        fields = message.fields
        return self._participants(
            fields["namespace"],
            fields.get("room"),
            fields.get("except_room"),
            scope=message.scope,
        )

    def _on_sockets_join(self, message: RelayMessage) -> None:
        namespace, rooms = message.fields["namespace"], _list(message.fields["rooms"])
        with self._tables:
            sids = [sid for sid, _ in self._selected(message)]
            for sid, room in itertools.product(sids, rooms):
                refuse_entry(sid, room)
                self.basic_enter_room(sid, namespace, room)

    def _on_sockets_leave(self, message: RelayMessage) -> None:
        namespace = message.fields["namespace"]
        with self._tables:
            for sid, _ in self._selected(message):
                for room in _list(message.fields["rooms"]):
                    self.basic_leave_room(sid, namespace, room)

    def _on_disconnect_sockets(self, message: RelayMessage) -> None:
        with self._tables:
            sids = [sid for sid, _ in self._selected(message)]
        self._spawn(self._disconnect_here, sids, message.fields["namespace"])

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "sockets_join": _on_sockets_join,
        "sockets_leave": _on_sockets_leave,
        "disconnect_sockets": _on_disconnect_sockets,
    }


def _list(rooms: Room) -> list[Any]:
    found = list(rooms) if isinstance(rooms, (list, tuple)) else [rooms]
    for room in found:
        check_name(room)
    return found
