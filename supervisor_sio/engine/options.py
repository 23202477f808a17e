"""The options of engineio's servers, checked once; what is wrong names its option."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Union

POLLING, WEBSOCKET = "polling", "websocket"
TRANSPORTS = (POLLING, WEBSOCKET)

#: Origins that may use a server: ``None`` for its own one only, ``"*"`` for all, one or several
#: of them, or a callable that gets one and, if it takes two arguments, the WSGI environment.
#: An empty list stands for no CORS handling at all.
Origins = Union[None, str, Sequence[str], Callable[..., Any]]


@dataclass(frozen=True)
class Options:
    """What they mean is written in the documentation of ``engineio.Server``.

    :raises ValueError: names the option and says what it has to be.
    """

    #: Seconds between a pong and the next ping, and those that a client has to answer one.
    ping_interval: float = 25
    ping_timeout: float = 20
    #: Seconds that the client is told in addition to ``ping_interval``.
    ping_interval_grace_period: float = 0
    #: Bytes of a POST, and of a message of a websocket.
    max_http_buffer_size: int = 1_000_000
    allow_upgrades: bool = True
    http_compression: bool = True
    #: Bytes from which on an answer is compressed.
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
            raise ValueError(f"transports: {self.transports!r} are not some of {TRANSPORTS}")
        if not (self.cookie is None or isinstance(self.cookie, (str, Mapping))):
            raise ValueError(f"cookie: {self.cookie!r} is neither a name nor a dictionary")
        if not _are_origins(self.cors_allowed_origins):
            raise ValueError(
                f"cors_allowed_origins: {self.cors_allowed_origins!r} is neither an origin, nor "
                "a list of them, nor a function"
            )

    @classmethod
    def of(cls, server: Any) -> Options:
        """Those of an ``engineio.Server``, which has them as attributes."""
        return cls(**{name: getattr(server, name) for name in cls.__dataclass_fields__})

    def upgrades(self, transport: str) -> list[str]:
        """What a client that comes with this transport may change to."""
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
