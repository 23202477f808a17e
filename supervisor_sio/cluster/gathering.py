"""Answers from all workers of the cluster: which are waited for, and which have come.

Pure: no sockets and no clocks here.
"""

from __future__ import annotations

from typing import Any, Generic, Iterable, List, Optional, TypeVar

T = TypeVar("T")


class Answers(List[T], Generic[T]):
    """A list of the answers that came, and whether that is all of them."""

    #: Whether the timeout ended before every living worker had answered.
    timed_out: bool = False
    #: How many answers are known to be missing: of workers that were silent until the timeout,
    #: have left, or, for :meth:`ZmqManager.server_side_call`, have no handler.
    missing: int = 0


class Gathering:
    """The answers of several workers to one question.

    :param workers: their tags.
    :param each: how many answers each worker gives; ``None`` if it will say so.
    :param enough: the number of answers after which none is waited for any more.
    """

    def __init__(
        self, workers: Iterable[str], each: Optional[int] = None, enough: Optional[int] = None
    ) -> None:
        self.workers = frozenset(workers)
        self._enough = enough
        #: By tag: how many answers are still to come; ``None`` until the worker has said so.
        self._waiting: dict[str, Optional[int]] = dict.fromkeys(self.workers, each)
        self._early: dict[str, int] = {}
        self.answers: list[Any] = []
        self.missing = 0

    @property
    def done(self) -> bool:
        enough = self._enough is not None and len(self.answers) >= self._enough
        return enough or not self._waiting

    @property
    def waiting(self) -> list[str]:
        """The tags of the workers that are waited for."""
        return list(self._waiting)

    def expect(self, worker: str, count: int) -> None:
        """This worker will give ``count`` answers."""
        if worker in self._waiting and self._waiting[worker] is None:
            self._waiting[worker] = count - self._early.pop(worker, 0)
            self._settle(worker)

    def answer(self, worker: str, value: Any) -> None:
        if worker in self._waiting:
            self.answers.append(value)
            self._one_less(worker)

    def no_answer(self, worker: str) -> None:
        """One answer of this worker will not come."""
        if worker in self._waiting:
            self.missing += 1
            self._one_less(worker)

    def lost(self, worker: str) -> None:
        """This worker has left; its remaining answers will not come."""
        if worker in self._waiting:
            self.missing += self._waiting.pop(worker) or 1

    def give_up(self) -> None:
        """The timeout has ended."""
        for worker in list(self._waiting):
            self.lost(worker)

    def _one_less(self, worker: str) -> None:
        waiting = self._waiting[worker]
        if waiting is None:
            self._early[worker] = self._early.get(worker, 0) + 1
        else:
            self._waiting[worker] = waiting - 1
            self._settle(worker)

    def _settle(self, worker: str) -> None:
        if not self._waiting[worker]:
            del self._waiting[worker]
