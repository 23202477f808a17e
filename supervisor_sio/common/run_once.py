"""What router and workers say of the tasks that one worker of the cluster runs. Pure.

===============  =============================================================================
of a worker
===============  =============================================================================
``task``         what it makes of a task: it ``wants`` it; it ``rests``, and does not now; or it
                 is ``done``, and needs to be run no more
``task-holds``   it runs a task under this number: the answer to an offer, then once a second,
                 and to each router anew
``task-ends``    it does so no more, and how it came to that
===============  =============================================================================

===============  =============================================================================
of the router
===============  =============================================================================
``task-offer``   run it under this number, if you begin before a time of the host's monotonic
                 clock
``task-lost``    you do not have it under this number: stop
``task-done``    it needs to be run no more
===============  =============================================================================

A worker holds a task for ``RUN_ONCE_LEASE`` seconds from *before* it sent ``task-holds``, the
router gives it to nobody else for as long from when it has *read* that. Nothing confirms it. It
counts only when sending has returned while the worker still held the task; and before the router
gives a task to another worker because its time is over, it reads all that workers have sent.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple, TypeVar

from .channel import ChannelError, Message
from .limits import RUN_ONCE_NAME

#: Above it no double, as JavaScript and XML-RPC have it, is exact.
_LARGEST = 2**53

_NAME = re.compile(rf"[A-Za-z0-9._:-]{{1,{RUN_ONCE_NAME}}}")


class Word(Enum):
    """Of a ``task``."""

    WANTS = "wants"
    RESTS = "rests"
    DONE = "done"


class End(Enum):
    """Of a ``task-ends``."""

    #: The worker ends, or has begun too late.
    GIVEN_BACK = "given-back"
    #: The function has returned.
    DONE = "done"
    #: The function has raised something.
    FAILED = "failed"


class Held(NamedTuple):
    """A task under a number."""

    name: str
    number: int


def is_name(name: object) -> bool:
    """Whether a task may be called so."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def task(name: str, word: Word) -> Message:
    return {"type": "task", "name": name, "word": word.value}


def holds(name: str, number: int, seconds: float) -> Message:
    """:param seconds: since it has begun."""
    return {"type": "task-holds", "name": name, "number": number, "seconds": seconds}


def ends(name: str, number: int, end: End) -> Message:
    return {"type": "task-ends", "name": name, "number": number, "end": end.value}


def offer(name: str, number: int, until: float) -> Message:
    return {"type": "task-offer", "name": name, "number": number, "until": until}


def lost(name: str, number: int) -> Message:
    return {"type": "task-lost", "name": name, "number": number}


def done(name: str) -> Message:
    return {"type": "task-done", "name": name}


def handles(kind: str) -> bool:
    """Whether a message of this type is one of these."""
    return kind in _TYPES


_TYPES = frozenset(("task", "task-holds", "task-ends", "task-offer", "task-lost", "task-done"))


def read_name(message: Message) -> str:
    """:raises ChannelError: as all here, when it is not as it should be."""
    name = message.get("name")
    if not is_name(name):
        raise ChannelError("a task without its name")
    return str(name)


def read_word(message: Message) -> Word:
    return _read(Word, message.get("word"))


def read_end(message: Message) -> End:
    return _read(End, message.get("end"))


_Kind = TypeVar("_Kind", bound=Enum)


def _read(kind: type[_Kind], value: object) -> _Kind:
    try:
        return kind(value)
    except ValueError:
        raise ChannelError(f"a task that {value!r:.80}") from None


def read_held(message: Message) -> Held:
    number = message.get("number")
    if type(number) is not int or not 0 < number < _LARGEST:
        raise ChannelError("a task without its number")
    return Held(read_name(message), number)


def read_seconds(message: Message) -> float:
    return _read_time(message, "seconds")


def read_until(message: Message) -> float:
    return _read_time(message, "until")


def _read_time(message: Message, field: str) -> float:
    value = message.get(field)
    if not isinstance(value, (int, float)) or not value >= 0:
        raise ChannelError(f"a task whose {field!r} is not a time")
    return float(value)
