"""A subscriber in the callbacks of an asyncio loop."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Iterator

import pytest

from supervisor_sio.common.limits import CATCH_UP_BYTES, RELAY_MOST_FAILURES
from supervisor_sio.common.rundir import ClusterInfo, OwnedRunDir, RunDir
from supervisor_sio.relay import subscriber as module
from supervisor_sio.relay.hearing import Fetch
from supervisor_sio.relay.looped import LoopSubscriber
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.position import Held, Part
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.relay.subscriber import Deaf
from unit.relays import relay_in


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Runs a coroutine in a loop of each kind."""
    if request.param == "asyncio":
        return asyncio.run
    uvloop = pytest.importorskip("uvloop")

    def in_uvloop(coroutine: Any) -> Any:
        loop = uvloop.new_event_loop()
        try:
            return loop.run_until_complete(coroutine)
        finally:
            loop.close()

    return in_uvloop


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[OwnedRunDir]:
    with relay_in(tmp_path, ClusterInfo()) as owned:
        yield owned


#: Of what may be lost.
HELLO = -2


class Heard:
    """A connected subscriber, what it receives, and another process that sends."""

    def __init__(self, run_dir: RunDir) -> None:
        self.publisher = Publisher(run_dir, ClusterInfo(), "s")
        self.other = Publisher(run_dir, ClusterInfo(), "other")
        self.subscriber = LoopSubscriber(self.publisher, run_dir)
        self.numbers: list[int] = []
        self.failures: list[Deaf] = []
        #: Whether the relay knows the other process.
        self.reached = False
        #: That each message takes.
        self.seconds = 0.0

    def deliver(self, message: RelayMessage) -> None:
        if message.fields["number"] == HELLO:
            self.reached = True
            return
        time.sleep(self.seconds)
        self.numbers.append(message.fields["number"])

    def say(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            self.other.publish(None, {"method": "emit", "number": number})

    async def wait(self, count: int) -> None:
        async with asyncio_timeout(30):
            while len(self.numbers) < count:
                await asyncio.sleep(0.001)
        assert self.numbers == list(range(count))


@asynccontextmanager
async def asyncio_timeout(seconds: float) -> AsyncIterator[None]:
    """asyncio.timeout() of Python 3.11."""
    task = asyncio.current_task()
    assert task is not None
    handle = asyncio.get_running_loop().call_later(seconds, task.cancel)
    yield
    handle.cancel()


@asynccontextmanager
async def hearing(run_dir: RunDir) -> AsyncIterator[Heard]:
    heard = Heard(run_dir)
    heard.subscriber.start(heard.deliver, heard.failures.append)
    try:
        async with asyncio_timeout(30):
            while not heard.subscriber.joined:
                heard.publisher.probe()
                await asyncio.sleep(0.01)
            # Before that what it says is lost, and it hears no questions here.
            while not heard.reached:
                heard.other.publish_volatile(None, {"method": "volatile", "number": HELLO})
                await asyncio.sleep(0.01)
            heard.say(1)
            while not heard.numbers:
                await asyncio.sleep(0.01)
        yield heard
    finally:  # sockets that stay open would stop the process that collects them
        heard.subscriber.stop()
        heard.publisher.close()
        heard.other.close()
    assert heard.failures == []


def test_everything_is_heard_in_order(run: Any, run_dir: OwnedRunDir) -> None:
    """One by one, and many while the loop does something else: libzmq signals those once."""

    async def main() -> None:
        async with hearing(run_dir) as heard:
            for number in range(1, 6):
                heard.say(1, first=number)
                await heard.wait(number + 1)
            heard.say(500, first=6)
            time.sleep(0.2)
            await heard.wait(506)

    run(main())


def test_each_message_wakes_the_loop(run: Any, run_dir: OwnedRunDir, monkeypatch: Any) -> None:
    """It does not wait for the next look at what is due."""

    async def main() -> None:
        async with hearing(run_dir) as heard:
            monkeypatch.setattr(module, "TICK", 60)
            await asyncio.sleep(0.5)  # the timer of before is done
            for number in range(1, 20):
                heard.say(1, first=number)
                await heard.wait(number + 1)

    run(main())


def test_what_is_adopted_wakes_the_loop(run: Any, run_dir: OwnedRunDir, monkeypatch: Any) -> None:
    """Kept messages, this process's own messages, and those that arrive then."""

    async def main() -> None:
        async with hearing(run_dir) as heard:
            monkeypatch.setattr(module, "TICK", 60)
            await asyncio.sleep(0.5)  # the timer of before is done
            heard.publisher.publish(None, {"method": "emit", "number": 11})
            kept = Held(None, RelayMessage("gone", 1, {"method": "emit", "number": 10}).pack())
            part = Part(
                ("t",), time.monotonic() - 60, {"other": [True, 2, 1, {}, False]}, {}, [kept]
            )
            adopted: list[int] = []

            def own(fetch: Fetch) -> None:
                messages, sent = fetch()
                assert sent == 1
                adopted.extend(message.fields["number"] for message in messages)

            heard.subscriber.adopt(part, lambda one: adopted.append(one.fields["number"]), own)
            async with asyncio_timeout(30):
                while len(adopted) < 2:
                    await asyncio.sleep(0.001)
                while -1 not in heard.numbers:  # the other one knows then that "t" is heard
                    heard.other.publish_volatile("t", {"method": "volatile", "number": -1})
                    await asyncio.sleep(0.01)
                heard.say(1, first=1)
                heard.other.publish("t", {"method": "emit", "number": 12})
                while len(adopted) < 4:
                    await asyncio.sleep(0.001)
            assert adopted == [10, 11, 1, 12]
            assert [number for number in heard.numbers if number >= 0] == [0, 1]

    run(main())


@pytest.mark.parametrize(
    ("count", "seconds", "most"),
    [(1000, 0.0, 2 * module._RECEIVED), (50, module._SLICE / 2, 4)],
    ids=["many", "each takes long"],
)
def test_others_have_a_turn_in_a_flood(
    run: Any, run_dir: OwnedRunDir, count: int, seconds: float, most: int
) -> None:
    """Each message may be for thousands of clients."""

    async def main() -> None:
        async with hearing(run_dir) as heard:
            heard.seconds = seconds
            heard.say(count - 1, first=1)
            time.sleep(0.2)
            turns: list[int] = []
            while len(heard.numbers) < count:
                turns.append(len(heard.numbers))
                await asyncio.sleep(0)
            await heard.wait(count)
            steps = [after - before for before, after in zip(turns, turns[1:])]
            assert max(steps) <= most, steps

    run(main())


class Failing(LoopSubscriber):
    """Receives from a list instead of a socket: messages, and exceptions to raise."""

    items: list[Any]

    def _look(self, now: float) -> list[RelayMessage]:
        item = self.items.pop(0) if self.items else None
        if isinstance(item, Exception):
            raise item
        return [] if item is None else [item]


def failing(
    run: Any,
    tmp_path: Path,
    items: list[Any],
    deliver: Any,
    until: Callable[[], bool],
    behind: Callable[[], bool] = lambda: False,
) -> list[Deaf]:
    """Let it receive the items, until a condition holds or it stops receiving."""
    run_dir = RunDir(str(tmp_path))
    failures: list[Deaf] = []

    async def main() -> None:
        publisher = Publisher(run_dir, ClusterInfo(), "s")
        subscriber = Failing(publisher, run_dir, behind=behind)
        subscriber.items = items
        subscriber.catching_up = True
        subscriber.start(deliver, failures.append)
        async with asyncio_timeout(30):
            while not until() and not failures:
                await asyncio.sleep(0.001)
        subscriber.stop()
        publisher.close()

    run(main())
    return failures


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK", 0.001)
    monkeypatch.setattr(module, "CATCH_UP_WAIT", 60)
    monkeypatch.setattr("supervisor_sio.relay.publisher._LINGER", 0)


def message(text: str) -> RelayMessage:
    return RelayMessage("s", 1, {"method": "emit"}, [text])


@pytest.mark.usefixtures("short")
def test_an_exception_stops_nothing(run: Any, tmp_path: Path) -> None:
    items = [message("1"), OSError(9, "gone"), RuntimeError("odd"), message("2")]
    heard: list[Any] = []
    assert failing(run, tmp_path, items, heard.append, lambda: len(heard) == 2) == []
    assert [message.packets for message in heard] == [["1"], ["2"]]


@pytest.mark.usefixtures("short")
def test_who_hears_nothing_any_more_says_so(run: Any, tmp_path: Path) -> None:
    items = [OSError(9, "gone")] * (RELAY_MOST_FAILURES + 1)
    (failure,) = failing(run, tmp_path, items, None, lambda: False)
    assert "gone" in str(failure)


@pytest.mark.usefixtures("short")
def test_clients_that_are_behind_have_time(run: Any, tmp_path: Path) -> None:
    """Nothing is received meanwhile."""
    looks: list[float] = []

    def behind() -> bool:
        looks.append(time.monotonic())
        return len(looks) < 10

    heard: list[float] = []
    items = [message("x" * CATCH_UP_BYTES), message("2")]

    def deliver(message: RelayMessage) -> None:
        heard.append(time.monotonic())

    assert failing(run, tmp_path, items, deliver, lambda: len(heard) == 2, behind) == []
    assert len(looks) == 10 and heard[1] >= looks[-1]


def test_it_can_be_stopped_in_another_thread(run: Any, run_dir: OwnedRunDir) -> None:
    async def main() -> None:
        async with hearing(run_dir) as heard:
            await asyncio.to_thread(heard.subscriber.stop)
            async with asyncio_timeout(30):
                while not heard.subscriber._socket.closed:
                    await asyncio.sleep(0.001)
            heard.say(1, first=1)
            await asyncio.sleep(0.05)
            assert heard.numbers == [0]

    run(main())


def test_after_the_end_of_its_loop_it_can_be_stopped_too(run: Any, run_dir: OwnedRunDir) -> None:
    async def main() -> Heard:
        heard = Heard(run_dir)
        heard.subscriber.start(heard.deliver, heard.failures.append)
        await asyncio.sleep(0.01)
        return heard

    heard = run(main())
    heard.subscriber.stop()
    heard.publisher.close()
    heard.other.close()
