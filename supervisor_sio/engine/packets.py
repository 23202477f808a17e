"""Engine.IO packets: their types, what one that waits costs, and how they are saved.

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

#: The first character of a text; a binary message is bytes, and has none.
OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = TYPES = "0123456"

#: A text that is not a packet.
_INVALID = "x"


def cost(packet: Packet) -> int:
    """What a packet that waits is counted for, in bytes."""
    return sys.getsizeof(packet) + OUTPUT_OBJECT


def save(packets: Iterable[Optional[Packet]]) -> list[str]:
    """Packets as JSON takes them, which is as in a payload; ``None`` among them is left out.

    What cannot be read becomes something that cannot be read there either.
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
    """What :func:`save` was given.

    :param valid: whether these have to be packets.
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
