"""What router and workers say of sessions that move from one worker to another. Pure.

A worker that ends *passes on* its sessions: it says under which tags it has had them, and sends
them in batches. The router *holds* them, and another worker *adopts* them, with these tags.

================  ==========================================================================
a worker ends
================  ==========================================================================
``passing``       its tags, its place in the streams of the relay (a memory file); one for
                  each channel that it hears
``sessions``      a batch: a memory file with the states of some sessions of one tag, and
                  their connections
``passed``        there are no more
``pass``          the router has all batches before this one
``no-pass``       it holds no more of them, for this reason
================  ==========================================================================

================  ==========================================================================
a worker adopts
================  ==========================================================================
``adopt``         the router's question; as ``passing``, with a number
``sessions``      as it has come
``took``          the worker has that batch
``adopt-end``     it has been sent all
``adopted``       all is in place, nothing is read or written yet
``not-adopted``   it cannot be, for this reason; the worker keeps nothing
``adopt-go``      they are this worker's from now on
``adopt-off``     they are not
``tags``          the adopted tags that still have sessions
================  ==========================================================================

The router reads no state. Who reads one knows by the format whether it can.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from . import channel
from .channel import ChannelError, Message
from .limits import MAX_CHANNELS, MAX_REASON, TAKEOVER_TAGS

#: Of the states of sessions, and of a place in the streams. A worker takes what has its own.
FORMAT = 1

TAG = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Passing(NamedTuple):
    """Of a message ``passing`` or ``adopt``."""

    tags: list[str]
    #: Of the relay.
    channel: str
    format: int


class Batch(NamedTuple):
    """Of a message ``sessions``."""

    #: Counted by who passes it on.
    number: int
    #: Of the sessions in it.
    tag: str
    #: How many there are.
    sessions: int


def passing(tags: list[str], channel: str) -> Message:
    return {"type": "passing", "tags": tags, "format": FORMAT, "channel": channel}


def read_passing(message: Message) -> Passing:
    """:raises ChannelError: when it is not one."""
    name = message.get("channel")
    if not isinstance(name, str) or channel.row_size(name) > MAX_CHANNELS // 2:
        raise ChannelError("sessions without the channel of the relay")
    tags = read_tags(message)
    if not tags:
        raise ChannelError("sessions without tags")
    return Passing(tags, name, _count(message, "format"))


def sessions(number: int, tag: str, count: int) -> Message:
    return {"type": "sessions", "batch": number, "tag": tag, "count": count}


def read_sessions(message: Message) -> Batch:
    """:raises ChannelError: when it is not one."""
    tag: Any = message.get("tag")
    if not is_tag(tag):
        raise ChannelError("sessions without a tag")
    return Batch(_count(message, "batch"), tag, _count(message, "count"))


def read_tags(message: Message) -> list[str]:
    """:raises ChannelError: when these are not tags, or too many."""
    tags = message.get("tags")
    if not isinstance(tags, list) or not all(map(is_tag, tags)) or len(set(tags)) < len(tags):
        raise ChannelError("tags are expected")
    if len(tags) > TAKEOVER_TAGS:
        raise ChannelError(f"{len(tags)} tags are more than {TAKEOVER_TAGS}")
    return tags


def read_id(message: Message) -> int:
    """Which adoption it is about; no two routers of a host give the same number.

    :raises ChannelError: when it does not say.
    """
    return _count(message, "id")


def read_batch(message: Message) -> int:
    """:raises ChannelError: when it does not say which."""
    return _count(message, "batch")


def read_reason(message: Message) -> str:
    """For the log."""
    return str(message.get("reason"))[:MAX_REASON]


def is_tag(value: Any) -> bool:
    """Whether it may name a worker."""
    return isinstance(value, str) and TAG.fullmatch(value) is not None


def _count(message: Message, name: str) -> int:
    value = message.get(name)
    if type(value) is not int or not 0 <= value < 2**53:
        raise ChannelError(f"{message['type']}: {name!r} is not a count")
    return value
