"""The JSON format of sessions that move to another worker, and of the packets that carry them.

A session is an object:

===============  ==============================================================================
``sid``          the Engine.IO session id; begins with the tag of the worker that opened it
``server``       the index of its Socket.IO server, in the order in which they were created
``paths``        the paths at which that server gets requests of sessions
``engine``       the Engine.IO session, with its connections: see :mod:`.moved_sessions`
``client``       the state of python-socketio and the manager, see :mod:`..cluster.moving`;
                 ``null`` for a session that has ended and only waits for its last poll
``held``         messages that no handler has received, encoded as in a payload
``descriptors``  how many of the packet's descriptors belong to the session
===============  ==============================================================================

A packet is a list of sessions in a memory file, with their descriptors in the same order.
:data:`..common.takeover.FORMAT` is incremented with each change that workers of another release
would not understand. All fields are checked nevertheless: a wrong session is refused with an
error that names the field.
"""

from __future__ import annotations

import json
from typing import Any, Iterable, NamedTuple, Optional

from ..common.channel import MAX_DESCRIPTORS
from ..common.limits import TAKEOVER_BATCH
from ..engine import packets
from ..engine.frames import Payload
from ..engine.packets import MESSAGE
from ..engine.saved import Saved

_encode = json.JSONEncoder(separators=(",", ":")).encode

#: Most descriptors of a packet's sessions; one more is the memory file.
_MOST_DESCRIPTORS = MAX_DESCRIPTORS - 1


class Moved(NamedTuple):
    """A session; the module's docstring explains the fields."""

    sid: str
    server: int
    paths: list[str]
    engine: dict[str, Any]
    client: Optional[dict[str, Any]]
    held: list[Payload]
    descriptors: int

    def as_text(self) -> str:
        """Encode it as JSON.

        :raises ValueError: or ``TypeError``, if a part of it cannot be encoded.
        """
        return _encode({**self._asdict(), "held": packets.save(map(_as_packet, self.held))})


class Batch:
    """Collects sessions of one tag for a packet."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.descriptors: list[int] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self.texts)

    def has_room(self, text: str, descriptors: int) -> bool:
        """Whether one more session fits; the first one always does, however long it is."""
        if len(self.descriptors) + descriptors > _MOST_DESCRIPTORS:
            return False
        return not self.texts or self._size + len(text) <= TAKEOVER_BATCH

    def add(self, text: str, descriptors: Iterable[int]) -> None:
        self.texts.append(text)
        self.descriptors.extend(descriptors)
        self._size += len(text)

    def as_bytes(self) -> bytes:
        return f"[{','.join(self.texts)}]".encode()


def read(data: bytes) -> list[Any]:
    """The sessions of a packet; :func:`restore` checks each of them.

    :raises ValueError: if the packet is not a list.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"sessions are not JSON: {error}") from None
    if not isinstance(values, list):
        raise ValueError("sessions are not a list")
    return values


def restore(value: Any) -> Moved:
    """Check a session of a packet.

    :raises ValueError: if a field, which it names, is wrong.
    """
    saved = Saved(value, "session")
    saved.object("engine")  # the engine checks its fields, as the manager those of the client
    client = None if saved.is_none("client") else saved.object("client")
    paths = saved.list("paths")
    held = packets.restore(saved.list("held"))
    descriptors = saved.integer("descriptors")
    if not 0 <= descriptors <= _MOST_DESCRIPTORS:
        raise saved.wrong("descriptors", "a number of descriptors")
    return Moved(
        saved.text("sid"),
        saved.integer("server"),
        [paths.text(index) for index in range(len(paths))],
        value["engine"],
        None if client is None else value["client"],
        [message if isinstance(message, bytes) else message[1:] for message in held],
        descriptors,
    )


def _as_packet(message: Payload) -> Payload:
    return message if isinstance(message, bytes) else MESSAGE + message
