"""A subscriber among eventlet's greenlets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Iterator

import eventlet
import pytest
import zmq
from eventlet import hubs

from supervisor_sio.common.rundir import ClusterInfo, OwnedRunDir
from supervisor_sio.relay import subscriber as module
from supervisor_sio.relay.green import GreenSubscriber
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.publisher import Publisher
from unit.relays import relay_in


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[OwnedRunDir]:
    with relay_in(tmp_path, ClusterInfo()) as owned:
        yield owned


class Heard:
    """A connected subscriber, what it receives, and another process that sends."""

    def __init__(self, run_dir: OwnedRunDir) -> None:
        self.publisher = Publisher(run_dir, ClusterInfo(), "s")
        self.other = Publisher(run_dir, ClusterInfo(), "other")
        self.subscriber = GreenSubscriber(self.publisher, run_dir)
        self.numbers: list[int] = []
        #: That each message waits, among the greenlets.
        self.seconds = 0.0
        self.greenlet = eventlet.spawn(self.subscriber.run, self.deliver)
        with eventlet.Timeout(60):
            while not self.subscriber.joined:
                self.publisher.probe()
                eventlet.sleep(0.01)
            while 0 not in self.numbers:  # it may have to connect first
                self.other.publish(None, {"method": "emit", "number": 0})
                eventlet.sleep(0.01)
        self.numbers.clear()

    def deliver(self, message: RelayMessage) -> None:
        if self.seconds:
            eventlet.sleep(self.seconds)
        self.numbers.append(message.fields["number"])

    def say(self, count: int, first: int = 1) -> None:
        for number in range(first, first + count):
            self.other.publish(None, {"method": "emit", "number": number})

    def wait(self, count: int) -> None:
        with eventlet.Timeout(60):
            while len(self.numbers) < count or self.numbers[-1] == 0:
                eventlet.sleep(0.001)
        assert [number for number in self.numbers if number] == list(range(1, count + 1))

    @property
    def listens(self) -> bool:
        descriptor = self.subscriber._socket.getsockopt(zmq.FD)
        return descriptor in hubs.get_hub().listeners["read"]

    def close(self) -> None:
        self.subscriber.close()
        with eventlet.Timeout(60):
            self.greenlet.wait()
        assert not self.listens
        self.subscriber.release()
        for publisher in (self.publisher, self.other):
            publisher.close(linger=0)


@pytest.fixture
def heard(run_dir: OwnedRunDir) -> Iterator[Heard]:
    one = Heard(run_dir)
    yield one
    one.close()


def test_each_message_wakes_it(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """One listener of the hub and one timer serve all of them."""
    monkeypatch.setattr(module, "TICK", 60)
    eventlet.sleep(0.5)  # the timer of before is done
    listener, timer = heard.subscriber._listener, heard.subscriber._timer
    assert heard.listens and timer is not None
    for number in range(1, 20):
        heard.say(1, first=number)
        heard.wait(number)
    assert (heard.subscriber._listener, heard.subscriber._timer) == (listener, timer)
    heard.subscriber.close()
    hubs.get_hub().schedule_call_global(0, timer.tpl[0])  # so that it notices its end


def test_the_hub_does_not_spin_while_a_message_waits(heard: Heard) -> None:
    heard.seconds = 0.3
    heard.say(1)
    eventlet.sleep(0.1)  # it waits
    heard.say(2, first=2)
    began = time.process_time()
    eventlet.sleep(0.15)
    assert time.process_time() - began < 0.1
    heard.wait(3)


def test_what_is_due_is_looked_at(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    monkeypatch.setattr(module, "TICK", 0.01)
    look = heard.subscriber._look

    def noted(now: float) -> Any:
        looks.append(now)
        return look(now)

    monkeypatch.setattr(heard.subscriber, "_look", noted)
    with eventlet.Timeout(60):
        while len(looks) < 5:
            eventlet.sleep(0.01)


def test_it_goes_on_when_somebody_closes_its_descriptor(heard: Heard) -> None:
    """To eventlet it looks as if another file was opened under the same number."""
    hubs.notify_opened(heard.subscriber._socket.getsockopt(zmq.FD))
    heard.say(1)
    heard.wait(1)
    assert heard.listens


def test_another_hub_that_the_application_chooses(heard: Heard) -> None:
    heard.subscriber._leave_hub()
    heard.subscriber._hub = object()
    hubs.get_hub().schedule_call_global(0, heard.subscriber._is_due)
    heard.say(1)
    heard.wait(1)
    assert heard.listens and heard.subscriber._hub is hubs.get_hub()
