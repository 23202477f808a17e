"""Operations on single clients of any worker: rooms, and disconnecting."""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Mapping, Optional

from ..common.blocking import settle
from ..relay.message import RelayMessage
from ..relay.rooms import is_sid
from .asking import Asking
from .early import Early
from .rooms import IndexedManager, check_entry, check_name, refuse_entry
from .scope import Selection
from .takeover import Underway

_WRONG_THREAD = "in another thread than the one that serves the clients"


class Clients(Asking, IndexedManager):
    """The part of a manager that moves and disconnects one client, or closes a room."""

    # From the manager.
    _publish: Callable[[dict[str, Any]], Optional[Selection]]
    _underway: Underway
    _early: dict[str, Early]
    _in_another_thread: Callable[[], bool]
    _run_where_served: Callable[..., None]

    def _is_here(self, sid: str, namespace: str) -> bool:
        """Whether this process has the client."""
        return bool(self.is_connected(sid, namespace) or self.is_pre_connected(sid, namespace))

    def _ends_once_here(self, sid: str, namespace: str) -> bool:
        """Whether the client is about to arrive from another worker: it is disconnected on arrival.
        Until then the other worker has it, and calls its handlers."""
        with self._tables:
            client = self._known.get(sid)
            if client is None or client.arriving is None or client.namespace != namespace:
                return False
            self._early[sid].ends = True
            return True

    async def can_disconnect(self, sid: str, namespace: str) -> bool:
        """Whether :meth:`socketio.Server.disconnect` is to go on; else the request was passed
        on."""
        namespace = namespace or "/"
        # Published as well: if the client does not arrive, the worker that has it disconnects it.
        here = self._is_here(sid, namespace) and not self._ends_once_here(sid, namespace)
        await self._begin(not here)
        if not here:
            self._publish({"method": "disconnect", "sid": sid, "namespace": namespace})
            return False
        if self._in_another_thread():
            self._run_where_served(self.server.disconnect, sid, namespace)
            return False
        return bool(self.is_connected(sid, namespace))

    def pre_disconnect(self, sid: str, namespace: str) -> Any:
        if self._in_another_thread():
            raise RuntimeError(f"disconnect() with ignore_queue {_WRONG_THREAD}")
        return super().pre_disconnect(sid, namespace)

    async def disconnect(
        self, sid: str, namespace: Optional[str] = None, ignore_queue: bool = False
    ) -> None:
        namespace = namespace or "/"
        if ignore_queue:
            self.basic_disconnect(sid, namespace)
            return
        here = self._is_here(sid, namespace)
        await self._begin(not here)
        if not here:
            self._publish({"method": "disconnect", "sid": sid, "namespace": namespace})
        elif self._in_another_thread():
            self._run_where_served(self.server.disconnect, sid, namespace)
        else:
            await settle(self.server.disconnect(sid, namespace))

    async def enter_room(
        self, sid: str, namespace: str, room: Any, eio_sid: Optional[str] = None
    ) -> None:
        """Add a client to a room.

        :raises TypeError: when the room is not named by a ``str`` or an ``int``.
        :raises ValueError: when the name has the form of a sid, and is not this client's.
        """
        check_entry(sid, room)
        await self._change_room("enter_room", sid, namespace, room)

    async def leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """Remove a client from a room.

        :raises TypeError: when the room is not named by a ``str`` or an ``int``.
        """
        check_name(room)
        await self._change_room("leave_room", sid, namespace, room)

    async def close_room(self, room: Any, namespace: Optional[str] = None) -> None:
        """Remove all clients from a room.

        :raises TypeError: when the room is not named by a ``str`` or an ``int``.
        :raises ValueError: for a client's own room.
        """
        check_name(room)
        if is_sid(room):
            raise ValueError(f"cannot close {room!r}: it is a client's sid")
        namespace = namespace or "/"
        await self._begin(True)
        with self._underway:
            scope = self._publish({"method": "close_room", "room": room, "namespace": namespace})
            self._run_where_served(self._close_room_here, room, namespace, scope)

    async def _change_room(
        self, method: str, sid: str, namespace: Optional[str], room: Any
    ) -> None:
        namespace = namespace or "/"
        here = self._is_here(sid, namespace)
        await self._begin(not here)
        with self._underway:
            if here:
                self._run_where_served(self._change_own, method, sid, namespace, room)
            else:
                self._publish({"method": method, "sid": sid, "room": room, "namespace": namespace})

    def _change_own(self, method: str, sid: str, namespace: str, room: Any) -> None:
        """Change the rooms of a client that was here a moment ago."""
        changed = self._change_room_here(method, sid, namespace, room)
        if not changed and self._run_dir is not None:  # another process may have the client now
            self._publish({"method": method, "sid": sid, "room": room, "namespace": namespace})

    def _change_room_here(self, method: str, sid: str, namespace: str, room: Any) -> bool:
        change = self.basic_enter_room if method == "enter_room" else self.basic_leave_room
        with self._tables:
            here = self._is_here(sid, namespace)
            if here:
                change(sid, namespace, room)
            return here

    def _close_room_here(
        self, room: Any, namespace: str, scope: Optional[Selection] = None
    ) -> None:
        with self._tables:
            if scope is None:
                self.basic_close_room(room, namespace)
                return
            for sid, _ in self._participants(namespace, room, scope=scope):
                self.basic_leave_room(sid, namespace, room)

    async def _disconnect_here(self, sids: list[str], namespace: str) -> None:
        for sid in sids:
            if not self._ends_once_here(sid, namespace):
                await settle(self.server.disconnect(sid, namespace, ignore_queue=True))

    def _on_disconnect(self, message: RelayMessage) -> None:
        # The application's disconnect handlers may take long.
        fields = message.fields
        if not _is_meant(message):
            return
        self._spawn(self._disconnect_here, [fields["sid"]], fields["namespace"])

    def _on_room_change(self, message: RelayMessage) -> None:
        fields = message.fields
        if fields["method"] == "enter_room":
            refuse_entry(fields["sid"], fields["room"])
        if _is_meant(message):
            change = fields["method"], fields["sid"], fields["namespace"], fields["room"]
            self._change_room_here(*change)

    def _on_close_room(self, message: RelayMessage) -> None:
        fields = message.fields
        self._close_room_here(fields["room"], fields["namespace"], message.scope)

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "disconnect": _on_disconnect,
        "enter_room": _on_room_change,
        "leave_room": _on_room_change,
        "close_room": _on_close_room,
    }


def _is_meant(message: RelayMessage) -> bool:
    """Whether the client that the message names is in its scope."""
    scope = message.scope
    return scope is None or message.fields["sid"] in scope
