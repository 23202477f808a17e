"""Events of a journal, found by their rooms."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisor_sio.relay import journal_index
from supervisor_sio.relay.journal import Journal
from supervisor_sio.relay.journal_format import Event
from supervisor_sio.relay.journal_index import Room
from supervisor_sio.relay.message import RelayMessage
from unit.in_the_middle import Other

from .test_journal_takeover import Segments

ROOMS: list[Any] = [None, "a", "b", "ü", 7, ["a", "b"], ["c", "a"], []]


@pytest.fixture
def segments() -> Iterator[Segments]:
    segments = Segments()
    yield segments
    segments.close()


@pytest.fixture
def make(segments: Segments) -> Iterator[Callable[..., Journal]]:
    made: list[Journal] = []

    def make(most_messages: int = 100_000) -> Journal:
        journal = Journal(
            "w",
            age=1e6,
            most_messages=most_messages,
            most_bytes=2**24,
            on_segment=segments.add,
            on_dropped=segments.drop,
        )
        made.append(journal)
        return journal

    yield make
    for journal in made:
        journal.close()


def emit(journal: Journal, namespace: str, room: Any) -> None:
    fields = {"method": "emit", "namespace": namespace, "room": room}
    journal.event(RelayMessage("s", journal.last + 1, fields, ["2[]"]), None)


def is_to(event: Event, rooms: set[Room]) -> bool:
    fields = event.message.fields
    room = fields["room"]
    return any(
        (fields["namespace"], one) in rooms for one in (room if isinstance(room, list) else [room])
    )


def found(journal: Any, k: int, rooms: set[Room]) -> tuple[list[int], int]:
    """The events for these rooms, and how many others were found."""
    numbers, events = [k], []
    for one in journal.to_rooms(k, rooms):
        numbers.append(one if isinstance(one, int) else one.k)
        events += [] if isinstance(one, int) else [one]
    assert numbers == sorted(numbers) and numbers[-1] == journal.last
    meant = [event.k for event in events if is_to(event, rooms)]
    return meant, len(events) - len(meant)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_found_is_all_that_there_is(
    make: Callable[..., Journal], segments: Segments, seed: int
) -> None:
    """By the writer, while it writes and drops old segments, and by another process."""
    print("seed", seed)
    chance = random.Random(seed)
    journal = make(chance.choice([100_000, 600]))
    for _ in range(12):
        for _ in range(chance.randrange(300)):
            emit(journal, chance.choice(["/", "/b"]), chance.choice(ROOMS))
        if chance.random() < 0.1:
            journal.lost()
        for reader in (journal, segments.read()):
            rooms: set[Room] = {("/", None), ("/", chance.choice("ab")), ("/b", 7)}
            k = chance.randrange(journal.dropped[0], journal.last + 1)
            meant = [event.k for event in reader.since(k) if is_to(event, rooms)]
            assert found(reader, k, rooms)[0] == meant


def test_events_are_read_once_for_all_who_look(
    make: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make()
    for number in range(3000):
        emit(journal, "/", f"room {number % 100}")
    read = []
    read_event = journal_index.read_event
    monkeypatch.setattr(
        journal_index, "read_event", lambda *args: read.append(args) or read_event(*args)
    )
    for number in range(100):
        events, _ = found(journal, 0, {("/", f"room {number}"), ("/", None)})
        assert len(events) == 30
    # Each once for the index, each once for whom it was, and the last few for everybody.
    assert len(read) <= 3000 + 3000 + 100 * journal_index._FEW


def test_two_threads_that_look_at_the_same_time_read_each_event_once(
    make: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many clients come back at once, each in a thread: each thread would read everything."""
    journal, events = make(), 2 * journal_index._FEW
    for _ in range(events):
        emit(journal, "/", "a")
    read: list[Event] = []
    rooms_of = journal_index._rooms_of
    monkeypatch.setattr(
        journal_index, "_rooms_of", lambda event: read.append(event) or rooms_of(event)
    )
    other = Other(journal._pieces[0].index, found, journal, 0, {("/", "a")})
    other.interrupt(monkeypatch, journal_index, "_rooms_of")
    assert found(journal, 0, {("/", "a")}) == other.result() == ([*range(1, events + 1)], 0)
    assert len(read) == events


def test_what_is_not_an_event_is_said(make: Callable[..., Journal]) -> None:
    journal = make()
    for _ in range(journal_index._FEW + 1):
        emit(journal, "/", [{}])
    with pytest.raises(ValueError, match="an event to"):
        list(journal.to_rooms(0, {("/", None)}))
