"""The options of python-engineio's servers, with their validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Union

POLLING, WEBSOCKET = "polling", "websocket"
TRANSPORTS = (POLLING, WEBSOCKET)

#: Origins that may use a server: ``None`` for its own origin only, ``"*"`` for all, an origin, a
#: list of origins, or a callable that is called with the origin and, if it takes two arguments,
#: the WSGI environment. An empty list disables CORS handling.
Origins = Union[None, str, Sequence[str], Callable[..., Any]]


@dataclass(frozen=True)
class Options:
    """The options; ``engineio.Server`` documents their meaning.

    :raises ValueError: if an option is wrong; the text names it and says what it has to be.
    """

    #: Seconds between a pong and the next ping, and seconds that a client has to answer a ping.
    ping_interval: float = 25
    ping_timeout: float = 20
    #: Seconds that are added to the ``pingInterval`` sent to the client.
    ping_interval_grace_period: float = 0
    #: Most bytes of a POST's body, and of a websocket message.
    max_http_buffer_size: int = 1_000_000
    allow_upgrades: bool = True
    http_compression: bool = True
    #: A response with at least this many bytes is compressed.
    compression_threshold: int = 1024
    cookie: Union[None, str, Mapping[str, Any]] = None
    cors_allowed_origins: Origins = None
    cors_credentials: bool = True
    transports: Sequence[str] = TRANSPORTS

    def __post_init__(self) -> None:
        for name in ("ping_interval", "ping_timeout", "max_http_buffer_size"):
            value = getattr(self, name)
            if not _is_number(value) or value <= 0:
                raise ValueError(f"{name}: {value!r} is not a number above 0")
        for name in ("ping_interval_grace_period", "compression_threshold"):
            value = getattr(self, name)
            if not _is_number(value) or value < 0:
                raise ValueError(f"{name}: {value!r} is not a number of at least 0")
        if not _are_transports(self.transports):
            raise ValueError(
                f"transports: {self.transports!r} is not a list with some of {TRANSPORTS}"
            )
        if not (self.cookie is None or isinstance(self.cookie, (str, Mapping))):
            raise ValueError(f"cookie: {self.cookie!r} is neither a name nor a dictionary")
        if not _are_origins(self.cors_allowed_origins):
            raise ValueError(
                f"cors_allowed_origins: {self.cors_allowed_origins!r} is neither an origin, nor "
                "a list of them, nor a function"
            )

    @classmethod
    def of(cls, server: Any) -> Options:
        """The options that an ``engineio.Server`` has as attributes."""
        return cls(**{name: getattr(server, name) for name in cls.__dataclass_fields__})

    def upgrades(self, transport: str) -> list[str]:
        """The transports to which a client that uses this one may upgrade."""
        if self.allow_upgrades and transport == POLLING and WEBSOCKET in self.transports:
            return [WEBSOCKET]
        return []


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)


def _are_transports(value: object) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(transport in TRANSPORTS for transport in value)
    )


def _are_origins(value: Any) -> bool:
    if value is None or isinstance(value, str) or callable(value):
        return True
    return isinstance(value, (list, tuple, set, frozenset)) and all(
        isinstance(origin, str) for origin in value
    )
