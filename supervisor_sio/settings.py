"""Parse and check the options of ``[rpcinterface:sio]``, and of the section of any other cluster.

Everything here is pure. A mistake raises :class:`SettingsError`, whose text is one line: section,
option, what is wrong, what to write.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, fields
from typing import Any, Callable, Iterator, Mapping, Optional, TypeVar
from urllib.parse import quote

from supervisor.datatypes import (
    boolean,
    byte_size,
    colon_separated_user_group,
    octal_type,
)
from supervisor.options import normalize_path

from .common.addresses import Address, parse_address
from .common.balance import METHODS
from .common.limits import SILENCE
from .common.rundir import ADVICE

#: Section of the default cluster; other clusters have sections with other names.
SECTION = "[rpcinterface:sio]"

Number = TypeVar("Number", int, float)


#: User and password of a URL, which may contain any characters.
_CREDENTIALS = re.compile(r"(://)\S*@")

#: supervisord replaces ``%40s`` by all its expansions, including the environment.
_EXPANDED = re.compile(r"\{'[^']*': ")

PERCENT = "write a percent sign as %%, as in %%40 for @"


def without_credentials(text: str) -> str:
    """The text with user and password removed from each URL."""
    return _CREDENTIALS.sub(r"\1", text)


class SettingsError(ValueError):
    """An option of ``[rpcinterface:sio]`` is invalid."""

    def __init__(self, option: str, reason: str) -> None:
        reason = without_credentials(reason)
        self.option = option
        self.reason = reason
        super().__init__(self.within(SECTION))

    def within(self, section: str) -> str:
        """The text of the error, with the section of the cluster."""
        return f"{section} {self.option}: {self.reason}"


@dataclass(frozen=True)
class Settings:
    """The options of ``[rpcinterface:sio]``. Times are in seconds."""

    listen: tuple[Address, ...] = (Address("127.0.0.1", 8000),)
    balance: str = "least-connection"
    path: tuple[str, ...] = ("/socket.io/",)
    run_dir: Optional[str] = None
    chmod: int = 0o700
    chown: tuple[int, int] = (-1, -1)
    hold_timeout: float = 30.0
    spread_timeout: float = 0.5
    drain_timeout: float = 10.0
    head_timeout: float = 10.0
    keepalive_timeout: float = 75.0
    max_pending: int = 4096
    backlog: int = 4096
    proxy_protocol: bool = False
    tls_certfile: Optional[str] = None
    tls_keyfile: Optional[str] = None
    channel: str = "socketio"
    buffer_messages: int = 65536
    buffer_maxbytes: int = 64 * 1024 * 1024
    message_maxbytes: int = 16 * 1024 * 1024
    message_queue: Optional[str] = field(default=None, repr=False)
    metrics: Optional[Address] = None
    access_log: bool = False
    #: Bytes of resident memory.
    max_memory: Optional[int] = None
    max_lifetime: Optional[float] = None
    hung_timeout: Optional[float] = None
    event_metrics: bool = False


#: The schemes of :class:`socketio.RedisManager`, and those of Redis clusters.
QUEUE_SCHEMES = (
    *("redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "rediss+cluster"),
    *("valkey", "valkeys", "valkey+sentinel", "valkey+cluster", "valkeys+cluster"),
)

BALANCE_METHODS = tuple(METHODS)


def parse_settings(options: Mapping[str, str]) -> Settings:
    """Parse the options of the section, as supervisord passes them to the plugin.

    :raises SettingsError: for an unknown option or an invalid value.
    """
    for option in options:
        if option not in _PARSERS:
            close = difflib.get_close_matches(option, _PARSERS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "docs/settings.md lists the options"
            raise SettingsError(option, f"unknown option; {hint}")
    values: dict[str, Any] = {}
    for option, text in options.items():
        if _EXPANDED.search(text):
            raise SettingsError(option, f"supervisord has inserted its environment; {PERCENT}")
        try:
            values[option] = _PARSERS[option](text.strip())
        except ValueError as error:
            raise SettingsError(option, str(error)) from None
    settings = Settings(**values)
    if 0 < values.get("spread_timeout", 0) >= settings.hold_timeout:
        raise SettingsError(
            "spread_timeout",
            f"{settings.spread_timeout:g} is not below hold_timeout, {settings.hold_timeout:g}",
        )
    if settings.tls_keyfile and not settings.tls_certfile:
        raise SettingsError("tls_keyfile", "needs the option tls_certfile as well")
    if settings.metrics in settings.listen:
        raise SettingsError("metrics", f"{settings.metrics} is in listen too; use another port")
    if settings.buffer_maxbytes < settings.message_maxbytes:
        raise SettingsError(
            "buffer_maxbytes",
            f"{settings.buffer_maxbytes} bytes are less than "
            f"message_maxbytes, {settings.message_maxbytes}; write no less",
        )
    return settings


def conflicts(settings: Settings, others: Settings, name: str) -> Iterator[SettingsError]:
    """Options whose values two clusters of a supervisord cannot share.

    :param name: the name of the other cluster.
    """
    for option, addresses in (("listen", settings.listen), ("metrics", (settings.metrics,))):
        for address in addresses:
            if address is not None and address in (*others.listen, others.metrics):
                yield SettingsError(option, f"cluster {name} uses {address} too; use another one")
    if settings.run_dir is not None and settings.run_dir == others.run_dir:
        yield SettingsError("run_dir", f"cluster {name} uses {settings.run_dir} too; {ADVICE}")
    if settings.message_queue and (settings.message_queue, settings.channel) == (
        others.message_queue,
        others.channel,
    ):
        yield SettingsError(
            "channel",
            f"cluster {name} uses {settings.channel!r} on the same message_queue too: each would "
            "receive the other's emits; write another name",
        )


def _split(text: str, what: str) -> list[str]:
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise ValueError(f"is empty; give {what}")
    return items


def _addresses(text: str) -> tuple[Address, ...]:
    addresses = tuple(
        parse_address(item) for item in _split(text, "an address such as 127.0.0.1:8000")
    )
    for address in addresses:
        if addresses.count(address) > 1:
            raise ValueError(f"{address} is listed twice")
    return addresses


def _address(text: str) -> Address:
    if not text:
        raise ValueError("is empty; give an address such as 127.0.0.1:9108")
    if "," in text:
        raise ValueError(f"{text!r} has more than one address; write one")
    return parse_address(text)


def _paths(text: str) -> tuple[str, ...]:
    # The paths of requests are compared byte for byte, so quote as clients do.
    return tuple(
        quote(f"/{item.strip('/')}/" if item.strip("/") else "/", safe="/%:@!$&'()*+,;=~")
        for item in _split(text, "an Engine.IO path such as /socket.io/")
    )


def _choice(text: str) -> str:
    if text not in BALANCE_METHODS:
        raise ValueError(f"{text!r} is not one of {', '.join(BALANCE_METHODS)}")
    return text


def _number(kind: Callable[[str], Number], low: float, unit: str) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            value = kind(text)
            # The upper bound excludes inf; nan compares false.
            if low <= value <= 1e9:
                return value
        except ValueError:
            pass
        raise ValueError(f"{text!r} is not a number of {unit} from {low:g} up")

    return parse


def _mode(text: str) -> int:
    try:
        mode = int(octal_type(text))
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"{text!r} is not an octal mode such as 0700")
    if mode & 0o700 != 0o700:
        raise ValueError(f"{text!r} locks the owner out of the directory; use 07xx")
    return mode


def _owner(text: str) -> tuple[int, int]:
    try:
        uid, gid = colon_separated_user_group(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a user or user:group of this host") from None
    return uid, gid


def _directory(text: str) -> str:
    if not text:
        raise ValueError("is empty; give a directory or leave the option out")
    return str(normalize_path(text))


def _file(text: str) -> str:
    if not text:
        raise ValueError("is empty; give a file or leave the option out")
    return str(normalize_path(text))


def _channel(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"{text!r} is not a name; write printable characters")
    return text


def _flag(text: str) -> bool:
    try:
        return bool(boolean(text))
    except ValueError:
        raise ValueError(f"{text!r} is neither on nor off") from None


def _size(low: int, high: int, words: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            size = int(byte_size(text))
            if low <= size <= high:
                return size
        except ValueError:
            pass
        raise ValueError(f"{text!r} is not a size {words}")

    return parse


_bytes = _size(2**10, 2**30, "from 1KB to 1GB, such as 16MB")


def _message_queue(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    if scheme not in QUEUE_SCHEMES or not separator:
        # The value may contain a password, so the text does not repeat it.
        raise ValueError(f"must be a URL whose scheme is one of {', '.join(QUEUE_SCHEMES)}")
    return text


_PARSERS: dict[str, Callable[[str], Any]] = {
    "listen": _addresses,
    "balance": _choice,
    "path": _paths,
    "run_dir": _directory,
    "chmod": _mode,
    "chown": _owner,
    "hold_timeout": _number(float, 0, "seconds"),
    "spread_timeout": _number(float, 0, "seconds"),
    "drain_timeout": _number(float, 0, "seconds"),
    "head_timeout": _number(float, 0.1, "seconds"),
    "keepalive_timeout": _number(float, 1, "seconds"),
    "max_pending": _number(int, 1, "connections"),
    "backlog": _number(int, 1, "connections"),
    "proxy_protocol": _flag,
    "tls_certfile": _file,
    "tls_keyfile": _file,
    "channel": _channel,
    "buffer_messages": _number(int, 1, "messages"),
    "buffer_maxbytes": _bytes,
    "message_maxbytes": _bytes,
    "message_queue": _message_queue,
    "metrics": _address,
    "access_log": _flag,
    # Every worker has more at its start. The bound also catches a size without a unit.
    "max_memory": _size(16 * 2**20, 2**40, "from 16MB to 1024GB, such as 500MB"),
    "max_lifetime": _number(float, 60, "seconds"),
    "hung_timeout": _number(float, SILENCE, "seconds"),
    "event_metrics": _flag,
}

assert set(_PARSERS) == {each.name for each in fields(Settings)}
