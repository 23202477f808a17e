"""Offsets of Socket.IO's connection state recovery: the last event that a client has received.
Pure.

Each event that needs no acknowledgement ends with an offset, a string. A client remembers the last
one, and sends it when it comes back, with the private id (``pid``) that it got when it connected.
Our offsets are ``<tag>.<number>``: the worker that sent the event, and the event's number in its
journal, in hexadecimal digits.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, NamedTuple, Optional, Sequence

from ..common.limits import OFFSET_LENGTH
from ..relay.message import EncodedPacket

#: Numbers of a journal are less than 2**60.
_OFFSET = re.compile(r"([0-9a-f]{8})\.([0-9a-f]{1,15})", re.ASCII)
_PID = re.compile(r"[0-9a-f]{8}\.[\w-]{20}", re.ASCII)

#: In place of a pid or offset that is malformed: no client has it.
_NONSENSE = ""


class Offset(NamedTuple):
    tag: str
    number: int


class Asked(NamedTuple):
    """The recovery request in a client's CONNECT."""

    #: Whether the client can recover: it takes the last argument of an event for an offset.
    capable: bool
    #: ``None`` when the client does not come back.
    pid: Optional[str]
    #: ``None`` when the client has received no event.
    offset: Optional[str]
    #: The rest of the data, for the ``connect`` handler.
    data: Any


def read_connect(environ: Mapping[str, Any], data: Any) -> Asked:
    """Read the recovery request out of a CONNECT.

    :param environ: of the handshake.
    :param data: of the CONNECT packet.
    """
    if isinstance(data, dict) and "pid" in data:
        rest = {key: value for key, value in data.items() if key not in ("pid", "offset")}
        pid, offset = data["pid"], data.get("offset")
        if pid is not None and not isinstance(pid, bool):
            pid = pid if isinstance(pid, str) and _PID.fullmatch(pid) else _NONSENSE
        else:
            pid = None  # the client only says that it can recover
        if offset is not None and not (isinstance(offset, str) and len(offset) <= OFFSET_LENGTH):
            offset = _NONSENSE
        return Asked(True, pid, offset, rest or None)
    return Asked(_is_of_javascript(environ), None, None, data)


def _is_of_javascript(environ: Mapping[str, Any]) -> bool:
    """Whether the client may be able to recover: python-engineio's puts ``transport=`` before
    ``EIO=``."""
    query = "&" + str(environ.get("QUERY_STRING", ""))
    transport = query.find("&transport=")
    return 0 <= query.find("&EIO=") < transport


def write(tag: str, number: int) -> str:
    return f"{tag}.{number:x}"


def read(offset: Optional[str]) -> Optional[Offset]:
    """``None`` for an offset that is not of our form."""
    match = None if offset is None else _OFFSET.fullmatch(offset)
    return None if match is None else Offset(match[1], int(match[2], 16))


def add_each(
    packets: Sequence[EncodedPacket], tag: str, numbers: Iterable[int]
) -> list[EncodedPacket]:
    """Add an offset to each of several encoded events, as its last argument.

    :param numbers: of the events, in their order.
    """
    left = iter(numbers)
    numbered: list[EncodedPacket] = []
    for packet in packets:
        if isinstance(packet, str):  # its attachments follow it
            if packet[-1:] != "]":
                raise ValueError("not an event in JSON")
            packet = f'{packet[:-1]},"{tag}.{next(left):x}"]'
        numbered.append(packet)
    return numbered


def add(packets: Sequence[EncodedPacket], offset: str) -> list[EncodedPacket]:
    """Add an offset to one encoded event, as its last argument."""
    text = packets[0]
    if not isinstance(text, str) or text[-1:] != "]":
        raise ValueError("not an event in JSON")
    numbered: list[EncodedPacket] = [f'{text[:-1]},"{offset}"]']
    return numbered if len(packets) == 1 else [*numbered, *packets[1:]]
