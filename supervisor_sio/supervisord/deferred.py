"""Values for deferred XML-RPC answers: text that is not ASCII, and many rows.

supervisord counts characters instead of bytes in a deferred answer, so it would cut off the end of
one that is not ASCII; such text is written with character references. It also encodes a whole
answer at once, which blocks its loop; long answers are encoded row by row, as the rows arrive.
"""

from __future__ import annotations

import re
from typing import Any
from xml.sax.saxutils import escape

from supervisor.compat import xmlrpclib
from supervisor.xmlrpc import RPCError

#: Characters that XML 1.0 does not allow.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Text:
    """A string that writes itself in ASCII, with character references."""

    def __init__(self, text: str) -> None:
        self.text = text

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # The marshaller calls ``encode`` only for values whose class is one of its own.
        return xmlrpclib.Binary

    def encode(self, out: Any) -> None:
        out.write(written(self.text))


class Rows:
    """An array of values that are already encoded."""

    def __init__(self, rows: list[str]) -> None:
        self._rows = rows

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return xmlrpclib.Binary  # as above

    def encode(self, out: Any) -> None:
        out.write(f"<value><array><data>{''.join(self._rows)}</data></array></value>\n")


def written(value: Any) -> str:
    """Encode a string, an integer, or a list or struct of them, as XML-RPC in ASCII."""
    if isinstance(value, str):
        return f"<value><string>{_escaped(value)}</string></value>"
    if isinstance(value, list):
        return f"<value><array><data>{''.join(map(written, value))}</data></array></value>"
    if isinstance(value, dict):
        members = [
            f"<member><name>{key}</name>{written(each)}</member>" for key, each in value.items()
        ]
        return f"<value><struct>{''.join(members)}</struct></value>"
    return f"<value><int>{int(value)}</int></value>"


def _escaped(text: str) -> str:
    if text.isascii() and text.isprintable():
        return escape(text)
    text = escape(_UNWRITABLE.sub("\ufffd", text), {"\r": "&#13;"})
    return text.encode("ascii", "xmlcharrefreplace").decode()


def in_ascii(value: Any) -> Any:
    """Replace the strings in a value so that a deferred answer with it is ASCII."""
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else _Text(value)
    if isinstance(value, list):
        return [in_ascii(item) for item in value]
    if isinstance(value, dict):
        return {key: in_ascii(item) for key, item in value.items()}
    return value


def fault(code: int, text: str) -> RPCError:
    """The error to raise in a deferred answer whose text may not be ASCII."""
    error = RPCError(code, text)
    error.text = in_ascii(error.text)
    return error
