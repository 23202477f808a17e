"""A request with its Engine.IO parameters.

The Engine.IO protocol names them ``transport``, ``sid`` and ``EIO``, and ``j`` for JSONP. If a
query repeats a name, the first value is used, as in python-engineio.
"""

from __future__ import annotations

from typing import Any, Callable, Optional
from urllib.parse import parse_qsl

from .http import Head
from .saved import Saved

#: The value of ``jsonp`` if ``j`` is not a number.
NO_INDEX = -1

#: Most digits of a JSONP index; clients count from 0.
_MOST_DIGITS = 9

#: The header fields that a response depends on.
_KEPT = (
    b"accept-encoding",
    b"access-control-request-headers",
    b"origin",
    b"x-forwarded-host",
    b"x-forwarded-proto",
)


class Request:
    """One request.

    :param scheme: ``http`` or ``https``, as the client sees it.
    :param address: the client's, as text.
    :param environ: builds the request's WSGI environment, which is rarely needed.
    """

    __slots__ = (
        "head",
        "scheme",
        "address",
        "environ",
        "transport",
        "sid",
        "version",
        "jsonp",
        "allowed",
    )

    def __init__(
        self, head: Head, scheme: str, address: str, environ: Callable[[], dict[str, Any]]
    ) -> None:
        self.head = head
        self.scheme = scheme
        self.address = address
        self.environ = environ
        #: Empty if the query does not have it.
        self.transport = self.sid = self.version = ""
        #: The index of the client's JSONP function; ``None`` without JSONP.
        self.jsonp: Optional[int] = None
        #: Whether its origin is allowed; ``None`` until it has been checked.
        self.allowed: Optional[bool] = None
        self._read(head.query)

    def _read(self, query: str) -> None:
        if "%" in query or "+" in query:
            parts = [(name, "=", value) for name, value in parse_qsl(query)]
        else:
            parts = [part.partition("=") for part in query.split("&")]
        for name, _, value in parts:
            if not value:
                continue  # an empty value counts as missing
            if name == "transport":
                self.transport = self.transport or value
            elif name == "sid":
                self.sid = self.sid or value
            elif name == "EIO":
                self.version = self.version or value
            elif name == "j" and self.jsonp is None:
                self.jsonp = _index(value)

    def header(self, name: bytes) -> str:
        """The value of a header field, by lower-case name; empty if the request does not have it.

        The values of a repeated field are joined with a comma.
        """
        value = self.head.named.get(name)
        return "" if value is None else value.decode("latin-1")

    def shrink(self) -> None:
        """Drop what a response does not need, since the request may be pending for long."""
        head = self.head
        named = {name: head.named[name] for name in _KEPT if name in head.named}
        kept = list(named.items())
        self.head = Head(
            head.method, "", "", head.version, head.host, kept, 0, head.keep_alive, False, named
        )
        self.environ = dict

    # --- for another process ------------------------------------------------------

    def state_as_dict(self) -> dict[str, Any]:
        """The session's id and what a response needs, as JSON-compatible values."""
        head = self.head
        return {
            "method": head.method,
            "version": head.version,
            "host": head.host,
            "keep_alive": head.keep_alive,
            "fields": [
                [name.decode("latin-1"), value.decode("latin-1")] for name, value in head.fields
            ],
            "scheme": self.scheme,
            "address": self.address,
            "transport": self.transport,
            "sid": self.sid,
            "jsonp": self.jsonp,
            "allowed": self.allowed,
        }

    @classmethod
    def restore(cls, state: Saved) -> Request:
        """The request whose state :meth:`state_as_dict` returned.

        :raises ValueError: see :class:`.Saved`.
        """
        fields = [
            (field.text(0).encode("latin-1", "replace"), field.text(1).encode("latin-1", "replace"))
            for field in state.items("fields")
        ]
        head = Head(
            state.text("method"),
            "",
            "",
            state.text("version"),
            state.text("host"),
            fields,
            0,
            state.flag("keep_alive"),
            False,
            dict(fields),
        )
        request = cls(head, state.text("scheme"), state.text("address"), dict)
        request.transport, request.sid = state.text("transport"), state.text("sid")
        request.jsonp = None if state.is_none("jsonp") else state.integer("jsonp")
        request.allowed = None if state.is_none("allowed") else state.flag("allowed")
        return request


def _index(value: str) -> int:
    if len(value) > _MOST_DIGITS or not (value.isascii() and value.isdigit()):
        return NO_INDEX
    return int(value)
