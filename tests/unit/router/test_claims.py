"""Questions of workers to each other: each row of the table in the module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Callable, Optional, Sequence

import pytest

from supervisor_sio.common import channel, reasons, recovery
from supervisor_sio.common.channel import ChannelError, Message
from supervisor_sio.common.limits import CLAIM_TIMEOUT
from supervisor_sio.router import claims as module
from supervisor_sio.router.claims import Claims
from supervisor_sio.router.placement import REJOIN_TIME
from supervisor_sio.router.pool import Member
from unit.router.harness import Harness, Scenario, memory, wait_for

LONG = {"a": "x" * 60_000}


class Worker:
    """A channel to a worker that records what is sent."""

    def __init__(self, tag: str) -> None:
        self.member: Optional[Member] = Member(tag, f"w:{tag}", 1)
        self.busy = False
        self.fails = False
        self.got: list[tuple[Message, list[bytes]]] = []

    def tell(self, message: Message) -> None:
        raise AssertionError("that has no bound")

    def pass_on(self, data: bytes, descriptors: Sequence[int]) -> bool:
        if self.fails:
            raise OSError("it is odd")
        if not self.busy:
            self.got.append((channel.decode(data), [os.pread(d, 100, 0) for d in descriptors]))
        return not self.busy

    @property
    def questions(self) -> list[Any]:
        return [recovery.read_claim(m)[1:] for m, _ in self.got if m["type"] == "claim"]

    @property
    def answers(self) -> list[Any]:
        return [recovery.read_claimed(m) for m, _ in self.got if m["type"] == "claimed"]


class World:
    def __init__(self) -> None:
        self.asker, self.owner = Worker("asker"), Worker("owner")
        self.owners: dict[str, Worker] = {"t": self.owner}
        self.expected: set[str] = set()
        self.ceiling = 100_000  # tests before these may have left many open
        self.now = 1000.0
        self.claims = Claims(
            self.owners.get, lambda tag: tag in self.expected, lambda: self.ceiling
        )

    def ask(self, number: int = 5, tag: str = "t", question: Any = None, *beside: bytes) -> None:
        message = recovery.claim(number, tag, question or {"do": number})
        self.claims.handle(self.asker, message, [memory(data) for data in beside])

    def answer(self, worker: Worker, answer: Any = None, *beside: bytes, nth: int = -1) -> None:
        number = [m["id"] for m, _ in worker.got if m["type"] == "claim"][nth]
        message = recovery.claimed(number, answer or {"sid": "s"})
        self.claims.handle(worker, message, [memory(data) for data in beside])

    def later(self, seconds: float = CLAIM_TIMEOUT) -> None:
        self.now += seconds
        self.claims.look()


@pytest.fixture
def world(
    monkeypatch: pytest.MonkeyPatch, no_leak: Callable[[], AbstractContextManager[None]]
) -> Iterator[World]:
    made = World()
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    with no_leak():
        yield made
        made.later()  # nothing is for ever
        assert not len(made.claims) and not made.claims._bytes


def refused(reason: str, number: int = 5) -> tuple[int, Message]:
    return number, {"reason": reason}


def test_a_question_and_its_answer(world: World) -> None:
    world.ask(5, "t", {"do": "claim"}, b"more")
    assert world.owner.questions == [("t", {"do": "claim"})]
    assert world.owner.got[0][1] == [b"more"] and len(world.claims) == 1
    world.answer(world.owner, {"sid": "s"}, b"packets")
    assert world.asker.answers == [(5, {"sid": "s"})] and world.asker.got[0][1] == [b"packets"]
    assert not len(world.claims)


def test_questions_of_two_workers_with_the_same_number(world: World) -> None:
    world.ask(1)
    first, world.asker = world.asker, Worker("other")
    world.ask(1, question={"do": "other"})
    world.answer(world.owner, {"n": 1}, nth=0)
    world.answer(world.owner, {"n": 2}, nth=1)
    assert first.answers == [(1, {"n": 1})] and world.asker.answers == [(1, {"n": 2})]


def test_nobody_has_such_a_client(world: World) -> None:
    world.ask(tag="unknown")
    assert world.asker.answers == [refused(reasons.UNKNOWN_PID)] and not len(world.claims)


def test_one_that_waits_for_who_inherits_the_client(world: World) -> None:
    world.expected.add("dead")
    for number in range(3):
        world.ask(number, "dead", None, b"beside")
    world.later(1.0)
    assert not world.asker.got and len(world.claims) == 3
    world.owners["dead"] = world.owner
    world.claims.look()
    assert world.owner.questions == [("dead", {"do": number}) for number in range(3)]
    world.later(CLAIM_TIMEOUT - 1)  # since it was asked, not since it waits no more
    assert world.asker.answers == [refused(reasons.NO_OWNER, number) for number in range(3)]


def test_nobody_inherits_the_client(world: World) -> None:
    world.expected.add("dead")
    world.ask(tag="dead")
    world.expected.clear()
    world.claims.look()
    assert world.asker.answers == [refused(reasons.UNKNOWN_PID)]


def test_who_is_asked_dies(world: World) -> None:
    world.ask(5, "t", {"do": "it"}, b"beside")
    world.expected.add("t")
    del world.owners["t"]
    world.claims.lost(world.owner)
    heir = world.owners["t"] = Worker("heir")
    world.claims.look()
    assert heir.questions == [("t", {"do": "it"})] and heir.got[0][1] == [b"beside"]
    world.answer(world.owner)  # it was on its way
    assert not world.asker.got
    world.answer(heir)
    assert world.asker.answers == [(5, {"sid": "s"})]


def test_who_is_asked_does_not_answer(world: World) -> None:
    world.ask()
    world.later(CLAIM_TIMEOUT - 0.1)
    assert not world.asker.got
    world.later(0.1)
    assert world.asker.answers == [refused(reasons.NO_OWNER)]
    world.answer(world.owner, None, b"late")
    assert len(world.asker.got) == 1


def test_who_is_asked_reads_nothing_for_a_while(world: World) -> None:
    world.owner.busy = True
    for number in range(3):
        world.ask(number)
    world.claims.look()
    world.owner.busy = False
    assert world.owner.member is not None
    world.owner.member.adopted = ["t"]
    world.claims.resume(world.owner)
    assert world.owner.questions == [("t", {"do": number}) for number in range(3)]


def test_who_asks_reads_nothing_for_a_while(world: World) -> None:
    for number in range(3):
        world.ask(number)
    world.asker.busy = True
    for nth in range(3):
        world.answer(world.owner, {"n": nth}, b"packets", nth=nth)
    assert len(world.claims) == 3
    world.asker.busy = False
    world.claims.resume(world.asker)
    assert world.asker.answers == [(nth, {"n": nth}) for nth in range(3)]
    assert not len(world.claims)


def test_who_asks_reads_nothing_at_all(world: World) -> None:
    world.ask(1)
    world.ask(2)
    world.asker.busy = True
    world.answer(world.owner, None, b"packets", nth=0)
    world.ask(3, tag="unknown")
    world.later()
    assert not len(world.claims) and not world.asker.got


def test_who_asks_is_gone(world: World) -> None:
    world.ask(5, "t", None, b"beside")
    world.claims.lost(world.asker)
    assert not len(world.claims)
    world.answer(world.owner, None, b"packets")
    assert not world.asker.got


def test_no_more_than_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLAIMS", 2)
    for number in range(3):
        world.ask(number, "t", None, b"beside")
    assert world.asker.answers == [refused(reasons.CLAIMS_FULL, 2)]
    world.answer(world.owner)
    world.ask(4)
    assert len(world.owner.questions) == 3


def test_no_more_bytes_than_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLAIM_BYTES", 100_000)
    world.ask(1, "t", LONG)
    world.ask(2, "t", LONG)
    world.ask(3)
    assert world.asker.answers == [refused(reasons.CLAIMS_FULL, 2)]
    assert len(world.owner.questions) == 2


def test_no_descriptor_for_what_comes_beside(world: World) -> None:
    world.ask(1)
    world.ceiling = 0
    world.ask(2, "t", None, b"beside")
    world.answer(world.owner, None, b"packets")
    answers = [refused(reasons.CLAIMS_FULL, 2), refused(reasons.INCOMPLETE, 1)]
    assert world.asker.answers == answers and not len(world.claims)


def test_what_was_beside_is_lost(world: World) -> None:
    world.ask(1)
    world.claims.lost_descriptors(world.asker, recovery.claim(2, "t", {}))
    number = world.owner.got[0][0]["id"]
    world.claims.lost_descriptors(world.asker, recovery.claimed(number, {}))  # not the owner
    world.claims.lost_descriptors(world.owner, recovery.claimed(number, {}))
    answers = [refused(reasons.CLAIMS_FULL, 2), refused(reasons.INCOMPLETE, 1)]
    assert world.asker.answers == answers and not len(world.claims)


def test_an_answer_that_nobody_has_asked_for(world: World) -> None:
    world.ask()
    world.claims.handle(world.asker, recovery.claimed(1, {}), [memory(b"")])
    world.claims.handle(world.owner, recovery.claimed(99, {}), [memory(b"")])
    assert not world.asker.got and len(world.claims) == 1


def test_one_that_cannot_be_sent_stops_no_other(world: World) -> None:
    world.owner.fails = True
    world.ask(1, "t", None, b"beside")
    world.owner.fails = False
    world.ask(2)
    assert world.owner.questions == [("t", {"do": 2})]


def test_an_answer_that_is_too_long_by_the_number_in_it(world: World) -> None:
    world.ask(2**53 - 1)
    room = channel.MAX_PACKET - len(channel.encode(recovery.claimed(1, {"a": ""})))
    world.answer(world.owner, {"a": "x" * room}, b"packets")
    assert world.asker.answers == [refused(reasons.INCOMPLETE, 2**53 - 1)]


@pytest.mark.parametrize("message", [recovery.claim(1, "t", {}), recovery.claimed(1, {})])
def test_more_than_one_descriptor(world: World, message: Message) -> None:
    with pytest.raises(ChannelError, match="more than one descriptor"):
        world.claims.handle(world.asker, message, [memory(b"1"), memory(b"2")])


# --- with the channels of the router ------------------------------------------------------


def test_through_the_router(
    run: Callable[[Scenario], None], no_leak: Callable[[], AbstractContextManager[None]]
) -> None:
    async def scenario(harness: Harness) -> None:
        asker, owner = harness.start("asker", "owner")
        await wait_for(lambda: harness.pool.owner("owner"))
        position = memory(b"position")
        channel.send(asker.sock, recovery.claim(7, "owner", {"do": "claim"}), [position])
        asker.say(**recovery.claim(8, "unknown", {}))
        ((message, (beside,)),) = await heard(owner, "claim")
        number, tag, question = recovery.read_claim(message)
        assert (tag, question) == ("owner", {"do": "claim"})
        channel.send(owner.sock, recovery.claimed(number, {"sid": "s"}), [beside])
        channel.close_all([position, beside])
        answers = await heard(asker, "claimed", 2)
        answered = {m["id"]: (m["answer"], [os.pread(d, 9, 0) for d in ds]) for m, ds in answers}
        assert answered == {
            7: ({"sid": "s"}, [b"position"]),
            8: ({"reason": reasons.UNKNOWN_PID}, []),
        }
        channel.close_all([d for _, ds in answers for d in ds])
        asker.say(**recovery.claim(9, "owner", {}))
        await heard(owner, "claim")
        owner.sock.close()
        ((message, _),) = await heard(asker, "claimed")
        assert message["answer"] == {"reason": reasons.UNKNOWN_PID}
        assert not len(harness.workers.claims)
        asker.sock.close()
        await wait_for(lambda: not len(harness.workers))

    with no_leak():
        run(settled(scenario))


def settled(scenario: Scenario) -> Scenario:
    """Run with a router that has waited long enough for workers to connect."""

    async def run(harness: Harness) -> None:
        harness.placement._started -= REJOIN_TIME
        await scenario(harness)

    return run


def test_a_worker_that_comes_back_to_the_next_router(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        (asker,) = harness.start("asker")
        asker.say(**recovery.claim(7, "owner", {}))
        await wait_for(lambda: len(harness.workers.claims))
        (owner,) = harness.start("owner")
        assert len(await heard(owner, "claim")) == 1

    run(scenario)


async def heard(worker: Any, kind: str, number: int = 1) -> list[tuple[Message, list[int]]]:
    """Wait for this many messages of a type; skip others."""
    found: list[tuple[Message, list[int]]] = []

    def look() -> bool:
        for message, descriptors in worker.packets():
            if message["type"] == kind:
                found.append((message, descriptors))
            else:
                channel.close_all(descriptors)
        return len(found) >= number

    await wait_for(look)
    return found
