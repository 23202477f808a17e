"""Engine.IO packets: their types, the memory that a pending packet costs, and how they are saved.

https://github.com/socketio/socket.io, docs/engine.io-protocol
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Optional

from ..common.limits import OUTPUT_OBJECT
from . import payload
from .payload import Packet, PayloadError
from .saved import Saved

#: The first character of a text packet; a binary message is bytes and has no type character.
OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = TYPES = "0123456"

#: Not a packet: its first character is not a type.
_INVALID = "x"


def cost(packet: Packet) -> int:
    """The memory that a pending packet is counted as, in bytes."""
    return sys.getsizeof(packet) + OUTPUT_OBJECT


def save(packets: Iterable[Optional[Packet]]) -> list[str]:
    """Packets as JSON-compatible texts, each encoded as in a payload; ``None`` is left out.

    An unreadable packet is saved as a text that the restoring process refuses, too.
    """
    texts: list[str] = []
    try:
        for packet in packets:
            if packet is not None:
                texts.append(payload.encode([packet]))
    except PayloadError:
        texts.append(_INVALID)
    return texts


def restore(texts: Saved, valid: bool = True) -> list[Packet]:
    """The packets that were given to :func:`save`.

    :param valid: whether to refuse a text that is not a packet.
    :raises ValueError: see :class:`.Saved`.
    """
    packets: list[Packet] = []
    for index in range(len(texts)):
        text = texts.text(index)
        if text[:1] == "b":
            packets.append(texts.data(index, skip=1))
        elif valid and (not text or text[0] not in TYPES):
            raise texts.wrong(index, "a packet")
        else:
            packets.append(text)
    return packets
