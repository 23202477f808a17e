"""``sio rebalance``: workers with more clients than their share have some of them reconnect.

=========  ===========================================  ==========================================
state      what happens                                 then
=========  ===========================================  ==========================================
IDLE       an operator types it                         CLOSING; IDLE if the load is even
CLOSING    workers close some connections, so many a    WAITING, when that is done
           second
WAITING    clients come back, to the worker that has    when all are back and no worker starts, or
           the fewest                                   it takes too long: IDLE if the load is
                                                        even, or after the last round; else
                                                        CLOSING, the next round
any        the operator stops it                        IDLE
=========  ===========================================  ==========================================

How many each worker closes in a round is known at its beginning: who is on the way from one
worker to another is missing in the figures, and would make all shares smaller. Workers that go
meanwhile are left out, and those that come have their share in the next round.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from enum import Enum
from functools import partial
from typing import Any, Callable, Iterable

from ..common.channel import Message
from ..common.limits import DRAIN_TIME, REBALANCE_RATE, REBALANCE_ROUNDS, REBALANCE_WAIT
from .pool import Member, Pool
from .shares import loads_of, surplus
from .supervisord import CommandError

logger = logging.getLogger("supervisor_sio.router")

#: Seconds between looks, and between two parts of what a worker closes.
TICK = 0.1

#: Seconds for a drained worker to be stopped, where it is drained for that.
_DRAINED = DRAIN_TIME + 1

_LATER = "a reload, a scale or a restart may be under way; try again when it is over"


class State(Enum):
    IDLE = "idle"
    CLOSING = "closing"
    WAITING = "waiting"


class Result(Enum):
    """Of the last one."""

    NONE = ""
    EVEN = "even"
    UNEVEN = "uneven"
    STOPPED = "stopped"


#: Asks the worker with a tag to close so many connections, and calls back with how many it has.
Ask = Callable[[str, int, Callable[[int], None]], None]


class Rebalancing:
    """
    :param expected: the workers that are about to be there.
    :param held: how many sessions are on their way from one worker to another.
    :param changed: called when the state has changed.
    :param clock: seconds of the host's monotonic clock.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        ask: Ask,
        expected: Callable[[], Iterable[str]],
        held: Callable[[], int],
        call_later: Callable[[float, Callable[[], None]], Any],
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._ask = ask
        self._expected = expected
        self._held = held
        self._call_later = call_later
        self._changed = changed
        self._clock = clock
        self._state = State.IDLE
        self._result = Result.NONE
        #: How many have begun since this router's start.
        self._number = 0
        self._round = 0
        self._began = self._ended = self._waits_since = 0.0
        #: By tag, how many clients are yet to go in this round, and how many it is to keep.
        self._left: Counter[str] = Counter()
        self._shares: dict[str, int] = {}
        #: Those that have not answered yet.
        self._asked: set[str] = set()
        #: Clients at the beginning of the round; how many have gone since all began.
        self._clients = 0
        self._closed = 0

    def begin(self) -> None:
        """:raises CommandError: when it cannot be done now."""
        if self._state is not State.IDLE:
            raise CommandError("another rebalance is under way")
        reason = why_not(self._pool, self._expected(), self._held(), self._clock())
        if reason:
            raise CommandError(reason)
        self._number += 1
        self._round = self._closed = 0
        self._began = self._clock()
        self._next_round()
        if self._state is not State.IDLE:
            logger.info("rebalance: %d clients are to reconnect", sum(self._left.values()))
            self._tick(self._number)

    def stop(self) -> None:
        """Close no more connections."""
        if self._state is not State.IDLE:
            self._end(Result.STOPPED)

    def shown(self) -> Message:
        """For the status."""
        busy = self._state is not State.IDLE
        away = self._clients - sum(loads_of(self._pool).values()) if busy else 0
        return {
            "state": self._state.value,
            "number": self._number,
            "round": self._round,
            "closed": self._closed,
            "left": sum((+self._left).values()),
            "away": max(0, away),
            "seconds": int((self._clock() if busy else self._ended) - self._began),
            "result": self._result.value,
        }

    def _next_round(self) -> None:
        loads = loads_of(self._pool)
        self._left = Counter(surplus(loads))
        if not self._left:
            self._end(Result.EVEN)
        elif self._round == REBALANCE_ROUNDS:
            self._end(Result.UNEVEN)
        else:
            self._round += 1
            self._shares = {tag: loads[tag] - count for tag, count in self._left.items()}
            self._clients = sum(loads.values())
            self._asked.clear()
            self._result = Result.NONE
            self._pool.evens_out = True
            self._set(State.CLOSING)

    def _end(self, result: Result) -> None:
        logger.info("rebalance: %s, %d clients were disconnected", result.value, self._closed)
        self._result = result
        self._ended = self._clock()
        self._left.clear()
        self._pool.evens_out = False
        self._set(State.IDLE)

    def _set(self, state: State) -> None:
        self._state = state
        self._changed()

    def _tick(self, number: int) -> None:
        if self._state is State.IDLE or number != self._number:
            return
        self._call_later(TICK, partial(self._tick, number))
        if self._state is State.CLOSING:
            self._close_some()
        else:
            self._look()

    def _close_some(self) -> None:
        loads = loads_of(self._pool)
        for tag in self._left.keys() - self._asked:
            # Some may have gone by themselves; what was asked for last is not known to be in these.
            self._left[tag] = min(self._left[tag], loads.get(tag, 0) - self._shares[tag])
        self._left = +self._left
        free = Counter({tag: n for tag, n in self._left.items() if tag not in self._asked})
        parts: Counter[str] = Counter()
        for _ in range(min(round(REBALANCE_RATE * TICK), sum(free.values()))):
            (tag, _), *_ = free.most_common(1)
            free[tag] -= 1
            parts[tag] += 1
        for tag, count in parts.items():
            self._asked.add(tag)
            self._ask(tag, count, partial(self._answered, self._number, tag, count))
        if not self._left and not self._asked:
            self._waits_since = self._clock()
            self._set(State.WAITING)

    def _answered(self, number: int, tag: str, asked: int, closed: int) -> None:
        if number != self._number:
            return
        self._closed += closed
        self._asked.discard(tag)
        if closed < asked:
            del self._left[tag]  # it has no others that can go now, or does not answer
        else:
            self._left[tag] -= closed

    def _look(self) -> None:
        """End the round when all clients that were disconnected are back, as far as figures say so,
        and no worker is about to join: one that died is to get its share again."""
        loads = loads_of(self._pool)
        gone = all(loads.get(tag, 0) <= share for tag, share in self._shares.items())
        back = sum(loads.values()) >= self._clients
        complete = gone and back and not list(self._expected())
        if complete or self._clock() - self._waits_since >= REBALANCE_WAIT:
            self._next_round()


def why_not(members: Iterable[Member], expected: Iterable[str], held: int, now: float) -> str:
    """Why clients cannot be spread now; empty when they can. Pure.

    :param expected: workers that are about to be there.
    :param held: sessions that are on their way from one worker to another.
    """
    members = list(members)
    for name in expected:
        return f"{name} is starting, or was stopped just now: {_LATER}"
    for member in members:
        just_drained = member.state == "drained" and now - member.drained_at < _DRAINED
        if member.state in ("draining", "starting") or just_drained:
            return f"{member.name} is {member.state}: {_LATER}"
    if held:
        return f"sessions are on their way from one worker to another: {_LATER}"
    ready = len(loads_of(members))
    if ready < 2:
        return f"it takes two workers that are ready, and {ready or 'none'} is"
    return ""
