"""A publisher is used by several threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from supervisor_sio.common.rundir import ClusterInfo, RunDir
from supervisor_sio.relay.inbox import Inbox
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.outbox import Outbox
from supervisor_sio.relay.publisher import Publisher
from unit.in_the_middle import Other


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr("supervisor_sio.relay.publisher._LINGER", 0)
    made = Publisher(RunDir(str(tmp_path)), ClusterInfo(), "s")
    yield made
    made.close()


def test_messages_of_threads_leave_in_the_order_of_their_numbers(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that gets them in another order would ask for what is on its way."""
    sent: list[int] = []
    monkeypatch.setattr(
        publisher,
        "_send_frame",
        lambda topic, data: sent.append(RelayMessage.unpack(data).sequence),
    )
    other = Other(publisher, publisher.publish, None, {"method": "emit"})
    other.interrupt(monkeypatch, publisher, "_send_frame")
    publisher.publish(None, {"method": "emit"})
    other.result()
    assert sent == [1, 2] and publisher.sent == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda publisher: publisher.publish(None, {"method": "emit"}),
        lambda publisher: publisher.publish_volatile(None, {"method": "emit"}),
        lambda publisher: publisher.tell("w", {"method": "probe"}),
        lambda publisher: publisher.ask_all({"method": "ask"}),
        lambda publisher: publisher.ask_router({"method": "who"}),
        lambda publisher: publisher.say_goodbye(True),
        lambda publisher: publisher.marks(["w"]),
        lambda publisher: publisher.ask_to_confirm({"w": {None: 0}}),
        lambda publisher: publisher.last(["w"]),
        lambda publisher: publisher.give(Inbox("w"), 0.0),
        lambda publisher: publisher.beat(0.0),
        lambda publisher: publisher.announce(),
        lambda publisher: publisher.answer("w", ["w"], None, 0, 0, 0.0),
        lambda publisher: publisher._end_turn(),
        lambda publisher: publisher.expect_no_relay(),
        lambda publisher: publisher.close(),
    ],
    ids=lambda call: call.__code__.co_names[0],
)
def test_one_thread_uses_it_at_a_time(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, call: Callable[[Publisher], Any]
) -> None:
    """libzmq's sockets are not safe to use from several threads."""
    other = Other(publisher, call, publisher)
    other.interrupt(monkeypatch, Outbox, "add")
    publisher.publish(None, {"method": "emit"})
    other.result()
    assert other.waited
