"""``sio rebalance``: workers with more clients than their share have some of them reconnect.

=========  ===========================================  ==========================================
state      what happens                                 then
=========  ===========================================  ==========================================
IDLE       an operator types it                         CLOSING; IDLE if the load is even
CLOSING    workers close some connections, so many a    WAITING, when that is done; IDLE if too
           second; none while too many clients are      many clients stay away
           away
WAITING    clients come back, to the worker that has    when all have gone and are back and no
           the fewest                                   worker starts: IDLE if the load is even,
                                                        or after the last round; else CLOSING,
                                                        the next round
                                                        when that takes too long: IDLE
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
from typing import Any, Callable, Iterable, Mapping, Optional

from ..common.channel import Message
from ..common.limits import (
    DRAIN_TIME,
    REBALANCE_RATE,
    REBALANCE_ROUNDS,
    REBALANCE_START,
    REBALANCE_WAIT,
)
from .pool import Member, Pool
from .shares import is_even, loads_of, surplus
from .supervisord import CommandError

logger = logging.getLogger("supervisor_sio.router")

#: Seconds between looks, and between two parts of what a worker closes.
TICK = 0.1

#: Seconds for a drained worker to be stopped, where it is drained for that.
_DRAINED = DRAIN_TIME + 1

#: While so many clients are away no others are disconnected. As many are within ``REBALANCE_WAIT``,
#: in which those that were disconnected first should be back.
_MOST_AWAY = round(REBALANCE_RATE * REBALANCE_WAIT)

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
        self._began = self._ended = 0.0
        #: Since when it waits for clients; ``None`` while it closes connections, or workers start.
        self._waits_since: Optional[float] = None
        #: When it had closed all connections of the round.
        self._all_closed = 0.0
        #: By tag, how many clients are yet to go in this round, and how many stay.
        self._left: Counter[str] = Counter()
        self._shares: dict[str, int] = {}
        #: By tag, how many clients the router had handed over before the round.
        self._handshakes: dict[str, int] = {}
        #: Those that have not answered yet.
        self._asked: set[str] = set()
        #: Clients at the beginning of the round; how many have gone since all began.
        self._clients = 0
        self._closed = 0
        #: By tag, how many sessions a worker has opened, also of workers that have gone since.
        self._opened: Counter[str] = Counter()
        #: What these two were at the beginning of the round.
        self._closed_before = 0
        self._opened_before = 0

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
        return {
            "state": self._state.value,
            "number": self._number,
            "round": self._round,
            "closed": self._closed,
            "left": sum((+self._left).values()),
            "away": self._away(loads_of(self._pool)) if busy else 0,
            "seconds": int((self._clock() if busy else self._ended) - self._began),
            "result": self._result.value,
        }

    def _next_round(self) -> None:
        loads = loads_of(self._pool)
        self._left = Counter(surplus(loads))
        if not self._left or self._round == REBALANCE_ROUNDS:
            self._end_as_it_is()
        else:
            self._round += 1
            self._shares = {tag: loads[tag] - count for tag, count in self._left.items()}
            self._handshakes = {member.tag: member.handshakes for member in self._pool}
            self._clients = sum(loads.values())
            self._closed_before = self._closed
            self._opened = self._opened_now()
            self._opened_before = sum(self._opened.values())
            self._asked.clear()
            self._waits_since = None
            self._result = Result.NONE
            self._pool.evens_out = True
            self._set(State.CLOSING)

    def _end_as_it_is(self) -> None:
        self._end(Result.EVEN if is_even(loads_of(self._pool)) else Result.UNEVEN)

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

    def _away(self, loads: Mapping[str, int]) -> int:
        """How many clients were disconnected in this round and are not back.

        No figure says that exactly. There are fewer clients than before also because others leave
        for good, or because a worker takes no new ones and is left out; and sessions are opened
        also by new clients. So the smaller of both numbers counts.
        """
        fewer = self._clients - sum(loads.values())
        # Not the handshakes: a client whose handshakes are refused tries again and again. A worker
        # that has joined again may not have reported yet, so the greater number counts.
        self._opened |= self._opened_now()
        came = sum(self._opened.values()) - self._opened_before
        return max(0, min(fewer, self._closed - self._closed_before - came))

    def _opened_now(self) -> Counter[str]:
        return Counter({member.tag: member.figures.get("opened", 0) for member in self._pool})

    def _has_let_go(self, member: Member) -> bool:
        """Whether a worker no longer counts clients that it has disconnected."""
        if member.tag not in self._shares:
            return True
        came = member.handshakes - self._handshakes[member.tag]
        return member.load <= self._shares[member.tag] + came

    def _waits_too_long(self) -> bool:
        """To be called again and again while it waits: the time counts from the first call."""
        now = self._clock()
        if self._waits_since is None:
            self._waits_since = now
        return now - self._waits_since >= REBALANCE_WAIT

    def _close_some(self) -> None:
        loads = loads_of(self._pool)
        if self._away(loads) >= _MOST_AWAY:
            # Something keeps clients from coming back: disconnect no more of them.
            if self._waits_too_long():
                self._end(Result.UNEVEN)
            return
        self._waits_since = None
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
            self._all_closed = self._clock()
            self._set(State.WAITING)

    def _answered(self, number: int, tag: str, asked: int, closed: int) -> None:
        if number != self._number:
            return
        self._closed += closed
        self._asked.discard(tag)
        self._left[tag] -= closed
        if closed < asked:
            stay = self._left.pop(tag)
            if closed:  # it has no others that can go now
                self._shares[tag] += stay
            # Else it may not have answered in time, so that nobody knows how many have gone.

    def _look(self) -> None:
        """Begin the next round when all clients that were disconnected have gone and are back, as
        far as figures say so, and no worker is about to join: one that died is to get its share
        again. Otherwise a next round would disconnect clients that the figures say are too many
        because their ``disconnect`` handlers still run, or more of those that do not come back."""
        loads = loads_of(self._pool)
        # A worker that takes no new clients any more may have kept some that it was to disconnect.
        staying = (member for member in self._pool if member.eligible)
        gone = is_even(loads) or all(map(self._has_let_go, staying))
        starting = bool(list(self._expected()))
        if starting and self._clock() - self._all_closed < REBALANCE_START:
            self._waits_since = None  # clients may wait for it as well
        elif gone and not starting and not self._away(loads):
            self._next_round()
        elif self._waits_too_long():
            self._end_as_it_is()


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
        if member.draining or just_drained:
            return f"{member.name} is {member.state}: {_LATER}"
    if held:
        return f"sessions are on their way from one worker to another: {_LATER}"
    ready = len(loads_of(members))
    if ready < 2:
        return f"at least two workers must be ready; {ready or 'none'} is ready"
    return ""
