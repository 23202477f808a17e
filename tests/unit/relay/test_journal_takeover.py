"""Workers are killed, and their clients go on from the positions in the journals."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager
from typing import Any, Callable, Iterable, Iterator, Optional

import pytest
from hypothesis import given, settings

from supervisor_sio.relay import subscriber as subscriber_module
from supervisor_sio.relay.journal import OWN, Journal
from supervisor_sio.relay.journal_reader import JournalReader
from supervisor_sio.relay.message import RelayMessage, topic_for_all, topic_for_one
from supervisor_sio.relay.position import Position
from unit.examples import examples

from .network import Held, Network, Worker, World, fields_of, meant
from .test_takeover import Action, act, plans, plans_of

_PUBLISH = ["publish", "publish to a room", "publish to one", "burst", "end turn"]
_RECEIVE = ["hear", "hear", "hear", "turn", "tick"]
_MOVE = ["adopt", "adopt", "restart", "crash", "crash", "pass on", "leave"]


class Segments:
    """The descriptors of a journal that a router has."""

    def __init__(self) -> None:
        self.descriptors: dict[tuple[str, int], int] = {}

    def add(self, log: str, number: int, descriptor: int) -> None:
        self.descriptors[log, number] = os.dup(descriptor)

    def drop(self, log: str, number: int) -> None:
        os.close(self.descriptors.pop((log, number)))

    def read(self) -> JournalReader:
        logs: dict[str, list[int]] = {"events": [], "states": []}
        for (log, _), descriptor in self.descriptors.items():
            logs[log].append(descriptor)
        return JournalReader(logs)

    def close(self) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)


class Journaled(Worker):
    """Writes each message to the journal, and then gives it to the clients."""

    def __init__(self, world: World, tag: str, serves: bool = True) -> None:
        super().__init__(world, tag, serves)
        self.segments = Segments()
        self.journal: Optional[Journal] = None
        if serves:
            self.journal = self.subscriber.journal = Journal(
                tag,
                age=1e9,
                most_messages=1000,
                most_bytes=2**20,
                on_segment=self.segments.add,
                on_dropped=self.segments.drop,
            )

    def publish(self, tag: Optional[str], long: bool, room: Optional[str] = None) -> None:
        if self.journal is None:
            super().publish(tag, long, room)
            return
        text = self.world.note(self.tag, tag, room)
        self._leaving = None
        packet = text.ljust(17_000) if long else text
        fields = fields_of(tag, room)
        here = self.groups - self.unsent
        stream: Any = OWN
        number = 0
        if tag is None or tag not in self.groups or tag in self.unsent:
            _, published, sequence, _ = self.publisher.publish(tag, fields, [packet])
            if tag is None:
                stream, number = published, sequence
        message = RelayMessage(self.tag, number, fields, [packet], time=self.world.network.now)
        if number or tag in here:
            self.journal.event(message, stream, [False, sorted(self.unsent)])
        for group in meant(here, fields):
            self.world.delivered[group].append(text)

    def _deliver(self, message: RelayMessage) -> None:
        self._write(message, [False, sorted(self.apart)])
        super()._deliver(message)

    def _write(self, message: RelayMessage, scope: Any) -> None:
        if self.journal is None:
            return
        if message.run:
            self.journal.events(message, scope)
        elif len(message.packets[0]) % 2:  # what is not for those who may come back
            via = message.fields.get("via")
            self.journal.heard(
                message.sender, message.stream, message.last, message.after, via, scope
            )
        elif message.run is not None:
            self.journal.events(message, scope)
        else:
            self.journal.event(message, message.stream, scope)

    def _give(self, message: RelayMessage, groups: set[str]) -> None:
        if not groups & self.apart == groups or not groups:
            super()._give(message, groups)
            return
        self._write(message, [True, sorted(groups)])
        super()._give(message, groups)


def numbers(senders: dict[str, Any]) -> dict[tuple[str, Optional[str]], int]:
    """The numbers of the last messages, where there are any."""
    found = {}
    for name, (placed, next, _, own, _) in senders.items():
        if placed:
            found[name, None] = next - 1
            found.update(((name, tag), first - 1) for tag, (first, _) in own.items())
    return {stream: number for stream, number in found.items() if number}


class JournaledWorld(World):
    #: How often a worker was killed, also while it adopted.
    crashes = 0

    def __init__(self, network: Network, close: Callable[[int], None]) -> None:
        #: How much each killed worker had sent: what the router says.
        self.ends: dict[str, dict[str, Any]] = {}
        #: Tags whose clients may have missed something.
        self.may_lack: set[str] = set()
        network.ask_router = self.answer
        super().__init__(network, close)

    def answer(self, question: RelayMessage) -> None:
        """In the place of :class:`.Registrar`."""
        if question.fields["method"] == "ended":
            topic = topic_for_one("socketio", question.sender)
            for tag, end in self.ends.items():
                self.network.carry(topic + RelayMessage(tag, 0, end).pack())
            said = {"method": "all_ended", "asked": question.fields["asked"]}
            self.network.carry(topic + RelayMessage("router", 0, said).pack())

    def start_worker(self) -> Worker:
        self.end_turns()
        tag = f"w{len(self.delivered)}"
        self.delivered[tag], self.expected[tag] = [], []
        self.workers.append(Journaled(self, tag))
        self._senders.append(tag)
        return self.workers[-1]

    def crash(self, worker: Any) -> None:
        """The router holds the worker's clients, and another process sends to them."""
        self.crashes += 1
        self.note_gaps()
        reader = worker.segments.read()
        assert reader.complete and reader.last == worker.journal.last
        position: Position = reader.position("socketio", sorted(worker.groups))
        self.compare(worker, position)
        self.workers.remove(worker)
        self.killed.add(worker.tag)
        self.end(worker)
        outbox = worker.publisher._outbox
        numbers = outbox.position(self.network.now, math.inf)
        end = {"method": "ended", "began": min(outbox.began, self.network.now), **numbers}
        self.ends[worker.tag] = {**end, "sent": False, "at": self.network.now}
        said = RelayMessage(worker.tag, 0, self.ends[worker.tag])
        self.network.carry(topic_for_all("socketio") + said.pack())
        self.held.append(Held(self, position))  # it misses this message

    def note_gaps(self) -> None:
        for worker in self.workers:
            assert isinstance(worker, Journaled) and worker.journal is not None
            if worker.journal._gap[0]:
                self.may_lack |= worker.groups

    def check_that_gaps_are_noted(self) -> None:
        """Clients that lack what others have got."""
        self.note_gaps()
        lack = set()
        for group, texts in self.delivered.items():
            others = {text for one in self.delivered.values() if one is not texts for text in one}
            if others.intersection(self.expected[group]).difference(texts):
                lack.add(group)
        assert lack <= self.may_lack

    def compare(self, worker: Any, position: Position) -> None:
        """The journal has the process's own position: no more than its clients were given."""
        for listener in worker.subscriber._listeners:
            part = next(part for part in position.parts if set(part.tags) == set(listener.tags))
            real, read = numbers(listener.save().senders), numbers(part.senders)
            assert part.since == listener.began
            assert listener.numbers_passed == part.passed
            own = worker.tag
            for stream in {stream for stream in (*real, *read) if stream[0] != own}:
                given, known = read.get(stream, 0), real.get(stream, 0)
                assert given == known or (listener.has_pending and given < known), stream
            if listener.has_pending and len(listener._kept):
                assert part.dropped
            if listener.tags == (own,) or listener.inbox is worker.subscriber._inbox:
                assert read.get((own, None), 0) == worker.publisher.last(())[0][None]

    def end(self, worker: Worker) -> None:
        super().end(worker)
        if isinstance(worker, Journaled) and worker.journal is not None:
            worker.journal.close()
            worker.segments.close()

    def check(self) -> None:
        for group, texts in self.delivered.items():
            assert len(set(texts)) == len(texts), group
            for sender in self._senders:
                got = [text for text in texts if f" of {sender} to " in text]
                assert got == sorted(got, key=lambda text: int(text.split()[0])), (group, sender)


@contextmanager
def run(plan: Iterable[Action], workers: int) -> Iterator[JournaledWorld]:
    """Carry out a plan in a new world, until nothing happens any more."""
    network = Network()
    with network.installed():
        world = JournaledWorld(network, os.close)
        for _ in range(workers):
            world.start_worker()
        for kind, who, what in plan:
            if kind == "crash":
                if len(world.workers) > 1:
                    world.crash(world.workers[who % len(world.workers)])
            else:
                act(world, kind, who, what)
        world.settle()
        world.check()
        yield world
        for process in (*world.workers, world.emitter):
            world.end(process)


@settings(max_examples=examples(300), deadline=None)
@given(plans_of([*_PUBLISH, *_PUBLISH, *_RECEIVE, *_RECEIVE, *_MOVE], 80))
def test_clients_that_lack_what_others_have_do_not_recover(plan: list[Action]) -> None:
    """Messages are lost only with a killed process, or while no process receives in its place.
    There are no long ones, which a process only announces. If only one worker is killed, and no
    sessions are passed on meanwhile, nobody lacks anything."""
    with run([(kind, who, min(what, 6)) for kind, who, what in plan], workers=3) as world:
        world.check_that_gaps_are_noted()
        moves = [kind for kind, *_ in plan if kind in ("crash", "restart", "pass on")]
        assert moves != ["crash"] or not world.may_lack


@settings(max_examples=examples(300), deadline=None)
@given(plans("crash", "crash", "crash"))
def test_a_journal_says_what_the_clients_of_a_killed_worker_were_given(plan: list[Action]) -> None:
    """Of each sender, whatever the worker was doing; no message comes twice after that."""
    with run(plan, workers=2):
        pass


def test_what_adopted_clients_have_yet_to_get_is_not_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its sender could end then, and if the worker is killed next, no process has it."""
    monkeypatch.setattr(subscriber_module, "_SLICE", 0.0)  # each message takes a turn
    network = Network()
    with network.installed():
        world = JournaledWorld(network, os.close)
        dead, heir = world.start_worker(), world.start_worker()
        emitter = world.emitter
        world.crash(dead)
        (held,) = world.held
        for _ in range(3):
            emitter.publish(None, long=False)
        for process in (held, heir):
            process.hear(100)
        world.adopt(held, heir)
        heir.socket.incoming.clear()
        assert not emitter.leave()  # it asks whether all is there
        heir.turn()
        assert len(world.delivered["w0"]) < 3
        emitter.hear(100)
        assert not emitter.publisher.has_confirmed("w0", {None: 3})
        while not emitter.leave():
            network.now += 0.26
            for process in (heir, emitter):
                process.hear(100)
        assert len(world.delivered["w0"]) == len(world.delivered["w1"]) == 3
        for process in (heir, emitter):
            world.end(process)
