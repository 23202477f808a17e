"""Encoding of Engine.IO packets in the bodies of polls and POSTs.

A packet is a text that begins with its type, or the bytes of a binary message. A payload
joins any number of packets (https://github.com/socketio/socket.io, docs/engine.io-protocol).

A payload is decoded one packet at a time, and the caller may pause in between: a body of a
megabyte may have hundreds of thousands of packets.
"""

from __future__ import annotations

import binascii
import codecs
import json
from collections.abc import Iterator, Sequence
from typing import Optional, Union
from urllib.parse import unquote_to_bytes

from ..common.limits import UNQUOTED_AT_ONCE

Packet = Union[str, bytes]

_SEPARATOR = "\x1e"
#: A binary message begins with this, followed by base64.
_BINARY = "b"
#: The body of a form, which JSONP clients send, begins with this.
_FORM = b"d="

#: Browsers change the line ends in a form, so JSONP clients escape them: a newline as ``\n``, and
#: ``\n`` as ``\\n``. Three replacements undo it: for a megabyte they take 7 ms, a regular
#: expression 80. This placeholder for the second is in no text that was decoded from UTF-8.
_KEPT = "\ud800"


class PayloadError(ValueError):
    """The client has sent something that is not a valid payload."""


def encode(packets: Sequence[Packet]) -> str:
    """Encode packets as a payload."""
    return _SEPARATOR.join(
        [
            p if isinstance(p, str) else _BINARY + binascii.b2a_base64(p, newline=False).decode()
            for p in packets
        ]
    )


def as_script(payload: str, index: int) -> str:
    """A payload as a script for JSONP.

    :param index: the index of the client's function to which the script passes it.
    """
    return f"___eio[{index}]({json.dumps(payload)});"


def decode(body: bytes) -> Iterator[Optional[Packet]]:
    """Yield the packets in the body of a POST.

    Yields ``None`` after a long step without a packet, so that the caller can pause.

    :raises PayloadError: if the body is not UTF-8, or a binary message is not base64.
    """
    if body.startswith(_FORM):
        parts = []
        for number, part in enumerate(_unquote(body[len(_FORM) :].partition(b"&")[0])):
            if number:
                yield None
            parts.append(part)
        text = "".join(parts)
        text = text.replace(r"\\n", _KEPT).replace(r"\n", "\n").replace(_KEPT, r"\n")
    else:
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise PayloadError("a payload that is not UTF-8") from None
    for packet in _split(text):
        yield _decode_binary(packet) if packet.startswith(_BINARY) else packet


def _split(text: str) -> Iterator[str]:
    begin = 0 if text else -1
    while begin >= 0:
        end = text.find(_SEPARATOR, begin)
        yield text[begin:end] if end >= 0 else text[begin:]
        begin = end + 1 if end >= 0 else -1


def _decode_binary(packet: str) -> bytes:
    try:
        return binascii.a2b_base64(packet[len(_BINARY) :])
    except ValueError:
        raise PayloadError("a binary message that is not base64") from None


def _unquote(text: bytes, size: int = UNQUOTED_AT_ONCE) -> Iterator[str]:
    """``urllib.parse.unquote_plus`` in parts; a character of several ``%XX`` may span parts.

    :param size: characters per part, at least 3.
    """
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    begin = 0
    while begin < len(text):
        end = begin + size
        cut = text.rfind(b"%", end - 2, end) if end < len(text) else -1
        if cut >= 0:
            end = cut
        yield decode(unquote_to_bytes(text[begin:end].replace(b"+", b" ")))
        begin = end
    rest = decode(b"", True)
    if rest:
        yield rest
