"""Writes a WSGI application's response as HTTP (PEP 3333; RFC 9112, section 6)."""

from __future__ import annotations

import re
from typing import Any, Callable, Optional
from wsgiref.util import FileWrapper as _FileWrapper

from ...engine.http import Head
from .client import Body, Client

_STATUS = re.compile(r"[2-9]\d\d( [\t !-~\x80-\xff]*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t !-~\x80-\xff]*")

#: Fields that the worker sets itself: hop-by-hop fields (RFC 9110, 7.6.1), and Date.
_OURS = frozenset(
    ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "date")
)

#: Least bytes to read from a file at once.
_BLOCK = 65536

#: Up to this many bytes, a piece is joined with its framing for one system call.
_COPIED = 16384


class FileWrapper(_FileWrapper):
    """``wsgi.file_wrapper`` with larger blocks than the 8 KB for which frameworks ask."""

    def __init__(self, filelike: Any, blksize: int = _BLOCK) -> None:
        super().__init__(filelike, max(blksize, _BLOCK))


class Answer:
    """The response to one request.

    :param body: the request's body.
    :param date: the value of the Date field.
    """

    def __init__(self, client: Client, head: Head, body: Body, date: str) -> None:
        self._client = client
        self._body = body
        self._version = head.version
        self._is_head = head.method == "HEAD"
        self._date = date
        #: Whether the connection closes after this response.
        self.closes = not head.keep_alive
        #: Whether sending has begun.
        self.begun = False
        self._status = ""
        self._fields: list[tuple[str, str]] = []
        self._chunked = self._bodiless = False
        #: Bytes of the body still to send, if its length is known.
        self._left: Optional[int] = None

    # --- the application's side -----------------------------------------------------

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """``start_response`` of PEP 3333.

        :raises ValueError: for an invalid status or field; nothing is sent then.
        """
        if exc_info is not None and self.begun:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # break the reference cycle with this frame
        if exc_info is None and self._status:
            raise RuntimeError("start_response() is called twice")
        if not _STATUS.fullmatch(status):
            raise ValueError(f"{status!r} is not a valid response status")
        fields = list(headers)
        for name, value in fields:
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"{name!r}: {value!r} is not a valid response field")
            if name.lower() == "content-length" and not (value.isascii() and value.isdigit()):
                raise ValueError(f"{value!r} is not a length")  # int() would accept "1_0"
        self._status, self._fields = status, fields
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece of the body, and the head before the first piece.

        :raises ClientGone: if the client does not read it.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"a response body must be bytes, not {type(data).__name__}")
        if data:
            self._send(data, self._begin(None))

    # --- the server's side ----------------------------------------------------------

    def send(self, result: Any) -> None:
        """Send the body that the application has returned."""
        if isinstance(result, (list, tuple)) and len(result) == 1:
            (data,) = result
            if not isinstance(data, bytes):
                raise TypeError(f"a response body must be bytes, not {type(data).__name__}")
            self._send(data, self._begin(len(data)), last=True)
        else:
            for data in result:
                self.write(data)
            self._send(b"", self._begin(0), last=True)
        if self._left and not self._bodiless:
            self.closes = True  # so that the client notices the missing bytes

    def fail(self, status: str) -> None:
        """Send an error after the application has failed, unless the response has begun."""
        self.closes = True
        if not self.begun:
            self._status, self._fields = status, [("Content-Type", "text/plain")]
            body = f"{status}\n".encode()
            self._send(body, self._begin(len(body)), last=True)

    def _begin(self, length: Optional[int]) -> bytes:
        """The response's head; empty if it was sent already.

        :param length: of the whole body, if known; used if the application does not set it.
        """
        if self.begun:
            return b""
        if not self._status:
            raise RuntimeError("the application has not called start_response()")
        self.begun = True
        # Without 100 Continue the client may now send either the body or the next request.
        self.closes = self.closes or self._body.has_to_be_asked_for
        lines = [f"HTTP/1.1 {self._status}"]
        for name, value in self._fields:
            lower = name.lower()
            if lower == "connection":
                self.closes = self.closes or "close" in value.lower()
            elif lower == "content-length":
                self._left = int(value)
            elif lower == "date":
                self._date = value
            if lower not in _OURS:
                lines.append(f"{name}: {value}")
        self._bodiless = self._is_head or self._status[:3] in ("204", "304")
        if self._left is None and not self._bodiless:
            self._frame(length, lines)
        lines.append(f"Date: {self._date}")
        if self.closes:
            lines.append("Connection: close")
        elif self._version == "HTTP/1.0":
            lines.append("Connection: keep-alive")
        return "\r\n".join((*lines, "\r\n")).encode("latin-1")

    def _frame(self, length: Optional[int], lines: list[str]) -> None:
        """Add the field that marks the end of the body."""
        if length is not None:
            self._left = length
            lines.append(f"Content-Length: {length}")
        elif self._version == "HTTP/1.1":
            self._chunked = True
            lines.append("Transfer-Encoding: chunked")
        else:
            self.closes = True

    def _send(self, data: bytes, before: bytes, last: bool = False) -> None:
        after = b""
        if self._bodiless:
            data = b""
        elif self._chunked:
            if data:
                before, after = b"%b%x\r\n" % (before, len(data)), b"\r\n"
            if last:
                after += b"0\r\n\r\n"
        elif self._left is not None:
            data = data[: self._left]  # the client would take more for the next response
            self._left -= len(data)
        if len(data) <= _COPIED:
            whole = b"".join((before, data, after))
            if whole:
                self._client.send(whole)
            return
        for piece in (before, data, after):
            if piece:
                self._client.send(piece)
