"""How the router chooses a worker for a new session: the methods of the option ``balance``.

A method receives the workers that may get the session (at least one) and the number of the turn,
which grows by one with each session; it returns one of the workers. To add a method, add a row to
:data:`METHODS`.
"""

from __future__ import annotations

import random
from typing import Any, Callable, Protocol, TypeVar


class Candidate(Protocol):
    """A worker."""

    @property
    def load(self) -> int:
        """Number of sessions, with those that are in transit to the worker."""


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


def least_connection(workers: list[AnyCandidate], turn: int) -> AnyCandidate:
    loads = [worker.load for worker in workers]
    least = min(loads)
    # Workers with equal loads take turns: connections without a session do not change the load.
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
