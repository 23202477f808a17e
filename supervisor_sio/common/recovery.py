"""What router and workers say of the clients of workers that have died. Pure.

A worker with recovery keeps a *journal* for each channel of the relay: what it sends to its
clients (the log ``events``), and who they are (``states``). A log is a row of *segments*: files
of memory, which the router has open as well. So it outlives the worker, and another worker
*inherits* it, as sessions that are passed on are adopted, see :mod:`.takeover`.

===================  =======================================================================
journals
===================  =======================================================================
``journal``          the worker has begun a segment, which comes beside it; or has one: each
                     router is told all, also of what the worker has inherited
``journal-dropped``  a segment is not needed any more
``journals``         the router has let go of some: it can have all of them now
``adopt-journal``    before ``adopt-end``: segments that the worker is to inherit, beside it;
                     answered by ``took``
===================  =======================================================================

A client comes back to any worker, which asks the one that has it, its *owner*:

===================  =======================================================================
claims
===================  =======================================================================
``claim``            a question to who has the clients of this tag, by way of the router
``claimed``          the answer, the same way back; also of the router, with a reason
===================  =======================================================================

Beside a question, and beside an answer, there may be one descriptor. The router knows whom they
are for, and nothing of what they say.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from . import channel
from .channel import ChannelError, Message
from .limits import JOURNAL_SEGMENTS, MAX_CHANNELS, MAX_DESCRIPTORS
from .takeover import is_tag

#: Of journals. A worker inherits those that have its own.
FORMAT = 1

#: Of a journal.
LOGS = ("events", "states")

#: Seconds; a worker's option has no bound of its own.
_LONGEST = 1e9


class Source(NamedTuple):
    """Of which journal a message is."""

    #: Of the worker that has written it.
    tag: str
    #: Of the relay.
    channel: str


class Segment(NamedTuple):
    """Of a message ``journal``."""

    source: Source
    log: str
    number: int
    format: int
    #: Seconds that its clients have to come back.
    recovery: float
    #: When its worker has died, in seconds of the host's monotonic clock; ``None`` while that is
    #: the one who says it.
    died: Optional[float]


class Part(NamedTuple):
    """Of a message ``adopt-journal``."""

    source: Source
    log: str
    #: Of the segments that come beside it, in their order.
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
    """:raises ChannelError: when it is not one."""
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
    """:raises ChannelError: when it is not one."""
    return _read_source(message), _read_log(message), _count(message, "number")


def part(number: int, part: Part) -> Message:
    """:param number: of the adoption."""
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
    """:raises ChannelError: when it is not one."""
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
    """Of a message ``ready`` or ``adopt``: the format of the journals that are inherited; 0 for
    none.

    :raises ChannelError: when it is not one.
    """
    return _count({"recovers": 0, **message}, "recovers")


def claim(number: int, tag: str, question: Message) -> Message:
    """:param number: who answers says it again; each end of a channel has its own."""
    return {"type": "claim", "id": number, "tag": tag, "question": question}


def read_claim(message: Message) -> tuple[int, str, Message]:
    """Number, tag and question. :raises ChannelError: when it is not one."""
    tag = message.get("tag")
    if not is_tag(tag):
        raise ChannelError("a claim without a tag")
    return _count(message, "id"), str(tag), _object(message, "question")


def claimed(number: int, answer: Message) -> Message:
    return {"type": "claimed", "id": number, "answer": answer}


def not_claimed(number: int, reason: str) -> Message:
    """:param reason: of :mod:`.reasons`."""
    return claimed(number, {"reason": reason})


def read_claimed(message: Message) -> tuple[int, Message]:
    """Number and answer. :raises ChannelError: when it is not one."""
    return _count(message, "id"), _object(message, "answer")


def _named(source: Source, log: str) -> Message:
    return {"tag": source.tag, "channel": source.channel, "log": log}


def _read_source(message: Message) -> Source:
    tag, name = message.get("tag"), message.get("channel")
    if not is_tag(tag):
        raise ChannelError("a journal without a tag")
    if not isinstance(name, str) or channel.row_size(name) > MAX_CHANNELS // 2:
        raise ChannelError("a journal without the channel of the relay")
    return Source(str(tag), name)


def _read_log(message: Message) -> str:
    log = message.get("log")
    if log not in LOGS:
        raise ChannelError(f"a journal without such a log: {log!r:.40}")
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
