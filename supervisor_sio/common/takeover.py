"""Messages between router and workers about sessions that move to another worker. Pure.

A worker that stops *passes on* its sessions: it sends the tags of its session ids, and the sessions
in batches. The router *holds* them until another worker *adopts* them with their tags.

================  ==========================================================================
a worker ends
================  ==========================================================================
``passing``       the worker's tags, and a memory file with its position in the streams of the
                  relay; one message for each channel of the relay
``sessions``      a batch: a memory file with the states of some sessions of one tag, and
                  their connections
``passed``        the worker has sent all sessions
``pass``          the router's answer: it has all batches before this number
``no-pass``       the router's answer: it holds no more sessions, with the reason
================  ==========================================================================

================  ==========================================================================
a worker adopts
================  ==========================================================================
``adopt``         the router asks a worker to adopt; as ``passing``, with a number
``sessions``      the batches, as received
``took``          the worker has received a batch, or a place
``adopt-end``     the router has sent all batches
``adopted``       the worker has restored all, and has not read or written anything yet
``adopt-place``   before ``adopt-go``, for each channel of the relay: a memory file with the
                  position in its streams, and what the router has received until now
``not-adopted``   the worker cannot adopt, with the reason; it has dropped everything
``adopt-go``      the sessions belong to the worker from now on
``adopt-heard``   the worker receives the relay for them from now on
``adopt-off``     the adoption is cancelled
``tags``          the worker's adopted tags that still have sessions
================  ==========================================================================

The router does not read the states. A worker decides by their format whether it can read them.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from . import channel
from .channel import ChannelError, Message
from .limits import MAX_CHANNELS, MAX_REASON, TAKEOVER_TAGS

#: Format of states and positions. A worker adopts only what has its own format.
FORMAT = 1

TAG = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Passing(NamedTuple):
    """Content of a message ``passing`` or ``adopt``."""

    tags: list[str]
    #: Channel of the relay.
    channel: str
    format: int


class Batch(NamedTuple):
    """Content of a message ``sessions``."""

    #: Given by the sender.
    number: int
    #: Tag of the sessions in it.
    tag: str
    #: Number of the sessions.
    sessions: int


def passing(tags: list[str], channel: str) -> Message:
    return {"type": "passing", "tags": tags, "format": FORMAT, "channel": channel}


def read_passing(message: Message) -> Passing:
    """:raises ChannelError: when the message is malformed."""
    name = message.get("channel")
    if not isinstance(name, str) or channel.row_size(name) > MAX_CHANNELS // 2:
        raise ChannelError("sessions without a channel of the relay")
    tags = read_tags(message)
    if not tags:
        raise ChannelError("sessions without tags")
    return Passing(tags, name, _count(message, "format"))


def sessions(number: int, tag: str, count: int) -> Message:
    return {"type": "sessions", "batch": number, "tag": tag, "count": count}


def read_sessions(message: Message) -> Batch:
    """:raises ChannelError: when the message is malformed."""
    tag: Any = message.get("tag")
    if not is_tag(tag):
        raise ChannelError("sessions without a tag")
    return Batch(_count(message, "batch"), tag, _count(message, "count"))


def place(number: int, name: str) -> Message:
    """:param number: of an adoption. :param name: of a channel of the relay."""
    return {"type": "adopt-place", "id": number, "channel": name}


def read_place(message: Message) -> str:
    """The channel in a message ``adopt-place``.

    :raises ChannelError: when it is missing.
    """
    name = message.get("channel")
    if not isinstance(name, str):
        raise ChannelError("a place without a channel of the relay")
    return name


def read_tags(message: Message) -> list[str]:
    """:raises ChannelError: when the tags are malformed, or too many."""
    tags = message.get("tags")
    if not isinstance(tags, list) or not all(map(is_tag, tags)) or len(set(tags)) < len(tags):
        raise ChannelError("tags are expected")
    if len(tags) > TAKEOVER_TAGS:
        raise ChannelError(f"{len(tags)} tags are more than {TAKEOVER_TAGS}")
    return tags


def read_id(message: Message) -> int:
    """The number of an adoption, which is unique for all routers of a host.

    :raises ChannelError: when it is missing.
    """
    return _count(message, "id")


def read_batch(message: Message) -> int:
    """:raises ChannelError: when the number is missing."""
    return _count(message, "batch")


def read_reason(message: Message) -> str:
    """The reason in a message, for the log."""
    return str(message.get("reason"))[:MAX_REASON]


def is_tag(value: Any) -> bool:
    """Whether this is a valid tag of a worker."""
    return isinstance(value, str) and TAG.fullmatch(value) is not None


def _count(message: Message, name: str) -> int:
    value = message.get(name)
    if type(value) is not int or not 0 <= value < 2**53:
        raise ChannelError(f"{message['type']}: {name!r} is not a count")
    return value
