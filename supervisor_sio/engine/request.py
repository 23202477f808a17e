"""What Engine.IO needs to know of a request.

The names in the query are those of the Engine.IO protocol: ``transport``, ``sid``, ``EIO``, and
``j`` of JSONP. Of a name that is there more than once the first counts, as with engineio.
"""

from __future__ import annotations

from typing import Any, Callable, Optional
from urllib.parse import parse_qsl

from .http import Head
from .saved import Saved

#: ``jsonp`` of a request whose ``j`` is not a number.
NO_INDEX = -1

#: Digits of an index; clients count from 0.
_MOST_DIGITS = 9

#: What an answer depends on, besides the head.
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
    :param address: of the client, as text.
    :param environ: makes the WSGI environment of the request; for the few who want one.
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
        #: Empty where the query has none.
        self.transport = self.sid = self.version = ""
        #: The index of the client's function; ``None`` without JSONP.
        self.jsonp: Optional[int] = None
        #: Whether a page of its origin may use the server; ``None`` before anybody has looked.
        self.allowed: Optional[bool] = None
        self._read(head.query)

    def _read(self, query: str) -> None:
        if "%" in query or "+" in query:
            parts = [(name, "=", value) for name, value in parse_qsl(query)]
        else:
            parts = [part.partition("=") for part in query.split("&")]
        for name, _, value in parts:
            if not value:
                continue  # as if it were not there
            if name == "transport":
                self.transport = self.transport or value
            elif name == "sid":
                self.sid = self.sid or value
            elif name == "EIO":
                self.version = self.version or value
            elif name == "j" and self.jsonp is None:
                self.jsonp = _index(value)

    def header(self, name: bytes) -> str:
        """The value of a field, by its name in lower case; those of several with a comma between.

        Empty where there is none.
        """
        value = self.head.named.get(name)
        return "" if value is None else value.decode("latin-1")

    def shrink(self) -> None:
        """Keep no more than an answer needs, but for :attr:`environ`: it may wait for long."""
        head = self.head
        named = {name: head.named[name] for name in _KEPT if name in head.named}
        kept = list(named.items())
        self.head = Head(
            head.method, "", "", head.version, head.host, kept, 0, head.keep_alive, False, named
        )
        self.environ = dict

    # --- for another process ------------------------------------------------------

    def state_as_dict(self) -> dict[str, Any]:
        """What an answer needs, and which session it is for, as JSON takes it."""
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
        """What :meth:`state_as_dict` has said.

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
