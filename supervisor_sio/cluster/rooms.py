"""Rooms: what may name one, and which of them each client is in."""

from __future__ import annotations

from _thread import RLock
from types import MappingProxyType
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence, Union

from ..common.request import tag_of
from ..relay.methods import MalformedFields
from ..relay.rooms import is_sid, room_hash
from .bases import BaseManager
from .scope import Selection

#: One room, or several, or everybody.
Room = Union[str, int, list[Any], tuple[Any, ...], None]


def tags_of(room: Room) -> set[Optional[str]]:
    """The workers that an emit to this room or these rooms concerns; ``{None}`` for all.

    A session id is a room too, and names the one worker that has it.
    """
    rooms = room if isinstance(room, (list, tuple)) else [room]
    if not all(map(is_sid, rooms)):
        return {None}
    return {tag_of(one) for one in rooms if isinstance(one, str)}


def check_name(room: Any) -> None:
    """:raises TypeError: for what cannot name a room, the same in every worker.

    That is what JSON has no word for, or another one: to Python 1, 1.0 and ``True`` are
    the same key. ``None`` is python-socketio's room of all who are connected.
    """
    if type(room) is str:
        return
    if not isinstance(room, (str, int)) or isinstance(room, bool):
        raise TypeError(
            f"{room!r:.80} is not the name of a room: use a str or an int, "
            f"not {type(room).__name__}"
        )


def check_names(room: Room) -> None:
    """The same for one room, a list or tuple of rooms, or ``None`` for everybody."""
    if room is None or type(room) is str:
        return
    for one in room if isinstance(room, (list, tuple)) else (room,):
        check_name(one)


def check_entry(sid: str, room: Any) -> None:
    """Whether a client may enter a room.

    :raises TypeError: as :func:`check_name`.
    :raises ValueError: for the sid of another client, who may be at another worker.
    """
    check_name(room)
    if room != sid and is_sid(room):
        raise ValueError(f"cannot enter {room!r}: it is another client's sid")


def refuse_entry(sid: str, room: Any) -> None:
    """:raises MalformedFields: when another process lets a client enter what it may not."""
    try:
        check_entry(sid, room)
    except (TypeError, ValueError) as error:
        raise MalformedFields(str(error)) from None


class IndexedManager(BaseManager):
    """python-socketio's manager, with an index from each client to its rooms.

    Without it, whoever disconnects is looked for in all rooms, and each client has one of its own.
    Threads may use it together: whoever calls a method that begins with ``basic_`` or ``_`` holds
    ``_tables``.
    """

    # What python-socketio calls, and has in its classes.
    rooms: dict[str, dict[Any, Any]]
    pending_connect: _Pending
    pending_disconnect: _Pending
    #: With recovery, those of whom it is known what they have missed; and what notes their rooms.
    _known: Mapping[str, Any] = MappingProxyType({})
    _note_room: Callable[[str, Any, bool], None]
    #: By namespace and sid; without its own room and that of everybody: most have no other.
    _rooms_of: dict[tuple[str, str], dict[Any, None]]

    def __init__(self) -> None:
        super().__init__()
        self.forget_clients()

    def forget_clients(self) -> None:
        #: How many rooms with a client of this process have each hash: of all but the clients' own.
        self.hashes: dict[int, int] = {}
        #: Held for no longer than a moment, and never while greenlets switch: one of the
        #: operating system, whatever a library has put in its place.
        self._tables = RLock()
        self.rooms, self._rooms_of = {}, {}
        self.pending_connect, self.pending_disconnect = _Pending(), _Pending()

    def basic_enter_room(
        self, sid: str, namespace: str, room: Any, eio_sid: Optional[str] = None
    ) -> None:
        was_empty = not self.rooms.get(namespace, {}).get(room)
        if room == sid and eio_sid is not None:
            # Its own, when it connects; it has entered that of everybody before.
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
        # Its own, if it has not left that, and that of everybody: most have no others.
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
        """A room has its first client here, or has lost its last one."""
        if is_sid(room):
            return
        number = room_hash(namespace, room)
        count = self.hashes.get(number, 0) + change
        if count:
            self.hashes[number] = count
        else:
            del self.hashes[number]

    # Without what an Admin UI hears of: another process has the client then, or had it.

    def _take_out(self, sid: str, namespace: str) -> None:
        """That client is not here any more."""
        for room in self._rooms_of.get((namespace, sid), {}).copy():
            IndexedManager.basic_leave_room(self, sid, namespace, room)
        IndexedManager.basic_disconnect(self, sid, namespace)

    def _take_in(self, sid: str, eio_sid: str, namespace: str, rooms: Sequence[Any]) -> None:
        """A connected client.

        :param rooms: as :meth:`get_rooms` has them.
        :raises ValueError: when it is here, or cannot be in one of the rooms.
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

    # What others call.

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
        """The clients of this process that are selected: sid and Engine.IO sid."""
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
    """A client's own room. python-socketio has a ``bidict`` for it, which takes far longer to make.

    :ivar _fwdm: where python-socketio looks for who is in a room.
    """

    __slots__ = ()

    @property
    def _fwdm(self) -> _Room:
        return self


class _Pending(dict[str, Any]):
    """By namespace, the clients that connect or disconnect; asked about at each event.

    python-socketio puts lists here, which take long to look through when thousands leave together.
    """

    def __setitem__(self, namespace: str, sids: Any) -> None:
        super().__setitem__(namespace, _Sids.fromkeys(sids))

    def __missing__(self, namespace: str) -> _Sids:
        """For who has just looked whether there are any, while another thread removes the last."""
        return _Sids()

    def discard(self, sid: str, namespace: str) -> None:
        """That client does not connect or disconnect any more, or never did."""
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
