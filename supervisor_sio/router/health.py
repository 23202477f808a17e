"""A snapshot of the router's figures, and whether the cluster is healthy. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

from .pool import Member
from .run_once import Row

#: Seconds without a snapshot after which the router's loop counts as stuck.
_STUCK = 5.0


@dataclass(frozen=True)
class Snapshot:
    """The figures at the time ``taken``, in seconds of the monotonic clock."""

    taken: float = 0.0
    handed_over: int = 0
    handed_back: int = 0
    waiting: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    relay_alive: bool = False
    relay_messages: int = 0
    #: Sessions passed on since the router's start.
    passed_on: int = 0
    #: Sessions that wait for a worker to adopt them.
    held: int = 0
    not_moved: Mapping[str, int] = field(default_factory=dict)
    not_recovered: Mapping[str, int] = field(default_factory=dict)
    #: Figures of the bridge; empty without one.
    queue: Mapping[str, Any] = field(default_factory=dict)
    #: Workers that supervisord has recycled, by reason; without reasons whose limit is off.
    recycled: Mapping[str, int] = field(default_factory=dict)
    #: Tasks of ``run_once()``.
    tasks: tuple[Row, ...] = ()
    #: Copies of the members. Of two with the same name, the first is about to leave.
    members: tuple[Member, ...] = ()


def ailment(snapshot: Snapshot, now: float) -> str:
    """Why no new session can be opened; "" when one can."""
    age = now - snapshot.taken
    if age > _STUCK:
        return f"the router has been stuck for {age:.0f} seconds"
    if not snapshot.relay_alive:
        return "the relay is down"
    if not any(member.state == "ready" for member in snapshot.members):
        return "no worker is ready"
    return ""
