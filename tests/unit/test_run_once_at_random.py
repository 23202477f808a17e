"""Routers and workers that are stopped, killed and cut off at random, on a clock of the test: at
no time two workers run one task, its number only grows, and no gap is longer than it may be."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from typing import Any, Callable, Optional

import pytest

from supervisor_sio.cluster import run_once as cluster
from supervisor_sio.cluster.run_once import Lease, Task
from supervisor_sio.common.channel import Message
from supervisor_sio.common.limits import RUN_ONCE_LEASE, RUN_ONCE_OFFER
from supervisor_sio.router import run_once as router
from supervisor_sio.router.pool import Member
from supervisor_sio.worker import run_once as worker

NAME = "ticker"

#: Seconds between steps of the function.
TICK = 0.05

#: Seconds that one step of anything takes.
STEP = 0.001


class Clock:
    """Calls in the order of their times; each takes a moment."""

    def __init__(self) -> None:
        self.now = 100.0
        self._calls: list[Any] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_000_000.0 + self.now

    def call_later(self, seconds: float, call: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(call, args)
        heapq.heappush(self._calls, (self.now + max(0.0, seconds), next(self._order), timer))
        return timer

    def run(self, until: float) -> None:
        while self._calls and self._calls[0][0] <= until:
            when, _, timer = heapq.heappop(self._calls)
            self.now = max(self.now, when)
            timer.fire()
        self.now = max(self.now, until)


class Timer:
    def __init__(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._call: Optional[Callable[..., None]] = call
        self._args = args

    def fire(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call(*self._args)

    def cancel(self) -> None:
        self._call = None


class Process:
    """What is called while it is stopped is called when it goes on, in any order."""

    def __init__(self, clock: Clock, random: random.Random) -> None:
        self.clock = clock
        self._random = random
        self.stopped = False
        #: Stopped in the middle of what it does.
        self.in_the_middle = False
        self.dead = False
        self._late: deque[Callable[[], None]] = deque()

    def call_later(self, seconds: float, call: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(call, args)
        self.clock.call_later(seconds, self.do, timer.fire)
        return timer

    def do(self, call: Callable[[], None]) -> None:
        if self.dead:
            return
        if self.stopped or self.in_the_middle:
            self._late.append(call)
        else:
            call()

    def go_on(self) -> None:
        self.stopped = False
        self._random.shuffle(self._late)  # of timers and sockets neither comes first
        while self._late and not (self.stopped or self.in_the_middle or self.dead):
            self._late.popleft()()


class Channel:
    """A connection: what is sent is at the other end at once, and read when that runs."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.to_router: deque[Message] = deque()
        self.to_worker: deque[Message] = deque()
        self.open = True
        self.answered = False
        #: ``None`` while it waits in the socket of supervisord.
        self.router: Optional[Router] = None
        self.member: Optional[Member] = None

    def tell(self, message: Message) -> None:
        if self.open:
            self.answered = True
            self.to_worker.append(message)
            delay = self.worker.world.random.choice([STEP, STEP, 0.3])
            self.worker.process.call_later(delay, self.worker.read, self)


class Router:
    def __init__(self, world: World, sure_at: float) -> None:
        self.world = world
        self.process = Process(world.clock, world.random)
        self.channels: list[Channel] = []
        self.tasks = router.RunOnce(
            lambda tag: self._by_tag().get(tag),  # type: ignore[arg-type, return-value]
            self.catch_up,
            lambda: False,
            self.process.call_later,
            sure_at,
            world.clock.monotonic,
            world.clock.time,
        )
        self.catch_up()

    def _by_tag(self) -> dict[str, Channel]:
        return {channel.worker.tag: channel for channel in self.channels if channel.open}

    def catch_up(self) -> bool:
        while self.world.waiting:
            self.accept(self.world.waiting.popleft())
        for channel in list(self.channels):
            self.read(channel)
        return True

    def accept(self, channel: Channel) -> None:
        channel.router = self
        channel.member = Member(channel.worker.tag, channel.worker.tag, 1, ready=True)
        self.channels.append(channel)
        channel.tell({"type": "welcome"})
        self.read(channel)
        if channel.worker.process.dead:
            self.process.do(lambda: self.lose(channel))

    def read(self, channel: Channel) -> None:
        while channel.to_router and channel in self.channels:
            message = channel.to_router.popleft()
            if message["type"] == "draining":
                assert channel.member is not None
                channel.member.draining = True
            else:
                self.tasks.handle(channel, message)  # type: ignore[arg-type]

    def lose(self, channel: Channel) -> None:
        """The channel has ended, or the process."""
        if channel in self.channels:
            self.read(channel)
            self.channels.remove(channel)
            channel.open = False
            self.tasks.lost(channel)  # type: ignore[arg-type]
        if channel.worker.process.dead:
            self.tasks.died(channel.worker.tag)

    def die(self) -> None:
        self.process.dead = True
        for channel in self.channels:
            channel.open = False
            if not channel.worker.process.dead:
                channel.worker.process.call_later(STEP, channel.worker.connect)


class Worker:
    """A worker with a function that is called each ``TICK``, like one that sleeps between."""

    has_threads = False

    def __init__(self, world: World, tag: str) -> None:
        self.world = world
        self.tag = tag
        self.clock = world.clock
        self.process = Process(world.clock, world.random)
        self.call_later = self.process.call_later
        self.generation = 0
        self.channel: Optional[Channel] = None
        self.welcomed = False
        self.tasks = worker.RunOnce(self, self, world.clock.monotonic)
        self.tasks.add(
            Task(NAME, self.tick, True, lambda number, until: Lease(NAME, number, until, Event()))
        )
        self.connect()

    # --- the link ---

    def connect(self) -> None:
        if self.channel is not None:
            self.channel.open = False
        self.generation += 1
        self.welcomed = False
        self.channel = Channel(self)
        self.world.waiting.append(self.channel)
        self.tasks.greet()
        if self.world.router is not None:
            self.world.router.process.call_later(STEP, self.world.router.catch_up)

    def read(self, channel: Channel) -> None:
        while channel is self.channel and channel.to_worker:
            message = channel.to_worker.popleft()
            if message["type"] == "welcome":
                self.welcomed = True
                self.tasks.welcome(True)
            else:
                self.tasks.handle(message)

    @property
    def unanswered(self) -> bool:
        channel = self.channel
        return channel is not None and channel.open and not channel.answered

    def say_now(self, message: Message) -> bool:
        channel = self.channel
        if channel is None or not channel.open:
            return False
        self.world.stop_at_random(self)
        channel.to_router.append(message)
        if channel.router is not None:
            receiver = channel.router
            receiver.process.call_later(STEP, receiver.read, channel)
        self.world.stop_at_random(self)
        return True

    def post(self, message: Message) -> None:
        if self.channel is not None and self.channel.open:
            self.say_now(message)

    # --- the runtime ---

    def log(self, *args: object, **kwargs: object) -> None:
        """Nobody reads it."""

    def run_apart(
        self,
        name: str,
        function: Callable[[], Any],
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
    ) -> Run:
        return Run(self, may_run, ended, function)

    def tick(self, lease: Lease) -> None:
        self.world.tick(self, lease.number)

    def stop(self) -> None:
        self.tasks.stop()
        self.post({"type": "draining"})
        self.process.call_later(0.5, self.end)

    def end(self) -> None:
        self.process.dead = True
        channel = self.channel
        if channel is not None and channel.router is not None:
            serving = channel.router
            serving.process.call_later(STEP, serving.lose, channel)


class Run:
    """A function that does one thing each ``TICK``, as :mod:`.apart` runs it."""

    def __init__(
        self,
        of: Worker,
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
        function: Callable[[], Any],
    ) -> None:
        self._of = of
        self._may_run = may_run
        self._ended = ended
        self._function = function
        self._over = False
        of.process.call_later(STEP, self._step)

    def _step(self) -> None:
        if self._over:
            return
        if not self._may_run():
            self._finish()
            return
        outcome = self._of.world.outcome()
        if outcome is not None:
            self._over = True
            self._of.process.call_later(0, self._ended, outcome or None)
            return
        self._function()
        self._of.process.call_later(TICK, self._step)

    def _finish(self) -> None:
        self._over = True
        self._of.process.call_later(STEP, self._ended, RuntimeError("ended"))

    def cancel(self) -> None:
        if not self._over:
            self._finish()


class Event:
    def set(self) -> None: ...


class World:
    def __init__(self, seed: int, clock: Clock) -> None:
        self.random = random.Random(seed)
        self.clock = clock
        self.waiting: deque[Channel] = deque()
        self.router: Optional[Router] = None
        self.router_ended: Optional[float] = None
        self.workers: list[Worker] = []
        self._tags = itertools.count(1)
        #: Time, tag and number of each.
        self.ticks: list[tuple[float, str, int]] = []
        self.fails = False
        self.stops_in_the_middle = False

    def tick(self, of: Worker, number: int) -> None:
        self.ticks.append((self.clock.now, of.tag, number))

    def outcome(self) -> Optional[BaseException]:
        if self.fails and self.random.random() < 0.01:
            return ArithmeticError("as the test wants it")
        return None

    def stop_at_random(self, of: Worker) -> None:
        """It may be stopped in the middle of anything; others go on meanwhile."""
        process = of.process
        if not self.stops_in_the_middle or process.in_the_middle or self.random.random() > 0.1:
            return
        process.in_the_middle = True
        seconds = [0.01, 0.5, RUN_ONCE_OFFER + 0.1, RUN_ONCE_LEASE - 0.5]
        self.clock.run(self.clock.now + self.random.choice(seconds))
        process.in_the_middle = False
        if not process.stopped:
            self.clock.call_later(0, process.go_on)

    def start_router(self) -> None:
        ended = -RUN_ONCE_LEASE if self.router_ended is None else self.router_ended
        self.router = Router(self, ended + RUN_ONCE_LEASE)

    def kill_router(self) -> None:
        if self.router is not None:
            dying, self.router = self.router, None
            self.router_ended = self.clock.now
            dying.die()
            self.clock.call_later(self.random.choice([0.1, 1, 3, 20]), self.start_router)

    def start_worker(self) -> None:
        self.workers.append(Worker(self, f"w{next(self._tags)}"))

    def living(self) -> list[Worker]:
        self.workers = [one for one in self.workers if not one.process.dead]
        return self.workers

    def do_something(self) -> None:
        victims = self.living()
        one = self.random.choice(victims)
        what = self.random.choice(["kill", "stop", "sigstop", "router", "stop router", "cut", ""])
        if what in ("kill", "stop"):
            if what == "kill":
                one.end()
            elif not one.process.stopped:
                one.stop()
            self.start_worker()
        elif what == "sigstop" and not one.process.stopped:
            one.process.stopped = True
            self.clock.call_later(self.random.uniform(0.1, 15), one.process.go_on)
        elif what == "router":
            self.kill_router()
        elif what == "stop router" and self.router is not None:
            if not self.router.process.stopped:
                self.router.process.stopped = True
                self.clock.call_later(self.random.uniform(0.1, 8), self.router.process.go_on)
        elif what == "cut" and one.channel is not None and not one.process.stopped:
            serving = one.channel.router
            if serving is not None and serving is self.router and not serving.process.stopped:
                serving.lose(one.channel)
                one.process.call_later(STEP, one.connect)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(cluster, "time", made)
    return made


def check(ticks: list[tuple[float, str, int]]) -> None:
    """Each number is that of one worker, and whoever comes later has a larger one."""
    owner: dict[int, str] = {}
    largest = 0
    for when, tag, number in ticks:
        assert owner.setdefault(number, tag) == tag, (when, tag, number)
        assert number >= largest, f"at {when:.3f} {tag} with {number} after {largest}"
        largest = number


@pytest.mark.parametrize("seed", range(60))
def test_never_two_at_a_time(clock: Clock, seed: int) -> None:
    world = World(seed, clock)
    world.fails = seed % 3 == 0
    world.stops_in_the_middle = seed % 2 == 0
    world.start_router()
    for _ in range(4):
        world.start_worker()
    for _ in range(60):
        clock.run(clock.now + world.random.choice([0.01, 0.2, 1, 4]))
        world.do_something()
    # In the end all is well again, and it runs at one.
    world.fails = world.stops_in_the_middle = False
    clock.run(clock.now + 100)
    check(world.ticks)
    late = [tag for when, tag, _ in world.ticks if when > clock.now - 2]
    assert late and len(set(late)) == 1
