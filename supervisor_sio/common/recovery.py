"""Messages between router and workers about the clients of dead workers. Pure.

A worker with recovery keeps a *journal* for each channel of the relay: the events that it sends to
its clients (the log ``events``), and the clients' states (the log ``states``). A log is a sequence
of *segments*: memory files, which the router keeps open as well. So the journal outlives the
worker, and another worker *inherits* it, similar to an adoption (see :mod:`.takeover`).

===================  =======================================================================
journals
===================  =======================================================================
``journal``          the worker has a segment, whose descriptor is attached; sent when it begins
                     one, and to each new router for all its own and inherited ones
``journal-dropped``  the worker no longer needs a segment
``journals``         the router dropped some segments; it asks the worker to send all again
``adopt-journal``    before ``adopt-end``: segments that the worker shall inherit, attached;
                     the worker answers with ``took``
===================  =======================================================================

A client comes back to any worker, which asks the client's *owner*:

===================  =======================================================================
claims
===================  =======================================================================
``claim``            a question to the owner of this tag's clients, sent to the router
``claimed``          the owner's answer, sent back through the router; or the router's refusal,
                     with a reason
===================  =======================================================================

A question or an answer may have one descriptor attached. The router forwards both without reading
their content.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from . import channel
from .channel import ChannelError, Message
from .limits import JOURNAL_SEGMENTS, MAX_CHANNELS, MAX_DESCRIPTORS
from .takeover import is_tag

#: Format of journals. A worker inherits journals of its own format only.
FORMAT = 1

#: The logs of a journal.
LOGS = ("events", "states")

#: Greatest number of seconds in a message; the worker's option has no bound of its own.
_LONGEST = 1e9


class Source(NamedTuple):
    """The journal that a message is about."""

    #: Tag of the worker that has written it.
    tag: str
    #: Channel of the relay.
    channel: str


class Segment(NamedTuple):
    """Content of a message ``journal``."""

    source: Source
    log: str
    number: int
    format: int
    #: Seconds that its clients have to come back.
    recovery: float
    #: When the worker that wrote it died, in seconds of the host's monotonic clock; ``None`` if
    #: that worker sends the message.
    died: Optional[float]


class Part(NamedTuple):
    """Content of a message ``adopt-journal``."""

    source: Source
    log: str
    #: Numbers of the attached segments, in their order.
    numbers: list[int]
    format: int
    recovery: float
    died: float


def segment(segment: Segment) -> Message:
    return {
        "type": "journal",
        **_named(segment.source, segment.log),
        "number": segment.number,
        "format": segment.format,
        "recovery": segment.recovery,
        "died": segment.died,
    }


def read_segment(message: Message) -> Segment:
    """:raises ChannelError: when the message is malformed."""
    return Segment(
        _read_source(message),
        _read_log(message),
        _count(message, "number"),
        _count(message, "format"),
        _seconds(message, "recovery"),
        None if message.get("died") is None else _seconds(message, "died"),
    )


def dropped(source: Source, log: str, number: int) -> Message:
    return {"type": "journal-dropped", **_named(source, log), "number": number}


def read_dropped(message: Message) -> tuple[Source, str, int]:
    """:raises ChannelError: when the message is malformed."""
    return _read_source(message), _read_log(message), _count(message, "number")


def part(number: int, part: Part) -> Message:
    """:param number: number of the adoption."""
    return {
        "type": "adopt-journal",
        "id": number,
        **_named(part.source, part.log),
        "numbers": part.numbers,
        "format": part.format,
        "recovery": part.recovery,
        "died": part.died,
    }


def read_part(message: Message) -> Part:
    """:raises ChannelError: when the message is malformed."""
    numbers: Any = message.get("numbers")
    few = isinstance(numbers, list) and 0 < len(numbers) <= min(MAX_DESCRIPTORS, JOURNAL_SEGMENTS)
    if not few or not all(map(_is_count, numbers)) or len(set(numbers)) < len(numbers):
        raise ChannelError("a journal without the numbers of its segments")
    return Part(
        _read_source(message),
        _read_log(message),
        numbers,
        _count(message, "format"),
        _seconds(message, "recovery"),
        _seconds(message, "died"),
    )


def read_recovers(message: Message) -> int:
    """The format of the journals that a worker inherits, from its ``ready`` or ``adopt``; 0: none.

    :raises ChannelError: when the message is malformed.
    """
    return _count({"recovers": 0, **message}, "recovers")


def claim(number: int, tag: str, question: Message) -> Message:
    """:param number: repeated in the answer; each end of a channel has its own numbers."""
    return {"type": "claim", "id": number, "tag": tag, "question": question}


def read_claim(message: Message) -> tuple[int, str, Message]:
    """Number, tag and question. :raises ChannelError: when the message is malformed."""
    tag = message.get("tag")
    if not is_tag(tag):
        raise ChannelError("a claim without a tag")
    return _count(message, "id"), str(tag), _object(message, "question")


def claimed(number: int, answer: Message) -> Message:
    return {"type": "claimed", "id": number, "answer": answer}


def not_claimed(number: int, reason: str) -> Message:
    """:param reason: one of :mod:`.reasons`."""
    return claimed(number, {"reason": reason})


def read_claimed(message: Message) -> tuple[int, Message]:
    """Number and answer. :raises ChannelError: when the message is malformed."""
    return _count(message, "id"), _object(message, "answer")


def _named(source: Source, log: str) -> Message:
    return {"tag": source.tag, "channel": source.channel, "log": log}


def _read_source(message: Message) -> Source:
    tag, name = message.get("tag"), message.get("channel")
    if not is_tag(tag):
        raise ChannelError("a journal without a tag")
    if not isinstance(name, str) or channel.row_size(name) > MAX_CHANNELS // 2:
        raise ChannelError("a journal without a channel of the relay")
    return Source(str(tag), name)


def _read_log(message: Message) -> str:
    log = message.get("log")
    if log not in LOGS:
        raise ChannelError(f"a journal has no such log: {log!r:.40}")
    return str(log)


def _object(message: Message, name: str) -> Message:
    value = message.get(name)
    if not isinstance(value, dict):
        raise ChannelError(f"{message['type']}: {name!r} is not an object")
    return value


def _seconds(message: Message, name: str) -> float:
    value: Any = message.get(name)
    if type(value) not in (int, float) or not 0 <= value <= _LONGEST:
        raise ChannelError(f"{message['type']}: {name!r} is not a number of seconds")
    return float(value)


def _count(message: Message, name: str) -> int:
    value: Any = message.get(name)
    if not _is_count(value):
        raise ChannelError(f"{message['type']}: {name!r} is not a count")
    return int(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53
