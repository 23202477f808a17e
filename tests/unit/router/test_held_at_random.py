"""Sessions that move, and journals that are inherited, while workers and routers die at any
moment: each has one owner, or none.

The workers' end is the worker's own.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from supervisor_sio.common import channel, recovery, takeover
from supervisor_sio.common.handover import Handover
from supervisor_sio.common.limits import TAKEOVER_BATCHES
from supervisor_sio.common.recovery import Segment, Source
from supervisor_sio.router import held as module
from supervisor_sio.router.held import Held
from supervisor_sio.router.held_shelf import HeldShelf
from supervisor_sio.router.journals import Journal
from supervisor_sio.router.worker_channel import WorkerChannel
from supervisor_sio.worker.arriving import Adoption, Arriving
from supervisor_sio.worker.journals import Journals
from supervisor_sio.worker.link import _ARRIVING
from unit.router.harness import Harness, Scenario, Worker, memory

NAMES = ["one", "two", "three"]
STEPS = 120

#: For each tag, of what a worker passes on.
MOST_BATCHES = 3

#: Of each journal.
SEGMENTS = {"events": [0, 1], "states": [0]}


class Node:
    """A worker that adopts sessions, and owns some from the start."""

    def __init__(self, harness: Harness, tag: str, name: str) -> None:
        self.harness, self.tag, self.name = harness, tag, name
        self.connected = False
        #: What is in place, by number; and what is this worker's own, by tag.
        self.given: dict[int, Adoption] = {}
        #: Of which of these the router has said what it has heard.
        self.placed: set[int] = set()
        self.undecided: list[int] = []
        #: For which of its own it does not receive yet.
        self.unheard: list[int] = []
        #: What was in place already when the router before this one died.
        self.survived: set[int] = set()
        self.own: dict[str, list[int]] = {}
        self.arriving = Arriving(self.post, lambda: 100_000)
        self.arriving.takes, self.arriving.adopter = takeover.FORMAT, self
        self.arriving.recovers = recovery.FORMAT
        self.journals = Journals(self)
        for log, numbers in SEGMENTS.items():
            for number in numbers:
                segment = Segment(Source(tag, "socketio"), log, number, recovery.FORMAT, 1e6, None)
                self.journals.add(segment, memory(tag.encode()))
        self.connect()

    def connect(self) -> None:
        """Connect, and send the messages in the order in which a link sends them."""
        formats = {"takes": takeover.FORMAT, "recovers": recovery.FORMAT}
        self.worker = Worker(self.harness.path, self.tag, self.name, **formats, ready=False)
        self.worker.sock.setblocking(False)
        self.connected = True
        self.arriving.greet()
        self.journals.tell()
        self.worker.say_ready()
        self.arriving.repeat()
        self.harness.workers._accept()

    def post(self, message: channel.Message, descriptors: Sequence[int] = ()) -> None:
        if self.connected:
            try:
                channel.send(self.worker.sock, message, descriptors)
            except OSError:
                pass

    def withdraw(self, descriptors: Sequence[int]) -> None:
        pass  # nothing waits

    @property
    def has_journals_of(self) -> set[str]:
        return {source.tag for source, _, _ in self.journals._segments}

    def read(self) -> bool:
        """Handle one message; returns whether there was one."""
        some = False
        if not self.connected:
            return some
        for message, descriptors in self.worker.packets():
            some, kept = True, False
            if message["type"] == "closed":
                self.lose()
                return some
            if message["type"] in _ARRIVING:
                kept = self.arriving.handle(message, descriptors)
            assert not isinstance(message, Handover)
            if not kept:
                channel.close_all(descriptors)
        return some

    def lose(self) -> None:
        """Lose the connection to the router."""
        self.connected = False
        self.worker.sock.close()
        self.arriving.lost()

    def on_adopt(self, adoption: Adoption) -> None:
        assert adoption.id not in self.given
        self.given[adoption.id] = adoption
        self.undecided.append(adoption.id)

    def decide(self, good: bool) -> None:
        if not self.undecided:
            return
        number = self.undecided.pop(0)
        if good:
            self.arriving.adopted(number, 1)
        else:
            self.given.pop(number).close()
            self.arriving.not_adopted(number, "it is odd")

    def on_place(self, number: int, name: str, descriptor: int) -> None:
        assert number in self.given and name == "socketio" and os.pread(descriptor, 1, 0)
        self.placed.add(number)

    def on_go(self, number: int) -> None:
        assert number in self.placed, "it would not know what came meanwhile"
        adoption = self.given.pop(number)
        channel.close_all([descriptor for _, descriptor in adoption.positions])
        for tag, _, descriptors in adoption.batches:
            os.close(descriptors[0])
            self.own.setdefault(tag, []).extend(descriptors[1:])
        for tag in adoption.tags:
            self.own.setdefault(tag, [])
        for source, journal in adoption.journals.items():
            assert {log: sorted(some) for log, some in journal.logs.items()} == SEGMENTS
            for log, segments in journal.logs.items():
                for segment, descriptor in segments.items():
                    assert os.pread(descriptor, 10, 0).decode() == source.tag
                    self.journals.add(journal.segment(log, segment), descriptor)
        self.unheard.append(number)

    def receive(self) -> None:
        """Begin to receive for what is this worker's own now."""
        if self.unheard:
            self.arriving.heard(self.unheard.pop(0))

    def on_discard(self, number: int) -> None:
        self.given.pop(number).close()
        if number in self.undecided:
            self.undecided.remove(number)

    def pass_on(self, batches: int, whole: bool) -> None:
        """Pass on all own and adopted sessions, then end."""
        self.own.setdefault(self.tag, [])
        tags = [self.tag, *(tag for tag in self.own if tag != self.tag)]
        channel.send(self.worker.sock, takeover.passing(tags, "socketio"), [place := memory(b"p")])
        os.close(place)
        number = 0
        for tag, descriptors in self.own.items():
            for _ in range(batches):
                half, descriptors[:] = descriptors[:3], descriptors[3:]
                states = memory(b"states")
                message = takeover.sessions(number, tag, len(half))
                channel.send(self.worker.sock, message, [states, *half])
                channel.close_all([states, *half])
                number += 1
        if whole:
            self.post({"type": "passed"})

    def close(self) -> None:
        self.lose() if self.connected else None
        self.arriving.adopter = self
        self.arriving.close()
        for descriptors in self.own.values():
            channel.close_all(descriptors)
        self.own = {}
        self.journals.close()


class World:
    def __init__(self, harness: Harness, chance: random.Random, shelf: Any) -> None:
        self.harness, self.chance, self.shelf = harness, chance, shelf
        self.nodes: list[Node] = []
        self.clients: list[socket.socket] = []
        self.count = 0
        #: Channels of workers whose process has yet to end.
        self.ending: list[WorkerChannel] = []
        #: Journals that nobody may have any more, by their tags: a router, or none, had them last.
        self.lost: set[str] = set()
        self.not_inherited: list[str] = []
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*shelf))

    def join(self, clients: int) -> Node:
        self.count += 1
        node = Node(self.harness, f"t{self.count}", self.chance.choice(NAMES))
        node.own[node.tag] = []
        for _ in range(clients):
            client, sock = socket.socketpair()
            self.clients.append(client)
            node.own[node.tag].append(sock.detach())
        self.nodes.append(node)
        return node

    def one_ends(self) -> None:
        node = self.chance.choice(self.nodes)
        if node.connected and self.chance.random() < 0.8:
            batches = self.chance.randrange(1, MOST_BATCHES + 1)
            node.pass_on(batches, whole=self.chance.random() < 0.8)
        self.end(node)

    def end(self, node: Node) -> None:
        self.nodes.remove(node)
        channels = [c for c in self.harness.workers if c.member and c.member.tag == node.tag]
        if node.connected and channels:
            self.ending.append(channels[0])
        else:
            self.lost |= node.has_journals_of
        for number in node.survived & node.given.keys():
            # If this router knows it only from the worker, that had yet to hear "adopt-go".
            self.lost |= {source.tag for source in node.given[number].journals}
        node.close()

    async def process_ends(self) -> None:
        """The process ends of a worker whose channel has ended before."""
        if not self.ending:
            return
        gone = self.ending.pop(0)
        gone.read_all()
        gone._process_ended()

    def next_router(self) -> None:
        before, harness = self.harness.held, self.harness
        before._journals.keep()  # it does so soon
        for gone in self.ending:
            assert gone.member is not None
            self.lost |= {journal.source.tag for journal in before._journals.of(gone.member.tag)}
        self.ending.clear()
        for worker in before._journals._workers.values():
            for journal in worker.journals.values():
                journal.close()
        for group in before._groups.values():
            for batch in group.batches.values():
                channel.close_all(batch.descriptors)
            for place in group.channels.values():
                place.close()
            for journal in group.journals:
                journal.close()
        for given in before._unheard.values():
            for place in given.channels.values():
                place.close()
        channel.close_all(before._journals._dropped)
        before._groups.clear()
        if before._shelf is not None:
            before._shelf.close()
        harness.listeners.clear()
        harness.pool.held.clear()
        harness.held = harness.workers.held = harness.make_held(HeldShelf(*self.shelf))
        harness.held.restore()
        for worker in list(harness.workers):
            worker.lose("")
        for member in harness.held._missed:
            member.pid = int(member.tag[1:])
        for node in self.nodes:
            node.read()
            node.survived = set(node.given)

    def is_alive(self, pid: int) -> bool:
        return any(node.tag == f"t{pid}" for node in self.nodes)

    def time_passes(self) -> None:
        self.harness.held._began -= self.chance.choice([0.1, 1.0, 3.0])
        for group in self.harness.held._groups.values():
            seconds = self.chance.choice([1.0, 10.0, 40.0])
            group.deadline -= seconds
            group.until -= seconds
            group.not_before -= seconds
        self.harness.held.look()

    async def step(self) -> None:
        chance = self.chance.random()
        if chance < 0.2 or not self.nodes:
            self.join(self.chance.randrange(6))
        elif chance < 0.35:
            self.one_ends()
        elif chance < 0.4:
            self.next_router()
        elif chance < 0.55:
            self.time_passes()
        elif chance < 0.65:
            await self.process_ends()
        elif chance < 0.85:
            self.chance.choice(self.nodes).decide(self.chance.random() < 0.8)
        elif chance < 0.95:
            self.chance.choice(self.nodes).receive()
        for node in self.nodes:
            if not node.connected and self.chance.random() < 0.7:
                node.connect()
            if self.chance.random() < 0.7:
                node.read()
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Let all messages be answered, and all timeouts pass."""
        for _ in range(100):
            await self.process_ends()
            for node in self.nodes:
                if not node.connected:
                    node.connect()
                node.read()
                node.decide(True)
                node.receive()
            await asyncio.sleep(0.002)
            self.harness.held._unsure_until = 0.0  # all have said what they have
            self.harness.held._began -= 10
            for group in self.harness.held._groups.values():
                group.not_before = group.deadline = 0.0
                if self.chance.random() < 0.2:  # somebody is slow
                    group.until = 0.0
            self.harness.held.look()
            idle = not (self.harness.held._groups or self.ending or self.harness.held._missed)
            idle = idle and not any(n.given or n.arriving._coming for n in self.nodes)
            # Who was told to forget something has to read that, and what came before it.
            if idle and not any([node.read() for node in self.nodes]):
                for _ in range(MOST_BATCHES * self.count):  # in each turn one is closed
                    await asyncio.sleep(0)
                return
        held = self.harness.held
        left = {
            "FUZZ_SEED": os.environ["FUZZ_SEED"],
            "groups": [str(group) for group in held._groups.values()],
            "ending": len(self.ending),
            "missed": [member.tag for member in held._missed],
            "nodes": [(n.tag, list(n.given), list(n.arriving._coming)) for n in self.nodes],
        }
        raise AssertionError(f"something is held for ever: {left}")

    def check(self) -> None:
        owners: dict[str, Node] = {}
        for node in self.nodes:
            for tag in node.own:
                assert owners.setdefault(tag, node) is node, f"two workers have {tag}"
                owner = self.harness.pool.owner(tag)
                assert owner is not None and owner.tag == node.tag
        has = [tag for node in self.nodes for tag in node.has_journals_of]
        assert len(set(has)) == len(has), "two workers have inherited the same"
        assert {f"t{number + 1}" for number in range(self.count)} == {
            *has,
            *self.lost,
            *self.not_inherited,
        }
        self.harness.held._journals.keep()
        kept = self.harness.held._journals.descriptors
        assert kept == len(has) * sum(map(len, SEGMENTS.values()))
        alive = sum(not _ended(client) for client in self.clients)
        assert alive == sum(len(d) for node in self.nodes for d in node.own.values())

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        for client in self.clients:
            client.close()


def _ended(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


@pytest.fixture
def shelf() -> Iterator[Any]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with pair[0], pair[1]:
        yield pair


Play = Callable[[random.Random, Callable[[World], Awaitable[None]]], None]


@pytest.fixture
def play(
    run: Callable[[Scenario], None],
    no_leak: Callable[[], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
    shelf: Any,
) -> Play:
    """Let random events happen, then settle, and check where all sessions are."""
    not_inherited = Held._not_inherited

    def play(chance: random.Random, happens: Callable[[World], Awaitable[None]]) -> None:
        async def scenario(harness: Harness) -> None:
            world = World(harness, chance, shelf)

            def note(held: Held, name: str, journals: list[Journal]) -> None:
                world.not_inherited += [journal.source.tag for journal in journals]
                not_inherited(held, name, journals)

            monkeypatch.setattr(Held, "_not_inherited", note)
            monkeypatch.setattr(module, "is_alive", world.is_alive)
            try:
                await happens(world)
                await world.settle()
                world.check()
            finally:
                harness.all_stop = True  # nobody inherits any more
                world.close()
                while len(harness.workers):
                    await asyncio.sleep(0.005)
                for gone in list(harness.workers._absent.values()):
                    gone._process_ended()

        with no_leak():
            run(scenario)

    return play


@pytest.mark.parametrize("number", range(10))
def test_each_session_has_one_owner(
    play: Play, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(module, "TAKEOVER_TRIES", 4)

    async def happens(world: World) -> None:
        for _ in range(STEPS):
            await world.step()

    play(random.Random(f"{os.environ['FUZZ_SEED']}-{number}"), happens)


def test_who_took_too_long_lets_go_of_what_it_reads_later(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch is in transit when the adoption is cancelled."""
    monkeypatch.setattr(module, "TAKEOVER_TRIES", 1)
    monkeypatch.setattr(module, "ADOPT_TIMEOUT", 0.0)
    assert TAKEOVER_BATCHES < MOST_BATCHES

    async def happens(world: World) -> None:
        giver = world.join(clients=3 * MOST_BATCHES)
        world.join(clients=1)
        giver.pass_on(MOST_BATCHES, whole=True)
        world.end(giver)

    play(random.Random(1), happens)
