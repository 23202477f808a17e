"""A worker's journal, written by one process and read by another."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import select
import signal
import socket
import time
from typing import Any, Callable, Iterator, Optional, Sequence

import pytest

from supervisor_sio.common.limits import JOURNAL_CARRIED, JOURNAL_PIECES, JOURNAL_SEGMENT
from supervisor_sio.relay import journal as module
from supervisor_sio.relay import journal_log, journal_reader, journal_sources
from supervisor_sio.relay.inbox import Inbox
from supervisor_sio.relay.journal import OWN, Event, Heard, Incomplete, Journal, Scope
from supervisor_sio.relay.journal_format import HEAD
from supervisor_sio.relay.journal_reader import JournalReader
from supervisor_sio.relay.listener import Listener
from supervisor_sio.relay.message import RelayMessage, unpack_run
from supervisor_sio.relay.position import Held, Part, Position
from supervisor_sio.relay.stand_in import StandIn
from unit.in_the_middle import Other

from .network import RUN_DIR, ClusterInfo, Network
from .test_journal_takeover import Segments, numbers


@pytest.fixture
def segments() -> Iterator[Segments]:
    segments = Segments()
    yield segments
    segments.close()


@pytest.fixture
def make(segments: Segments) -> Iterator[Callable[..., Journal]]:
    made = []

    def make(**options: Any) -> Journal:
        of = {"age": 1e6, "most_messages": 100_000, "most_bytes": 2**24, **options}
        made.append(Journal("w", on_segment=segments.add, on_dropped=segments.drop, **of))
        return made[-1]

    yield make
    for journal in made:
        journal.close()


def message(number: int, sender: str = "s", text: str = "x", **fields: Any) -> RelayMessage:
    now = time.monotonic()
    return RelayMessage(sender, number, {"method": "emit", "n": number, **fields}, [text], 0, now)


def several(first: int, count: int, sender: str = "s", texts: Sequence[str] = ()) -> RelayMessage:
    """Several messages that arrived together."""
    now, fields = time.monotonic(), {"method": "emit"}
    return unpack_run(
        [
            RelayMessage(sender, number, fields, [text], 0, now).pack()
            for number, text in zip(range(first, first + count), texts or ["x"] * count)
        ]
    )


def seen(event: Event) -> tuple[Any, ...]:
    return event.k, event.stream, event.scope, event.sender, event.number, event.message.packets


def since(journal: Any, k: int) -> Any:
    try:
        return [seen(event) for event in journal.since(k)]
    except Incomplete as error:
        return error.given


@pytest.mark.parametrize("seed", range(6))
def test_what_is_read_is_what_was_written(
    make: Callable[..., Journal], segments: Segments, seed: int
) -> None:
    """In this process and another one, whatever is dropped, copied or replaced meanwhile."""
    print("seed", seed)
    chance = random.Random(seed)
    most, size = chance.choice([(100_000, 2**24), (100, 2**24), (1000, 20_000)])
    journal = make(most_messages=most, most_bytes=size)
    events: list[Any] = []
    states: dict[str, bytes] = {}
    heard: dict[tuple[str, Optional[str]], int] = {}
    gone: set[str] = set()
    for _ in range(3000):
        action = chance.random()
        sender = f"s{chance.randrange(20)}"
        stream: Any = chance.choice([None, None, "w", OWN])
        number = heard.get((sender, stream), 0) + 1
        if action < 0.5:
            scope: Scope = chance.choice([None, None, [False, ["a"]], [True, ["b"]]])
            number = 0 if stream is OWN else number
            text = "é" * chance.randrange(300)
            if stream is None and chance.random() < 0.2:
                first, number = number, number + 2
                ks = journal.events(several(first, 3, sender), scope)
                row = zip(ks, range(first, number + 1))
                events += [(k, stream, scope, sender, n, ["x"]) for k, n in row]
            else:
                k = journal.event(message(number, sender, text), stream, scope)
                events.append((k, stream, scope, sender, number, [text]))
            assert events[-1][0] == journal.last
            if stream is not OWN and not (scope and scope[0]):
                heard[sender, stream] = number
                gone.discard(sender)
        elif action < 0.7 and stream is not OWN:
            journal.heard(sender, stream, number)
            heard[sender, stream] = number
            gone.discard(sender)
        elif action < 0.9:
            pid = f"w.{chance.randrange(100)}"
            states[pid] = chance.randbytes(chance.randrange(20_000))
            journal.save(pid, states[pid])
        elif action < 0.95:
            pid = f"w.{chance.randrange(100)}"
            states.pop(pid, None)
            journal.remove(pid)
        elif action < 0.96 and any(name == sender for name, _ in heard):
            journal.ended(sender)
            gone.add(sender)
        elif action < 0.962:
            journal.lost()
            events.append(None)
    reader = segments.read()
    assert reader.tag == "w" and reader.complete and reader.states_complete
    assert reader.last == journal.last == len(events)
    assert dict(reader.states()) == states
    assert reader.dropped[0] == journal.dropped[0]
    assert reader.dropped[1] >= journal.dropped[1] and (reader.dropped[0] or not reader.dropped[1])
    for k in [*range(-1, len(events) + 2, 37), journal.dropped[0], len(events)]:
        got = since(reader, k)
        assert got == since(journal, k)
        if not 0 <= k <= len(events):
            assert got is False
        elif k < journal.dropped[0]:
            assert got is True
        else:
            assert got == events[k:]
    assert len(since(journal, journal.dropped[0])) <= most
    (part,) = reader.position("socketio", ["w"]).parts
    assert numbers(part.senders) == heard
    assert {name for name, sender in part.senders.items() if sender[-1]} == gone
    to_all = {name: number for (name, stream), number in heard.items() if stream is None}
    assert {name: n for name, n in journal.position().numbers.items() if n} == to_all


def test_events_are_kept_within_all_limits(
    make: Callable[..., Journal], segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make(most_messages=1600, most_bytes=2**20, age=160)
    for number in range(10_000):
        journal.event(message(number + 1), None)
        assert len(segments.descriptors) <= JOURNAL_PIECES + 1 + 2 * 2
    kept = journal.last - journal.dropped[0]
    assert 1600 * (1 - 2 / JOURNAL_PIECES) <= kept <= 1600
    for number in range(1000):
        journal.event(message(number + 1, "t", "x" * 20_000), None)
        assert journal._events.kept <= 2**20
    assert since(journal, journal.last - 10)
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 170)
    journal.trim()
    assert journal.dropped[0] == journal.last and since(journal, journal.last) == []
    assert since(journal, journal.last - 1) is True
    assert journal._events.kept < 4096


def test_an_event_over_the_limit_is_a_gap(make: Callable[..., Journal]) -> None:
    journal = make(most_bytes=10_000)
    journal.event(message(1), None)
    assert journal.event(message(2, text="x" * 20_000), None) == 2
    journal.event(message(3), None)
    assert since(journal, 1) is True
    assert [event[0] for event in since(journal, 2)] == [3]


def test_a_long_event_has_a_piece_of_its_own(
    make: Callable[..., Journal], segments: Segments
) -> None:
    journal = make()
    journal.event(message(1), None)
    journal.event(message(2, text="x" * 3 * JOURNAL_SEGMENT), None)
    journal.save("w.1", b"y" * 2 * JOURNAL_SEGMENT)
    assert len(since(segments.read(), 0)[1][5][0]) == 3 * JOURNAL_SEGMENT
    assert len(dict(segments.read().states())["w.1"]) == 2 * JOURNAL_SEGMENT


def test_several_that_came_together_are_as_many_events(
    make: Callable[..., Journal], segments: Segments
) -> None:
    journal = make()
    journal.event(message(1), None)
    assert list(journal.events(several(2, 3, texts="abc"), [True, ["b"]])) == [2, 3, 4]
    assert list(journal.events(several(2, 3, texts="def"))) == [5, 6, 7]
    texts = [event.message.packets for event in journal.since(1)]
    assert texts == [[text] for text in "abcdef"]
    assert since(segments.read(), 1) == since(journal, 1)
    assert since(journal, 6) == [(7, None, None, "s", 4, ["f"])]
    assert journal.position().numbers == {"s": 4}
    (part,) = segments.read().position("socketio", ["w"]).parts
    assert numbers(part.senders) == {("s", None): 4}
    journal.close()
    assert list(journal.events(several(5, 2))) == [7, 7]


def test_one_of_several_that_is_over_the_limit_is_a_gap(make: Callable[..., Journal]) -> None:
    journal = make(most_bytes=10_000)
    texts = ["x", "x" * 20_000, "x"]
    assert list(journal.events(several(1, 3, texts=texts))) == [1, 2, 3]
    assert since(journal, 1) is True
    assert [event[0] for event in since(journal, 2)] == [3]
    assert journal.position().numbers == {"s": 3}


@pytest.mark.parametrize("clients", [1, 300, 3000])
def test_states_take_little_more_than_twice_their_size(
    make: Callable[..., Journal], segments: Segments, clients: int
) -> None:
    """However often they change; JOURNAL_CARRIED are copied at a time."""
    journal = make()
    chance, state = random.Random(clients), b"x" * 600
    most = 0
    for step in range(30_000):
        pid = f"w.{step if step < clients else chance.randrange(clients)}"
        before = journal._states.kept
        journal.save(pid, state)
        assert journal._states.kept - before <= (JOURNAL_CARRIED + 1) * 640
        most = max(most, journal._states.kept)
    assert most <= 2.5 * clients * 640 + 3 * JOURNAL_SEGMENT
    assert len(segments.descriptors) <= most / JOURNAL_SEGMENT + 4
    assert dict(segments.read().states()) == {f"w.{n}": state for n in range(clients)}
    for number in range(clients):
        journal.remove(f"w.{number}")
    assert journal._states.kept <= JOURNAL_SEGMENT
    assert dict(segments.read().states()) == {}


def test_no_memory_for_a_piece_is_a_gap_and_no_error(
    make: Callable[..., Journal],
    segments: Segments,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = make(most_messages=16)
    journal.event(message(1), None)
    journal.save("w.1", b"old")

    def fail(size: int) -> Any:
        raise OSError(errno.EMFILE, "no descriptor")

    with monkeypatch.context() as patch:
        patch.setattr(journal_log, "make_memory", fail)
        for number in (2, 3):
            assert journal.event(message(number), None) == number
        journal.save("w.1", b"x" * 2 * JOURNAL_SEGMENT)
        journal.heard("another", None, 3)
    assert caplog.messages == [
        "events are not kept for clients that come back: [Errno 24] no descriptor (1 times)"
    ]
    assert since(segments.read(), 1) is True
    assert dict(segments.read().states()) == {}  # what it was is not what it is
    journal.event(message(4), None)
    journal.save("w.1", b"new")
    for reading in (journal, segments.read()):
        assert since(reading, 2) is True
        assert [event[0] for event in since(reading, 3)] == [4]
    assert dict(segments.read().states()) == {"w.1": b"new"}


def test_no_descriptor_for_who_is_told_leaks_none(no_leak: Any) -> None:
    told: list[int] = []

    def tell(log: str, number: int, descriptor: int) -> None:
        told.append(number)
        if len(told) > 2:  # the first of each log
            raise OSError(errno.EMFILE, "no descriptor")

    with no_leak():
        journal = Journal(
            "w",
            age=60,
            most_messages=16,
            most_bytes=2**20,
            on_segment=tell,
            on_dropped=lambda log, number: None,
        )
        before = len(os.listdir("/proc/self/fd"))
        for number in range(1, 20):
            journal.event(message(number), None)
            journal.save("w.1", b"x" * 2 * JOURNAL_SEGMENT)
        assert len(told) > 20
        assert len(os.listdir("/proc/self/fd")) == before
        journal.close()


@pytest.mark.parametrize("log", ["events", "states"])
def test_one_that_cannot_begin_leaks_no_descriptor(no_leak: Any, log: str) -> None:
    told: set[tuple[str, int]] = set()

    def tell(of: str, number: int, descriptor: int) -> None:
        if of == log:
            raise OSError(errno.EMFILE, "no descriptor")
        told.add((of, number))

    with no_leak(), pytest.raises(OSError):
        Journal(
            "w",
            age=60,
            most_messages=16,
            most_bytes=2**20,
            on_segment=tell,
            on_dropped=lambda log, number: told.remove((log, number)),
        )
    assert not told


def test_it_lets_go_of_everything(no_leak: Any) -> None:
    with no_leak():
        segments = Segments()
        journal = Journal(
            "w",
            age=1,
            most_messages=50,
            most_bytes=2**20,
            on_segment=segments.add,
            on_dropped=segments.drop,
        )
        for number in range(500):
            journal.event(message(number + 1), None)
            journal.save(f"w.{number}", b"x" * 10_000)
        reader = segments.read()
        journal.close()
        journal.event(message(501), None)
        journal.heard("s", None, 502)
        journal.save("w.1", b"")
        journal.lost()
        segments.close()
        assert len(dict(reader.states())) == 500  # it has it mapped
        del reader


def test_a_forked_child_writes_nothing(make: Callable[..., Journal], segments: Segments) -> None:
    journal = make()
    journal.event(message(1), None)
    journal.save("w.1", b"parent")
    journal._lock.acquire()  # another thread of the parent has it
    child = os.fork()
    if not child:
        try:
            journal.event(message(2), None)
            journal.heard("s", None, 9)
            journal.save("w.1", b"child")
            journal.remove("w.1")
            journal.lost()
            journal.trim()
            os._exit(0 if not journal.segments() else 1)
        finally:
            os._exit(2)
    journal._lock.release()
    assert os.waitpid(child, 0)[1] == 0
    assert segments.read().last == 1 and dict(segments.read().states()) == {"w.1": b"parent"}
    assert journal.position().numbers == {"s": 1}


@pytest.mark.parametrize(
    "call",
    [
        lambda journal: journal.segments(),
        lambda journal: journal.event(message(1, "t"), None),
        lambda journal: journal.events(several(1, 2, "t")),
        lambda journal: journal.heard("t", None, 1),
        lambda journal: journal.since(0),
        lambda journal: journal.to_rooms(0, [("/", None)]),
        lambda journal: journal.lost(),
        lambda journal: journal.trim(),
        lambda journal: journal.began(0.0),
        lambda journal: journal.ended("t"),
        lambda journal: journal.adopting(Part(("a",), 5.0, {}, {})),
        lambda journal: journal.own_given(["a"]),
        lambda journal: journal.merged(["a"]),
        lambda journal: journal.given_up("a"),
        lambda journal: journal.guests("a", {}, bool),
        lambda journal: journal.position(),
        lambda journal: journal.reaches(Heard({}, {}, {})),
        lambda journal: journal.save("w.1", b"x"),
        lambda journal: journal.remove("w.1"),
        lambda journal: journal.close(),
    ],
    ids=lambda call: call.__code__.co_names[0],
)
def test_one_thread_uses_it_at_a_time(
    make: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch, call: Callable[[Journal], Any]
) -> None:
    journal = make()
    other = Other(journal, call, journal)
    other.interrupt(monkeypatch, journal_log.Segment, "write")
    journal.event(message(1), None)
    other.result()
    assert other.waited


# --- how far others were heard -----------------------------------------------------


def test_who_has_heard_what(make: Callable[..., Journal]) -> None:
    journal = make()
    journal.began(50.0)
    journal.heard("old", None, 3)
    heard = Heard.from_json(Heard({"s": 2}, {"s": 51.0}, {"s": 1}).to_json())
    sources = ("s", None, 2), ("s", None, 3), ("other", None, 1), ("s", "a", 1), ("s", "a", 2)
    assert [heard.has(*one, to="a") for one in sources] == [True, False, False, True, False]
    assert not heard.has("s", "b", 1, to="a") and not heard.has("s", OWN, 1, to="a")
    assert not journal.reaches(heard) and journal.reaches(Heard({"s": 0, "old": 3}, {}, {}))
    # It had ended before this process began, and nothing of it will ever come here.
    assert journal.reaches(Heard({"s": 2}, {"s": 49.0}, {"s": 1}), to="other")
    assert journal.reaches(Heard({"s": 2}, {}, {}))
    journal.heard("s", None, 1)
    assert not journal.reaches(heard)
    journal.ended("s")
    assert journal.reaches(heard)  # there is no more
    numbers, first, to_one = journal.position()
    assert numbers == {"s": 1, "old": 3} and first.keys() == {"s", "old"} and not to_one
    wrongs = [{"s": -1}, {}, {}], [{"s": True}, {}, {}], [{}, {"s": "1"}, {}], [[], {}, {}]
    for wrong in (None, [], [{}], [{}, {}], *wrongs, [{}, {}, {"s": -1}], [{}, {}, []]):
        with pytest.raises(ValueError):
            Heard.from_json(wrong)


def test_who_has_ended_and_was_never_heard_is_not_waited_for(make: Any) -> None:
    """The messages of it that another process has received were lost on their way here."""
    journal = make()
    journal.began(50.0)
    heard = Heard({"s": 3}, {"s": 60.0}, {"s": 1})
    assert not journal.reaches(heard, to="home")
    journal.ended("s")
    journal.ended("s")
    assert journal.reaches(heard, to="home") and journal.position(to="home").numbers == {}
    journal.heard("s", None, 4)  # it was only out of touch
    assert not journal.reaches(Heard({"s": 5}, {"s": 60.0}, {}))
    assert journal.position().numbers == {"s": 4} and "s" in journal.position().first


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("merges", [True, False])
def test_no_more_senders_than_may_be_in_a_position(
    make: Any, segments: Segments, monkeypatch: pytest.MonkeyPatch, merges: bool, gone: bool
) -> None:
    for name in ("RELAY_MOST_SENDERS", "RELAY_MOST_GONE"):
        monkeypatch.setattr(journal_sources, name, 2)
    journal = make()
    journal.began(50.0)

    def hear(*names: str) -> None:
        for name in names:
            journal.heard(name, None, 3)
            if gone:
                journal.ended(name)

    def known() -> list[str]:
        (part,) = segments.read().position("socketio", ["w", "a"]).parts
        assert {numbers[4] for numbers in part.senders.values()} == {gone}
        return sorted(part.senders)

    hear("s1", "s2")
    if merges:
        senders = {name: [True, 3, 2, {}, gone] for name in ("s3", "s4")}
        journal.adopting(Part(("a",), 5.0, senders, {}))
        journal.merged(["a"])
        assert known() == ["s3", "s4"]
    hear("s5", "s6", "s7")
    assert known() == ["s6", "s7"]
    hear("s5")
    assert known() == ["s5", "s7"]


@pytest.mark.parametrize("gone", [True, False])
def test_who_has_ended_is_not_waited_for_after_a_merge(
    make: Any, segments: Segments, gone: bool
) -> None:
    """Whether this process knew that, or the one whose sessions it has adopted."""
    journal = make()
    journal.began(50.0)
    journal.heard("s", None, 3)
    if not gone:
        journal.ended("s")
    journal.adopting(Part(("a",), 5.0, {"s": [True, 3, 2, {"a": [2, 1]}, gone]}, {}))
    journal.merged(["a"])
    heard = Heard({"s": 4}, {}, {"s": 2})
    assert journal.reaches(heard, to="a")
    journal.ended("s")
    assert journal.reaches(heard, to="a")
    assert journal.position(to="a").numbers == {"s": 3}
    (part,) = segments.read().position("socketio", ["w"]).parts
    assert part.senders["s"] == [True, 4, 3, {}, True]
    journal.heard("s", None, 5)  # it was only out of touch
    assert not journal.reaches(Heard({"s": 6}, {}, {}))


def test_who_has_heard_what_is_to_another_worker(
    make: Callable[..., Journal], segments: Segments
) -> None:
    """Some of that worker's clients are guests here."""
    journal = make()
    journal.began(50.0)
    journal.heard("s", None, 3)
    journal.heard("ended", None, 1)
    journal.ended("ended")

    def read() -> dict[tuple[str, Optional[str]], int]:
        (part,) = segments.read().position("socketio", ["w"]).parts
        assert part.guest_tags == tuple(journal._main.guests)
        return {key: number for key, number in numbers(part.senders).items() if key[1] is not None}

    numbers_there = {"s": 5, "ended": 2, "unknown": 7, "silent": 1}
    journal.guests("home", numbers_there, lambda name: name == "silent")
    assert read() == {("s", "home"): 5, ("ended", "home"): 2, ("silent", "home"): 1}
    heard = journal.position(to="home")
    assert heard.to_one == {"s": 5, "ended": 2, "silent": 1}
    assert heard.numbers == {"s": 3, "ended": 1, "silent": 0}
    assert journal.reaches(heard, to="home")
    assert not journal.reaches(Heard({}, {}, {"s": 6}), to="home")
    journal.event(message(6), "home")
    assert journal.reaches(Heard({}, {}, {"s": 6, "ended": 9}), to="home")
    assert read() == {("s", "home"): 6, ("ended", "home"): 2, ("silent", "home"): 1}
    journal._rewrite()
    assert read() == {("s", "home"): 6, ("ended", "home"): 2, ("silent", "home"): 1}
    journal.given_up("home")
    assert read() == {} and journal.position(to="home").to_one == {}


def test_what_a_killed_process_had_not_sent_is_no_gap(make: Callable[..., Journal]) -> None:
    """A message that its sender had sent, and keeps no more, is a gap."""
    journal = make()
    inbox = Inbox("w")
    inbox.on_lost = journal.lost
    inbox.receive(message(1, "killed"))
    for number in (1, 3):
        inbox.receive(message(number, "alive"))
    inbox.end("killed", {None: 3})
    assert inbox.gone("killed") == []
    assert inbox.dropped == 2 and journal.dropped == (0, 0.0)
    assert [one.sequence for one in inbox.again("alive", None, 2, 3, [])] == [3]
    assert inbox.dropped == 3 and journal.dropped[0] == journal.last == 1


def test_no_memory_for_a_position_leaves_the_segment_as_it_is(
    make: Callable[..., Journal], segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(size: int) -> Any:
        raise OSError(errno.EMFILE, "no descriptor")

    journal = make()
    journal.event(message(1), None)
    with monkeypatch.context() as patch:
        patch.setattr(journal_log, "make_memory", fail)
        journal.adopting(Part(("a",), 5.0, {"s": [True, 4, 3, {"a": [2, 1]}, False]}, {}))
        head = bytes(journal._piece.memory[: HEAD.size])
        journal.heard("s", None, 9, scope=[True, ["a"]])
        journal.heard("s", "a", 7, scope=[True, ["a"]])
        journal.ended("s")
        assert bytes(journal._piece.memory[: HEAD.size]) == head
    assert segments.read().position("socketio", ["w"]).parts[0].tags == ("w",)


@pytest.mark.parametrize("alive", [True, False])
def test_the_same_for_who_adopts_what_a_stand_in_has_received(
    make: Callable[..., Journal], alive: bool
) -> None:
    stand_in = Listener("a", since=5.0, refuse=print)
    stand_in.inbox.receive(message(1, "s"))
    if alive:
        stand_in.inbox.receive(message(3, "s"))
        stand_in.inbox.again("s", None, 2, 3, [])
    else:
        stand_in.inbox.end("s", {None: 2})
        stand_in.inbox.gone("s")
    position = Position("socketio", [stand_in.save()])
    descriptor = position.write()
    try:
        (part,) = Position.read(descriptor).parts
    finally:
        os.close(descriptor)
    journal = make()
    journal.adopting(part)
    assert part.dropped == 1 and (journal.dropped[0] == 1) is alive


def test_what_a_sender_could_not_send_any_more_is_counted_once(
    make: Callable[..., Journal], segments: Segments
) -> None:
    """The router repeats how much it had sent, to each process that adopts."""
    end = {"method": "ended", "began": 20.0, "all": 5, "own": {"w": 3}}
    listener = Listener("w", since=10.0, refuse=print)
    journal = make()
    journal.began(10.0)
    for received in (message(1), message(2)):
        listener.inbox.receive(received)
        journal.event(received, None)
    assert not listener.end("s", end) and not listener.inbox.gone("s")
    journal.ended("s")
    assert listener.inbox.dropped == 3 + 3
    assert not listener.end("s", end) and not listener.inbox.gone("s")
    assert listener.inbox.dropped == 3 + 3
    (part,) = segments.read().position("socketio", ["w"]).parts
    heir = Listener.restored(part, refuse=print)
    assert not heir.end("s", end) and not heir.inbox.gone("s")
    assert heir.inbox.dropped == 0


def test_what_an_adoption_has_yet_to_give_is_known(
    make: Callable[..., Journal], segments: Segments
) -> None:
    journal = make()
    journal.began(10.0)
    kept = [Held(None, message(3).pack()), Held("a", message(1).pack())]
    senders = {"s": [True, 4, 3, {"a": [2, 1]}, False], "new": [False, 1, 4, {}, False]}
    part = Part(("a",), 5.0, senders, {"bridge": 7}, kept)
    journal.adopting(part)
    journal.event(message(5), None, [False, ["a"]])

    def read() -> tuple[Part, Part]:
        ours, adopted = segments.read().position("socketio", ["w", "a"]).parts
        assert (ours.tags, ours.since, numbers(ours.senders)["s", None]) == (("w",), 10.0, 5)
        assert (adopted.tags, adopted.since, adopted.passed) == (("a",), 5.0, {"bridge": 7})
        return ours, adopted

    assert numbers(read()[1].senders) == {("s", None): 3, ("s", "a"): 1}
    counted = Heard({"s": 3}, {}, {"s": 1})
    dropped, reached = [read()[1].dropped], [journal.reaches(counted, "a", "a")]
    for stream, number in ((None, 3), ("a", 1)):  # what was kept
        journal.event(message(number), stream, [True, ["a"]])
        dropped.append(read()[1].dropped)
        reached.append(journal.reaches(counted, "a", "a"))
    journal.own_given(["a"])
    dropped.append(read()[1].dropped)
    reached.append(journal.reaches(counted, "a", "a"))
    assert dropped == [2, 1, 0, 0]
    assert reached == [False, False, False, True]  # the clients lack what is not written yet
    journal.event(message(4), None, [True, ["a"]])
    journal.heard("s", None, 5, scope=[True, ["a"]])
    journal.event(message(6, "w"), None, None)  # its own, directly
    assert numbers(read()[1].senders) == {("s", None): 5, ("s", "a"): 1, ("w", None): 6}
    assert journal.reaches(Heard({"s": 5}, {}, {"s": 1}), "a", "a")
    assert not journal.reaches(Heard({"s": 5}, {}, {"s": 2}), "a", "a")
    journal.merged(["a"])
    (both,) = segments.read().position("socketio", ["w", "a"]).parts
    assert numbers(both.senders) == {("s", None): 5, ("s", "a"): 1, ("w", None): 6}
    assert both.tags == ("w", "a") and both.passed == {"bridge": 7}


#: Of "w", which has sent to all, and to its own adopted clients under their tag.
OWN_MESSAGES = [(None, 1), (None, 2), ("a", 1), (None, 3)]


def write_own(journal: Journal, messages: Sequence[tuple[Optional[str], int]]) -> None:
    for stream, number in messages:
        journal.event(message(number, "w", f"{number} to {stream}"), stream, [False, ["a"]])


def has_own(part: Part) -> list[tuple[Optional[str], str]]:
    """What a position has kept."""
    return [(one.tag, str(RelayMessage.unpack(one.data).packets[0])) for one in part.kept]


@pytest.mark.parametrize("known", [0, 1, 2])
def test_what_an_heir_had_sent_itself_is_in_its_journal(
    make: Callable[..., Journal], segments: Segments, known: int
) -> None:
    """Nobody else can send it again to the clients that it had inherited."""
    journal = make()
    write_own(journal, OWN_MESSAGES)
    journal.event(message(9, "other"), None)
    journal.event(message(0, "w"), OWN)
    senders = {"w": [True, known + 1, known, {}, False]} if known else {}
    part = Part(("a",), 5.0, senders, {}, [Held(None, message(7, "other", "7").pack())])
    assert segments.read().add_own(part)
    texts = [(stream, f"{number} to {stream}") for stream, number in OWN_MESSAGES]
    lacks = [one for one, (stream, number) in zip(texts, OWN_MESSAGES) if stream or number > known]
    assert has_own(part) == [(None, "7"), *lacks]
    assert part.senders == {"w": [True, 4, 3, {"a": [2, 1]}, False]}
    assert segments.read().add_own(part) and len(part.kept) == 1 + len(lacks)  # nothing is due


@pytest.mark.parametrize("lacks", ["an event", "old ones", "long ones", "some that are no events"])
def test_what_is_not_in_the_journal_of_an_heir_is_missing(
    make: Callable[..., Journal], segments: Segments, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perhaps others have it."""
    journal = make()
    write_own(journal, [*OWN_MESSAGES, *(() if lacks == "an event" else [(None, 4)]), (None, 5)])
    if lacks == "old ones":
        monkeypatch.setattr(journal_reader, "HEIR_EVENTS", 2)
    elif lacks == "long ones":
        monkeypatch.setattr(journal_reader, "HEIR_BYTES", 1000)
    elif lacks == "some that are no events":
        journal.heard("w", "a", 2, 5)
    part = Part(("a",), 5.0, {"w": [True, 2, 1, {}, False]}, {})
    assert not segments.read().add_own(part) and not part.kept
    own = {"a": [1, 2 if lacks == "some that are no events" else 1]}
    assert part.senders == {"w": [True, 2, 5, own, False]}
    heir = Listener.restored(part, refuse=print)
    heir.end("w", {"method": "ended", "began": 6.0, "all": 5, "own": {}})
    heir.inbox.gone("w")
    assert heir.inbox.has_gap


def test_threads_write_in_any_order(make: Callable[..., Journal], segments: Segments) -> None:
    journal = make()
    write_own(journal, [(None, 1), (None, 3), ("a", 1), (None, 2)])
    part = Part(("a",), 5.0, {"w": [True, 2, 1, {}, False]}, {})
    assert segments.read().add_own(part)
    assert has_own(part) == [(None, "2 to None"), ("a", "1 to a"), (None, "3 to None")]


def test_what_was_sent_before_the_clients_came_is_not_for_them(
    make: Callable[..., Journal], segments: Segments
) -> None:
    """Their former worker had not learned yet how much the heir had sent before."""
    journal = make()
    write_own(journal, [(None, 1)])
    part = Part(("a",), time.monotonic() + 1, {}, {})
    assert not segments.read().add_own(part) and not part.kept and not part.senders


def test_what_an_heir_gives_last_is_its_own(
    make: Callable[..., Journal], segments: Segments
) -> None:
    """It has given all that others had kept."""
    journal = make()
    write_own(journal, [(None, 1)])
    journal.adopting(Part(("a",), 5.0, {"w": [True, 2, 1, {}, False]}, {}, []))
    write_own(journal, [(None, 2), (None, 3)])
    journal.event(message(2, "w", "2 to None"), None, [True, ["a"]])  # it has begun to
    _, part = segments.read().position("socketio", ["w", "a"]).parts
    assert has_own(part) == [(None, "3 to None")] and not part.dropped and not part.has_gap
    assert part.complete == ["w"]
    assert part.senders["w"] == [True, 4, 3, {}, False]
    journal.own_given(["a"])
    journal.event(message(4, "w"), None)
    _, part = segments.read().position("socketio", ["w", "a"]).parts
    assert not part.kept and part.senders["w"] == [True, 5, 4, {}, False]


def test_what_others_that_were_adopted_have_been_given_comes_once(
    make: Callable[..., Journal], segments: Segments
) -> None:
    """The journal has it once for each of them, and once for all other clients."""
    journal = make()
    write_own(journal, [(None, 1), (None, 2), (None, 3)])
    for tag, number in (("a", 1), ("b", 2)):
        senders = {"w": [True, number + 1, number, {}, False]}
        journal.adopting(Part((tag,), 5.0, senders, {}, []))
    journal.event(message(3, "w", "3 to None"), None, [True, ["b"]])
    _, a, b = segments.read().position("socketio", ["w", "a", "b"]).parts
    assert has_own(a) == [(None, "2 to None"), (None, "3 to None")] and not has_own(b)


def test_a_position_is_for_a_stand_in(make: Callable[..., Journal], segments: Segments) -> None:
    journal = make()
    journal.began(1.0)
    journal.event(message(4, via=["bridge", 3]), None)
    journal.event(message(2), "w")
    position = segments.read().position("socketio", ["w"])
    descriptor = position.write()
    read = Position.read(descriptor)
    os.close(descriptor)
    assert read.parts == position.parts and read.parts[0].passed == {"bridge": 3}
    with Network().installed():
        stand_in = StandIn(RUN_DIR, ClusterInfo(), read)
        assert numbers(stand_in.stop().parts[0].senders) == {("s", None): 4, ("s", "w"): 2}


def test_a_process_that_is_killed_before_the_source_has_changed(
    make: Callable[..., Journal], segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last event that was written has the number itself."""
    journal = make()
    journal.event(message(1, via=["bridge", 1]), None)
    monkeypatch.setattr(journal, "_note", lambda *args: None)
    journal.event(message(2, via=["bridge", 2]), None)
    (part,) = segments.read().position("socketio", ["w"]).parts
    assert numbers(part.senders) == {("s", None): 2} and part.passed == {"bridge": 2}
    journal.events(several(3, 3))
    (part,) = segments.read().position("socketio", ["w"]).parts
    assert numbers(part.senders) == {("s", None): 5}


# --- other processes ---------------------------------------------------------------


def write_for_ever(channel: socket.socket, seed: int) -> None:
    """In a child: event k has number k, and a client gets the state k."""

    def tell(what: str, log: str, number: int, *descriptors: int) -> None:
        socket.send_fds(channel, [f"{what} {log} {number};".encode()], list(descriptors))

    journal = Journal(
        "w",
        age=1e6,
        most_messages=3000,
        most_bytes=2**22,
        on_segment=lambda log, number, fd: tell("has", log, number, fd),
        on_dropped=lambda log, number: tell("drops", log, number),
    )
    chance = random.Random(seed)
    number = 0
    while True:
        number += 1
        assert journal.event(message(number, text="x" * chance.randrange(500)), None) == number
        journal.save(f"w.{number % 50}", b"%d " % number * chance.randrange(1, 300))


def receive(channel: socket.socket, segments: Segments, timeout: float) -> None:
    poller = select.poll()  # select() takes no descriptors over 1023
    poller.register(channel, select.POLLIN)
    while poller.poll(timeout * 1000):
        data, descriptors, _, _ = socket.recv_fds(channel, 1000, 10)
        if not data:
            return
        what, log, number = data.decode().rstrip(";").split()
        if what == "has":
            segments.descriptors[log, int(number)] = descriptors[0]
        else:
            segments.drop(log, int(number))
        timeout = 0.0


def check(reader: JournalReader) -> int:
    """Check that everything in the journal is whole; return the number of the last event."""
    count = reader.dropped[0]
    for event in reader.since(count):
        count += 1
        assert event.k == event.number == event.message.fields["n"] == count
    assert count == reader.last
    (part,) = reader.position("socketio", ["w"]).parts
    assert numbers(part.senders) == {("s", None): count}
    last = 0
    for pid, state in reader.states():
        written = set(state.split())
        assert len(written) == 1
        last = max(last, int(written.pop()))
        assert pid == f"w.{int(state.split()[0]) % 50}"
    assert abs(last - count) <= 1 or not reader.states_complete
    return count


@pytest.mark.parametrize("seed", range(4))
def test_a_process_may_be_killed_in_the_middle_and_read_beside(
    segments: Segments, seed: int
) -> None:
    print("seed", seed)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if not child:
        try:
            ours.close()
            write_for_ever(theirs, seed)
        finally:
            os._exit(1)
    theirs.close()
    try:
        receive(ours, segments, 10)
        until = time.monotonic() + 0.3 + random.Random(seed).random() / 2
        last = looks = 0
        while time.monotonic() < until or last <= 100:
            receive(ours, segments, 0.01)
            try:
                reader = segments.read()
                for event in reader.since(reader.dropped[0]):
                    assert event.k == event.number
                for _, state in reader.states():
                    assert len(set(state.split())) == 1
                last = reader.last
                looks += 1
            except (Incomplete, ValueError) as error:
                assert isinstance(error, Incomplete) or "no " in str(error)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    receive(ours, segments, 0.0)
    receive(ours, segments, 0.0)
    ours.close()
    assert check(segments.read()) >= last and looks


# --- files that are not what they should be -----------------------------------------


def memory(data: bytes, seal: bool = True) -> int:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(descriptor, data)
    if seal:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return descriptor


def read_all(logs: dict[str, list[int]]) -> None:
    """:raises ValueError: and no other exception."""
    reader = JournalReader(logs)
    try:
        for event in reader.since(reader.dropped[0]):
            seen(event)
    except Incomplete:
        pass
    for _ in reader.states():
        pass
    descriptor = reader.position("socketio", ["w", "a"]).write()
    os.close(descriptor)


@pytest.mark.parametrize("seed", range(8))
def test_garbage_is_refused_or_read_to_its_end(
    make: Callable[..., Journal], segments: Segments, seed: int
) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    journal = make(most_messages=64)
    journal.adopting(Part(("a",), 5.0, {"s": [True, 4, 3, {"a": [2, 1]}, False]}, {"b": 1}))
    for number in range(20):
        journal.event(message(number + 1, f"s{number % 3}", via=["b", number]), None)
        journal.event(message(number + 1), "w", [False, ["a"]])
        journal.save(f"w.{number % 5}", b"state")
    whole: dict[str, list[bytearray]] = {"events": [], "states": []}
    for (log, _), descriptor in sorted(segments.descriptors.items()):
        used = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        whole[log].append(bytearray(used[: HEAD.size + 6000]))
    for _ in range(150):
        logs: dict[str, list[int]] = {}
        for log, contents in whole.items():
            logs[log] = []
            for content in contents:
                data = bytearray(content)
                for _ in range(chance.choice([0, 1, 1, 5, 50])):
                    at = chance.randrange(chance.choice([HEAD.size, 600, len(data)]))
                    data[at] = chance.choice([0, 1, 255, chance.randrange(256)])
                if chance.random() < 0.2:
                    del data[chance.randrange(len(data)) :]
                logs[log].append(memory(bytes(data)))
        try:
            read_all(logs)
        except ValueError:
            pass
        finally:
            for descriptor in [one for several in logs.values() for one in several]:
                os.close(descriptor)


def test_what_is_not_a_journal_is_said(make: Callable[..., Journal], segments: Segments) -> None:
    make()
    events = [fd for (log, _), fd in segments.descriptors.items() if log == "events"]
    states = [fd for (log, _), fd in segments.descriptors.items() if log == "states"]
    content = os.pread(events[0], 4096, 0)
    version = memory(content[:4] + b"\x09\x00" + content[6:])
    open_end, text, pipe = memory(content, seal=False), memory(b"hello" * 100), os.pipe()
    for logs, told in (
        ({}, "no events"),
        ({"events": [], "states": states}, "no events"),
        ({"events": states, "states": events}, "of states among events"),
        ({"events": events * 2, "states": states}, "two segments"),
        ({"events": [version], "states": states}, "version 9"),
        ({"events": [open_end], "states": states}, "may be cut short"),
        ({"events": [text], "states": states}, "not a segment"),
        ({"events": [pipe[0]], "states": states}, "cannot be read"),
    ):
        with pytest.raises(ValueError, match=told):
            JournalReader(logs)  # type: ignore[arg-type]
    for descriptor in (version, open_end, text, *pipe):
        os.close(descriptor)


def test_who_lacks_a_piece_knows(make: Callable[..., Journal], segments: Segments) -> None:
    journal = make(most_messages=160)
    for number in range(100):
        journal.event(message(number + 1), None)
        journal.save(f"w.{number}", b"x" * 40_000)
    pieces = dict(segments.descriptors)

    def read(log: str, left_out: int) -> JournalReader:
        logs: dict[str, list[int]] = {"events": [], "states": []}
        for (name, number), descriptor in pieces.items():
            if (name, number) != (log, left_out):
                logs[name].append(descriptor)
        return JournalReader(logs)

    last = {
        log: journal_log.segments[-1].number
        for log, journal_log in (("events", journal._events), ("states", journal._states))
    }
    reader = read("events", last["events"])
    assert not reader.complete and since(reader, 0) is True and since(reader, 50) is True
    reader = read("events", last["events"] - 1)
    assert since(reader, 0) is True and reader.complete
    assert not read("states", last["states"]).states_complete
    assert not read("states", last["states"] - 1).states_complete
    assert read("states", 99).states_complete
