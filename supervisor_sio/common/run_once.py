"""Messages between router and workers about tasks of ``run_once()``. Pure.

===============  =============================================================================
from a worker
===============  =============================================================================
``task``         the worker ``wants`` to run a task; ``rests``, so it does not want it now; or the
                 task is ``done``, so no worker needs to run it any more
``task-holds``   the worker runs a task under this number: sent in answer to an offer, then once a
                 second, and to each new router
``task-ends``    the worker no longer runs the task, with the reason
===============  =============================================================================

===============  =============================================================================
from the router
===============  =============================================================================
``task-offer``   run the task under this number, if you begin before this time of the host's
                 monotonic clock
``task-lost``    you do not hold the task under this number: stop
``task-done``    no worker needs to run the task any more
===============  =============================================================================

A worker holds a task for ``RUN_ONCE_LEASE`` seconds from *before* it sent ``task-holds``; the
router gives the task to no other worker for as long after it has *read* this message. There is no
confirmation. A renewal counts only if sending it returned while the worker still held the task; and
before the router gives an expired task to another worker, it reads everything workers have sent.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple, TypeVar

from .channel import ChannelError, Message
from .limits import RUN_ONCE_NAME

#: Above this, integers are not exact as doubles of JavaScript and XML-RPC.
_LARGEST = 2**53

_NAME = re.compile(rf"[A-Za-z0-9._:-]{{1,{RUN_ONCE_NAME}}}")


class Word(Enum):
    """What a worker says in a ``task``."""

    WANTS = "wants"
    RESTS = "rests"
    DONE = "done"


class End(Enum):
    """The reason in a ``task-ends``."""

    #: The worker stops, or began too late.
    GIVEN_BACK = "given-back"
    #: The function has returned.
    DONE = "done"
    #: The function has raised something.
    FAILED = "failed"


class Held(NamedTuple):
    """A task that a worker holds, with its fencing number."""

    name: str
    number: int


def is_name(name: object) -> bool:
    """Whether this is a valid name of a task."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def task(name: str, word: Word) -> Message:
    return {"type": "task", "name": name, "word": word.value}


def holds(name: str, number: int, seconds: float) -> Message:
    """:param seconds: time since the task began."""
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
    """Whether a type of message is about tasks."""
    return kind in _TYPES


_TYPES = frozenset(("task", "task-holds", "task-ends", "task-offer", "task-lost", "task-done"))


def read_name(message: Message) -> str:
    """:raises ChannelError: (as the functions below) when the message is malformed."""
    name = message.get("name")
    if not is_name(name):
        raise ChannelError("a task without a valid name")
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
        raise ChannelError("a task without a valid number")
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
