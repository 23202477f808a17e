"""Read the messages by which a worker registers. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..common import channel, recovery
from ..common.channel import ChannelError, Message
from ..common.cors import Origins, read_origins
from ..common.limits import MAX_CHANNELS
from ..common.takeover import is_tag

_LONGEST_NAME = 256

#: Longest version, which is only shown.
_LONGEST_RELEASE = 64


class Hello(NamedTuple):
    tag: str
    #: Supervisor's name of the process.
    name: str
    #: The version of supervisor-sio that it runs; empty if unknown.
    release: str


def read_hello(message: Message) -> Hello:
    """Read the first message.

    :raises ChannelError: when it is malformed.
    """
    if message["type"] != "hello":
        raise ChannelError(f"expected hello, not {message['type']!r}")
    channel.check_version(message, "the worker")
    tag: Any = message.get("tag")
    name = message.get("name")
    if not is_tag(tag):
        raise ChannelError("a hello without tag and name")
    if not (isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable()):
        raise ChannelError("a hello without tag and name")
    return Hello(tag, name, _read_release(message.get("release")))


def _read_release(value: Any) -> str:
    if isinstance(value, str) and len(value) <= _LONGEST_RELEASE and value.isprintable():
        return value
    return ""


class Ready(NamedTuple):
    #: The channels of the relay in which the worker receives.
    channels: list[str]
    #: The format of the sessions that it adopts; 0 when it adopts none.
    takes: int
    #: The format of the journals that it inherits; 0 when it inherits none.
    recovers: int
    #: The origins whose pages the application allows.
    origins: Origins


def read_ready(message: Message) -> Ready:
    """:raises ChannelError: when the message is malformed, or has too many channels."""
    channels = message.get("channels")
    if not isinstance(channels, list) or not all(isinstance(c, str) for c in channels):
        raise ChannelError("a ready without its channels")
    if channel.row_size(channels) > MAX_CHANNELS // 2:
        raise ChannelError("a ready with too many channels")
    takes = message.get("takes", 0)
    if type(takes) is not int or takes < 0:
        raise ChannelError("a ready without the format that it takes")
    try:
        origins = read_origins(message.get("origins", {}))
    except ValueError as error:
        raise ChannelError(f"a ready with {error}") from None
    return Ready(channels, takes, recovery.read_recovers(message), origins)
