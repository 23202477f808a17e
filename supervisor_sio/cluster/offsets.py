"""Offsets, as Socket.IO's connection state recovery has them: what a client has got last. Pure.

Each event that is not to be acknowledged ends with one, a text. A client remembers the last, and
says it when it comes back, with the private id (``pid``) that it was given when it connected.
Ours are ``<tag>.<number>``: the worker that has sent the event, and the event's number in its
journal, as hexadecimal digits.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, NamedTuple, Optional, Sequence

from ..common.limits import OFFSET_LENGTH
from ..relay.message import EncodedPacket

#: Numbers of a journal are less than 2**60.
_OFFSET = re.compile(r"([0-9a-f]{8})\.([0-9a-f]{1,15})", re.ASCII)
_PID = re.compile(r"[0-9a-f]{8}\.[\w-]{20}", re.ASCII)

#: What a client says that is neither: it is nobody's.
_NONSENSE = ""


class Offset(NamedTuple):
    tag: str
    number: int


class Asked(NamedTuple):
    """What a client says of recovery when it connects."""

    #: Whether it can come back: it takes the last argument of an event for an offset.
    capable: bool
    #: ``None``: it does not come back.
    pid: Optional[str]
    #: ``None``: it has got no event.
    offset: Optional[str]
    #: What is left for the handler of ``connect``.
    data: Any


def read_connect(environ: Mapping[str, Any], data: Any) -> Asked:
    """:param environ: of the handshake.
    :param data: of the CONNECT packet.
    """
    if isinstance(data, dict) and "pid" in data:
        rest = {key: value for key, value in data.items() if key not in ("pid", "offset")}
        pid, offset = data["pid"], data.get("offset")
        if pid is not None and not isinstance(pid, bool):
            pid = pid if isinstance(pid, str) and _PID.fullmatch(pid) else _NONSENSE
        else:
            pid = None  # it only says that it can
        if offset is not None and not (isinstance(offset, str) and len(offset) <= OFFSET_LENGTH):
            offset = _NONSENSE
        return Asked(True, pid, offset, rest or None)
    return Asked(_is_of_javascript(environ), None, None, data)


def _is_of_javascript(environ: Mapping[str, Any]) -> bool:
    """Whether a client may be one that recovers: of python-engineio ``transport=`` comes first."""
    query = "&" + str(environ.get("QUERY_STRING", ""))
    transport = query.find("&transport=")
    return 0 <= query.find("&EIO=") < transport


def write(tag: str, number: int) -> str:
    return f"{tag}.{number:x}"


def read(offset: Optional[str]) -> Optional[Offset]:
    """``None`` for what is none of ours."""
    match = None if offset is None else _OFFSET.fullmatch(offset)
    return None if match is None else Offset(match[1], int(match[2], 16))


def add_each(
    packets: Sequence[EncodedPacket], tag: str, numbers: Iterable[int]
) -> list[EncodedPacket]:
    """The encoded packets of events, each with an offset as its last argument.

    :param numbers: of the events, in their order.
    """
    left = iter(numbers)
    numbered: list[EncodedPacket] = []
    for packet in packets:
        if isinstance(packet, str):  # what follows it are its attachments
            if packet[-1:] != "]":
                raise ValueError("not an event in JSON")
            packet = f'{packet[:-1]},"{tag}.{next(left):x}"]'
        numbered.append(packet)
    return numbered


def add(packets: Sequence[EncodedPacket], offset: str) -> list[EncodedPacket]:
    """The encoded packet of an event, with an offset as its last argument."""
    text = packets[0]
    if not isinstance(text, str) or text[-1:] != "]":
        raise ValueError("not an event in JSON")
    numbered: list[EncodedPacket] = [f'{text[:-1]},"{offset}"]']
    return numbered if len(packets) == 1 else [*numbered, *packets[1:]]
