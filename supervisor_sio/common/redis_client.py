"""``message_queue``: a client for its URL, and the URL without what is secret.

supervisord and ``supervisor-sio check`` find the mistakes that the router would find.
"""

from __future__ import annotations

import re
import sys
from typing import Any
from urllib.parse import urlsplit

#: Seconds that an answer of Redis may take.
_TIMEOUT = 5.0

#: What a URL may have before its host as it is, and %xx (RFC 3986, section 3.2.1).
_USER_AND_PASSWORD = re.compile(r"[\w.~!$&'()*+,;=:%-]*", re.ASCII)

_UNQUOTED = "special characters in a user or password must be written as %xx"


class QueueError(ValueError):
    """A ``message_queue`` that cannot be used; the text says why."""


class PackageMissing(QueueError):
    """This Python has no package for such a URL."""


def make_client(url: str) -> Any:
    """A Redis client for any URL that :class:`socketio.RedisManager` takes; not connected.

    :raises PackageMissing: when a package that it takes is missing.
    :raises QueueError: when the URL is not understood.
    """
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
        from redis.sentinel import Sentinel
    except ImportError:
        raise PackageMissing(
            f"needs the redis package: {sys.executable} -m pip install 'supervisor-sio[redis]'"
        ) from None
    # A PUBLISH that is tried again by itself may arrive twice.
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
        "health_check_interval": 10,
    }
    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and "@" in parts.path + parts.fragment:
            raise ValueError(_UNQUOTED)
        if not url.startswith("redis+sentinel://"):
            return Redis.from_url(url, **options)
        from socketio.redis_manager import parse_redis_sentinel_url

        sentinels, service, more = parse_redis_sentinel_url(url)
        if not service:
            raise QueueError("names no service: redis+sentinel://host:port,host:port/db/service")
        return Sentinel(sentinels, sentinel_kwargs={"socket_timeout": _TIMEOUT}).master_for(
            service, **options, **more
        )
    except QueueError:
        raise
    except ImportError:
        raise PackageMissing("redis+sentinel:// needs python-socketio 5.14 or later") from None
    except Exception as error:
        raise QueueError(f"the URL is not understood: {_reason(url, error)}") from None


def _reason(url: str, error: Exception) -> str:
    """One line; Python's own errors quote what they stumble over."""
    text = " ".join(str(error).split())
    secret = url.partition("://")[2].rpartition("@")[0]
    if not (secret.startswith("/") or _USER_AND_PASSWORD.fullmatch(secret)):
        return _UNQUOTED
    for _, quoted in re.findall(r"(['\"])(.+)\1", text):
        if secret and (quoted in secret or secret in quoted):
            return _UNQUOTED
    return text


def without_password(url: str) -> str:
    """The URL as it may be shown: nothing of it before the host, and no query."""
    scheme, separator, rest = url.partition("://")
    if not rest.startswith("/"):  # as the path of a Unix socket does
        rest = rest.rpartition("@")[2]
    return scheme + separator + rest.partition("?")[0].partition("#")[0]
