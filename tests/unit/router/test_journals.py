"""What a worker leaves of its clients: kept while it lives, and given to another worker then."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Optional

import pytest

from supervisor_sio.common import channel, reasons, recovery, takeover
from supervisor_sio.common.channel import Message
from supervisor_sio.common.limits import JOURNAL_AGAIN, JOURNAL_TIME, MAX_DESCRIPTORS
from supervisor_sio.common.recovery import FORMAT, Part, Segment, Source
from supervisor_sio.router import held as held_module
from supervisor_sio.router import journals as module
from supervisor_sio.router import worker_channel
from supervisor_sio.router.held_shelf import HeldShelf
from unit.router.harness import Harness, Scenario, Worker, memory, wait_for

Check = Callable[[Callable[["Cluster"], Awaitable[None]]], None]
NAME = "socketio"


class Node:
    """A worker with recovery."""

    def __init__(self, harness: Harness, tag: str, name: str = "w", **known: Any) -> None:
        (self.worker,) = harness.start(tag, name=name, **{"recovers": FORMAT, **known})
        self.harness, self.tag = harness, tag
        self.messages: list[Message] = []
        #: What it was given of journals: by tag, log and number.
        self.inherited: dict[tuple[str, str, int], bytes] = {}
        self.parts: list[Part] = []
        self.positions: list[bytes] = []
        #: The numbers of what it was offered, and has yet to adopt.
        self.complete: list[int] = []

    def segment(
        self,
        log: str = "events",
        number: int = 0,
        data: bytes = b"data",
        source: Optional[Source] = None,
        **other: Any,
    ) -> None:
        source = source or Source(self.tag, NAME)
        segment = Segment(source, log, number, FORMAT, 120.0, None)._replace(**other)
        descriptor = memory(data)
        channel.send(self.worker.sock, recovery.segment(segment), [descriptor])
        os.close(descriptor)

    def drop(self, log: str, number: int) -> None:
        self.worker.say(**recovery.dropped(Source(self.tag, NAME), log, number))

    async def keep(self, *more: int) -> None:
        """Send a journal with one segment in each log."""
        before = self.harness.held._journals.descriptors
        for number in (0, *more):
            self.segment("events", number, b"%s-%d" % (self.tag.encode(), number))
        self.segment("states", 0, b"states of " + self.tag.encode())
        kept = 2 + len(more)
        await wait_for(lambda: self.harness.held._journals.descriptors == before + kept)

    def die(self) -> None:
        """As after ``kill -9``: the channel ends before the process."""
        (gone,) = [c for c in self.harness.workers if c.member and c.member.tag == self.tag]
        self.worker.sock.close()
        gone.read_all()
        gone._process_ended()

    async def hear(self, kind: str) -> Message:
        found: list[Message] = []

        def look() -> bool:
            for message, descriptors in self.worker.packets():
                self.messages.append(message)
                if message["type"] == "adopt-place":
                    self.positions.append(os.pread(descriptors[0], 100, 0))
                elif message["type"] == "adopt-journal":
                    part = recovery.read_part(message)
                    self.parts.append(part)
                    for number, descriptor in zip(part.numbers, descriptors):
                        key = (part.source.tag, part.log, number)
                        self.inherited[key] = os.pread(descriptor, 100, 0)
                if message["type"] in ("sessions", "adopt-journal", "adopt-place"):
                    self.worker.say(type="took", id=message["id"])
                channel.close_all(descriptors)
                if message["type"] == "adopt-end":
                    self.complete.append(message["id"])
                if message["type"] == kind:
                    found.append(message)
                    return True  # what comes behind it is read later
            return False

        await wait_for(look)
        return found[0]

    async def inherit(self, *tags: str, hears: bool = True) -> None:
        """:param hears: whether it says that it receives messages of the relay for them."""
        if not self.complete:
            await self.hear("adopt-end")
        number = self.complete.pop(0)
        self.worker.say(type="adopted", id=number, tags=list(tags), sessions=0)
        await self.hear("adopt-go")
        if hears:
            self.worker.say(type="adopt-heard", id=number)
            await wait_for(lambda: number not in self.harness.held._unheard)

    def kinds(self) -> list[str]:
        others = ("welcome", "members")
        return [m["type"] for m in self.messages if m["type"] not in others]

    def close(self) -> None:
        self.worker.sock.close()


class Cluster:
    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.nodes: list[Node] = []

    def node(self, *args: Any, **known: Any) -> Node:
        self.nodes.append(Node(self.harness, *args, **known))
        return self.nodes[-1]

    @property
    def refused(self) -> dict[str, int]:
        return {name: count for name, count in self.harness.refusals.by_reason.items() if count}

    def at(self, seconds: float) -> None:
        for group in self.harness.held._groups.values():
            group.deadline -= seconds
            group.until -= seconds
        self.harness.held.look()

    async def close(self) -> None:
        # Whoever is there yet leaves, one after the other, and nobody inherits.
        self.harness.all_stop = True
        for node in self.nodes:
            node.close()
        await wait_for(lambda: not len(self.harness.workers))
        for gone in list(self.harness.workers._absent.values()):
            gone._process_ended()
        self.harness.held.close()
        await asyncio.sleep(0.01)
        assert not self.harness.held._groups and not self.harness.held._absent
        assert not self.harness.held._unheard
        assert not self.harness.held._descriptors and not self.harness.listeners
        assert not self.harness.held._journals.descriptors
        assert not self.harness.held._journals._workers and not self.harness.pool.held


@pytest.fixture
def check(
    run: Callable[[Scenario], None], no_leak: Callable[[], AbstractContextManager[None]]
) -> Check:
    def check(test: Callable[[Cluster], Awaitable[None]]) -> None:
        async def scenario(harness: Harness) -> None:
            harness.placement._started -= 60
            cluster = Cluster(harness)
            try:
                await test(cluster)
            finally:
                await cluster.close()

        with no_leak():
            run(scenario)

    return check


def row(harness: Harness, tag: str) -> Any:
    return next((row[1:] for row in harness.members if row[0] == tag), None)


# --- of those that live -------------------------------------------------------------------


def test_segments_come_and_go(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, journals = cluster.node("a"), cluster.harness.held._journals
        await node.keep(1, 2)
        (journal,) = journals.of("a")
        assert {log: list(some) for log, some in journal.logs.items()} == {
            "events": [0, 1, 2],
            "states": [0],
        }
        node.segment("events", 2)  # said twice
        node.drop("events", 0)
        node.drop("events", 7)
        node.worker.say(**recovery.dropped(Source("b", NAME), "events", 1))
        await wait_for(lambda: journals.descriptors == 3)
        assert journals.channels("a") == [NAME] and cluster.refused == {}

    check(scenario)


@pytest.mark.parametrize(
    "source, died",
    [(Source("b", NAME), None), (Source("a", NAME), 5.0)],
)
def test_a_journal_of_somebody_else(check: Check, source: Source, died: Optional[float]) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = cluster.node("a")
        node.segment(source=source, died=died)
        message = await node.hear("refused")
        assert "another worker" in message["reason"]

    check(scenario)


def test_too_many_segments(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOURNAL_SEGMENTS", 3)

    async def scenario(cluster: Cluster) -> None:
        node, other = cluster.node("a"), cluster.node("b")
        await other.keep()
        await node.keep(1, 2)
        for number in (3, 4, 5):
            node.segment("events", number)
        node.drop("events", 0)
        journals = cluster.harness.held._journals
        await wait_for(lambda: not journals.of("a"))
        await asyncio.sleep(0.02)
        assert cluster.refused == {reasons.JOURNAL_REFUSED: 1}
        assert journals.descriptors == 2 and len(journals.of("b")) == 1

    check(scenario)


def test_too_many_journals(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOURNALS", 2)

    async def scenario(cluster: Cluster) -> None:
        node, journals = cluster.node("a"), cluster.harness.held._journals
        await node.keep()
        died = time.monotonic()
        for tag in ("x", "y"):
            node.segment(source=Source(tag, NAME), died=died)
        await wait_for(lambda: cluster.refused)
        assert cluster.refused == {reasons.JOURNAL_REFUSED: 1}
        assert [journal.source.tag for journal in journals.of("a")] == ["a", "x"]
        node.segment("states", source=Source("z", NAME), died=died, format=FORMAT + 1)
        await wait_for(lambda: cluster.refused == {reasons.JOURNAL_REFUSED: 2})

    check(scenario)


def test_descriptors_are_bounded_and_a_worker_is_asked_again(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, journals = cluster.node("a"), cluster.harness.held._journals
        await node.keep()
        cluster.harness.ceiling = 1
        node.segment("events", 1)
        await wait_for(lambda: not journals.of("a"))
        node.segment("events", 2)
        cluster.harness.ceiling = 100_000
        cluster.harness.held.look()
        await asyncio.sleep(0.02)
        assert "journals" not in node.kinds() and cluster.refused == {reasons.JOURNAL_REFUSED: 1}
        later = time.monotonic() + JOURNAL_AGAIN
        monkeypatch.setattr(journals, "_now", lambda: later)
        cluster.harness.held.look()
        await node.hear("journals")
        await node.keep(1, 2)
        cluster.harness.held.look()
        assert journals.descriptors == 4 and node.kinds().count("journals") == 1

    check(scenario)


def test_a_segment_that_is_lost_on_the_way(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, journals = cluster.node("a"), cluster.harness.held._journals
        await node.keep()
        (carrier,) = cluster.harness.workers
        segment = Segment(Source("a", NAME), "events", 1, FORMAT, 120.0, None)
        carrier._lost_descriptors(recovery.segment(segment))
        assert not journals.of("a") and cluster.refused == {reasons.JOURNAL_REFUSED: 1}

    check(scenario)


def test_sessions_and_journals_share_the_descriptors(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = cluster.node("a", takes=1)
        await node.keep(*range(1, 9))
        held = cluster.harness.held
        cluster.harness.ceiling = math.ceil(10 / held_module.HELD_SHARE)
        assert not held._has_room([1])
        node.drop("events", 0)
        await wait_for(lambda: held._has_room([1]))

    check(scenario)


# --- of those that are gone ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["dies", "leaves"])
def test_another_worker_inherits_at_once(
    check: Check, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(cluster: Cluster) -> None:
        harness, heir = cluster.harness, cluster.node("heir", "other")
        cluster.node("plain", "plain", recovers=0, takes=1)
        node = cluster.node("a")
        await node.keep(1)
        before = time.monotonic()
        if how == "dies":
            node.die()
        else:
            node.worker.say(type="leaving")
            await node.hear("left")
            node.close()
        await heir.hear("adopt-end")
        (question,) = [m for m in heir.messages if m["type"] == "adopt"]
        assert question["tags"] == ["a"] and question["channel"] == NAME
        assert (question["format"], question["recovers"]) == (0, FORMAT)
        assert heir.inherited == {
            ("a", "events", 0): b"a-0",
            ("a", "events", 1): b"a-1",
            ("a", "states", 0): b"states of a",
        }
        assert all(before <= part.died <= time.monotonic() for part in heir.parts)
        assert {part.recovery for part in heir.parts} == {120.0}
        await wait_for(lambda: row(harness, "a") == [False, [NAME], True])
        assert harness.held.keeps("a") and harness.workers._expects("a")
        await heir.inherit("a")
        assert heir.positions == [b"a-1 of a and more"]
        assert not harness.held._groups and len(harness.held._journals.of("heir")) == 1
        owner = harness.pool.owner("a")
        assert owner is not None and owner.tag == "heir"
        await wait_for(lambda: row(harness, "a") == [False, ["channel-heir"], True])
        assert cluster.refused == {}
        assert "the clients of worker workers:w" in caplog.text

    check(scenario)


def test_requests_for_sessions_of_the_dead_do_not_wait(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness, node = cluster.harness, cluster.node("a")
        other = cluster.node("b", "other", recovers=0)
        await node.keep()
        node.die()
        assert harness.held._groups and not harness.pool.held
        harness.placement.place(harness.connection("a", b"GET"))
        await other.hear("connection")
        assert not len(harness.placement)

    check(scenario)


def test_many_segments_are_several_parts(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        heir, node = cluster.node("heir"), cluster.node("a")
        await node.keep(*range(1, MAX_DESCRIPTORS + 10))
        node.die()
        await heir.inherit("a")
        sizes = [len(part.numbers) for part in heir.parts]
        assert sizes == [MAX_DESCRIPTORS, 10, 1] and len(heir.inherited) == sum(sizes)

    check(scenario)


def test_an_heir_that_dies(check: Check) -> None:
    """Before or after it has inherited: the next worker inherits all, with the times of death."""

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        first, node = cluster.node("first"), cluster.node("a")
        await node.keep()
        await first.keep()
        node.die()
        await first.hear("adopt-end")
        first.die()  # it has not said that it has it
        second = cluster.node("second")
        await second.keep()
        await second.inherit("a")
        await second.inherit("first")
        died = {part.source.tag: part.died for part in second.parts}
        assert {t for t, _, _ in second.inherited} == {"a", "first"} and died["a"] < died["first"]
        second.worker.say(type="tags", tags=["a", "first"])
        await asyncio.sleep(0.02)
        second.die()
        third = cluster.node("third")
        await third.inherit("second", "first", "a")
        (question,) = [m for m in third.messages if m["type"] == "adopt"]
        assert sorted(question["tags"]) == ["a", "first", "second"]
        assert {t for t, _, _ in third.inherited} == {"a", "first", "second"}
        assert {p.source.tag: p.died for p in third.parts if p.source.tag != "second"} == died
        assert third.positions[0].startswith(b"second-0 of ")
        owners = [harness.pool.owner(tag) for tag in ("a", "first", "second")]
        assert [owner and owner.tag for owner in owners] == ["third"] * 3

    check(scenario)


async def given(cluster: Cluster) -> Node:
    """Kill a worker. Return its heir, which does not receive for it yet."""
    node, heir = cluster.node("a"), cluster.node("heir")
    await node.keep()
    await heir.keep()
    node.die()
    await heir.inherit("a", hears=False)
    return heir


def test_an_heir_that_dies_before_it_receives(check: Check) -> None:
    """The next one goes on from where the router is, which receives until then."""

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        heir = await given(cluster)
        (listener,) = harness.listeners
        assert not listener.confirm and harness.held.listeners == 1
        assert not harness.held.keeps("a") and harness.pool.owner("a").tag == "heir"  # type: ignore
        heir.die()
        third = cluster.node("third")
        await third.inherit("heir", "a")
        of_a = b"a-0 of a and more and more"  # until it was given, and until its heir died
        assert third.positions == [b"heir-0 of heir,a; " + of_a + b" and more"]
        (question,) = [m for m in third.messages if m["type"] == "adopt"]
        assert sorted(question["tags"]) == ["a", "heir"]
        assert {t for t, _, _ in third.inherited} == {"a", "heir"}
        assert not harness.listeners

    check(scenario)


def test_an_heir_that_dies_when_it_receives(check: Check) -> None:
    """Its journal has the position of all."""

    async def scenario(cluster: Cluster) -> None:
        heir = await given(cluster)
        (number,) = cluster.harness.held._unheard
        (listener,) = cluster.harness.listeners
        stranger = cluster.node("stranger")
        stranger.worker.say(type="adopt-heard", id=number)
        heir.worker.say(type="adopt-heard", id=number + 1)
        await asyncio.sleep(0.02)
        assert number in cluster.harness.held._unheard
        heir.worker.say(type="adopt-heard", id=number)
        await wait_for(lambda: not cluster.harness.listeners)
        assert listener.discarded  # up to STAND_IN_BYTES are not written for nobody
        stranger.close()
        heir.die()
        third = cluster.node("third")
        await third.inherit("heir", "a")
        assert third.positions == [b"heir-0 of heir,a and more"]

    check(scenario)


@pytest.mark.parametrize("why", ["its journals expire", "it connects again", "the router ends"])
def test_the_router_receives_for_an_heir_no_longer(check: Check, why: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        await given(cluster)
        assert len(harness.listeners) == 1
        if why == "its journals expire":
            for group in harness.held._unheard.values():
                group.deadline -= 121
            harness.held.look()
        elif why == "it connects again":
            cluster.node("heir")
        else:
            harness.held.release()
        assert not harness.listeners and not harness.held._unheard

    check(scenario)


def test_the_heir_tells_the_next_router(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, journals = cluster.node("a"), cluster.harness.held._journals
        node.worker.say(type="tags", tags=["old"])
        await node.keep()
        died = time.monotonic()
        node.segment("events", 4, b"old-4", Source("old", NAME), died=died)
        await wait_for(lambda: journals.descriptors == 3)
        node.die()
        heir = cluster.node("heir")
        await heir.inherit("a", "old")
        assert heir.inherited[("old", "events", 4)] == b"old-4"
        assert [part.died for part in heir.parts if part.source.tag == "old"] == [died]

    check(scenario)


def test_what_nobody_can_come_back_for_is_dropped(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        node, journals = cluster.node("a"), cluster.harness.held._journals
        await node.keep()
        node.segment(source=Source("old", NAME), died=time.monotonic())
        await wait_for(lambda: journals.descriptors == 3)
        for seconds, left in ((100.0, 3), (121.0, 2), (1e6, 2)):
            later = time.monotonic() + seconds
            monkeypatch.setattr(journals, "_now", lambda now=later: now)
            cluster.harness.held.look()
            assert journals.descriptors == left

    check(scenario)


def test_nobody_inherits(check: Check, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = cluster.node("a")
        await node.keep()
        node.die()
        cluster.at(JOURNAL_TIME - 1)
        assert cluster.harness.held._groups and len(cluster.harness.listeners) == 1
        cluster.at(1.1)
        assert cluster.refused == {reasons.NOT_INHERITED: 1}
        assert not cluster.harness.held.keeps("a")
        cluster.at(1)
        assert caplog.text.count(reasons.NOT_INHERITED) == 1

    check(scenario)


def test_all_whom_it_was_offered_cannot(check: Check) -> None:
    def groups_of(cluster: Cluster) -> list[Any]:
        return list(cluster.harness.held._groups.values())

    async def tried(cluster: Cluster) -> None:
        node = cluster.node("a")
        await node.keep()
        node.die()
        for number in range(held_module.TAKEOVER_TRIES):
            heir = cluster.node(f"heir{number}")
            found = (await heir.hear("adopt-end"))["id"]
            heir.worker.say(type="not-adopted", id=found, reason="it is odd")
            await wait_for(lambda: all(group.taker is None for group in groups_of(cluster)))
        assert not groups_of(cluster) and cluster.refused == {reasons.NOT_INHERITED: 1}

    check(tried)


def test_its_successor_has_no_recovery(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = cluster.node("a")
        await node.keep()
        node.die()
        cluster.node("new", recovers=FORMAT + 1)
        await wait_for(lambda: not cluster.harness.held._groups)
        assert cluster.refused == {reasons.NOT_INHERITED: 1}

    check(scenario)


def test_a_journal_that_is_not_understood(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = cluster.node("a")
        node.segment("events", 0, b"not understood")
        node.segment("states", 0)
        await wait_for(lambda: cluster.harness.held._journals.descriptors == 2)
        node.die()
        assert not cluster.harness.held._groups
        assert cluster.refused == {reasons.NOT_INHERITED: 1}

    check(scenario)


def test_nothing_is_held_when_supervisord_stops_everything(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.node("heir")
        node = cluster.node("a")
        await node.keep()
        cluster.harness.all_stop = True
        node.die()
        assert not cluster.harness.held._groups and not cluster.harness.listeners
        assert not cluster.harness.held.keeps("a") and cluster.refused == {}

    check(scenario)


# --- a channel that ends is not a worker that has died ------------------------------------


def test_a_worker_that_connects_again(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness, node, heir = cluster.harness, cluster.node("a"), cluster.node("heir")
        await node.keep(1)
        node.close()
        await wait_for(lambda: len(harness.workers) == 1)
        await wait_for(lambda: row(harness, "a") == [False, [NAME], True])
        assert harness.held.keeps("a") and not harness.held._groups
        assert harness.held._journals.descriptors == 3
        node.worker = Worker(harness.path, "a", "w", recovers=FORMAT)
        harness.workers._accept()
        assert not harness.held.keeps("a") and not harness.workers._absent
        await node.keep()
        await wait_for(lambda: row(harness, "a") == [False, ["channel-a"], False])
        assert "adopt" not in heir.kinds()
        node.die()
        await heir.inherit("a")
        assert len(heir.inherited) == 2

    check(scenario)


def test_a_process_that_ends_after_its_channel(check: Check) -> None:
    """The worker has its own process."""

    async def scenario(cluster: Cluster) -> None:
        harness, heir = cluster.harness, cluster.node("heir")
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        peer_of = channel.peer_of
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                worker_channel.channel,
                "peer_of",
                lambda sock: peer_of(sock)._replace(pid=process.pid),
            )
            node = cluster.node("a")
        await node.keep()
        node.close()
        await wait_for(lambda: len(harness.workers) == 1)
        await asyncio.sleep(0.05)
        assert harness.held.keeps("a") and not harness.held._groups
        process.communicate(b"")
        await heir.inherit("a")

    check(scenario)


# --- with sessions that are passed on -----------------------------------------------------


async def passed(cluster: Cluster, node: Node, batches: int = 1) -> None:
    def send(message: Message, *descriptors: int) -> None:
        channel.send(node.worker.sock, message, descriptors)
        channel.close_all(descriptors)

    send(takeover.passing([node.tag], NAME), memory(b"place"))
    for number in range(batches):
        send(takeover.sessions(number, node.tag, 1), memory(b"states"))
    node.worker.say(type="passed")
    await wait_for(lambda: cluster.harness.held.sessions == batches)
    await asyncio.sleep(0.02)


def test_sessions_and_journals_go_together(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        heir = cluster.node("heir", takes=1)
        node = cluster.node("a", takes=1)
        await node.keep()
        await passed(cluster, node)
        assert "adopt" not in heir.kinds()  # until the journal is complete
        node.segment("events", 1, b"a-1")
        node.worker.say(type="leaving")
        await node.hear("left")
        node.close()
        await heir.inherit("a")
        kinds = heir.kinds()
        assert kinds == [
            "adopt",
            "sessions",
            *["adopt-journal"] * 2,
            "adopt-end",
            "adopt-place",
            "adopt-go",
        ]
        question = next(m for m in heir.messages if m["type"] == "adopt")
        assert (question["format"], question["recovers"]) == (1, FORMAT)
        assert heir.positions == [b"place and more"] and len(heir.inherited) == 3
        assert not cluster.harness.pool.held and cluster.refused == {}

    check(scenario)


def test_a_worker_that_takes_too_long_to_leave(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        heir = cluster.node("heir", takes=1)
        node = cluster.node("a", takes=1)
        await node.keep()
        await passed(cluster, node)
        cluster.at(cluster.harness.hold_timeout)
        await heir.inherit("a")
        assert len(heir.inherited) == 2
        node.segment("events", 9)  # of a journal that is another worker's
        node.die()
        assert not cluster.harness.held._groups

    check(scenario)


def test_nobody_has_both(check: Check) -> None:
    """No worker has both formats, because recovery or takeover was switched off meanwhile."""

    async def scenario(cluster: Cluster) -> None:
        node = cluster.node("a", takes=1)
        await node.keep()
        await passed(cluster, node)
        node.die()
        new = cluster.node("new", recovers=0, takes=1)
        await new.inherit("a")
        assert "sessions" in new.kinds() and not new.inherited
        assert cluster.refused == {reasons.NOT_INHERITED: 1}
        cluster.harness.refusals.by_reason.clear()
        await new.keep()
        await passed(cluster, new)
        new.die()
        assert cluster.harness.pool.held
        third = cluster.node("third", takes=0)
        await third.inherit("new", "a")
        assert "sessions" not in third.kinds() and len(third.inherited) == 2
        assert cluster.refused == {reasons.OTHER_FORMAT: 1} and not cluster.harness.pool.held

    check(scenario)


def test_journals_outlive_sessions_that_nobody_adopts(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = cluster.node("a", takes=1)
        await node.keep()
        await passed(cluster, node)
        node.die()
        assert cluster.harness.pool.held == {"a"}
        cluster.at(cluster.harness.hold_timeout + 1)
        assert cluster.refused == {reasons.NOT_ADOPTED: 1} and not cluster.harness.pool.held
        await cluster.node("new").inherit("a")

    check(scenario)


# --- from one router to the next ------------------------------------------------------------


def test_the_next_router_has_what_the_dead_have_left(check: Check, shelf: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
        node = cluster.node("a", takes=1)
        await node.keep(*range(1, MAX_DESCRIPTORS + 3))
        died = time.monotonic()
        node.die()
        harness.held.release()
        before = harness.held
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
        harness.held.restore()
        (group,) = harness.held._groups.values()
        (old,) = before._groups.values()
        assert (group.tags, group.recovers, group.deadline) == (["a"], FORMAT, old.deadline)
        assert harness.held.keeps("a") and not harness.pool.held
        assert harness.held._descriptors == before._descriptors == group.descriptors
        cluster.at(0)
        group.not_before = 0
        heir = cluster.node("heir")
        await heir.inherit("a")
        assert len(heir.inherited) == MAX_DESCRIPTORS + 4 and abs(heir.parts[0].died - died) < 1
        before._shelf = None
        before.close()

    check(scenario)


async def next_router(cluster: Cluster, shelf: Any) -> None:
    """Kill the router before its workers notice it, and start the next one."""
    harness, before = cluster.harness, cluster.harness.held
    for known in before._journals._workers.values():
        for journal in known.journals.values():
            journal.close()
    before._journals._workers.clear()
    before._journals.descriptors = 0
    for group in before._groups.values():
        for place in group.channels.values():
            channel.close_all([d for d in (place.position, place.dump) if d >= 0])
        for batch in group.batches.values():
            channel.close_all(batch.descriptors)
        for journal in group.journals:
            journal.close()
    before._groups.clear()
    harness.listeners.clear()
    assert before._shelf is not None
    before._shelf.close()
    harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
    harness.held.restore()
    for worker in list(harness.workers):
        worker.lose("")


@pytest.mark.parametrize("has_sessions", [True, False])
def test_what_others_rely_on_is_kept_for_the_next_router(
    check: Check, shelf: Any, has_sessions: bool
) -> None:
    """A worker that has ended cannot send these messages again, even if no worker adopts."""

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
        node = cluster.node("a", takes=1)
        await node.keep()
        if has_sessions:
            await passed(cluster, node)
        node.die()
        (listener,) = harness.listeners
        assert listener.keep is not None
        listener.keep(memory(b"heard"))
        if has_sessions:
            cluster.at(harness.hold_timeout + 1)
            assert cluster.refused == {reasons.NOT_ADOPTED: 1}
        await next_router(cluster, shelf)
        (group,) = harness.held._groups.values()
        group.not_before = 0
        heir = cluster.node("heir")
        await heir.inherit("a")
        assert heir.positions == [b"heard and more"] and len(heir.inherited) == 2

    check(scenario)


def test_a_router_is_killed_while_it_keeps_a_journal_anew(
    check: Check, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shelf has both the old and the new version of the journal then."""
    monkeypatch.setattr(held_module, "is_alive", lambda pid: False)

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
        node = cluster.node("a")
        await node.keep(1)
        harness.held._journals.keep()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(harness.held._shelf, "forget", lambda *owners: None)
            node.segment("events", 2, b"a-2")
            await wait_for(lambda: harness.held._journals.descriptors == 4)
            harness.held._journals.keep()
            await next_router(cluster, shelf)
        assert harness.held._journals.descriptors == 4
        harness.held._began -= 10
        heir = cluster.node("heir")
        await heir.inherit("a")
        assert len(heir.inherited) == 4

    check(scenario)


def test_a_journal_that_is_new_drops_nothing_else_from_the_shelf(check: Check, shelf: Any) -> None:
    """Else the next router would not know of finished adoptions, and a second worker may adopt."""

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
        dead = cluster.node("dead")
        await dead.keep()
        dead.die()
        await cluster.node("heir").inherit("dead")
        given = dict(harness.held._given)
        assert list(given.values()) == ["heir"]
        await cluster.node("new").keep()
        harness.held._journals.keep()
        await next_router(cluster, shelf)
        assert harness.held._given == given

    check(scenario)


def test_what_the_shelf_has_no_room_for_is_kept_later(
    check: Check, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
        journals, send = harness.held._journals, HeldShelf._send
        node = cluster.node("a")
        await node.keep()
        with monkeypatch.context() as patch:
            patch.setattr(
                HeldShelf,
                "_send",
                lambda self, kept: b"states" not in kept.data and send(self, kept),
            )
            journals.keep()
        kept = harness.held._shelf._kept
        assert len(kept) == 1
        journals.look()
        journals.keep()
        assert len(kept) == 2
        node.drop("events", 0)
        await wait_for(lambda: len(journals.of("a")[0].logs["events"]) == 0)
        with monkeypatch.context() as patch:
            patch.setattr(HeldShelf, "_send", lambda self, kept: False)
            journals.keep()
        assert not kept
        journals.look()
        assert not kept
        now = time.monotonic()
        journals._now = lambda: now + JOURNAL_AGAIN + 1
        journals.look()
        assert len(kept) == 1 and b"states" in kept[0].data
        journals.look()
        assert journals._keep_again == math.inf

    check(scenario)


@pytest.mark.parametrize("steps", range(10))
def test_a_router_is_killed_while_a_journal_becomes_what_is_left(
    check: Check, shelf: Any, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """No segment is lost, at whichever step the router is killed."""
    monkeypatch.setattr(held_module, "is_alive", lambda pid: False)

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
        node = cluster.node("a")
        await node.keep(1)
        harness.held._journals.keep()
        left = steps

        def is_killed(*args: Any) -> bool:
            nonlocal left
            left -= 1
            return left < 0

        with pytest.MonkeyPatch.context() as patch:
            before = harness.held._shelf
            send, drop = before._send, before._drop_first
            patch.setattr(before, "_send", lambda kept: is_killed() or send(kept))
            patch.setattr(before, "_drop_first", lambda: is_killed() or drop())
            node.die()
            assert left < 1, "it takes more steps"
            await next_router(cluster, shelf)
        for group in harness.held._groups.values():
            group.not_before = 0
        harness.held._began -= 10
        heir = cluster.node("heir")
        await heir.inherit("a")
        assert heir.inherited == {
            ("a", "events", 0): b"a-0",
            ("a", "events", 1): b"a-1",
            ("a", "states", 0): b"states of a",
        }
        assert len(heir.parts) == 2 and len(heir.positions) == 1

    check(scenario)


def test_a_shelf_without_room_for_both(check: Check, shelf: Any) -> None:
    """It has room for the group after the worker's journals were removed."""

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
        node = cluster.node("a")
        await node.keep(1)
        harness.held._journals.keep()
        before = harness.held._shelf
        send = before._send

        def has_room(kept: Any) -> bool:
            had = any(b"had-journal" in one.data for one in before._kept)
            return not (had and b"adopt-journal" in kept.data) and send(kept)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(before, "_send", has_room)
            node.die()
            await next_router(cluster, shelf)
        (group,) = harness.held._groups.values()
        group.not_before = 0
        heir = cluster.node("heir")
        await heir.inherit("a")
        assert len(heir.inherited) == 3

    check(scenario)


def test_a_worker_that_passes_on_and_its_router_are_killed(
    check: Check, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sessions that it had not passed on are in its journals."""
    monkeypatch.setattr(held_module, "is_alive", lambda pid: False)

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
        node = cluster.node("a", takes=1)
        await node.keep()
        harness.held._journals.keep()
        await passed(cluster, node)
        await next_router(cluster, shelf)
        (group,) = harness.held._groups.values()
        group.not_before = 0
        harness.held._began -= 10
        heir = cluster.node("heir", takes=1)
        await heir.inherit("a")
        assert "sessions" in heir.kinds() and len(heir.inherited) == 2
        assert cluster.refused == {}

    check(scenario)


@pytest.mark.parametrize("lives", [True, False])
def test_a_worker_and_its_router_are_killed(
    check: Check, shelf: Any, lives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_module, "is_alive", lambda pid: lives)

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
        node = cluster.node("a")
        await node.keep(*range(1, MAX_DESCRIPTORS + 3))
        node.drop("events", 1)
        died = time.monotonic() - 5
        node.segment(source=Source("old", NAME), died=died)
        kept = harness.held._journals
        await wait_for(lambda: kept.descriptors == MAX_DESCRIPTORS + 4 and len(kept.of("a")) == 2)
        kept.keep()
        await next_router(cluster, shelf)
        assert harness.held.keeps("a") and harness.held.keeps("old")
        assert harness.held._journals.descriptors == MAX_DESCRIPTORS + 4
        heir = cluster.node("heir")
        harness.held.look()
        assert not harness.held._groups  # it may be about to connect
        harness.held._began -= 10
        harness.held.look()
        if lives:
            await asyncio.sleep(0.02)
            assert not harness.held._groups
            node.worker = Worker(harness.path, "a", "w", recovers=FORMAT)
            harness.workers._accept()
            harness.held.look()
            assert not harness.held.keeps("a") and not harness.held._missed
            assert not harness.held._journals.descriptors
        else:
            await heir.inherit("a", "old")
            assert len(heir.inherited) == MAX_DESCRIPTORS + 4
            assert [part.died for part in heir.parts if part.source.tag == "old"] == [died]

    check(scenario)


@pytest.fixture
def shelf() -> Any:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with pair[0], pair[1]:
        yield pair
