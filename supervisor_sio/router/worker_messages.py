"""What a worker says of itself when it joins. Pure: messages in, what they say out."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..common import channel
from ..common.channel import ChannelError, Message
from ..common.limits import MAX_CHANNELS

_TAG = re.compile(r"[0-9A-Za-z_-]{1,64}")
_LONGEST_NAME = 256


class Hello(NamedTuple):
    tag: str
    #: As Supervisor has it.
    name: str


def read_hello(message: Message) -> Hello:
    """The first message.

    :raises ChannelError: when it is not acceptable.
    """
    if message["type"] != "hello":
        raise ChannelError(f"expected hello, not {message['type']!r}")
    channel.check_version(message, "the worker")
    tag, name = message.get("tag"), message.get("name")
    if not (isinstance(tag, str) and _TAG.fullmatch(tag)):
        raise ChannelError("a hello without tag and name")
    if not (isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable()):
        raise ChannelError("a hello without tag and name")
    return Hello(tag, name)


def read_ready(message: Message) -> list[str]:
    """The channels of the relay on which the worker hears the others.

    :raises ChannelError: when it does not say them, or too many.
    """
    channels = message.get("channels")
    if not isinstance(channels, list) or not all(isinstance(c, str) for c in channels):
        raise ChannelError("a ready without its channels")
    if channel.row_size(channels) > MAX_CHANNELS // 2:
        raise ChannelError("a ready with too many channels")
    return channels
