"""The router receives for sessions whose worker has ended, through a real relay."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import pytest

from supervisor_sio.common.limits import RELAY_KEPT_OVERHEAD
from supervisor_sio.common.rundir import ClusterInfo, OwnedRunDir
from supervisor_sio.relay import stand_in as module
from supervisor_sio.relay.hearing import Fetch
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.position import Part, Position
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.relay.stand_in import StandIn
from supervisor_sio.relay.threaded import ThreadSubscriber
from unit.relays import relay_in

CLUSTER = ClusterInfo()
POSITION = Position(CLUSTER.channel, [Part(("t",), 0.0, {}, {})])


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[OwnedRunDir]:
    with relay_in(tmp_path, CLUSTER) as owned:
        yield owned


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Process:
    """A worker, or a process that only emits; its messages are numbers."""

    def __init__(self, run_dir: OwnedRunDir, tag: str, serves: bool = True) -> None:
        self.publisher = Publisher(run_dir, CLUSTER, tag)
        self.subscriber = ThreadSubscriber(
            self.publisher, run_dir, hears_all=serves, lives=lambda name: name.startswith("live")
        )
        self.got: list[int] = []
        self.adopted: list[int] = []
        self.merged = False
        self.subscriber.start(self._deliver)
        while not self.subscriber.joined:
            self.publisher.probe()
            time.sleep(0.005)

    def _deliver(self, message: RelayMessage) -> None:
        self.got.append(message.fields["number"])
        if self.merged:
            self.adopted.append(message.fields["number"])

    def say(self, number: int, tag: Optional[str] = None, size: int = 1) -> None:
        self.publisher.publish(tag, {"method": "emit", "number": number}, ["x" * size])

    def adopt(self, position: Position) -> None:
        def own(fetch: Fetch) -> None:
            messages, _ = fetch()
            self.adopted += [message.fields["number"] for message in messages]

        def merged() -> None:
            self.merged = True

        def adopt() -> None:
            for part in position.parts:
                self.subscriber.adopt(
                    part, lambda one: self.adopted.append(one.fields["number"]), own, merged
                )

        self._in_its_thread(adopt)

    def detach(self) -> Position:
        return self._in_its_thread(self.subscriber.detach)

    def _in_its_thread(self, call: Callable[[], Any]) -> Any:
        """A worker's subscriber is used in the thread where it receives; here that is a thread."""
        results: list[Any] = []
        look = self.subscriber._look

        def once(now: float) -> Any:
            self.subscriber._look = look  # type: ignore[method-assign]
            results.append(call())
            return look(now)

        self.subscriber._look = once  # type: ignore[method-assign]
        wait_until(lambda: results)
        return results[0]

    def confirmed_by(self, *tags: str) -> list[str]:
        """The receivers that did not confirm in twenty seconds."""
        until = time.monotonic() + 20
        waiting = self.subscriber.wait_confirmed(lambda: tags, lambda: until, asyncio.sleep)
        return asyncio.run(waiting)

    def close(self) -> None:
        if self.subscriber.closed:
            return
        self.subscriber.stop()
        self.publisher.close(linger=0)


@pytest.fixture
def processes(run_dir: OwnedRunDir) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(tag: str, serves: bool = True) -> Process:
        started.append(Process(run_dir, tag, serves))
        return started[-1]

    yield start
    for process in started:
        process.close()


def numbers(position: Position) -> list[int]:
    (part,) = position.parts
    return [RelayMessage.unpack(one.data).fields["number"] for one in part.kept]


def test_who_ends_waits_until_its_messages_are_kept_elsewhere(
    run_dir: OwnedRunDir, processes: Callable[..., Process], no_leak: Any
) -> None:
    """Otherwise no process has them when this one is killed."""
    first, other = processes("first"), processes("live other")
    other.say(1)
    wait_until(lambda: len(first.got) == 1)
    position = first.detach()
    kept: list[int] = []
    with no_leak():
        stand_in = StandIn(run_dir, CLUSTER, position, keep=kept.append)
        other.say(2)
        other.say(3, "first")
        deadline = time.monotonic() + 20
        waiting = other.subscriber.wait_confirmed(
            lambda: ["first"], lambda: 0 if kept else deadline, asyncio.sleep
        )
        assert asyncio.run(waiting) == ["first"] and kept
        (descriptor,) = kept
        assert numbers(Position.read(descriptor)) == [2, 3]
        stand_in.kept()
        assert other.confirmed_by("first") == [] and len(kept) == 1
        stand_in.stop()
        os.close(descriptor)


def test_sessions_go_from_worker_to_worker(
    run_dir: OwnedRunDir, processes: Callable[..., Process], no_leak: Any
) -> None:
    """What is sent meanwhile reaches them, once and in order: of those that stay, of the one that
    ends, of the one that adopts them, and of one that only emits."""
    first, other = processes("first"), processes("live other")
    outside = processes("outside", serves=False)
    senders = [first, other, outside]
    for process in senders:
        process.say(1)
    wait_until(lambda: len(first.got) == 2 and len(other.got) == 2)
    position = first.detach()
    assert first.subscriber.tags == []
    assert position.tags == ("first",) and position.sent == 1
    for process in senders:
        process.say(2)
        process.say(3, "first")
    with no_leak():
        stand_in = StandIn(run_dir, CLUSTER, position)
        for process in senders:
            assert process.confirmed_by("first") == []
        for process in senders:
            process.say(4, size=20_000)  # is not sent, but fetched
        assert first.confirmed_by("first", "live other") == []
        first.close()
        held = stand_in.stop()
    assert sorted(numbers(held)) == sorted([2, 3, 4] * 3)
    for process in (other, outside):
        process.say(5)
    # The one that was to adopt them has died.
    stand_in = StandIn(run_dir, CLUSTER, held)
    assert other.confirmed_by("first") == outside.confirmed_by("first") == []
    held = stand_in.stop()
    for process in (other, outside):
        process.say(6)
    second = processes("second")
    second.say(7)
    for process in (other, outside):
        process.say(7)
    second.adopt(held)
    wait_until(lambda: second.merged)
    for process in (other, outside):
        process.say(8)
        process.say(9, "first")
    expected = [2, 3, 4] * 3 + [5, 6] * 2 + [7] * 3 + [8, 9] * 2
    wait_until(lambda: len(second.adopted) >= len(expected))
    assert sorted(second.adopted) == sorted(expected)
    assert outside.confirmed_by("first", "second", "live other") == []
    assert first.got == [1, 1] and stand_in.dropped == second.subscriber.dropped == 0
    assert second.subscriber.tags == ["second", "first"]


def test_a_process_that_adopts_may_pass_on_what_it_has(
    run_dir: OwnedRunDir, processes: Callable[..., Process]
) -> None:
    """The adoption has not reached the position of its own clients: each goes on from its own."""
    other, first, second = processes("live other"), processes("first"), processes("second")
    other.say(1)
    wait_until(lambda: first.got and second.got)
    second.adopt(first.detach())
    other.say(2)
    wait_until(lambda: second.adopted == [2] and second.got == [1, 2])
    position = second.detach()
    assert not second.merged
    assert [part.tags for part in position.parts] == [("second",), ("first",)]
    stand_in = StandIn(run_dir, CLUSTER, position)
    other.say(3)
    second.say(4)
    assert other.confirmed_by("first", "second") == second.confirmed_by("first", "second") == []
    held = stand_in.stop()
    for part in held.parts:
        kept = [RelayMessage.unpack(one.data).fields["number"] for one in part.kept]
        assert sorted(kept) == [3, 4]


@pytest.mark.parametrize(
    ("limit", "value"),
    [("STAND_IN_MESSAGES", 3), ("STAND_IN_BYTES", 3 * (RELAY_KEPT_OVERHEAD + 100) + 99)],
)
def test_so_much_is_kept_and_no_more(
    run_dir: OwnedRunDir,
    processes: Callable[..., Process],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limit: str,
    value: int,
) -> None:
    """Messages over the limit are counted, also by the adopting process, and logged once."""
    monkeypatch.setattr(module, limit, value)
    emitter = processes("emitter", serves=False)
    stand_in = StandIn(run_dir, CLUSTER, POSITION)
    with caplog.at_level(logging.ERROR):
        for number in range(10):
            emitter.say(number)
        assert emitter.confirmed_by("t") == []
        assert stand_in.dropped == 7
    (line,) = [record.message for record in caplog.records if "lose messages" in record.message]
    assert "t," in line or "of t" in line
    held = stand_in.stop()
    assert numbers(held) == [0, 1, 2] and held.parts[0].dropped == 7
    again = StandIn(run_dir, CLUSTER, held)
    assert again.dropped == 7
    assert numbers(again.stop()) == [0, 1, 2]
    worker = processes("worker")
    worker.adopt(held)
    wait_until(lambda: worker.adopted == [0, 1, 2])
    assert worker.subscriber.dropped == 7


def test_one_that_does_not_confirm_logs_no_loss(
    run_dir: OwnedRunDir,
    processes: Callable[..., Process],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    no_leak: Any,
) -> None:
    """Another process has the messages over its limit."""
    monkeypatch.setattr(module, "STAND_IN_MESSAGES", 3)
    emitter = processes("emitter", serves=False)
    with no_leak():
        stand_in = StandIn(run_dir, CLUSTER, POSITION, confirms=False)
        for number in range(10):
            emitter.say(number)
        wait_until(lambda: stand_in.dropped == 7)
        stand_in.discard()
    assert "lose messages" not in caplog.text


def test_answers_to_the_one_that_ended_are_not_kept(
    run_dir: OwnedRunDir, processes: Callable[..., Process]
) -> None:
    worker = processes("worker")
    stand_in = StandIn(run_dir, CLUSTER, POSITION)
    worker.publisher.publish("t", {"method": "callback", "ack": 1, "number": 1}, [])
    worker.publisher.publish("t", {"method": "request", "number": 2}, [])
    worker.publisher.publish_volatile(None, {"method": "volatile", "number": 3}, [])
    assert worker.confirmed_by("t") == []
    assert numbers(stand_in.stop()) == [2]


def test_it_stops_at_once_without_a_relay(tmp_path: Path, no_leak: Any) -> None:
    owned = OwnedRunDir(str(tmp_path))
    with no_leak():
        stand_in = StandIn(owned, CLUSTER, POSITION)
        began = time.monotonic()
        assert stand_in.stop() == POSITION
        assert time.monotonic() - began < 5
