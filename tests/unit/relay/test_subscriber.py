"""A subscriber goes on receiving, whatever one message or one wait does to it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import pytest

from supervisor_sio.common.limits import RELAY_GIVE_UP, RELAY_MOST_FAILURES, RELAY_MOST_STREAMS
from supervisor_sio.common.rundir import ClusterInfo, RunDir
from supervisor_sio.relay import hearing, threaded
from supervisor_sio.relay import subscriber as module
from supervisor_sio.relay.message import (
    TOPIC_FOR_ROUTER,
    RelayMessage,
    topic_for_all,
    topic_for_one,
    topic_for_publishers,
)
from supervisor_sio.relay.position import Part
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.relay.subscriber import Deaf, Wait
from supervisor_sio.relay.threaded import ThreadSubscriber


class Failing(ThreadSubscriber):
    """Receives from a list instead of a socket: messages, and exceptions to raise."""

    def __init__(self, publisher: Publisher, run_dir: RunDir, items: list[Any]) -> None:
        super().__init__(publisher, run_dir)
        self._items = items

    def _look(self, now: float) -> list[RelayMessage]:
        if not self._items:
            return super()._look(now)
        item = self._items.pop(0)
        if isinstance(item, Exception):
            raise item
        return [item]

    def _wait(self, wait: Wait) -> None:
        if wait.readable:
            super()._wait(wait)


def take(subscriber: ThreadSubscriber, data: bytes, now: float) -> list[RelayMessage]:
    """The messages for clients out of a received frame."""
    first = [*subscriber._take_frame(data, now)]
    return first + [one for piece in subscriber._pieces for one in piece(now)]


def message(text: str) -> RelayMessage:
    return RelayMessage("s", 1, {"method": "emit"}, [text])


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path))


@pytest.fixture
def publisher(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr(module, "TICK", 0.001)
    monkeypatch.setattr("supervisor_sio.relay.publisher._LINGER", 0)
    publisher = Publisher(run_dir, ClusterInfo(), "s")
    yield publisher
    publisher.close()


def test_an_exception_stops_nothing(publisher: Publisher, run_dir: RunDir) -> None:
    items: list[Any] = [message("1"), OSError(9, "gone"), RuntimeError("odd"), message("2")]
    subscriber = Failing(publisher, run_dir, items)
    heard: list[Any] = []

    def deliver(message: RelayMessage) -> None:
        heard.append(message.packets)
        if len(heard) == 2:
            subscriber.close()

    subscriber.run(deliver)
    assert heard == [["1"], ["2"]]
    subscriber.release()


def test_nor_does_an_exception_of_a_wait(publisher: Publisher, run_dir: RunDir) -> None:
    items: list[Any] = [message("1")]
    subscriber = Failing(publisher, run_dir, items)
    waits: list[Any] = [OSError(9, "gone"), None]

    def wait(wait: Wait) -> None:
        error = waits.pop(0)
        if error:
            items.append(message("2"))
            raise error

    subscriber._wait = wait  # type: ignore[method-assign]
    heard: list[Any] = []

    def deliver(message: RelayMessage) -> None:
        heard.append(message.packets)
        if len(heard) == 2:
            subscriber.close()

    subscriber.run(deliver)
    assert heard == [["1"], ["2"]] and waits == []
    subscriber.release()


def test_who_hears_nothing_any_more_says_so(publisher: Publisher, run_dir: RunDir) -> None:
    failures: list[Any] = [OSError(9, "gone")] * (2 * RELAY_MOST_FAILURES)
    failures.insert(RELAY_MOST_FAILURES, message("in between"))
    subscriber = Failing(publisher, run_dir, [*failures, *failures])
    heard: list[Any] = []
    with pytest.raises(Deaf, match="gone"):
        subscriber.run(heard.append)
    assert [message.packets for message in heard] == [["in between"]]
    subscriber.release()


def test_who_did_not_run_for_a_while_asks_what_it_has_missed(
    publisher: Publisher, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALLED", 0.05)
    asks: list[bool] = []

    class Stopped(ThreadSubscriber):
        def _look(self, now: float) -> list[RelayMessage]:
            asks.append(self._ask_everybody)
            self._ask_everybody = False
            time.sleep(0.1)
            if len(asks) == 2:
                self.close()
            return []

    subscriber = Stopped(publisher, run_dir)
    subscriber.run(lambda message: None)
    subscriber.release()
    assert asks[1]


def test_a_sender_is_not_given_up_for_an_answer_that_is_not_read_yet(
    publisher: Publisher, run_dir: RunDir
) -> None:
    """This process did not run for longer than a sender has to answer."""
    subscriber = ThreadSubscriber(publisher, run_dir)
    (listener,) = subscriber._listeners
    listener.inbox.position("other", {None: 3}, {None: 0})
    assert len(listener.inbox.questions(100.0)) == 1
    assert listener.inbox.silent(100.0 + RELAY_GIVE_UP + 1) == ["other"]
    subscriber._note_stall(RELAY_GIVE_UP + 1)
    assert listener.inbox.silent(100.0 + RELAY_GIVE_UP + 1) == []
    assert len(listener.inbox.questions(100.0 + RELAY_GIVE_UP + 1)) == 1
    assert listener.inbox.silent(100.0 + 2 * RELAY_GIVE_UP + 2) == ["other"]
    subscriber.release()


def test_a_process_that_stalls_again_and_again_gives_senders_up(
    publisher: Publisher, run_dir: RunDir
) -> None:
    """When it has run for as long as a sender has to answer."""
    subscriber = ThreadSubscriber(publisher, run_dir)
    (listener,) = subscriber._listeners
    listener.inbox.position("other", {None: 3}, {None: 0})
    now = 100.0
    listener.inbox.questions(now)
    for _ in range(5):
        assert listener.inbox.silent(now) == []
        now += RELAY_GIVE_UP / 4 + 2.0
        subscriber._note_stall(2.0)
        listener.inbox.questions(now)
    assert listener.inbox.silent(now) == ["other"]
    subscriber.release()


def test_stop_ends_its_thread_while_there_is_no_relay(
    publisher: Publisher, run_dir: RunDir
) -> None:
    subscriber = ThreadSubscriber(publisher, run_dir)
    subscriber.start()
    began = time.monotonic()
    subscriber.stop()
    assert time.monotonic() - began < threaded._STOP_TIMEOUT and subscriber._socket.closed


def test_stop_does_not_wait_for_ever(
    publisher: Publisher, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery that does not end is not waited for."""
    monkeypatch.setattr(threaded, "_STOP_TIMEOUT", 0.2)
    release, entered = threading.Event(), threading.Event()

    def stuck(message: RelayMessage) -> None:
        entered.set()
        release.wait(60)

    subscriber = Failing(publisher, run_dir, [message("1")])
    subscriber.start(stuck)
    assert entered.wait(20)
    began = time.monotonic()
    subscriber.stop()
    assert 0.1 < time.monotonic() - began < 40
    release.set()
    subscriber.stop()


def test_a_thread_whose_socket_is_broken_ends(publisher: Publisher, run_dir: RunDir) -> None:
    subscriber = Failing(publisher, run_dir, [OSError(9, "gone")] * (RELAY_MOST_FAILURES + 1))
    subscriber.start()
    began = time.monotonic()
    subscriber.stop()
    assert time.monotonic() - began < threaded._STOP_TIMEOUT


def test_a_delivery_that_fails_is_not_the_last(publisher: Publisher, run_dir: RunDir) -> None:
    delivered: list[str] = []
    done = threading.Event()

    def deliver(message: RelayMessage) -> None:
        delivered.extend(message.packets)  # type: ignore[arg-type]
        if len(delivered) == 2:
            done.set()
        raise ArithmeticError("as the test wants it")

    subscriber = Failing(publisher, run_dir, [message("1"), message("2")])
    subscriber.start(deliver)
    assert done.wait(20) and delivered == ["1", "2"]
    subscriber.stop()


@pytest.fixture
def said(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, Any]]:
    """The messages of this process to others: topics and fields."""
    said: list[tuple[bytes, Any]] = []
    monkeypatch.setattr(
        publisher, "_send", lambda topic, fields, packets=(): said.append((topic, fields))
    )
    return said


def test_the_router_is_asked_who_has_ended_when_its_answer_can_come_through(
    publisher: Publisher, run_dir: RunDir, said: list[tuple[bytes, Any]]
) -> None:
    """The relay drops messages for a process whose queue is full. The router is asked again until
    it has answered; one of a former version does not say that it has."""
    subscriber = ThreadSubscriber(publisher, run_dir)
    subscriber.joined = True
    own = topic_for_one(publisher.channel, "s")

    def probes() -> list[Any]:
        return [fields for topic, fields in said if topic == own and fields["method"] == "probe"]

    def questions() -> list[Any]:
        return [fields["asked"] for topic, fields in said if topic == TOPIC_FOR_ROUTER]

    def receive(fields: Any, now: float) -> None:
        sender = "s" if fields["method"] == "probe" else "router"
        assert take(subscriber, own + RelayMessage(sender, 0, fields).pack(), now) == []

    subscriber._look(7.0)
    receive({"method": "probe", "at": 0.0}, 7.1)  # from before
    subscriber._look(7.5)
    assert len(probes()) == 2 and questions() == []  # the first one may have been dropped
    for now in (7.6, 7.7, 8.5, 8.7):
        receive(probes()[0], now)
        assert questions() == ([7.0] if now < 8.6 else [7.0] * 2)
    receive({"method": "all_ended", "asked": 6.0}, 8.8)  # to an earlier question
    assert subscriber._missed_ends
    receive({"method": "all_ended", "asked": 7.0}, 8.9)
    before = len(probes())
    for now in (9.0, 10.0):
        subscriber._look(now)
        receive(probes()[0], now)
    assert len(probes()) == before and len(questions()) == 2
    subscriber._ask_everybody = True
    subscriber._look(20.0)
    assert subscriber._missed_ends
    subscriber._look(20.1 + RELAY_GIVE_UP)
    assert not subscriber._missed_ends
    subscriber.release()


@pytest.mark.parametrize("tags, confirmed", [(None, False), (["stopped"], False), ([], True)])
def test_who_ends_before_all_have_what_it_sent_says_so(
    publisher: Publisher,
    run_dir: RunDir,
    said: list[tuple[bytes, Any]],
    caplog: pytest.LogCaptureFixture,
    tags: Any,
    confirmed: bool,
) -> None:
    subscriber = ThreadSubscriber(publisher, run_dir, hears_all=False)
    subscriber.start()
    publisher.publish(None, {"method": "emit"}, ["1"])
    subscriber.receivers = tags
    subscriber.finish(0.1)
    ((topic, bye),) = [(topic, fields) for topic, fields in said if fields["method"] == "bye"]
    assert (topic == TOPIC_FOR_ROUTER) == (not confirmed) and bye["all"] == 1
    (line,) = caplog.messages or [""]
    expected = "" if confirmed else "does not answer" if tags is None else "sent: stopped"
    assert expected in line and bool(line) == bool(expected)


def test_who_ends_and_has_sent_nothing_has_nothing_to_say_of_it(
    publisher: Publisher, run_dir: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    subscriber = ThreadSubscriber(publisher, run_dir, hears_all=False)
    subscriber.start()
    subscriber.finish(0.1)
    assert caplog.messages == []


@pytest.mark.parametrize("heard", [0, 3])
def test_what_is_missing_of_one_that_has_ended_is_counted_once(
    publisher: Publisher, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, heard: int
) -> None:
    """However often the router repeats that number."""
    monkeypatch.setattr(hearing, "_LAST_WORDS", 0.0)
    subscriber = ThreadSubscriber(publisher, run_dir, since=1.0)
    to_all = topic_for_all(publisher.channel)

    def hear(message: RelayMessage) -> int:
        return len(take(subscriber, to_all + message.pack(), time.monotonic()))

    for number in range(1, heard + 1):
        assert hear(RelayMessage("e", number, {"method": "emit"}, ["1"])) == 1
    end = {"method": "ended", "began": 2.0, "all": 7, "own": {"s": 2}}
    subscriber._heard_until = math.inf
    for _ in range(2):
        assert hear(RelayMessage("e", 0, end)) == 0
        assert subscriber._look(time.monotonic() + 1) == []
        assert subscriber.dropped == 7 - heard + 2
    subscriber.release()


def test_what_waits_in_the_socket_of_one_that_has_ended_is_received(
    publisher: Publisher, subscriber: ThreadSubscriber, said: list[tuple[bytes, Any]]
) -> None:
    """The process did not run for a moment, and looks at the clock first."""
    to_all, own = topic_for_all(publisher.channel), topic_for_one(publisher.channel, "s")
    subscriber.joined = True

    def taken(topic: bytes, message: RelayMessage) -> int:
        return len(take(subscriber, topic + message.pack(), time.monotonic()))

    assert taken(to_all, RelayMessage("e", 1, {"method": "emit"}, ["1"])) == 1
    subscriber._look(time.monotonic())
    taken(to_all, RelayMessage("e", 0, {"method": "ended", "began": 2.0, "all": 3, "own": {}}))
    later = time.monotonic() + 1
    assert subscriber._look(later) == []
    assert taken(to_all, RelayMessage("e", 2, {"method": "emit"}, ["2"])) == 1
    assert taken(to_all, RelayMessage("e", 3, {"method": "emit"}, ["3"])) == 1
    probes = [fields for topic, fields in said if topic == own and fields.get("at") == later]
    assert probes
    taken(own, RelayMessage("s", 0, probes[-1]))
    assert subscriber._look(later + 0.3) == []
    assert subscriber.dropped == 0 and not subscriber._ended
    subscriber.release()


def test_one_that_has_left_and_still_asks_to_confirm_is_waited_for(
    publisher: Publisher, subscriber: ThreadSubscriber, said: list[tuple[bytes, Any]]
) -> None:
    """It sends again what is missing, until it has ended."""
    to_all, own = topic_for_all(publisher.channel), topic_for_one(publisher.channel, "s")
    subscriber._heard_until = math.inf

    def taken(topic: bytes, message: RelayMessage) -> int:
        return len(take(subscriber, topic + message.pack(), time.monotonic()))

    assert taken(to_all, RelayMessage("e", 1, {"method": "emit"}, ["1"])) == 1
    subscriber._ended["e"] = time.monotonic() - 0.6
    asks = {"method": "position", "all": 2, "own": {"s": 0}, "confirm": ["s"]}
    taken(to_all, RelayMessage("e", 0, asks))
    assert subscriber._look(time.monotonic()) == [] and subscriber.dropped == 0
    lacked = RelayMessage("e", 2, {"method": "emit"}, ["2"]).pack()
    again = {"method": "again", "to_all": True, "tag": None, "asked": 2, "first": 2, "start": 0}
    taken(own, RelayMessage("e", 0, again, [lacked]))
    assert subscriber.catching_up and subscriber.dropped == 0
    taken(to_all, RelayMessage("e", 0, asks))
    assert [fields for _, fields in said if fields["method"] == "confirmed"]
    subscriber._look(time.monotonic() + 1)
    assert not subscriber._ended and subscriber.dropped == 0
    subscriber.release()


def test_what_is_missing_of_a_bridge_that_was_killed_comes_from_the_next_one(
    publisher: Publisher, subscriber: ThreadSubscriber
) -> None:
    """It was too long to be sent unasked, say. It does not count as lost, and comes in order."""
    to_all = topic_for_all(publisher.channel)

    def emit(bridge: str, number: int, text: str, **via: Any) -> list[Any]:
        message = RelayMessage(bridge, number, {"method": "emit", **via}, [text])
        return taken(subscriber, to_all, message)

    assert emit("bridge-1", 1, "11", via=["elsewhere", 11]) == [["11"]]
    assert emit("bridge-1", 3, "13", via=["elsewhere", 13]) == []
    assert emit("bridge-1", 4, "of a stock server") == []
    asks = RelayMessage("bridge-1", 0, {"method": "ask_passed"})
    assert taken(subscriber, topic_for_publishers(publisher.channel), asks) == []
    asks = replace(asks, sender="bridge-2")
    topic = topic_for_publishers(publisher.channel)
    assert taken(subscriber, topic, asks) == [["of a stock server"]]
    assert taken(subscriber, topic, asks) == []
    (listener,) = subscriber._listeners
    assert listener.numbers_passed == {"elsewhere": 11}
    for number in (12, 13):
        via = ["elsewhere", number]
        assert emit("bridge-2", number - 11, f"{number}", via=via) == [[f"{number}"]]
    now = time.monotonic()
    for later in (0.0, RELAY_GIVE_UP + 1):
        assert list(subscriber._look(now + later)) == []
    assert subscriber.dropped == 0 and not subscriber._inbox.waits


# --- sessions that are passed on, and adopted -------------------------------------


PART = Part(("t",), 0.0, {}, {})


def taken(subscriber: ThreadSubscriber, topic: bytes, message: RelayMessage) -> list[Any]:
    """The messages for clients of this process when that frame arrives."""
    return [one.packets for one in take(subscriber, topic + message.pack(), time.monotonic())]


@pytest.fixture
def subscriber(publisher: Publisher, run_dir: RunDir) -> Iterator[ThreadSubscriber]:
    subscriber = ThreadSubscriber(publisher, run_dir, since=1.0)
    yield subscriber
    subscriber.release()


def test_what_is_volatile_comes_once_however_many_hear(
    publisher: Publisher, subscriber: ThreadSubscriber
) -> None:
    to_all, to_t = topic_for_all(publisher.channel), topic_for_one(publisher.channel, "t")
    volatile = RelayMessage("e", 0, {"method": "volatile"}, ["1"])
    heard: list[Any] = []
    subscriber.adopt(PART, heard.append)
    assert taken(subscriber, to_all, volatile) == taken(subscriber, to_t, volatile) == [["1"]]
    subscriber.detach()
    assert taken(subscriber, to_all, volatile) == taken(subscriber, to_t, volatile) == []
    assert heard == [] and subscriber.malformed == 0


def test_what_is_said_to_the_process_that_had_the_tag_is_not_for_who_adopts_it(
    publisher: Publisher, subscriber: ThreadSubscriber, said: list[tuple[bytes, Any]]
) -> None:
    """That process had the same tag: other workers confirm to it, or ask for what it has sent."""
    own, to_t = topic_for_one(publisher.channel, "s"), topic_for_one(publisher.channel, "t")
    subscriber.adopt(PART, lambda message: None)
    publisher.publish(None, {"method": "emit"}, ["1"])
    publisher.ask_to_confirm({"e": {None: 1}})
    confirmed = {"method": "confirmed", "all": 1, "own": {"e": 0}}
    question = {"method": "question", "tag": "e", "to_all": True, "first": 1, "last": 1, "since": 0}
    del said[:]
    for fields in (confirmed, question):
        taken(subscriber, to_t, RelayMessage("e", 0, fields))
    assert said == [] and not publisher.has_confirmed("e", {None: 1})
    for fields in (confirmed, question):
        taken(subscriber, own, RelayMessage("e", 0, fields))
    assert publisher.has_confirmed("e", {None: 1})
    assert [fields["method"] for _, fields in said] == ["again"]
    # What it asks of those who hear under the tag is for them.
    position = {"method": "position", "all": 0, "own": {"t": 0}, "confirm": ["t"]}
    taken(subscriber, to_t, RelayMessage("e", 0, position))
    assert said[-1][1] == {"method": "confirmed", "all": 0, "own": {"t": 0}}


def test_many_tags_are_asked_with_one_question_and_answer_once(
    publisher: Publisher, subscriber: ThreadSubscriber, said: list[tuple[bytes, Any]]
) -> None:
    """A worker receives under one more tag after each restart from which it has adopted
    sessions."""
    tags = [f"tag {number}" for number in range(200)]
    publisher.publish(None, {"method": "emit"}, ["1"])
    publisher.publish("tag 9", {"method": "emit"}, ["1"])
    del said[:]
    until = time.monotonic()
    missing = subscriber.wait_confirmed(lambda: tags, lambda: until, asyncio.sleep)
    assert asyncio.run(missing) == tags and said == []  # its time was over
    rounds = 0

    async def answer(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        assert len(said) == rounds
        topic, question = said[-1]
        assert topic == topic_for_all(publisher.channel) and question["confirm"]
        asked = [tag for tag in question["confirm"] if rounds == 2 or tag != "tag 7"]
        own = {tag: question["own"][tag] for tag in asked}
        # What was sent since then is not waited for.
        assert all(last == (tag == "tag 9") for tag, last in own.items()) and question["all"] == 1
        publisher.publish("tag 9", {"method": "emit"}, ["1"])
        publisher.publish("tag 7", {"method": "emit"}, ["1"])
        publisher.publish(None, {"method": "emit"}, ["1"])
        said[rounds:] = []
        assert len(own) == (1 if rounds == 2 else 199), "who has answered is not asked again"
        confirmed = {"method": "confirmed", "all": 1, "own": own}
        taken(subscriber, topic_for_one(publisher.channel, "s"), RelayMessage("e", 0, confirmed))

    missing = subscriber.wait_confirmed(lambda: tags, lambda: until + 20, answer)
    assert asyncio.run(missing) == [] and rounds == 2

    subscriber.adopt(replace(PART, tags=tuple(tags)), lambda message: None)
    del said[:]
    own = dict.fromkeys((*tags, "s"), 0)
    question = {"method": "position", "all": 0, "own": own, "confirm": tags}
    taken(subscriber, topic_for_all(publisher.channel), RelayMessage("e", 0, question))
    assert [fields for _, fields in said if fields["method"] == "confirmed"] == [
        {"method": "confirmed", "all": 0, "own": dict.fromkeys(tags, 0)}
    ]


def test_what_one_that_has_ended_had_sent_before_is_not_missed(
    publisher: Publisher, subscriber: ThreadSubscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adopted sessions have its last message, and the own clients began later: they are merged
    soon, and nothing is lost."""
    monkeypatch.setattr(hearing, "_LAST_WORDS", 0.0)
    to_all, own = topic_for_all(publisher.channel), topic_for_one(publisher.channel, "s")
    subscriber.joined = True
    merged: list[bool] = []
    part = Part(("t",), 0.0, {"e": [True, 8, 7, {}, False]}, {})
    subscriber.adopt(part, lambda message: None, merged=lambda: merged.append(True))
    end = {"method": "ended", "began": 0.5, "all": 5, "own": {}}  # as the router knows it
    now = time.monotonic()
    taken(subscriber, to_all, RelayMessage("e", 0, end))
    for later in (0.1, 1.2, 1.3):
        assert list(subscriber._look(now + later)) == []
        taken(subscriber, own, RelayMessage("s", 0, {"method": "probe", "at": now + 0.1}))
        taken(subscriber, own, RelayMessage("s", 0, {"method": "probe", "at": now + later}))
    assert merged == []  # there may be others that have ended
    all_ended = {"method": "all_ended", "asked": now + 0.1}
    taken(subscriber, own, RelayMessage("router", 0, all_ended))
    assert list(subscriber._look(now + 1.4)) == []
    assert merged == [True] and subscriber.dropped == 0


def test_adopted_sessions_are_merged_though_the_router_does_not_answer(
    publisher: Publisher, subscriber: ThreadSubscriber
) -> None:
    """A router of a former version does not say when it has named all that have ended."""
    own = topic_for_one(publisher.channel, "s")
    subscriber.joined = True
    merged: list[bool] = []
    subscriber.adopt(
        Part(("t",), 0.0, {}, {}), lambda message: None, merged=lambda: merged.append(True)
    )
    now = time.monotonic()
    subscriber._look(now)
    taken(subscriber, own, RelayMessage("s", 0, {"method": "probe", "at": now}))
    for later, expected in ((5.0, []), (RELAY_GIVE_UP + 0.1, [True])):
        taken(subscriber, own, RelayMessage("s", 0, {"method": "probe", "at": now + later}))
        subscriber._look(now + later)
        assert merged == expected


def test_what_is_lost_stays_counted_when_its_tag_is_given_up(
    publisher: Publisher, subscriber: ThreadSubscriber
) -> None:
    subscriber.adopt(Part(("t",), 0.0, {}, {}, dropped=12), lambda message: None)
    assert subscriber.dropped == 12
    subscriber.give_up("t")
    assert subscriber.dropped == 12


def test_a_tag_that_is_given_up(publisher: Publisher, subscriber: ThreadSubscriber) -> None:
    to_t = topic_for_one(publisher.channel, "t")
    subscriber.adopt(PART, lambda message: None)
    assert subscriber.tags == ["s", "t"] and to_t in subscriber._topics
    subscriber.give_up("t")
    assert subscriber.tags == ["s"] and to_t not in subscriber._topics
    late = RelayMessage("e", 1, {"method": "emit"}, ["1"])
    assert taken(subscriber, to_t, late) == []  # it was on its way
    assert subscriber._simple and subscriber.malformed == 0
    to_us = topic_for_one(publisher.channel, "s")
    assert taken(subscriber, to_us, late) == [["1"]]


def test_a_numbered_message_to_a_process_that_has_another_tag(
    publisher: Publisher, run_dir: RunDir
) -> None:
    subscriber = ThreadSubscriber(publisher, run_dir, tag="other", since=1.0)
    message = RelayMessage("e", 1, {"method": "emit"}, ["1"])
    assert taken(subscriber, topic_for_one(publisher.channel, "s"), message) == []
    assert subscriber.malformed == 1
    subscriber.release()


@pytest.mark.parametrize("tags", [["t"], ["t", "u"]])
def test_who_has_several_tags_is_answered_of_each(
    publisher: Publisher, said: list[tuple[bytes, Any]], tags: list[str]
) -> None:
    """And a process with one tag gets the same answer as from older versions."""
    publisher.publish("t", {"method": "emit"}, ["1"])
    publisher.answer("asker", tags, None, 0, 0, 0.0)
    topic, position = said[-1]
    assert topic == topic_for_one(publisher.channel, "asker")
    assert position["own"] == {"t": 1, "u": 0} if len(tags) > 1 else {"t": 1}
    assert position["own_before"] == ({"t": 0, "u": 0} if len(tags) > 1 else 0)


def test_who_says_to_have_more_tags_than_there_are_streams_is_not_answered(
    publisher: Publisher, subscriber: ThreadSubscriber, said: list[tuple[bytes, Any]]
) -> None:
    own = topic_for_one(publisher.channel, "s")
    question = {"method": "question", "tag": "e", "to_all": True, "first": 0, "last": 0, "since": 0}
    for count in (RELAY_MOST_STREAMS, RELAY_MOST_STREAMS + 1):
        tags = [f"{number}" for number in range(count)]
        taken(subscriber, own, RelayMessage("e", 0, {**question, "tags": tags}))
    assert len(said) == subscriber.malformed == 1
