"""Rooms: their names, and the rooms of each client."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence, Union

from ..common.request import tag_of
from ..relay.methods import MalformedFields
from ..relay.rooms import is_sid, room_hash
from .bases import BaseManager
from .scope import Selection
from .tables import Tables

#: One room, several, or ``None`` for everybody in the namespace.
Room = Union[str, int, list[Any], tuple[Any, ...], None]


def tags_of(room: Room) -> set[Optional[str]]:
    """The tags of the workers that an emit to this room or these rooms is for; ``{None}`` for all.

    A session id is a room too, and names the one worker that has the client.
    """
    if not isinstance(room, (list, tuple)):
        return {tag_of(room) if isinstance(room, str) and is_sid(room) else None}
    if not all(map(is_sid, room)):
        return {None}
    return {tag_of(one) for one in room}


def check_name(room: Any) -> None:
    """Check the name of a room.

    :raises TypeError: for a name that JSON does not have, or that is not the same in every worker:
        to Python 1, 1.0 and ``True`` are one key. ``None`` is python-socketio's room of all
        clients.
    """
    if type(room) is str:
        return
    if not isinstance(room, (str, int)) or isinstance(room, bool):
        raise TypeError(
            f"{room!r:.80} is not the name of a room: use a str or an int, "
            f"not {type(room).__name__}"
        )


def check_names(room: Room) -> None:
    """Check one room, a list or tuple of rooms, or ``None`` for everybody."""
    if room is None or type(room) is str:
        return
    for one in room if isinstance(room, (list, tuple)) else (room,):
        check_name(one)


def check_entry(sid: str, room: Any) -> None:
    """Check whether a client may enter a room.

    :raises TypeError: as :func:`check_name`.
    :raises ValueError: for the sid of another client, which may be at another worker.
    """
    check_name(room)
    if room != sid and is_sid(room):
        raise ValueError(f"cannot enter {room!r}: it is another client's sid")


def refuse_entry(sid: str, room: Any) -> None:
    """:raises MalformedFields: when another process lets a client enter a room it must not
    enter."""
    try:
        check_entry(sid, room)
    except (TypeError, ValueError) as error:
        raise MalformedFields(str(error)) from None


class IndexedManager(BaseManager):
    """python-socketio's manager, with an index from each client to its rooms.

    Without the index a disconnect would search all rooms, and each client has a room of its own.
    Threads may share it: callers of methods that begin with ``basic_`` or ``_`` hold ``_tables``.
    """

    # Attributes and methods that python-socketio uses.
    rooms: dict[str, dict[Any, Any]]
    pending_connect: _Pending
    pending_disconnect: _Pending
    #: With recovery: clients by sid, and the method that notes their changes of rooms.
    _known: Mapping[str, Any] = MappingProxyType({})
    _note_room: Callable[[str, Any, bool], None]
    #: By namespace and sid, without the client's own room and everybody's: most have no other.
    _rooms_of: dict[tuple[str, str], dict[Any, None]]

    def __init__(self) -> None:
        super().__init__()
        self.forget_clients()

    def forget_clients(self) -> None:
        #: By hash: how many rooms with a client of this process have it; clients' own rooms do not
        #: count.
        self.hashes: dict[int, int] = {}
        #: Held for moments only, and never while greenlets switch.
        self._tables = Tables()
        self.rooms, self._rooms_of = {}, {}
        self.pending_connect, self.pending_disconnect = _Pending(), _Pending()

    def basic_enter_room(
        self, sid: str, namespace: str, room: Any, eio_sid: Optional[str] = None
    ) -> None:
        was_empty = not self.rooms.get(namespace, {}).get(room)
        if room == sid and eio_sid is not None:
            # The client's own room when it connects; it has entered everybody's before.
            self.rooms[namespace][sid] = _Room({sid: eio_sid})
        elif room is None or room == sid:
            super().basic_enter_room(sid, namespace, room, eio_sid=eio_sid)
        else:
            check_entry(sid, room)
            super().basic_enter_room(sid, namespace, room, eio_sid=eio_sid)
            self._rooms_of.setdefault((namespace, sid), {})[room] = None
            if self._known:
                self._note_room(sid, room, True)
        if was_empty:
            self._count_hash(namespace, room, 1)

    def basic_leave_room(self, sid: str, namespace: str, room: Any) -> None:
        self._leave_room(sid, namespace, room)
        rooms = self._rooms_of.get((namespace, sid))
        if rooms is not None:
            rooms.pop(room, None)
            if not rooms:
                del self._rooms_of[namespace, sid]
            if self._known:
                self._note_room(sid, room, False)

    def basic_disconnect(self, sid: str, namespace: str, **kwargs: Any) -> None:
        for room in self._rooms_of.pop((namespace, sid), ()):
            self.basic_leave_room(sid, namespace, room)
        # Its own room, if it has not left it, and everybody's: most clients have no other.
        if self.rooms.get(namespace, {}).pop(sid, None):
            self._count_hash(namespace, sid, -1)
        self._leave_room(sid, namespace, None)
        self.pending_connect.discard(sid, namespace)
        self.pending_disconnect.discard(sid, namespace)

    def _leave_room(self, sid: str, namespace: str, room: Any) -> None:
        members = self.rooms.get(namespace, {}).get(room)
        is_last = members is not None and len(members) == 1 and sid in members
        super().basic_leave_room(sid, namespace, room)
        if is_last:
            self._count_hash(namespace, room, -1)

    def _count_hash(self, namespace: str, room: Any, change: int) -> None:
        """A room has got its first client here, or lost its last one."""
        if is_sid(room):
            return
        number = room_hash(namespace, room)
        count = self.hashes.get(number, 0) + change
        if count:
            self.hashes[number] = count
        else:
            del self.hashes[number]

    # These do not report to an Admin UI, as the client only moves between processes.

    def _take_out(self, sid: str, namespace: str) -> None:
        """Remove a client that moves to another process."""
        for room in self._rooms_of.get((namespace, sid), {}).copy():
            IndexedManager.basic_leave_room(self, sid, namespace, room)
        IndexedManager.basic_disconnect(self, sid, namespace)

    def _take_in(self, sid: str, eio_sid: str, namespace: str, rooms: Sequence[Any]) -> None:
        """Add a connected client of another process.

        :param rooms: in the form of :meth:`get_rooms`.
        :raises ValueError: when this process has it already, or it cannot enter one of the rooms.
        """
        known = self.sid_from_eio_sid(eio_sid, namespace)
        if known is not None or sid in self.rooms.get(namespace, {}).get(None, ()):
            raise ValueError(f"{sid} is in {namespace} already")
        IndexedManager.basic_enter_room(self, sid, namespace, None, eio_sid)
        for room in rooms:
            own = eio_sid if room == sid else None
            try:
                IndexedManager.basic_enter_room(self, sid, namespace, room, own)
            except TypeError as error:
                raise ValueError(str(error)) from None

    # Called without ``_tables``.

    def get_rooms(self, sid: str, namespace: str) -> list[Any]:
        with self._tables:
            own = [sid] if sid in self.rooms.get(namespace, {}).get(sid, ()) else []
            return own + list(self._rooms_of.get((namespace, sid), ()))

    def get_participants(self, namespace: str, room: Room) -> list[tuple[str, str]]:
        with self._tables:
            return self._members_of(namespace, room)

    def pre_disconnect(self, sid: str, namespace: str) -> Any:
        with self._tables:
            return super().pre_disconnect(sid, namespace)

    def _participants(
        self,
        namespace: str,
        room: Room,
        except_room: Room = None,
        skip_sid: Iterable[str] = (),
        scope: Optional[Selection] = None,
    ) -> list[tuple[str, str]]:
        """The selected clients of this process: pairs of sid and Engine.IO sid."""
        selected = self._members_of(namespace, room)
        if scope is not None:
            selected = scope.select(selected)
        skip = set(skip_sid)
        if except_room is not None and except_room != []:
            skip.update(sid for sid, _ in self._members_of(namespace, except_room))
        return [pair for pair in selected if pair[0] not in skip] if skip else selected

    def _members_of(self, namespace: str, room: Room) -> list[tuple[str, str]]:
        rooms = self.rooms.get(namespace)
        if rooms is None:
            return []
        if isinstance(room, (list, tuple)):
            several: dict[str, str] = {}
            for one in room:
                several.update(rooms.get(one, ()))
            return list(several.items())
        members = rooms.get(room)
        return [] if members is None else list(members.items())


class _Room(dict[str, str]):
    """A client's own room. python-socketio takes a ``bidict``, which is far slower to make.

    :ivar _fwdm: where python-socketio reads the members of a room.
    """

    __slots__ = ()

    @property
    def _fwdm(self) -> _Room:
        return self


class _Pending(dict[str, Any]):
    """Clients that are connecting or disconnecting, by namespace; looked up at each event.

    python-socketio has lists here, which are slow to search when thousands leave together.
    """

    def __setitem__(self, namespace: str, sids: Any) -> None:
        super().__setitem__(namespace, _Sids.fromkeys(sids))

    def __missing__(self, namespace: str) -> _Sids:
        """For a thread that has just found some, while another one removed the last."""
        return _Sids()

    def discard(self, sid: str, namespace: str) -> None:
        """A client has ceased to connect or disconnect, or never did."""
        sids = self.get(namespace)
        if sids and sid in sids:
            del sids[sid]
            if not sids:
                del self[namespace]


class _Sids(dict[str, None]):
    def append(self, sid: str) -> None:
        self[sid] = None

    def remove(self, sid: str) -> None:
        del self[sid]
