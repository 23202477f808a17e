"""How many clients each worker has above its share. Pure.

The share is an equal part of all clients, for each worker that takes new ones. Nobody gives up any
while everybody is near its share: a client that reconnects notices that, and an even load is worth
it only where the load is not even already.
"""

from __future__ import annotations

from typing import Iterable, Mapping

from ..common.limits import REBALANCE_TOLERANCE
from .pool import Member


def loads_of(members: Iterable[Member]) -> dict[str, int]:
    """By tag, the clients of those that take new ones."""
    return {member.tag: member.load for member in members if member.eligible}


def is_even(loads: Mapping[str, int]) -> bool:
    """Whether each is near its share; false when there is nobody to have one."""
    if not loads:
        return False
    share = sum(loads.values()) / len(loads)
    tolerance = max(1.0, share * REBALANCE_TOLERANCE)
    return all(abs(load - share) <= tolerance for load in loads.values())


def surplus(loads: Mapping[str, int]) -> dict[str, int]:
    """By tag, how many clients are to go to others; empty when the load is even."""
    if not loads or is_even(loads):
        return {}
    share, rest = divmod(sum(loads.values()), len(loads))
    most_first = sorted(loads, key=lambda tag: loads[tag], reverse=True)
    # Who has most keeps one of the rest: as few as possible have to reconnect.
    shares = {tag: share + (number < rest) for number, tag in enumerate(most_first)}
    return {tag: loads[tag] - shares[tag] for tag in loads if loads[tag] > shares[tag]}
