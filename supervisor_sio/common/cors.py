"""Answers that no Socket.IO server has made, for a page of another origin.

A browser lets a page read an answer only when it names the page's origin (Fetch standard, "CORS
check"): without that, the page gets an error that does not say what was wrong. The worker tells
the router whose pages its Socket.IO servers allow, so that both refuse in a way that can be read.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping

from .limits import CORS_ORIGINS, ORIGIN_CHARACTERS

#: Whether a page of an origin may send cookies along; ``*`` stands for all origins.
Origins = Mapping[str, bool]

_ORIGIN = re.compile(
    rb"\n[Oo][Rr][Ii][Gg][Ii][Nn]:[ \t]*([!-~]{1,%d})[ \t]*\r?\n" % ORIGIN_CHARACTERS
)


def origins_of(options: Iterable[Any]) -> dict[str, bool]:
    """What the options of engineio servers allow.

    Neither the server's own origin, which needs no permission, nor what a function of the
    application would have to say.

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
    """Whether they are not too many, or too long, for the router to keep."""
    return len(origins) <= CORS_ORIGINS and all(
        len(origin) <= ORIGIN_CHARACTERS for origin in origins
    )


def read_origins(value: object) -> dict[str, bool]:
    """What a worker has told. :raises ValueError: when it is not that."""
    if not isinstance(value, dict) or not all(
        isinstance(origin, str) and isinstance(credentials, bool)
        for origin, credentials in value.items()
    ):
        raise ValueError("origins that are not a table")
    if not may_be_told(value):
        raise ValueError("too many origins")
    return value


def fields(origins: Origins, head: bytes) -> str:
    """The lines for the head of an answer; empty where the page may not read it.

    :param head: of the request, as far as it has come.
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
