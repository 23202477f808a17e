"""What Engine.IO packets look like in the body of a request or of its answer.

A packet is a text that begins with its type, or the bytes of a binary message. A payload
joins any number of them (https://github.com/socketio/socket.io, docs/engine.io-protocol).

A payload is read one packet at a time, and the reader may stop in between: a body of a megabyte
has hundreds of thousands of them.
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
#: How a binary message begins, in base64.
_BINARY = "b"
#: How the body of a form begins; that is how JSONP sends.
_FORM = b"d="

#: Browsers change the line ends in a form: a client sends one as ``\n``, and ``\n`` as ``\\n``.
#: Three replacements: a regular expression takes 80 ms for a megabyte of these, not 7. What
#: stands for the second one meanwhile is in no text that was UTF-8.
_KEPT = "\ud800"


class PayloadError(ValueError):
    """What a client has sent is not a payload of packets."""


def encode(packets: Sequence[Packet]) -> str:
    """The payload of some packets."""
    return _SEPARATOR.join(
        [
            p if isinstance(p, str) else _BINARY + binascii.b2a_base64(p, newline=False).decode()
            for p in packets
        ]
    )


def as_script(payload: str, index: int) -> str:
    """A payload as the script that JSONP loads.

    :param index: of the function in the client that takes it.
    """
    return f"___eio[{index}]({json.dumps(payload)});"


def decode(body: bytes) -> Iterator[Optional[Packet]]:
    """The packets in the body of a POST, one at a time.

    ``None`` in between: it has taken a while, and others should have a turn.

    :raises PayloadError: where it is not text, or a binary message is not base64.
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
    """``urllib.parse.unquote_plus``, part by part: a character may be of several ``%XX``.

    :param size: characters for each part, 3 at least.
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
