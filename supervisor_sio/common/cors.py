"""CORS headers for answers that do not come from a Socket.IO server.

A browser lets a page read an answer only if the answer names the page's origin (Fetch standard,
"CORS check"). Without it, the page gets an error without a reason. The worker sends the router the
origins that its Socket.IO servers allow, so that pages can read the refusals of both.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping

from .limits import CORS_ORIGINS, ORIGIN_CHARACTERS

#: The methods of requests that a Socket.IO server answers.
METHODS = "OPTIONS, GET, POST"

#: Whether a page of an origin may send cookies along; ``*`` stands for all origins.
Origins = Mapping[str, bool]

_ORIGIN = re.compile(
    rb"\n[Oo][Rr][Ii][Gg][Ii][Nn]:[ \t]*([!-~]{1,%d})[ \t]*\r?\n" % ORIGIN_CHARACTERS
)
_ASKS_FOR_METHOD = re.compile(rb"\nAccess-Control-Request-Method:", re.IGNORECASE)
_ASKS_FOR_FIELDS = re.compile(rb"\nAccess-Control-Request-Headers:([ -~]*)\r?\n", re.IGNORECASE)


def origins_of(options: Iterable[Any]) -> dict[str, bool]:
    """The origins that the options of engineio servers allow.

    The server's own origin is left out because it needs no permission; origins that a function of
    the application decides about cannot be listed.

    :param options: with ``cors_allowed_origins`` and ``cors_credentials``.
    """
    found: dict[str, bool] = {}
    for one in options:
        allowed = one.cors_allowed_origins
        if allowed is None or callable(allowed):
            continue
        for origin in (allowed,) if isinstance(allowed, str) else allowed:
            found[origin] = found.get(origin, False) or bool(one.cors_credentials)
    return found


def may_be_told(origins: Origins) -> bool:
    """Whether the origins are few and short enough for the router to store."""
    return len(origins) <= CORS_ORIGINS and all(
        len(origin) <= ORIGIN_CHARACTERS for origin in origins
    )


def read_origins(value: object) -> dict[str, bool]:
    """The origins in a worker's message. :raises ValueError: when they are malformed."""
    if not isinstance(value, dict) or not all(
        isinstance(origin, str) and isinstance(credentials, bool)
        for origin, credentials in value.items()
    ):
        raise ValueError("origins that are not a table")
    if not may_be_told(value):
        raise ValueError("too many origins")
    return value


def fields(origins: Origins, head: bytes) -> str:
    """The CORS header lines of an answer; empty if the page may not read it.

    :param head: the request's head, as far as it was received.
    """
    if not origins:
        return ""
    match = _ORIGIN.search(head.partition(b"\r\n\r\n")[0] + b"\r\n")
    if match is None:
        return ""
    origin = match[1].decode("ascii")
    credentials = origins.get(origin, origins.get("*"))
    if credentials is None:
        return ""
    lines = f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n"
    if credentials:
        lines += "Access-Control-Allow-Credentials: true\r\n"
    return lines


def preflight_fields(origins: Origins, head: bytes) -> str:
    """The CORS header lines of the answer that lets a preflight pass; empty if the request is not a
    preflight, or not one of a page that may read the answers.

    :param head: the request's head, as far as it was received.
    """
    head, end, _ = head.partition(b"\r\n\r\n")
    head += end[:2]
    if not (end and head.startswith(b"OPTIONS ") and _ASKS_FOR_METHOD.search(head)):
        return ""
    lines = fields(origins, head)
    if not lines:
        return ""
    lines += f"Access-Control-Allow-Methods: {METHODS}\r\n"
    wanted = _ASKS_FOR_FIELDS.search(head)
    if wanted:
        lines += f"Access-Control-Allow-Headers: {wanted[1].decode('ascii').strip()}\r\n"
    return lines
