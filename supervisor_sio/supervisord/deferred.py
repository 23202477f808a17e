"""Values in the answers that supervisord gives later: text of any language, and many rows.

supervisord counts the characters of a deferred answer where it has to count
bytes, and so cuts the end off one that is not ASCII. And it writes all of an answer
at a time: what is long is written in advance, row by row, as it comes.
"""

from __future__ import annotations

import re
from typing import Any
from xml.sax.saxutils import escape

from supervisor.compat import xmlrpclib
from supervisor.xmlrpc import RPCError

#: What XML 1.0 has no way to write.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Text:
    """A string that writes itself in ASCII, with character references."""

    def __init__(self, text: str) -> None:
        self.text = text

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # The marshaller lets values of this class, and those of no class of ours, write themselves.
        return xmlrpclib.Binary

    def encode(self, out: Any) -> None:
        out.write(written(self.text))


class Rows:
    """An array of values that are written already."""

    def __init__(self, rows: list[str]) -> None:
        self._rows = rows

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return xmlrpclib.Binary  # as above

    def encode(self, out: Any) -> None:
        out.write(f"<value><array><data>{''.join(self._rows)}</data></array></value>\n")


def written(value: Any) -> str:
    """A string, a whole number, or a list or struct of them, as XML-RPC has it, in ASCII."""
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
    """The same value for a deferred answer: it reads the same for whoever gets it."""
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else _Text(value)
    if isinstance(value, list):
        return [in_ascii(item) for item in value]
    if isinstance(value, dict):
        return {key: in_ascii(item) for key, item in value.items()}
    return value


def fault(code: int, text: str) -> RPCError:
    """What a deferred answer raises where the text may have a name in it."""
    error = RPCError(code, text)
    error.text = in_ascii(error.text)
    return error
