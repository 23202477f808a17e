"""How a new session gets its worker: the methods that the option ``balance`` names.

A method gets the workers that may have the session, at least one, and the number of the turn,
which grows by one with each session; it returns one of them. A new one is a row of
:data:`METHODS`.
"""

from __future__ import annotations

import random
from typing import Any, Callable, Protocol, TypeVar


class Candidate(Protocol):
    """A worker."""

    @property
    def load(self) -> int:
        """Sessions, with those that are still on their way to it."""


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


def least_connection(workers: list[AnyCandidate], turn: int) -> AnyCandidate:
    loads = [worker.load for worker in workers]
    least = min(loads)
    # Ties take turns: else one worker would get every connection that opens no session.
    ties = [worker for worker, load in zip(workers, loads) if load == least]
    return ties[turn % len(ties)]


def round_robin(workers: list[AnyCandidate], turn: int) -> AnyCandidate:
    return workers[turn % len(workers)]


def at_random(workers: list[AnyCandidate], turn: int) -> AnyCandidate:
    return random.choice(workers)


#: By the value of the option.
METHODS: dict[str, Callable[[list[Any], int], Any]] = {
    "least-connection": least_connection,
    "round-robin": round_robin,
    "random": at_random,
}
