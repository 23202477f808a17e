"""A client's stay at a worker: which events of that worker's journal were for it. Pure.

A room that the client has left is remembered as long as the client may ask for missed events.
"""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple, Optional

from ..common.limits import CLIENT_ROOMS, ROOMS_LEFT
from ..engine.saved import Saved
from .rooms import Room, check_name


class Left(NamedTuple):
    """A room that the client was in: it got the room's events after ``entered``, up to ``left``."""

    room: Any
    entered: int
    left: int
    time: float


#: Shared by clients that have none; not to be changed.
_NONE: list[Left] = []
_NO_ROOMS: dict[Any, int] = {}


class Stay:
    """The time of a client at one worker, in numbers of that worker's journal.

    :param tag: of the worker.
    :param begin: the number of the last event before the stay.
    :param rooms: that the client is in from the beginning.
    :param heard_as: the tag as which the client receives the relay, see :class:`.Scope`.
    """

    __slots__ = (
        "tag",
        "begin",
        "end",
        "ended",
        "rooms",
        "left",
        "size",
        "heard_as",
        "floor",
        "floor_time",
    )

    def __init__(self, tag: str, begin: int, rooms: Iterable[Any], heard_as: str) -> None:
        self.tag = tag
        self.begin = begin
        #: The number of its last event; ``None`` while the client is there.
        self.end: Optional[int] = None
        #: Monotonic time of its end.
        self.ended: Optional[float] = None
        #: For each room the number of the last event before the client entered it.
        self.rooms: dict[Any, int] = dict.fromkeys(rooms, begin) or _NO_ROOMS
        self.left = _NONE
        #: Characters that the names of all these rooms take, as CLIENT_ROOMS counts them.
        self.size = sum(map(_size, self.rooms))
        self.heard_as = tag if heard_as == tag else heard_as  # one string for all clients
        #: Up to this event it is not known any more which were for the client; and the event's
        #: time.
        self.floor = begin
        self.floor_time = 0.0

    @property
    def is_as_begun(self) -> bool:
        """Whether only the beginning is to be saved: no rooms, and no end."""
        return (
            self.end is None
            and self.ended is None
            and not self.rooms
            and not self.left
            and self.floor == self.begin
            and not self.floor_time
        )

    def enter(self, room: Any, number: int) -> None:
        """:param number: of the last event before the client enters."""
        if self.rooms is _NO_ROOMS:
            self.rooms = {}
        if room not in self.rooms:
            self.rooms[room] = number
            self.size += _size(room)

    def leave(self, room: Any, number: int, now: float, age: float) -> None:
        """:param age: seconds after which a room that was left is forgotten."""
        entered = self.rooms.pop(room, None)
        if entered is None:
            return
        if entered < number:  # otherwise there was no event meanwhile
            if self.left is _NONE:
                self.left = []
            self.left.append(Left(room, entered, number, now))
        else:
            self.size -= _size(room)
        while self.left and (len(self.left) > ROOMS_LEFT or self.left[0].time < now - age):
            oldest = self.left.pop(0)
            self.size -= _size(oldest.room)
            self.floor, self.floor_time = oldest.left, oldest.time

    @property
    def is_too_long(self) -> bool:
        """Whether its rooms are too many to be saved."""
        return self.size > CLIENT_ROOMS

    def all_rooms(self, sid: str, namespace: str) -> set[tuple[str, Any]]:
        """All rooms, with the namespace, whose events may have been for the client."""
        left = [one.room for one in self.left]
        return {(namespace, room) for room in (*self.rooms, *left, sid, None)}

    def is_in(self, rooms: Room, number: int, sid: str) -> bool:
        """Whether event ``number``, which was sent to these rooms, was for the client."""
        if rooms is None:
            return True
        for room in rooms if isinstance(rooms, (list, tuple)) else (rooms,):
            if room == sid:
                return True
            entered = self.rooms.get(room)
            if entered is not None and entered < number:
                return True
            if any(one.room == room and one.entered < number <= one.left for one in self.left):
                return True
        return False

    def is_for(self, sid: str, namespace: str, event: Any) -> bool:
        """Whether an event of the journal was for the client.

        :param event: :class:`.journal.Event`
        """
        if event.scope is not None:
            only, tags = event.scope
            if (self.heard_as in tags) is not only:
                return False
        fields, number = event.message.fields, event.k
        if fields["namespace"] != namespace or not self.is_in(fields.get("room"), number, sid):
            return False
        if sid in (fields.get("skip_sid") or ()):
            return False
        excepted = fields.get("except_room")
        return excepted in (None, []) or not self.is_in(excepted, number, sid)

    # --- as JSON --------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        return {
            "tag": self.tag,
            "begin": self.begin,
            "end": self.end,
            "ended": self.ended,
            "rooms": [[room, entered] for room, entered in self.rooms.items()],
            "left": self.left,
            "as": self.heard_as,
            "floor": [self.floor, self.floor_time],
        }

    @classmethod
    def restored(cls, saved: Saved) -> Stay:
        """:raises ValueError: when it is not a state from :meth:`save`."""
        stay = cls(saved.text("tag"), saved.integer("begin"), (), saved.text("as"))
        stay.end = None if saved.is_none("end") else saved.integer("end")
        stay.ended = None if saved.is_none("ended") else saved.seconds("ended")
        floor = saved.list("floor")
        stay.floor, stay.floor_time = floor.integer(0), floor.seconds(1)
        stay.rooms = {_room(one): one.integer(1) for one in saved.items("rooms")} or _NO_ROOMS
        stay.left = [
            Left(_room(one), one.integer(1), one.integer(2), one.seconds(3))
            for one in saved.items("left")
        ]
        stay.size = sum(map(_size, stay.rooms)) + sum(_size(one.room) for one in stay.left)
        return stay


def _size(room: Any) -> int:
    return (len(room) if isinstance(room, str) else 0) + 16


def _room(saved: Saved) -> Any:
    """The name of the room, the first item."""
    (_, room), *_ = saved.pairs()
    try:
        check_name(room)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return room
