"""Which rooms a message is for, as numbers that a worker without a member of them can compare.

A hash of 64 bits for each room, the same in all processes. A worker that has a client in a room
of the same hash looks at the whole message, so two rooms with one hash cost no more than that.
"""

from __future__ import annotations

import functools
import re
from hashlib import blake2b
from typing import Any, Mapping, Sequence, Union

from ..common.limits import RELAY_MOST_REPEATED, RELAY_MOST_ROOMS

#: A session id as a worker of ours makes it; see :mod:`supervisor_sio.cluster.sessions`.
_SID = re.compile(r"[0-9a-f]{8}\.[\w-]{20}", re.ASCII)

#: What only who has a member has anything to do with.
_EMITS = ("emit", "volatile")

#: Fields by which everybody has something to do with an emit: answers are gathered of all, or
#: it says something of the streams or of the bridge that it came through.
_FOR_EVERYBODY = ("request", "after", "only", "via")

#: ``None`` is the room of all in a namespace.
Name = Union[str, int, None]


def is_sid(room: Any) -> bool:
    """Whether this is the name of a client's own room, wherever that client is."""
    return isinstance(room, str) and _SID.fullmatch(room) is not None


def room_hash(namespace: str, room: Name) -> int:
    """To Python 1 and ``"1"`` are different rooms, and so they are here."""
    if room is None:
        kind, name = b"n", b""
    elif isinstance(room, str):
        kind, name = b"s", room.encode("utf-8", "surrogatepass")
    else:
        kind, name = b"i", b"%d" % room
    text = namespace.encode("utf-8", "surrogatepass") + b"\0" + kind + name
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


_known_hash = functools.lru_cache(maxsize=RELAY_MOST_REPEATED)(room_hash)

#: Characters that a namespace and a room may have together to be remembered.
_REPEATED = 512


def _hash(namespace: str, room: Name) -> int:
    length = len(namespace) + (len(room) if isinstance(room, str) else 0)
    return (_known_hash if length <= _REPEATED else room_hash)(namespace, room)


def hashes_of(fields: Mapping[str, Any]) -> Sequence[int]:
    """The rooms that a message is for, by its fields; none: it is for everybody.

    Nobody keeps hashes of the clients' own rooms: a message to one of these goes to one worker,
    and for everybody where it does not.
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
