"""Processes on a relay without sockets, threads and a clock that runs: a test drives them.

Each has a real publisher and a real subscriber. What they say waits at each subscriber until the
test lets it be heard, or loses it.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import Any, Callable, Coroutine, Iterator, Mapping, Optional

import pytest
import zmq

from supervisor_sio.common.rundir import ClusterInfo, RunDir
from supervisor_sio.relay import hearing as hearing_module
from supervisor_sio.relay import publisher as publisher_module
from supervisor_sio.relay import stand_in as stand_in_module
from supervisor_sio.relay import subscriber as subscriber_module
from supervisor_sio.relay.hearing import Fetch
from supervisor_sio.relay.message import TOPIC_FOR_ROUTER, RelayMessage
from supervisor_sio.relay.position import Position
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.relay.rooms import room_hash
from supervisor_sio.relay.stand_in import StandIn
from supervisor_sio.relay.subscriber import Subscriber

RUN_DIR = RunDir("/nowhere")


class Frame:
    more = False

    def __init__(self, data: bytes) -> None:
        self.bytes = data


class Socket:
    """A socket of either kind."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.topics: list[bytes] = []
        self.incoming: deque[bytes] = deque()
        #: How many frames may be received now.
        self.budget = 0
        self.closed = False

    def setsockopt(self, option: int, value: Any) -> None:
        if option == zmq.SUBSCRIBE:
            self.topics.append(value)
        elif option == zmq.UNSUBSCRIBE:
            self.topics.remove(value)

    def connect(self, address: str) -> None: ...

    def close(self, linger: Optional[int] = None) -> None:
        self.closed = True

    def send(self, data: bytes, flags: int = 0) -> None:
        self._network.carry(data)

    def recv(self, flags: int, copy: bool) -> Frame:
        if not self.budget or not self.incoming:
            raise zmq.Again
        self.budget -= 1
        return Frame(self.incoming.popleft())


class Network:
    """The relay, the clock, and the contexts of all sockets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sockets: list[Socket] = []
        #: Gets the questions to the router.
        self.ask_router: Callable[[RelayMessage], None] = lambda question: None

    def socket(self, kind: int) -> Socket:
        self.sockets.append(Socket(self))
        return self.sockets[-1]

    def term(self) -> None: ...

    def carry(self, data: bytes) -> None:
        if data.startswith(TOPIC_FOR_ROUTER):
            self.ask_router(RelayMessage.unpack(data, len(TOPIC_FOR_ROUTER)))
        for socket in self.sockets:
            if not socket.closed and any(map(data.startswith, socket.topics)):
                socket.incoming.append(data)

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    @contextmanager
    def installed(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(zmq, "Context", lambda: self)
            for module in (publisher_module, subscriber_module, hearing_module):
                monkeypatch.setattr(module, "time", self)
            monkeypatch.setattr(stand_in_module._Probing, "start", lambda self: None)
            monkeypatch.setattr(stand_in_module._Probing, "stop", lambda self: self.close())
            yield


class Rooms:
    """The rooms with a client of a worker: each tag has clients in one room."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __contains__(self, number: object) -> bool:
        rooms = {None, *map(room_of, self._worker.groups)} if self._worker.groups else set()
        return any(room_hash("/", room) == number for room in rooms)


def room_of(tag: str) -> str:
    return f"room {int(tag[1:]) % 3}"


class Process:
    """A process that receives: a worker, a process that only emits, or a stand-in."""

    def __init__(self, subscriber: Any, deliver: Callable[[RelayMessage], None]) -> None:
        self.subscriber = subscriber
        self.socket: Socket = subscriber._socket
        self._steps = subscriber.steps(deliver)

    def hear(self, frames: int) -> None:
        """Receive what has arrived, up to so many frames."""
        self.socket.budget = frames
        for _ in range(1000):
            wait = next(self._steps)
            if wait.readable:
                break
        else:
            raise AssertionError("it never waits for anything")
        if not self.subscriber.joined:
            self.subscriber._publisher.probe()

    def turn(self) -> None:
        """Run up to the next wait, which may be in the middle of a delivery."""
        self.socket.budget = 10
        next(self._steps)


class Sleep:
    def __await__(self) -> Iterator[None]:
        yield


async def sleep(seconds: float) -> None:
    await Sleep()


class Worker(Process):
    """Serves the clients of its own tag and of those that it has adopted.

    In the place of the manager: it keeps apart who gets a message by which way.
    """

    def __init__(self, world: World, tag: str, serves: bool = True) -> None:
        self.tag = tag
        self.world = world
        self.publisher = Publisher(RUN_DIR, ClusterInfo(), tag)
        subscriber = Subscriber(
            self.publisher, RUN_DIR, hears_all=serves, lives=world.lives, living=world.living
        )
        super().__init__(subscriber, self._deliver)
        #: What is to be called at the end of this turn of its loop.
        self._calls: list[Callable[[], None]] = []
        self.publisher.turn = lambda: self._calls.append
        #: Whose clients are here.
        self.groups = {tag} if serves else set()
        if serves:
            subscriber.rooms, subscriber.packet = Rooms(self), "p"
        #: Those of them that are adopted, until they hear as the others do.
        self.apart: set[str] = set()
        #: Those of them that this process cannot yet emit to by itself.
        self.unsent: set[str] = set()
        self._leaving: Optional[Coroutine[Any, Any, list[str]]] = None
        while not subscriber.joined:
            self.hear(10)

    def hear(self, frames: int) -> None:
        self.end_turn()
        super().hear(frames)
        self.end_turn()

    def turn(self) -> None:
        self.end_turn()
        super().turn()

    def end_turn(self) -> None:
        calls, self._calls[:] = list(self._calls), []
        for call in calls:
            call()

    def publish(self, tag: Optional[str], long: bool, room: Optional[str] = None) -> None:
        text = self.world.note(self.tag, tag, room)
        self._leaving = None  # it waits for this one, too
        packet = text.ljust(17_000) if long else text
        here = self.groups - self.unsent
        fields = fields_of(tag, room)
        if tag is None or tag not in self.groups or tag in self.unsent:
            self.publisher.publish(tag, fields, [packet])
        for group in meant(here, fields):
            self.world.delivered[group].append(text)

    def _deliver(self, message: RelayMessage) -> None:
        self._give(message, self.groups - self.apart)

    def _give(self, message: RelayMessage, groups: set[str]) -> None:
        for group in meant(groups, message.fields):
            self.world.delivered[group] += [packet.rstrip() for packet in message.packets]  # type: ignore[misc]

    def pass_on(self) -> Position:
        position = self.subscriber.detach()
        self.groups.clear()
        return position

    def adopt(self, position: Position) -> None:
        for part in position.parts:
            tags = set(part.tags)
            self.groups |= tags
            self.apart |= tags
            self.unsent |= tags

            def own(fetch: Fetch, tags: set[str] = tags) -> None:
                messages, sent = fetch()
                assert sent == self.publisher.sent
                for message in messages:
                    self._give(message, tags)
                self.unsent -= tags

            def merged(tags: set[str] = tags) -> None:
                assert not self.unsent & tags
                self.apart -= tags

            def deliver(message: RelayMessage, tags: set[str] = tags) -> None:
                self._give(message, tags)

            self.subscriber.adopt(part, deliver, own, merged)

    def give_up(self, tag: str) -> None:
        for tags in (self.groups, self.apart, self.unsent):
            tags.discard(tag)
        self.subscriber.give_up(tag)

    def leave(self) -> bool:
        """Take one step of leaving; whether all receivers have what it has sent."""
        if self._leaving is None:
            self._leaving = self.subscriber.wait_confirmed(
                lambda: [tag for tag in self.world.receivers() if tag not in self.groups],
                lambda: float("inf"),
                sleep,
            )
        try:
            self._leaving.send(None)
        except StopIteration:
            return True
        return False


def fields_of(tag: Optional[str], room: Optional[str]) -> dict[str, Any]:
    return {"method": "emit", "namespace": "/", "packet": "p", "for": tag, "room": room}


def meant(groups: set[str], fields: Mapping[str, Any]) -> set[str]:
    tag, room = fields["for"], fields["room"]
    return {one for one in groups if tag in (None, one) and room in (None, room_of(one))}


class Held(Process):
    """Sessions that the router holds."""

    def __init__(self, world: World, position: Position) -> None:
        descriptor = position.write()
        try:
            read = Position.read(descriptor)
        finally:
            world.close(descriptor)
        assert read.parts == position.parts
        self.tags = read.tags
        self.stand_in = StandIn(RUN_DIR, ClusterInfo(), read, lives=world.lives)
        super().__init__(self.stand_in._subscriber, lambda message: None)

    def stop(self) -> Position:
        self.socket.closed = True
        return self.stand_in.stop()


class World:
    """All processes, and the messages that the clients of each tag should get."""

    def __init__(self, network: Network, close: Callable[[int], None]) -> None:
        self.network = network
        self.close = close
        self.workers: list[Worker] = []
        #: Those that have passed their sessions on, and have yet to end.
        self.leaving: list[Worker] = []
        self.held: list[Held] = []
        #: By tag, in their order: texts.
        self.delivered: dict[str, list[str]] = {}
        self.expected: dict[str, list[str]] = {}
        #: Tags whose clients have left.
        self.given_up: set[str] = set()
        self._senders: list[str] = []
        #: Those that ended before everybody had what they had sent.
        self.killed: set[str] = set()
        self._count = 0
        self.emitter = self._new_emitter()

    def end_turns(self) -> None:
        """Messages that are on their way when a worker begins may be for it: deliver them first."""
        for worker in (*self.workers, *self.leaving, self.emitter):
            worker.end_turn()

    def start_worker(self) -> Worker:
        self.end_turns()
        tag = f"w{len(self.delivered)}"
        self.delivered[tag], self.expected[tag] = [], []
        self.workers.append(Worker(self, tag))
        self._senders.append(tag)
        return self.workers[-1]

    def _new_emitter(self) -> Worker:
        self._senders.append(f"emitter {len(self._senders)}")
        return Worker(self, self._senders[-1], serves=False)

    # --- as the router knows it ---

    def lives(self, name: str) -> bool:
        return name in self.living()

    def living(self) -> list[str]:
        return [worker.tag for worker in (*self.workers, *self.leaving)]

    def receivers(self) -> list[str]:
        return [tag for tag in self.delivered if tag not in self.given_up]

    @property
    def processes(self) -> list[Process]:
        return [*self.workers, *self.leaving, *self.held, self.emitter]

    # --- what happens ---

    def note(self, sender: str, tag: Optional[str], room: Optional[str]) -> str:
        self._count += 1
        text = f"{self._count} of {sender} to {tag or room or 'all'}"
        for group in meant(set(self.receivers()), fields_of(tag, room)):
            self.expected[group].append(text)
        return text

    def pass_on(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self.leaving.append(worker)
        self.held.append(Held(self, worker.pass_on()))

    def leave(self, worker: Worker) -> None:
        if worker.leave():
            self.leaving.remove(worker)
            self.end(worker)
            for process in self.processes:
                process.subscriber.ended(worker.tag)

    def end(self, worker: Worker) -> None:
        worker.end_turn()
        worker.socket.close()
        worker.publisher.close()

    def replace_emitter(self) -> None:
        """The emitter ends when all receivers have its messages, and the next one starts."""
        while not self.emitter.leave():
            self.network.now += 0.26
            for process in self.processes:
                process.hear(1000)
        self.emitter.publisher.say_goodbye(confirmed=True)
        self.end(self.emitter)
        self.emitter = self._new_emitter()

    def kill(self, worker: Worker) -> None:
        """Its clients are gone, and other processes may lack messages of it."""
        self.killed.add(worker.tag)
        self.end(worker)
        if worker is self.emitter:
            self.emitter = self._new_emitter()
            return
        self.leaving.remove(worker)
        for process in self.processes:
            process.subscriber.ended(worker.tag)

    def adopt(self, held: Held, worker: Worker) -> None:
        self.held.remove(held)
        worker.adopt(held.stop())

    def restart(self, held: Held) -> None:
        """The worker that was to adopt them has died."""
        self.held[self.held.index(held)] = Held(self, held.stop())

    @property
    def adopted(self) -> list[tuple[Worker, str]]:
        """The tags that workers have adopted."""
        return [(one, tag) for one in self.workers for tag in sorted(one.groups - {one.tag})]

    def give_up(self, worker: Worker, tag: str) -> None:
        """The last client with the tag has left."""
        self.given_up.add(tag)
        worker.give_up(tag)

    def settle(self) -> None:
        """From now on nothing is lost; run until nothing happens any more."""
        for held in list(self.held):
            self.adopt(held, self.workers[0] if self.workers else self.start_worker())
        quiet = 0
        for _ in range(300):
            self.network.now += 1.0
            for process in self.processes:
                process.hear(100_000)
            for worker in list(self.leaving):
                self.leave(worker)
            busy = self.leaving or any(w.apart or w.subscriber._inbox.waits for w in self.workers)
            quiet = 0 if busy else quiet + 1
            if quiet == 12:  # meanwhile everybody has said how much it has sent
                return
        raise AssertionError("it does not become quiet")

    def check(self) -> None:
        for worker in self.workers:
            assert not worker.apart and not worker.subscriber._adoptions
            assert worker.subscriber._simple and not worker.subscriber._inbox.waits
            assert worker.subscriber._inbox._held_bytes == 0
        for process in self.processes:
            assert process.subscriber.malformed == 0
            assert self.killed or not process.subscriber.dropped
            assert not process.subscriber._refusals.by_reason
        for group, texts in self.delivered.items():
            assert len(set(texts)) == len(texts), group
            for sender in self._senders:
                mark = f" of {sender} to "
                got = [text for text in texts if mark in text]
                expected = [text for text in self.expected[group] if mark in text]
                if group in self.given_up:
                    expected = expected[: len(got)]
                if sender in self.killed:
                    expected = [text for text in expected if text in got]
                assert got == expected, (group, sender)
