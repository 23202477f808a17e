"""Hashes of the rooms that a message is for; a worker compares them with its clients' rooms.

The hash of a room has 64 bits, and is the same in all processes. A worker with a client in a room
of the same hash reads the whole message, so two rooms with the same hash cost no more than that.
"""

from __future__ import annotations

import functools
import re
from hashlib import blake2b
from typing import Any, Mapping, Sequence, Union

from ..common.limits import RELAY_MOST_REPEATED, RELAY_MOST_ROOMS

#: The form of a session id of our workers; see :mod:`supervisor_sio.cluster.sessions`.
_SID = re.compile(r"[0-9a-f]{8}\.[\w-]{20}", re.ASCII)

#: Methods that concern only workers with a member of the room.
_EMITS = ("emit", "volatile")

#: Fields that make an emit concern every worker: all answer, or the field is about streams or a
#: bridge.
_FOR_EVERYBODY = ("request", "after", "only", "via")

#: ``None`` is the room of everybody in a namespace.
Name = Union[str, int, None]


def is_sid(room: Any) -> bool:
    """Whether this is the name of a client's own room, at whatever worker."""
    return isinstance(room, str) and _SID.fullmatch(room) is not None


def room_hash(namespace: str, room: Name) -> int:
    """The hash of a room. 1 and ``"1"`` are different rooms in Python, so their hashes differ."""
    if room is None:
        kind, name = b"n", b""
    elif isinstance(room, str):
        kind, name = b"s", room.encode("utf-8", "surrogatepass")
    else:
        kind, name = b"i", b"%d" % room
    text = namespace.encode("utf-8", "surrogatepass") + b"\0" + kind + name
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


_known_hash = functools.lru_cache(maxsize=RELAY_MOST_REPEATED)(room_hash)

#: Most characters of namespace and room together for their hash to be remembered.
_REPEATED = 512


def _hash(namespace: str, room: Name) -> int:
    length = len(namespace) + (len(room) if isinstance(room, str) else 0)
    return (_known_hash if length <= _REPEATED else room_hash)(namespace, room)


def hashes_of(fields: Mapping[str, Any]) -> Sequence[int]:
    """The hashes of the rooms that a message is for; none when it is for everybody.

    Clients' own rooms have no hashes: a message to one of them goes to one worker; where it does
    not, it is for everybody.
    """
    if fields.get("method") not in _EMITS or not fields.keys().isdisjoint(_FOR_EVERYBODY):
        return ()
    namespace, room = fields.get("namespace"), fields.get("room")
    rooms = room if isinstance(room, (list, tuple)) else (room,)
    if not isinstance(namespace, str) or len(rooms) > RELAY_MOST_ROOMS or any(map(is_sid, rooms)):
        return ()
    if not all(one is None or isinstance(one, (str, int)) for one in rooms):
        return ()
    return [_hash(namespace, one) for one in rooms]
