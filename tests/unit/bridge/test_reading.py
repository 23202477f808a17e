"""Messages that the bridge reads together are published together."""

from __future__ import annotations

import threading
from typing import Any

from supervisor_sio.bridge.reading import ReadingTurn
from supervisor_sio.common.rundir import ClusterInfo
from supervisor_sio.relay.publisher import Publisher
from unit.relay.network import RUN_DIR, Network

FIELDS = {"method": "emit", "namespace": "/", "packet": "p", "room": "red"}


def test_calls_run_at_the_end_of_the_turn_in_order() -> None:
    turn, ran = ReadingTurn(), []
    for first in (0, 3):
        assert turn.call_soon() is None
        for number in range(first, first + 3):
            turn.begin()
            call_soon = turn.call_soon()
            assert call_soon is not None
            call_soon(lambda number=number: ran.append(number))
        assert len(ran) == first
        turn.end()
        assert ran == [*range(first + 3)]
    turn.end()
    assert ran == [*range(6)]


def test_other_threads_do_not_wait_for_the_end() -> None:
    turn, found = ReadingTurn(), [object()]
    turn.begin()
    thread = threading.Thread(target=lambda: found.append(turn.call_soon()))
    thread.start()
    thread.join()
    assert found[-1] is None and turn.call_soon() is not None


def test_a_publisher_sends_at_the_end_of_the_turn() -> None:
    network, turn = Network(), ReadingTurn()
    waiting: list[Any] = []
    with network.installed():
        publisher = Publisher(RUN_DIR, ClusterInfo(), "p")
        publisher.turn = turn.call_soon
        for _ in range(3):
            turn.begin()
            publisher.publish(None, FIELDS, ["x"])
            waiting.append(publisher.waiting)
        turn.end()
        waiting.append(publisher.waiting)
        publisher.publish(None, FIELDS, ["x"])
        waiting.append(publisher.waiting)
        publisher.close()
    assert waiting == [0, 1, 2, 0, 0]
