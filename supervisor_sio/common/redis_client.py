"""Redis clients for ``message_queue``, and its URL without secrets.

supervisord and ``supervisor-sio check`` use it to report the mistakes that the router would meet.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

#: Seconds to wait for an answer of Redis.
_TIMEOUT = 5.0

#: Characters allowed before the host of a URL, with %xx (RFC 3986, section 3.2.1).
_USER_AND_PASSWORD = re.compile(r"[\w.~!$&'()*+,;=:%-]*", re.ASCII)

#: Valkey has the protocol of Redis, and the redis package connects to it as to Redis.
_VALKEY = re.compile(r"\Avalkey(s?)(?=[:+])")

#: Default port of a node of a cluster.
_PORT = 6379

_UNQUOTED = "special characters in a user or password must be written as %xx"


class QueueError(ValueError):
    """A ``message_queue`` that cannot be used; the text says why."""


class PackageMissing(QueueError):
    """This Python lacks the package for such a URL."""


@dataclass(frozen=True)
class ClusterAddress:
    """A cluster whose nodes were not asked for their slots yet."""

    nodes: list[tuple[str, int]]
    #: Includes the password.
    options: dict[str, Any] = field(repr=False)

    def connect(self) -> Any:
        """A client of redis-py that knows the nodes.

        :raises redis.RedisError: when none of them answers.
        """
        from redis.cluster import ClusterNode, RedisCluster

        nodes = [ClusterNode(host, port) for host, port in self.nodes]
        return RedisCluster(startup_nodes=nodes, **self.options)


def make_client(url: str) -> Any:
    """Make a client, not connected yet, for any URL that :class:`socketio.RedisManager` accepts.

    The result for a cluster is a :class:`ClusterAddress`.

    :raises PackageMissing: when this Python lacks a package.
    :raises QueueError: when the URL is invalid.
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
    # An automatic retry could deliver a PUBLISH twice.
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
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
            raise QueueError(
                "the service is missing: write redis+sentinel://host:port,host:port/db/service"
            )
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
    """:raises ValueError: when the URL of a cluster is invalid."""
    # Not by urlsplit(): newer ones refuse a list of hosts with an IPv6 address.
    scheme, _, rest = url.partition("://")
    between = re.split("[/?#]", rest, maxsplit=1)[0]
    path = rest[len(between) :]
    if "@" in path:
        raise ValueError(_UNQUOTED)
    if path.strip("/") not in ("", "0"):
        raise ValueError("a cluster has database 0 only; take path and options out")
    credentials, _, hosts = between.rpartition("@")
    nodes = []
    for one in hosts.split(","):
        node = urlsplit(f"//{one}")
        if not node.hostname:
            raise ValueError("a node has no host; write redis+cluster://host:port,host:port")
        nodes.append((node.hostname, node.port or _PORT))
    user, _, password = credentials.partition(":")
    if scheme == "rediss+cluster":
        options["ssl"] = True
    for name, value in (("username", user), ("password", password)):
        if value:
            options[name] = unquote(value)
    return ClusterAddress(nodes, options)


def _reason(url: str, error: Exception) -> str:
    """The error in one line, without secrets: Python's errors quote parts of the URL."""
    text = " ".join(str(error).split())
    secret = url.partition("://")[2].rpartition("@")[0]
    if not (secret.startswith("/") or _USER_AND_PASSWORD.fullmatch(secret)):
        return _UNQUOTED
    for _, quoted in re.findall(r"(['\"])(.+)\1", text):
        if secret and (quoted in secret or secret in quoted):
            return _UNQUOTED
    return text


def without_password(url: str) -> str:
    """The URL as it may be shown: without user, password and query."""
    scheme, separator, rest = url.partition("://")
    if not rest.startswith("/"):  # the path of a Unix socket
        rest = rest.rpartition("@")[2]
    return scheme + separator + rest.partition("?")[0].partition("#")[0]
