"""Messages that wait when a process comes to receive are handled together."""

from __future__ import annotations

from collections import deque
from typing import Any, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor_sio.common.limits import RELAY_BUNDLE_MESSAGES, RELAY_LONGEST_PUSHED
from supervisor_sio.common.rundir import ClusterInfo
from supervisor_sio.relay.message import RelayMessage, runs, take_run, topic_for_all
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.relay.rooms import room_hash
from supervisor_sio.relay.subscriber import Subscriber

from .network import RUN_DIR, Network

TO_ALL = topic_for_all("socketio")
EMIT = {"method": "emit", "namespace": "/", "packet": "p"}


def emit(number: int, room: str = "red", sender: str = "other", text: str = "") -> bytes:
    fields = {**EMIT, "room": room}
    return RelayMessage(sender, number, fields, [text or str(number)], time=1.0).pack()


class Receiver:
    """A process with a client in the room "red"."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.publisher = Publisher(RUN_DIR, ClusterInfo(), "here")
        self.subscriber = Subscriber(self.publisher, RUN_DIR, since=0.0)
        self.subscriber.rooms = {room_hash("/", "red"): 1}
        self.subscriber.packet = EMIT["packet"]
        self.delivered: list[list[Any]] = []
        self._steps = self.subscriber.steps(lambda one: self.delivered.append(list(one.packets)))
        self.receive(emit(1))
        assert self.take() == [["1"]]

    def receive(self, *messages: bytes, topic: bytes = TO_ALL) -> None:
        """Receive these messages, which have arrived one by one."""
        incoming = self.subscriber._socket.incoming
        incoming += [topic + data for data in messages]
        self.subscriber._socket.budget = 1000
        while not next(self._steps).readable or incoming:
            pass

    def take(self) -> list[list[Any]]:
        delivered, self.delivered[:] = list(self.delivered), []
        return delivered


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    network = Network()
    with network.installed():
        made = Receiver(network)
        yield made
        made.publisher.close()


def test_one_alone_is_not_held_for_others(receiver: Receiver) -> None:
    for number in (2, 3):
        receiver.receive(emit(number))
        assert receiver.take() == [[str(number)]]


def test_those_behind_the_first_are_one(receiver: Receiver) -> None:
    receiver.receive(*map(emit, range(2, 12)))
    assert receiver.take() == [["2"], [str(number) for number in range(3, 12)]]
    assert receiver.subscriber.received == 11


def test_other_rooms_and_other_senders_are_apart(receiver: Receiver) -> None:
    receiver.receive(emit(1, sender="third"))
    assert receiver.take() == [["1"]]
    receiver.receive(
        *map(emit, (2, 3, 4)),
        emit(5, "green"),
        emit(6, "green"),
        emit(7),
        emit(2, sender="third"),
        emit(3, sender="third"),
        emit(8),
    )
    assert receiver.take() == [["2"], ["3", "4"], ["7"], ["2", "3"], ["8"]]
    assert not receiver.subscriber.malformed


def test_none_is_joined_to_one_that_is_missing_before_it(receiver: Receiver) -> None:
    receiver.receive(*map(emit, (2, 3, 5, 6)))
    assert receiver.take() == [["2"], ["3"]]
    receiver.receive(emit(4))
    assert [text for texts in receiver.take() for text in texts] == ["4", "5", "6"]


def test_what_comes_twice_is_delivered_once(receiver: Receiver) -> None:
    receiver.receive(*map(emit, (2, 3, 4, 3, 4, 5)))
    assert [text for texts in receiver.take() for text in texts] == ["2", "3", "4", "5"]


def test_own_messages_are_skipped(receiver: Receiver) -> None:
    receiver.receive(emit(2), *(emit(number, sender="here") for number in (1, 2, 3)), emit(3))
    assert receiver.take() == [["2"], ["3"]]


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_malformed_one_is_refused_alone(receiver: Receiver, at: int) -> None:
    bad = (b"", b"\3\1", b"\xff" * 60, emit(9)[:-1])
    for first, data in zip(range(2, 18, 4), bad):
        messages = [emit(number) for number in range(first, first + 4)]
        receiver.receive(*messages[:at], data, *messages[at:])
        texts = [text for texts in receiver.take() for text in texts]
        assert texts == [str(number) for number in range(first, first + 4)]
    assert receiver.subscriber.malformed == len(bad)


def test_little_is_held_at_a_time(receiver: Receiver) -> None:
    most = 0

    def look(frames: Any) -> None:
        nonlocal most
        most = max(most, len(frames))

    take_next = receiver.subscriber._take_next
    receiver.subscriber._take_next = lambda now: (  # type: ignore[method-assign]
        look(receiver.subscriber._frames),
        take_next(now),
    )[1]
    receiver.receive(*map(emit, range(2, 500)))
    assert most == RELAY_BUNDLE_MESSAGES
    assert [text for texts in receiver.take() for text in texts] == [*map(str, range(2, 500))]
    most = 0
    long = "x" * (RELAY_LONGEST_PUSHED // 3)
    receiver.receive(*(emit(number, text=long) for number in range(500, 520)))
    assert most <= 5
    assert sum(map(len, receiver.take())) == 20


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["red", "green"]), st.booleans())))
def test_runs_of_frames_are_those_of_a_bundle(plan: list[tuple[int, str, bool]]) -> None:
    """Except that a bundle's numbers are consecutive anyway."""
    number, packed = 0, []
    for step, room, other in plan:
        number += step
        packed.append(emit(number, room, "a" if other else "b"))
    frames = deque(TO_ALL + data for data in packed)
    found = []
    while frames:
        found.append(take_run(frames, len(TO_ALL)))
    assert [data for run in found for data in run] == packed
    joined = [run for group in runs(packed) for run in _consecutive(group)]
    assert found == joined


def _consecutive(group: list[bytes]) -> list[list[bytes]]:
    parts: list[list[bytes]] = []
    for data in group:
        number = RelayMessage.unpack(data).sequence
        before = RelayMessage.unpack(parts[-1][-1]).sequence if parts else 0
        if before and number == before + 1:
            parts[-1].append(data)
        else:
            parts.append([data])
    return parts


@given(st.lists(st.binary(max_size=80)))
def test_any_bytes_have_runs(frames: list[bytes]) -> None:
    left = deque(TO_ALL + data for data in frames)
    found: list[bytes] = []
    while left:
        found += take_run(left, len(TO_ALL))
    assert found == frames
