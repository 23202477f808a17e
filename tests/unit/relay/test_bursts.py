"""Messages that are published in one turn of the loop are sent together."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterator, Optional

import pytest

from supervisor_sio.common.limits import RELAY_BUNDLE_MESSAGES, RELAY_LONGEST_PUSHED
from supervisor_sio.common.rundir import ClusterInfo
from supervisor_sio.relay.message import look, topic_for_all, topic_for_one, unpack_bundle
from supervisor_sio.relay.publisher import Publisher

from .network import RUN_DIR, Network

TO_ALL, TO_W, TO_V = topic_for_all("socketio"), *(topic_for_one("socketio", t) for t in "wv")


class Burst:
    """A publisher in a loop, and the frames that it sends."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.publisher = Publisher(RUN_DIR, ClusterInfo(), "p")
        self.calls: list[Callable[[], None]] = []
        self.publisher.turn = lambda: self.calls.append
        self._socket = network.sockets[-1]
        self._socket.topics = [b""]

    def publish(self, tag: Optional[str] = None, length: int = 1, count: int = 1) -> None:
        fields = {"method": "emit", "namespace": "/", "packet": "p", "room": "red"}
        for _ in range(count):
            self.publisher.publish(tag, fields, ["x" * length])

    def end_turn(self) -> None:
        calls, self.calls[:] = list(self.calls), []
        for call in calls:
            call()

    def sent(self) -> list[tuple[bytes, int, int]]:
        """For each frame the topic, the first number in it, and how many messages it has."""
        found = []
        while self._socket.incoming:
            data = self._socket.incoming.popleft()
            topic = data[: data.index(b"\0", len("socketio") + 1) + 1]
            beginning = look(data, len(topic))
            if beginning.messages > 1:
                assert len(list(unpack_bundle(data, len(topic)))) == beginning.messages
            found.append((topic, beginning.first, beginning.messages))
        return found


@pytest.fixture
def burst() -> Iterator[Burst]:
    network = Network()
    with network.installed():
        one = Burst(network)
        yield one
        one.publisher.close()


def test_a_single_message_is_sent_at_once(burst: Burst) -> None:
    for number in (1, 2, 3):
        burst.publish()
        assert burst.sent() == [(TO_ALL, number, 1)]
        burst.end_turn()
        assert not burst.sent() and not burst.calls


def test_those_behind_it_leave_together_at_the_end_of_the_turn(burst: Burst) -> None:
    burst.publish(count=5)
    assert burst.sent() == [(TO_ALL, 1, 1)]
    assert len(burst.calls) == 1
    burst.end_turn()
    assert burst.sent() == [(TO_ALL, 2, 4)]


def test_whether_a_message_waits_is_known(burst: Burst) -> None:
    """And the end of the turn is said before what waits is sent."""
    publisher, said = burst.publisher, []
    publisher.ending_turn = lambda: said.append((publisher.waiting, burst.sent()))
    found = []
    for length in (1, 1, 1, 15_000, 1, RELAY_LONGEST_PUSHED, 1):
        burst.publish(length=length)
        found.append((publisher.is_waiting, publisher.waiting))
    assert found == [
        (False, 0),
        (True, 1),
        (True, 2),
        (True, 3),
        (True, 4),
        (False, 0),  # it is not sent through the relay, and what waited has left
        (True, 1),
    ]
    burst.sent()
    burst.end_turn()
    assert said == [(1, [])] and publisher.waiting == 0
    assert burst.sent() == [(TO_ALL, 7, 1)]


def test_bursts_that_go_on_are_one_message_each(burst: Burst) -> None:
    burst.publish(count=5)
    burst.end_turn()
    burst.sent()
    for first in (6, 11):
        burst.publish(count=5)
        assert not burst.sent()
        burst.end_turn()
        assert burst.sent() == [(TO_ALL, first, 5)]
    burst.publish()
    assert not burst.sent()
    burst.end_turn()
    assert burst.sent() == [(TO_ALL, 16, 1)]
    burst.publish()
    assert burst.sent() == [(TO_ALL, 17, 1)]


def test_after_a_pause_the_first_one_does_not_wait(burst: Burst) -> None:
    """Its turn may be long."""
    burst.publish(count=2)
    burst.end_turn()
    burst.sent()
    burst.network.now += 1.0
    burst.publish()
    assert burst.sent() == [(TO_ALL, 3, 1)]


def test_what_is_to_one_leaves_in_the_order_in_which_it_was_said(burst: Burst) -> None:
    """Otherwise a receiver of both would ask for a message that arrives in a moment."""
    burst.publish()
    burst.publish(count=2)
    burst.publish("w", count=2)
    burst.publish("v")
    burst.publish("w")
    burst.publish()
    burst.end_turn()
    expected = [(TO_ALL, 1, 1), (TO_ALL, 2, 2), (TO_W, 1, 3), (TO_V, 1, 1), (TO_ALL, 4, 1)]
    assert burst.sent() == expected


def test_a_bundle_has_a_most_of_messages_and_of_bytes(burst: Burst) -> None:
    burst.publish(count=1 + RELAY_BUNDLE_MESSAGES + 1)
    assert burst.sent() == [(TO_ALL, 1, 1), (TO_ALL, 2, RELAY_BUNDLE_MESSAGES)]
    burst.end_turn()
    burst.sent()
    burst.publish(length=RELAY_LONGEST_PUSHED // 3, count=4)
    burst.end_turn()
    assert [count for _, _, count in burst.sent()] == [2, 2]


def test_what_is_too_long_to_be_pushed_comes_after_what_was_published_before(burst: Burst) -> None:
    burst.publish(count=3)
    burst.publish(length=RELAY_LONGEST_PUSHED)
    assert burst.sent() == [(TO_ALL, 1, 1), (TO_ALL, 2, 2), (TO_ALL, 0, 1)]


def test_what_is_volatile_has_bundles_of_its_own(burst: Burst) -> None:
    fields = {"method": "volatile", "namespace": "/", "packet": "p", "room": "red"}
    burst.publish(count=3)
    for _ in range(3):
        burst.publisher.publish_volatile(None, fields, ["x"])
    burst.publish()
    burst.end_turn()
    expected = [(TO_ALL, 1, 1), (TO_ALL, 2, 2), (TO_ALL, 0, 3), (TO_ALL, 4, 1)]
    assert burst.sent() == expected


@pytest.mark.parametrize("say", ["tell", "announce", "close"])
def test_whatever_else_is_said_comes_after_it(burst: Burst, say: str) -> None:
    burst.publish(count=3)
    said: tuple[Any, ...] = ("w", {"method": "passed"}) if say == "tell" else ()
    getattr(burst.publisher, say)(*said)
    assert burst.sent()[:2] == [(TO_ALL, 1, 1), (TO_ALL, 2, 2)]
    burst.end_turn()


def test_another_thread_has_no_turn(burst: Burst) -> None:
    burst.publish(count=3)
    burst.publisher.turn = lambda: None
    burst.publish()
    assert burst.sent() == [(TO_ALL, 1, 1), (TO_ALL, 2, 2), (TO_ALL, 4, 1)]


def test_a_loop_that_has_ended_has_no_turns(burst: Burst) -> None:
    def call_soon(call: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    burst.publisher.turn = lambda: call_soon
    burst.publish(count=2)
    assert burst.sent() == [(TO_ALL, 1, 1), (TO_ALL, 2, 1)]


def test_a_forked_child_sends_nothing_of_its_parent(
    burst: Burst, monkeypatch: pytest.MonkeyPatch
) -> None:
    burst.publish(count=3)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        burst.end_turn()
        burst.publisher.close()
    assert burst.sent() == [(TO_ALL, 1, 1)]
