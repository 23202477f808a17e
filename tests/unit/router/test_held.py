"""Sessions that are held: each row of the table in the module, with real descriptors."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import AbstractContextManager
from typing import Any, Awaitable, Callable, Optional

import pytest

from supervisor_sio.common import channel, reasons, takeover
from supervisor_sio.common.limits import (
    TAKEOVER_BATCHES,
    TAKEOVER_CHANNELS,
    TAKEOVER_TAGS,
    TAKEOVER_TRIES,
)
from supervisor_sio.router import held as module
from supervisor_sio.router.held_shelf import HeldShelf
from unit.router.harness import (
    FIGURES,
    Harness,
    Listener,
    Scenario,
    Worker,
    connections,
    memory,
    wait_for,
)

Check = Callable[[Callable[["Cluster"], Awaitable[None]]], None]


class Passer:
    """A worker that passes on its sessions."""

    def __init__(
        self, harness: Harness, tag: str = "old", name: str = "w", worker: Optional[Worker] = None
    ) -> None:
        self.worker = worker or harness.start(tag, name=name, takes=1)[0]
        self.tag = tag
        self.clients: list[socket.socket] = []
        self.harness = harness
        self.batches = 0

    def announce(self, tags: Optional[list[str]] = None, position: bytes = b"place") -> None:
        message = takeover.passing(tags or [self.tag], f"channel-{self.tag}")
        self.send(message, memory(position))

    def send(self, message: channel.Message, *descriptors: int) -> None:
        channel.send(self.worker.sock, message, descriptors)
        channel.close_all(descriptors)

    def batch(self, sessions: int = 2, number: Optional[int] = None) -> None:
        ends = [socket.socketpair() for _ in range(sessions)]
        self.clients += [client for client, _ in ends]
        number = self.batches if number is None else number
        message = takeover.sessions(number, self.tag, sessions)
        self.send(message, memory(b"states"), *(sock.detach() for _, sock in ends))
        self.batches += 1

    async def answers(self, *kinds: str) -> list[channel.Message]:
        return [message for message, _ in await packets(self.worker, *kinds)]

    async def pass_on(self, batches: int = 1, sessions: int = 2) -> None:
        """Pass on everything, in the right order."""
        self.announce()
        for _ in range(batches):
            self.batch(sessions)
        answers = await self.answers(*["pass"] * (batches + 1))
        assert [answer["batch"] for answer in answers] == [*range(batches + 1)]
        self.worker.say(type="passed")
        self.worker.say(type="leaving")
        await self.answers("left")
        self.worker.sock.close()
        await wait_for(lambda: self.harness.pool.owner(self.tag) is None)

    def lost(self) -> int:
        """The number of clients whose connection was closed."""
        return sum(ended(client) for client in self.clients)

    def close(self) -> None:
        self.worker.sock.close()
        for client in self.clients:
            client.close()


class Taker:
    """A worker that adopts sessions."""

    def __init__(self, harness: Harness, tag: str = "new", name: str = "w", takes: int = 1) -> None:
        (self.worker,) = harness.start(tag, name=name, takes=takes)
        self.descriptors: list[int] = []
        self.messages: list[channel.Message] = []
        #: Where it was when it was asked, and when it was told that all is its own.
        self.offered: list[bytes] = []
        self.positions: list[bytes] = []
        self.id = -1

    async def hear(self, kind: str, take: bool = True) -> channel.Message:
        """Receive messages up to one of this type."""
        found: list[channel.Message] = []

        def look() -> bool:
            for message, descriptors in self.worker.packets():
                self.messages.append(message)
                if message["type"] == "adopt":
                    self.id = message["id"]
                    self.offered.append(os.pread(descriptors[0], 100, 0))
                if message["type"] == "adopt-place":
                    self.positions.append(os.pread(descriptors[0], 100, 0))
                    self.worker.say(type="took", id=message["id"])
                if message["type"] == "sessions" and take:
                    self.took(message)
                self.descriptors += descriptors
                found.extend([message] if message["type"] == kind else [])
            return bool(found)

        await wait_for(look)
        return found[0]

    async def batches(self, number: int) -> list[channel.Message]:
        """Receive this many batches without confirming them."""
        found: list[channel.Message] = []
        while len(found) < number:
            await self.hear("sessions", take=False)
            found = [message for message in self.messages if message["type"] == "sessions"]
        assert len(found) == number
        return found

    def took(self, message: channel.Message) -> None:
        self.worker.say(type="took", id=message["id"], batch=message["batch"])

    def adopted(self, tags: Optional[list[str]] = None, number: int = 0) -> None:
        self.worker.say(type="adopted", id=number or self.id, tags=tags or ["old"], sessions=2)

    async def adopt(self) -> None:
        await self.hear("adopt-end")
        self.adopted()
        await self.hear("adopt-go")

    def kinds(self) -> list[str]:
        return [m["type"] for m in self.messages if m["type"] not in ("welcome", "members")]

    def close(self) -> None:
        self.worker.sock.close()
        channel.close_all(self.descriptors)
        self.descriptors = []


class Cluster:
    """Creates workers, and closes them at the end."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.made: list[Any] = []

    def passer(self, *args: Any, **known: Any) -> Passer:
        self.made.append(Passer(self.harness, *args, **known))
        return self.made[-1]  # type: ignore[no-any-return]

    def taker(self, *args: Any, **known: Any) -> Taker:
        self.made.append(Taker(self.harness, *args, **known))
        return self.made[-1]  # type: ignore[no-any-return]

    @property
    def refused(self) -> dict[str, int]:
        return dict(self.harness.refusals.by_reason)

    def at(self, seconds: float) -> None:
        """Move the deadlines of all groups as if this much time had passed."""
        for group in self.harness.held._groups.values():
            group.deadline -= seconds
            group.until -= seconds
            group.not_before -= seconds
        self.harness.held.look()

    async def nothing_is_held(self) -> None:
        await wait_for(lambda: not self.harness.held._groups)
        assert not self.harness.pool.held and not self.harness.listeners
        assert self.harness.held._descriptors == self.harness.held.sessions == 0
        assert not self.harness.held._unheard
        await asyncio.sleep(0.01)  # the last descriptors are closed in the next turns

    def close(self) -> None:
        for made in self.made:
            made.close()


@pytest.fixture
def check(
    run: Callable[[Scenario], None], no_leak: Callable[[], AbstractContextManager[None]]
) -> Check:
    """Run a scenario, and check that no session is held and no descriptor open afterwards."""

    def check(test: Callable[[Cluster], Awaitable[None]]) -> None:
        async def scenario(harness: Harness) -> None:
            cluster = Cluster(harness)
            try:
                await test(cluster)
                await cluster.nothing_is_held()
            finally:
                cluster.close()
                await wait_for(lambda: not len(harness.workers))

        with no_leak():
            run(scenario)

    return check


async def packets(worker: Worker, *kinds: str) -> list[tuple[channel.Message, list[int]]]:
    """Wait for this many packets of these types; skip others."""
    found: list[tuple[channel.Message, list[int]]] = []

    def look() -> bool:
        for message, descriptors in worker.packets():
            if message["type"] in kinds:
                found.append((message, descriptors))
            else:
                channel.close_all(descriptors)
        return len(found) >= len(kinds)

    await wait_for(look)
    assert [message["type"] for message, _ in found] == list(kinds)
    return found


def ended(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


def row(harness: Harness, tag: str) -> Any:
    return next((row[1:] for row in harness.members if row[0] == tag), None)


# --- (none), PASSING -------------------------------------------------------------------


def test_the_successor_adopts_what_its_predecessor_has_passed_on(
    check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness, old = cluster.harness, cluster.passer()
        await wait_for(lambda: row(harness, "old") == [False, ["channel-old"], False])
        await old.pass_on(batches=3)
        assert harness.workers.held_sessions() == 6 and len(harness.listeners) == 1
        await wait_for(lambda: row(harness, "old") == [False, ["channel-old"], True])
        request = harness.connection("old", b"GET")
        harness.placement.place(request)
        new = cluster.taker()
        await new.hear("adopt-end")
        # Until all is in its place, the router listens on.
        assert new.offered == [b"place"] and len(harness.listeners) == 1
        assert new.kinds() == ["adopt", *["sessions"] * 3, "adopt-end"]
        # Nothing reaches the worker that it could not handle yet.
        await asyncio.sleep(0.02)
        harness.placement.tick()
        assert len(harness.placement) == 1 and "waits" not in caplog.text
        new.adopted()
        await new.hear("connection")
        assert new.kinds()[-3:] == ["adopt-place", "adopt-go", "connection"]
        assert new.positions == [b"place and more"] and not harness.listeners
        await wait_for(lambda: row(harness, "old") == [False, ["channel-new"], True])
        assert row(harness, "new") == [False, ["channel-new"], False]
        # The worker alone has the connections now.
        assert old.lost() == 0
        new.close()
        assert old.lost() == 6

    check(scenario)


def test_sessions_keep_their_tag_through_many_workers(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.passer().pass_on()
        tags = ["old"]
        for number in range(5):
            taker = cluster.taker(f"n{number}")
            await taker.hear("adopt-end")
            taker.adopted(tags)
            await taker.hear("adopt-go")
            owners = [cluster.harness.pool.owner(tag) for tag in (*tags, taker.worker.tag)]
            assert {owner and owner.tag for owner in owners} == {taker.worker.tag}
            tags = [taker.worker.tag, *tags]
            if number < 4:
                old = cluster.passer(taker.worker.tag, worker=taker.worker)
                old.announce(tags)
                old.send(takeover.sessions(0, "old", 1), memory(b""))
                await old.answers("pass", "pass")
                taker.close()

    check(scenario)


def test_what_there_is_no_room_for_stays_with_the_worker(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        old = cluster.passer()
        old.announce()
        old.batch()
        await old.answers("pass", "pass")
        cluster.harness.ceiling = 1
        old.batch()
        (answer,) = await old.answers("no-pass")
        assert answer["reason"] == reasons.HELD_FULL
        await wait_for(lambda: old.lost() == 2)  # the worker has its own, which the test has not
        cluster.harness.ceiling = 100_000
        assert cluster.harness.held.sessions == 2
        old.worker.sock.close()
        await cluster.taker().adopt()
        assert old.lost() == 2

    check(scenario)


@pytest.mark.parametrize("how", ["passed", "channel", "leaves"])
def test_who_passes_on_gets_requests_until_it_hands_them_back(check: Check, how: str) -> None:
    """An acknowledgement for which a handler there waits; and what is for a session that has left
    waits for the worker that adopts it."""

    async def scenario(cluster: Cluster) -> None:
        harness, old = cluster.harness, cluster.passer()
        old.announce()
        await old.answers("pass")
        old.batch()
        await old.answers("pass")
        harness.placement.place(harness.connection("old", b"POST"))
        ((request, descriptors),) = await packets(old.worker, "connection")
        channel.close_all(descriptors)
        assert request["prefix"] == b"POST" and not len(harness.placement)
        again = harness.connection("old", b"POST")
        again.refused_by = "old"
        harness.placement.place(again)
        assert len(harness.placement) == 1
        if how == "channel":
            old.worker.sock.close()
        else:
            old.worker.say(type="passed" if how == "passed" else "leaving")
        await wait_for(lambda: harness.pool.giver("old", "") is None)
        harness.placement.place(harness.connection("old", b"POST"))
        assert len(harness.placement) == 2
        new = cluster.taker()
        old.worker.sock.close()
        await new.adopt()
        await wait_for(lambda: connections(new.worker.hear() + new.messages) == 2)
        assert not harness.pool.givers

    check(scenario)


@pytest.mark.parametrize("how", ["nothing", "channel"])
def test_a_worker_that_has_nothing_to_pass_on(check: Check, how: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        old = cluster.passer()
        old.announce()
        await old.answers("pass")
        assert cluster.harness.pool.held == {"old"}
        if how == "nothing":
            old.worker.say(type="passed")
        else:
            old.worker.sock.close()
        await cluster.nothing_is_held()
        assert cluster.refused == {}

    check(scenario)


def test_what_has_come_before_a_worker_was_lost_is_adopted(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        old = cluster.passer()
        old.announce()
        old.batch()
        await old.answers("pass", "pass")
        old.worker.sock.close()
        new = cluster.taker()
        await new.adopt()
        assert new.kinds().count("sessions") == 1 and old.lost() == 0

    check(scenario)


def test_a_worker_that_does_not_come_to_an_end(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        old, new = cluster.passer(), cluster.taker("new", "other")
        old.announce()
        await old.answers("pass")
        for _ in range(3):  # slow, but it goes on
            old.batch(1)
            await old.answers("pass")
            cluster.at(20)
        assert "adopt" not in [message["type"] for message in new.worker.hear()]
        cluster.at(100)
        await new.adopt()
        old.batch()
        (answer,) = await old.answers("no-pass")
        assert answer["reason"] == reasons.NO_ROUTER
        await wait_for(lambda: old.lost() == 2)
        assert new.kinds().count("sessions") == 3

    check(scenario)


def test_a_worker_passes_on_what_it_heard_on_each_channel(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        old = cluster.passer()
        names = [f"c{number}" for number in range(TAKEOVER_CHANNELS)]
        for name in names:
            old.send(takeover.passing(["old"], name), memory(name.encode()))
        await old.answers(*["pass"] * len(names))
        assert len(cluster.harness.listeners) == cluster.harness.held.listeners == len(names)
        await wait_for(lambda: row(cluster.harness, "old")[1] == ["channel-old"])
        old.batch()
        old.send(takeover.passing(["old"], "one too many"), memory(b"place"))
        await old.answers("pass", "refused")
        await wait_for(lambda: row(cluster.harness, "old")[1:] == [names, True])
        new = cluster.taker()
        await new.adopt()
        assert new.positions == [name.encode() + b" and more" for name in names]

    check(scenario)


def test_nothing_is_held_when_all_of_supervisord_stops(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.harness.all_stop = True
        old = cluster.passer()
        old.announce()
        (answer,) = await old.answers("no-pass")
        assert answer["reason"] == ""

    check(scenario)


def test_a_place_in_the_relay_that_is_not_understood(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        old = cluster.passer()
        old.announce(position=b"not understood")
        (answer,) = await old.answers("no-pass")
        assert answer["reason"] == reasons.OTHER_FORMAT

    check(scenario)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "passing"},
        {**takeover.passing(["old"], "c"), "tags": []},
        {**takeover.passing(["old"], "c"), "tags": ["old", "old"]},
        {**takeover.passing(["old"], "c"), "tags": ["other"]},
        {**takeover.passing(["old"], "c"), "tags": ["old", "a.b"]},
        {**takeover.passing(["old"], "c"), "channel": None},
        {**takeover.passing(["old"], "c"), "format": "1"},
        {"type": "sessions"},
        {**takeover.sessions(0, "old", 1), "batch": -1},
        {**takeover.sessions(0, "old", 1), "tag": "unknown"},
        {"type": "took"},
        {"type": "adopted", "id": 1},
        {"type": "not-adopted", "id": True},
        {"type": "tags", "tags": [["old"]]},
    ],
)
def test_a_worker_that_says_something_else_loses_its_channel(
    check: Check, message: channel.Message
) -> None:
    async def scenario(cluster: Cluster) -> None:
        old = cluster.passer()
        old.announce()
        await old.answers("pass")
        old.send(message, memory(b""), memory(b""))
        await old.answers("refused")
        await wait_for(lambda: not len(cluster.harness.workers))

    check(scenario)


# --- WAITING ------------------------------------------------------------------------------


def test_nobody_but_the_successor_is_asked_while_there_may_be_one(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        other = cluster.taker("other", "other")
        await cluster.passer().pass_on()
        cluster.harness.held.look()
        new = cluster.taker()
        await new.adopt()
        await asyncio.sleep(0.02)
        other.worker.hear()
        assert "adopt" not in other.kinds()

    check(scenario)


@pytest.mark.parametrize("why", ["drained", "failed", "takes nothing", "late"])
def test_another_adopts_where_no_successor_will(check: Check, why: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        harness.drained = {"workers:w"} if why == "drained" else set()
        busiest = cluster.taker("busiest", "one")
        idle = cluster.taker("idle", "two")
        never = cluster.taker("never", "three", takes=0)
        busiest.worker.say(type="load", **{**FIGURES, "sessions": 10})
        never.worker.say(type="load", **FIGURES)
        await wait_for(lambda: harness.pool.owner("busiest").load)  # type: ignore[union-attr]
        await cluster.passer().pass_on()
        if why == "failed":
            harness.held.no_successor("workers:w")
        elif why == "takes nothing":
            cluster.taker("successor", takes=0)
        elif why == "late":
            cluster.at(100)
        await idle.adopt()
        for worker in (busiest.worker, never.worker):
            assert "adopt" not in [message["type"] for message in worker.hear()]

    check(scenario)


def test_a_worker_with_too_many_tags_is_not_asked(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        full, other = cluster.taker("full"), cluster.taker("other", "other")
        tags = [f"t{number}" for number in range(TAKEOVER_TAGS)]
        full.worker.say(type="tags", tags=tags)
        await wait_for(lambda: cluster.harness.pool.owner("t0"))
        await cluster.passer().pass_on()
        cluster.at(100)
        await other.adopt()
        assert "adopt" not in [message["type"] for message in full.worker.hear()]

    check(scenario)


@pytest.mark.parametrize(
    ("takes", "reason"),
    [([], "NOT_ADOPTED"), ([0], "OTHER_FORMAT"), ([2, 0], "OTHER_FORMAT")],
)
def test_what_nobody_adopts_is_closed_and_counted(
    check: Check, takes: list[int], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(cluster: Cluster) -> None:
        caplog.set_level(logging.INFO)
        others = [cluster.taker(f"t{n}", f"n{n}", takes=t) for n, t in enumerate(takes)]
        old = cluster.passer()
        await old.pass_on(batches=2)
        request = cluster.harness.connection("old")
        cluster.harness.placement.place(request)
        request.deadline = 0.0
        cluster.harness.placement.tick()
        assert len(cluster.harness.placement) == 1  # as long as the session is held
        cluster.harness.placement._started -= 100
        cluster.at(100)
        await wait_for(lambda: old.lost() == 4)
        assert cluster.refused == {getattr(reasons, reason): 4}
        assert f"4 ({getattr(reasons, reason)}), last" in caplog.text
        await wait_for(lambda: row(cluster.harness, "old") is None)
        if others:  # any worker can say that there is no such session
            await wait_for(lambda: any(connections(taker.worker.hear()) for taker in others))
        else:
            cluster.harness.placement.tick()
            assert cluster.harness.refused == [reasons.HOLD_TIMEOUT]

    check(scenario)


def test_what_its_successor_does_not_understand_is_closed_at_once(check: Check) -> None:
    """No worker has their format: their clients reconnect to the successor without waiting."""

    async def scenario(cluster: Cluster) -> None:
        cluster.taker("other", "other", takes=0)
        old = cluster.passer()
        await old.pass_on()
        assert not cluster.refused
        cluster.taker("successor", takes=2)
        await wait_for(lambda: cluster.refused)
        assert list(cluster.refused) == [reasons.OTHER_FORMAT]
        await wait_for(lambda: row(cluster.harness, "old") is None)

    check(scenario)


# --- OFFERED ------------------------------------------------------------------------------


def test_an_adopter_is_sent_no_more_than_it_takes(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.passer().pass_on(batches=TAKEOVER_BATCHES + 2)
        new = cluster.taker()
        sent = await new.batches(TAKEOVER_BATCHES)
        await asyncio.sleep(0.05)
        assert "sessions" not in [message["type"] for message in new.worker.hear()]
        for message in sent:
            new.took(message)
        await new.adopt()
        batches = [m["batch"] for m in new.messages if m["type"] == "sessions"]
        assert batches == [*range(TAKEOVER_BATCHES + 2)]

    check(scenario)


def test_an_adopter_whose_channel_is_full_gets_the_rest_when_it_reads(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        await cluster.passer().pass_on(batches=TAKEOVER_BATCHES + 1)
        new = cluster.taker()
        sent = await new.batches(TAKEOVER_BATCHES)
        while not harness.pool.owner("new").busy:  # type: ignore[union-attr]
            harness.placement.place(harness.connection("new"))
        for message in sent:
            new.took(message)
        (group,) = harness.held._groups.values()
        await wait_for(lambda: not group.on_the_way)
        assert group.sent == 1 + TAKEOVER_BATCHES
        await new.adopt()
        await wait_for(lambda: not len(harness.placement))

    check(scenario)


@pytest.mark.parametrize("how", ["it reads", "it dies"])
def test_an_adopter_whose_channel_is_full_when_it_has_adopted_all(check: Check, how: str) -> None:
    """What was heard comes when it reads; until then the sessions are not its own."""

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        await cluster.passer().pass_on()
        new = cluster.taker()
        await new.hear("adopt-end")
        while not harness.pool.owner("new").busy:  # type: ignore[union-attr]
            harness.placement.place(harness.connection("new"))
        new.adopted()
        (group,) = harness.held._groups.values()
        await wait_for(lambda: group.adopted)
        # The router listens on until it can send what it has heard.
        assert len(harness.listeners) == 1 and harness.pool.owner("old") is None
        if how == "it dies":
            new.close()
            await wait_for(lambda: len(harness.listeners) == 1 and not group.adopted)
            new = cluster.taker("other")
            await new.adopt()
            assert new.positions == [b"place and more"]
            harness.placement.close()  # some wait for the session that was the dead one's
        else:
            await new.hear("adopt-go")
            assert new.positions == [b"place and more"]
            await wait_for(lambda: not len(harness.placement))

    check(scenario)


def test_a_worker_that_is_busy_is_better_than_none(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        busy = cluster.taker("busy", "other")
        await wait_for(lambda: harness.pool.owner("busy"))
        while not harness.pool.owner("busy").busy:  # type: ignore[union-attr]
            harness.placement.place(harness.connection("busy"))
        await cluster.passer().pass_on()
        cluster.at(100)
        await busy.adopt()
        assert not cluster.refused

    check(scenario)


@pytest.mark.parametrize("how", ["says so", "dies", "hangs"])
def test_the_next_one_is_asked(check: Check, how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(cluster: Cluster) -> None:
        old = cluster.passer()
        await old.pass_on(batches=2)
        (listener,) = cluster.harness.listeners
        first = cluster.taker("first")
        await first.hear("adopt-end")
        second = cluster.taker("second", "another")
        if how == "says so":
            first.worker.say(type="not-adopted", id=first.id, reason="it is full")
            # The refusal may be of an earlier router's offer, when this one's is on its way.
            assert (await first.hear("adopt-off"))["id"] == first.id
        elif how == "dies":
            first.close()
        else:
            cluster.at(100)
            assert (await first.hear("adopt-off"))["id"] == first.id
            # It may have been about to say so: it has read by then that it is over.
            first.adopted()
            await first.hear("adopt-off")
        await second.adopt()
        # The same one has listened all the time.
        assert second.positions == [listener.heard + b" and more"] and not first.positions
        assert cluster.harness.pool.owner("old").tag == "second"  # type: ignore[union-attr]
        assert old.lost() == 0 and "does not adopt the sessions of worker workers:w" in caplog.text
        first.close()
        assert old.lost() == 0
        second.close()
        assert old.lost() == 4

    check(scenario)


def test_what_nobody_can_take_does_not_go_round_for_ever(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        old = cluster.passer()
        await old.pass_on()
        for number in range(TAKEOVER_TRIES):
            new = cluster.taker(f"n{number}")
            await new.hear("adopt-end")
            new.close()
        await wait_for(lambda: old.lost() == 2)
        assert cluster.refused == {reasons.NOT_ADOPTED: 2}

    check(scenario)


def test_an_answer_that_comes_too_late(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.passer().pass_on()
        new = cluster.taker()
        await new.hear("adopt-end")
        cluster.at(100)
        await cluster.nothing_is_held()
        new.adopted()
        await new.hear("adopt-off")
        await new.hear("adopt-off")
        assert cluster.harness.pool.owner("old") is None
        # What was held by a router that nobody knows of any more is this worker's.
        new.adopted(["of-old"], 12345)
        await new.hear("adopt-go")
        new.adopted(["of-old"], 12345)
        await new.hear("adopt-go")
        assert cluster.harness.pool.owner("of-old").tag == "new"  # type: ignore[union-attr]
        other = cluster.taker("other")
        other.adopted(["of-old"], 12345)
        await other.hear("adopt-off")

    check(scenario)


def test_a_tag_without_sessions_is_given_up(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.passer().pass_on()
        new = cluster.taker()
        await new.adopt()
        await wait_for(lambda: row(cluster.harness, "old"))
        new.worker.say(type="tags", tags=[])
        await wait_for(lambda: row(cluster.harness, "old") is None)
        assert cluster.harness.pool.owner("old") is None

    check(scenario)


def test_a_question_about_a_client_that_is_held(check: Check) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        await cluster.passer().pass_on()
        new = cluster.taker()
        await new.hear("adopt-end")
        question = {"type": "query", "what": "kick"}
        assert harness.workers._ask({**question, "tag": "old"}) == ({}, 1)
        new.adopted()
        await new.hear("adopt-go")
        assert harness.workers._ask({**question, "tag": "old"}) == ({"new": "workers:w"}, 0)
        assert harness.workers._ask({**question, "tag": "unknown"}) == ({}, 0)

    check(scenario)


# --- from one router to the next ---------------------------------------------------------------


@pytest.fixture
def shelf() -> Any:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    with pair[0], pair[1]:
        yield pair


def keep_on(cluster: Cluster, shelf: Any) -> Harness:
    """Let the router keep what it holds on this shelf."""
    harness = cluster.harness
    harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))
    return harness


def next_router(cluster: Cluster, shelf: Any, orderly: bool = False) -> None:
    """Replace the router by a new one, and close all descriptors of the old one."""
    harness, before = cluster.harness, cluster.harness.held
    if orderly:
        before.release()
    for group in before._groups.values():
        for batch in group.batches.values():
            channel.close_all(batch.descriptors)
        for place in group.channels.values():
            channel.close_all([d for d in (place.position, place.dump) if d >= 0])
    if before._shelf is not None:
        before._shelf.close()
    harness.listeners.clear()
    harness.pool.held.clear()
    keep_on(cluster, shelf).held.restore()


@pytest.mark.parametrize("orderly", [False, True])
def test_the_next_router_goes_on(
    check: Check, shelf: Any, monkeypatch: pytest.MonkeyPatch, orderly: bool
) -> None:
    monkeypatch.setattr(module, "REJOIN_TIME", 100.0)

    async def scenario(cluster: Cluster) -> None:
        harness = keep_on(cluster, shelf)
        old = cluster.passer()
        await old.pass_on(batches=3, sessions=20)
        next_router(cluster, shelf, orderly)
        assert harness.held.sessions == 60 and harness.held.has("old") and old.lost() == 0
        new = cluster.taker()
        await asyncio.sleep(0.05)
        assert "adopt" not in new.kinds()  # somebody may have them by now
        cluster.at(100)
        await new.adopt()
        assert new.positions == [b"place and more and more" if orderly else b"place and more"]
        assert [m["batch"] for m in new.messages if m["type"] == "sessions"] == [0, 1, 2]
        assert old.lost() == 0
        new.close()
        assert old.lost() == 60  # nor does the shelf have any of them

    check(scenario)


def test_what_others_rely_on_is_kept_for_the_next_router(
    check: Check, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has ended cannot send these messages again."""
    monkeypatch.setattr(module, "REJOIN_TIME", 100.0)

    async def scenario(cluster: Cluster) -> None:
        harness = keep_on(cluster, shelf)
        old, other = cluster.passer(), cluster.passer("another", "v")
        await old.pass_on(batches=2)
        await other.pass_on(batches=2)
        listener = harness.listeners[0]
        for heard in (b"heard", b"heard more"):
            assert listener.keep is not None
            listener.keep(memory(heard))
            kept = harness.held._shelf._kept  # type: ignore[union-attr]
            assert len(kept) == 6  # one for each channel, whatever was kept before
        next_router(cluster, shelf)
        assert harness.held.sessions == 8 and old.lost() == other.lost() == 0
        found = sorted(listener.heard for listener in harness.listeners)
        assert found == [b"heard more", b"place"]
        new = cluster.taker()
        cluster.at(100)
        await new.adopt()
        assert b"heard more and more" in new.positions
        harness.held.close()

    check(scenario)


def test_who_has_it_from_the_router_before_keeps_it(check: Check, shelf: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        keep_on(cluster, shelf)
        old = cluster.passer()
        await old.pass_on()
        new, other = cluster.taker(), cluster.taker("other", "other")
        await new.hear("adopt-end")
        next_router(cluster, shelf)
        cluster.at(100)  # so the next router asks, too
        await wait_for(lambda: len(new.worker.hear()) or True)
        new.adopted()
        await new.hear("adopt-go")
        assert cluster.harness.pool.owner("old").tag == "new"  # type: ignore[union-attr]
        del other
        assert old.lost() == 0

    check(scenario)


def test_what_a_router_before_has_given_stays_given(check: Check, shelf: Any) -> None:
    """The worker that adopted the sessions may connect to the new router at any time."""

    async def scenario(cluster: Cluster) -> None:
        harness = keep_on(cluster, shelf)
        old = cluster.passer()
        await old.pass_on()
        late = cluster.taker()
        await late.hear("adopt-end")
        has_it = cluster.taker("has", "has")
        await wait_for(lambda: harness.pool.owner("has") is not None)
        cluster.at(50)  # the first takes too long
        await has_it.hear("adopt-end")
        has_it.adopted()
        await has_it.hear("adopt-go")
        for _ in range(2):
            next_router(cluster, shelf)
        has_it.worker.sock.close()
        await wait_for(lambda: harness.pool.owner("old") is None)
        harness.held._unsure_until = 0.0
        late.adopted()
        await late.hear("adopt-off")
        await late.hear("adopt-off")
        has_it = cluster.taker("has", "has")
        has_it.adopted(number=late.id)
        await has_it.hear("adopt-go")

    check(scenario)


def test_who_says_late_that_it_has_adopted_waits_for_who_has(check: Check, shelf: Any) -> None:
    """An earlier router gave the sessions to another worker, which connects later."""

    async def scenario(cluster: Cluster) -> None:
        harness = cluster.harness
        next_router(cluster, shelf)
        late = cluster.taker("late", "late")
        late.worker.say(type="adopted", id=77, tags=["old"], sessions=2)
        late.worker.say(type="tags", tags=["old"])
        await wait_for(lambda: bool(harness.held._unsure))
        has_it = cluster.taker("has", "has")
        has_it.worker.say(type="tags", tags=["old"])
        await wait_for(lambda: harness.pool.owner("old") is not None)
        harness.held.look()
        assert "adopt-off" not in late.kinds()
        harness.held._unsure_until = 0.0
        harness.held.look()
        await late.hear("adopt-off")
        assert harness.pool.owner("old").tag == "has"  # type: ignore[union-attr]

    check(scenario)


def test_a_worker_goes_on_with_the_next_router(
    check: Check, shelf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has had no answer about the last batch: that comes again, and is known. The tags that it
    had adopted are held by then."""
    monkeypatch.setattr(module, "REJOIN_TIME", 100.0)

    async def scenario(cluster: Cluster) -> None:
        harness = keep_on(cluster, shelf)
        old = cluster.passer()
        old.worker.say(type="tags", tags=["older"])
        old.announce(["old", "older"])
        old.batch()
        old.batch()
        await old.answers("pass", "pass", "pass")
        next_router(cluster, shelf)
        old.worker.say(type="tags", tags=["older"])
        old.announce(["old", "older"])
        old.batch(number=1)
        old.batch(number=2)
        answers = await old.answers("pass", "pass", "pass")
        assert [answer["batch"] for answer in answers] == [2, 2, 3]
        assert harness.held.sessions == 6 and old.lost() == 2
        old.worker.say(type="passed")
        old.worker.sock.close()
        new = cluster.taker()
        await wait_for(lambda: harness.pool.owner("new") and not harness.pool.owner("old"))
        cluster.at(100)
        await new.adopt()
        assert old.lost() == 2

    check(scenario)


def test_the_shelf_keeps_those_of_others(check: Check, shelf: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        harness = keep_on(cluster, shelf)
        passers = [cluster.passer(f"old{number}", f"w{number}") for number in range(4)]
        for passer in passers:
            passer.announce()
        for _ in range(3):
            for passer in passers:
                passer.batch()
        for passer in passers:
            await passer.answers(*["pass"] * 4)
            passer.worker.say(type="passed")
            passer.worker.sock.close()
        new = cluster.taker("new", "w2")
        await new.hear("adopt-end")
        new.adopted(["old2"])
        await new.hear("adopt-go")
        next_router(cluster, shelf)
        assert sorted(harness.pool.held) == ["old0", "old1", "old3"]
        assert harness.held.sessions == 18
        for group in harness.held._groups.values():
            assert list(group.batches) == [0, 1, 2] and len(group.channels) == 1
        harness.held.close()
        await wait_for(lambda: sum(passer.lost() for passer in passers) == 18)
        assert passers[2].lost() == 0

    check(scenario)


def test_a_shelf_without_room_keeps_what_it_can(check: Check, shelf: Any) -> None:
    shelf[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    async def scenario(cluster: Cluster) -> None:
        harness = keep_on(cluster, shelf)
        old = cluster.passer()
        await old.pass_on(batches=10)
        assert harness.held.sessions == 20
        next_router(cluster, shelf)
        kept = harness.held.sessions
        assert 0 < kept < 20 and old.lost() == 20 - kept
        harness.held.close()

    check(scenario)


def test_who_listens_in_its_place_cannot_say_what_it_heard(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Cluster) -> None:
        def fail(listener: Listener) -> int:
            listener._listeners.remove(listener)
            raise RuntimeError("as the test wants it")

        monkeypatch.setattr(Listener, "stop", fail)
        await cluster.passer().pass_on()
        new = cluster.taker()
        await new.adopt()
        assert new.positions == [b"place"]

    check(scenario)
