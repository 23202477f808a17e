"""Sessions on their way to another worker, as JSON: what each is, and some of them as one packet.

A session is an object:

===============  ==============================================================================
``sid``          of Engine.IO; begins with the tag of the worker that has opened it
``server``       which of the application's Socket.IO servers has it, in the order of their making
``paths``        where requests of sessions are that server's
``engine``       the Engine.IO session, with its connections: see :mod:`.moved_sessions`
``client``       what python-socketio and the manager know, see :mod:`..cluster.moving`; ``null``
                 for a session that has ended but for its last poll
``held``         messages that no handler has got, as in a payload
``descriptors``  how many of the packet's are its
===============  ==============================================================================

A packet has a list of them, in a file of memory, and their descriptors in the same order.
:data:`..common.takeover.FORMAT` is counted up with each change that an older or a newer worker
would not understand. What is read is checked all the same: a session that is wrong is refused
with the name of the field.
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

#: Beside the file of memory.
_MOST_DESCRIPTORS = MAX_DESCRIPTORS - 1


class Moved(NamedTuple):
    """A session; the module's head says what the fields are."""

    sid: str
    server: int
    paths: list[str]
    engine: dict[str, Any]
    client: Optional[dict[str, Any]]
    held: list[Payload]
    descriptors: int

    def as_text(self) -> str:
        """:raises ValueError: when a part of it is not JSON; ``TypeError`` likewise."""
        return _encode({**self._asdict(), "held": packets.save(map(_as_packet, self.held))})


class Batch:
    """Sessions of one tag, until they fill a packet."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.descriptors: list[int] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self.texts)

    def has_room(self, text: str, descriptors: int) -> bool:
        """For one more; there is for the first one, however long it is."""
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
    """The sessions of a packet, which nobody has looked at, see :func:`restore`.

    :raises ValueError: when that is not a list.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"sessions are not JSON: {error}") from None
    if not isinstance(values, list):
        raise ValueError("sessions are not a list")
    return values


def restore(value: Any) -> Moved:
    """One of them.

    :raises ValueError: names the field that is wrong.
    """
    saved = Saved(value, "session")
    saved.object("engine")  # its owner looks at it, as that of the client's
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
