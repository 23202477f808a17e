"""``message_queue``: a client for its URL, and the URL without what is secret.

supervisord and ``supervisor-sio check`` find the mistakes that the router would find.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

#: Seconds that an answer of Redis may take.
_TIMEOUT = 5.0

#: What a URL may have before its host as it is, and %xx (RFC 3986, section 3.2.1).
_USER_AND_PASSWORD = re.compile(r"[\w.~!$&'()*+,;=:%-]*", re.ASCII)

#: The scheme: Valkey speaks the protocol of Redis, and the redis package takes it for one.
_VALKEY = re.compile(r"\Avalkey(s?)(?=[:+])")

#: Where a cluster listens unless its URL says otherwise.
_PORT = 6379

_UNQUOTED = "special characters in a user or password must be written as %xx"


class QueueError(ValueError):
    """A ``message_queue`` that cannot be used; the text says why."""


class PackageMissing(QueueError):
    """This Python has no package for such a URL."""


@dataclass(frozen=True)
class ClusterAddress:
    """A cluster that is yet to be asked which node has what."""

    nodes: list[tuple[str, int]]
    #: The password is among them.
    options: dict[str, Any] = field(repr=False)

    def connect(self) -> Any:
        """A client of redis-py that knows the nodes.

        :raises redis.RedisError: when none of them answers.
        """
        from redis.cluster import ClusterNode, RedisCluster

        nodes = [ClusterNode(host, port) for host, port in self.nodes]
        return RedisCluster(startup_nodes=nodes, **self.options)


def make_client(url: str) -> Any:
    """A client for any URL that :class:`socketio.RedisManager` takes; not connected.

    For a cluster it is a :class:`ClusterAddress`.

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
    url = _VALKEY.sub(r"redis\1", url)
    try:
        if url.startswith(("redis+cluster://", "rediss+cluster://")):
            return _cluster(url, options)
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


def _cluster(url: str, options: dict[str, Any]) -> ClusterAddress:
    """:raises ValueError: when the URL of a cluster is not understood."""
    # Not by urlsplit(): newer ones refuse a list of hosts with an IPv6 address.
    scheme, _, rest = url.partition("://")
    between = re.split("[/?#]", rest, maxsplit=1)[0]
    path = rest[len(between) :]
    if "@" in path:
        raise ValueError(_UNQUOTED)
    if path.strip("/") not in ("", "0"):
        raise ValueError("a cluster has one database, and the URL no options")
    credentials, _, hosts = between.rpartition("@")
    nodes = []
    for one in hosts.split(","):
        node = urlsplit(f"//{one}")
        if not node.hostname:
            raise ValueError("a node without a host: redis+cluster://host:port,host:port")
        nodes.append((node.hostname, node.port or _PORT))
    user, _, password = credentials.partition(":")
    if scheme == "rediss+cluster":
        options["ssl"] = True
    for name, value in (("username", user), ("password", password)):
        if value:
            options[name] = unquote(value)
    return ClusterAddress(nodes, options)


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
