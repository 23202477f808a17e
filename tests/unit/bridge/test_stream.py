"""The stream of a host's messages, and what the next router finds of it."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from supervisor_sio.bridge import stream as module
from supervisor_sio.bridge import stream_file
from supervisor_sio.bridge.stream import HostStream
from supervisor_sio.bridge.stream_file import Messages, Origin
from supervisor_sio.common import memory_file
from supervisor_sio.common.limits import (
    BRIDGE_BATCH,
    BRIDGE_LONGEST,
    BRIDGE_MOST_ORIGINS,
    BRIDGE_MOST_OTHERS,
    BRIDGE_MOST_WAITING,
    BRIDGE_MOST_WAITING_BYTES,
)
from supervisor_sio.relay.inbox import Inbox
from supervisor_sio.relay.methods import BRIDGE
from unit.in_the_middle import Other


@pytest.fixture
def files() -> Iterator[list[int]]:
    made = [memory_file.write(name, b"") for name in memory_file.HOST_FILES]
    yield made
    for descriptor in made:
        os.close(descriptor)


@pytest.fixture
def stream(files: list[int]) -> HostStream:
    made = HostStream(files, 1000.0)
    made.save()
    return made


def add(stream: HostStream, number: int, data: bytes | None = None, sender: str = "w") -> bool:
    """Add a worker's numbered message; its data has its number in the stream."""
    origin = Origin(sender, False, number, 1000.0 + number)
    return stream.add(origin, lambda given: b"%d" % given if data is None else data)


def texts(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


def next_numbers(stream: HostStream) -> dict[str, tuple[int, int]]:
    """For each sender the numbers that the bridge would read next: to all, and to it alone."""
    part = stream.part()
    inbox = Inbox(*part.tags, since=part.since)
    inbox.restore(part.senders)
    return {sender: (row[1], row[3][BRIDGE][0]) for sender, row in inbox.save().items() if row[0]}


def test_messages_are_numbered_and_given_in_their_order(stream: HostStream) -> None:
    assert (stream.last, stream.given, stream.take(10)) == (0, 0, [])
    for number in range(1, 6):
        assert add(stream, number)
    assert (stream.last, stream.waiting) == (5, 5)
    assert stream.take(2) == texts(1, 2) and stream.given == 2
    assert stream.take(9) == texts(3, 4, 5) and stream.given == 5
    assert (stream.take(9), stream.waiting) == ([], 0)


def test_what_is_in_it_is_not_taken_twice(stream: HostStream) -> None:
    for number in (1, 2, 2, 1, 3):
        add(stream, number)
    stream.add(Origin("w", True, 1, 0.0), lambda given: b"alone")
    stream.add(Origin("w", True, 1, 0.0), lambda given: b"again")
    assert stream.take(9) == [*texts(1, 2, 3), b"alone"]


def test_what_redis_refuses_is_next_again(stream: HostStream) -> None:
    for number in range(1, 8):
        add(stream, number)
    stream.take(2)
    assert stream.take(3) == texts(3, 4, 5)
    stream.give_back(2)
    assert (stream.given, stream.waiting) == (3, 4)
    assert stream.take(9) == texts(4, 5, 6, 7)
    stream.give_back(0)
    assert stream.waiting == 0


def test_it_is_sent_again(stream: HostStream) -> None:
    for number in range(1, 8):
        add(stream, number)
    assert stream.again(3, 5) == (3, texts(3, 4, 5))
    assert stream.again(7, 7) == (7, texts(7))
    assert stream.again(8, 9) == (10, [])


def test_an_answer_is_bounded(stream: HostStream) -> None:
    long = b"x" * (BRIDGE_BATCH // 2)
    for number in range(1, 6):
        add(stream, number, long)
    assert stream.again(1, 5) == (1, [long] * 2)
    add(stream, 6, long * 3)
    assert stream.again(6, 6) == (6, [long * 3])  # alone, however long
    assert len(stream.take(9)) == 2


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "BRIDGE_MOST_WAITING", 10)
    return 10


def test_as_many_wait_as_may_and_all_others_are_counted(stream: HostStream) -> None:
    for number in range(1, BRIDGE_MOST_WAITING + 4):
        assert add(stream, number) == (number <= BRIDGE_MOST_WAITING)
    assert (stream.waiting, stream.unsent) == (BRIDGE_MOST_WAITING, 3)


def test_as_many_bytes_wait_as_may(stream: HostStream) -> None:
    third = bytes(BRIDGE_MOST_WAITING_BYTES // 3)
    kept = [add(stream, number, third) for number in range(1, 5)]
    assert (kept, stream.waiting, stream.unsent) == ([True, True, True, False], 3, 1)
    assert add(stream, 5, bytes(BRIDGE_MOST_WAITING_BYTES % 3))
    stream.take(1)
    assert add(stream, 6, third)
    assert [stream.again(n, n).first for n in range(1, 7)] == [1, 2, 3, 5, 5, 6]


def test_a_message_that_is_too_long_for_redis_is_counted(
    stream: HostStream, files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if only the answer to a host that missed it would be: it escapes quotation marks."""
    assert BRIDGE_LONGEST == module.BRIDGE_LONGEST < 28 * 1024 * 1024, "Redis takes no more"
    monkeypatch.setattr(module, "BRIDGE_LONGEST", module._LONGEST_HEAD + 10)
    assert add(stream, 1, b"x" * 10) and add(stream, 2, b'"' * 5)
    for number, data in ((3, b"x" * 11), (4, b'"' * 6), (5, b"\\" * 6)):
        with pytest.raises(OSError, match="bytes, more than"):
            add(stream, number, data)
    assert add(stream, 6, b"")
    assert (stream.last, stream.unsent, stream.waiting) == (6, 3, 3)
    assert stream.take(9) == [b"x" * 10, b'"' * 5, b""]
    assert stream.again(3, 6) == (6, [b""])
    stream.save()
    assert next_numbers(HostStream(files, 0.0)) == {"w": (7, 1)}


def test_the_others_learn_what_there_was_no_room_for(stream: HostStream, few: int) -> None:
    for number in range(1, 16):
        add(stream, number)
    assert stream.take(99) == texts(*range(1, 11))
    assert stream.again(1, 10) == (1, texts(*range(1, 11)))
    add(stream, 16)
    assert stream.take(99) == texts(16) and stream.given == 16
    assert stream.again(11, 15) == (16, [])
    assert stream.again(9, 16) == (9, texts(9, 10))  # up to the hole
    for number in range(17, 29):
        add(stream, number)
    while stream.take(99):
        pass
    assert stream.given == 28, "of what is missing at the end they hear, too"
    assert stream.unsent == 5 + 2


def test_between_once_and_twice_as_many_are_kept(
    stream: HostStream, files: list[int], few: int
) -> None:
    for number in range(1, 101):
        add(stream, number)
        stream.take(1)
        kept = stream.last + 1 - stream.again(1, number).first
        assert min(number, few) <= kept <= 2 * few
    size = sum(os.fstat(descriptor).st_size for descriptor in files[1:])
    assert size < 2 * few * 100


@pytest.mark.parametrize("seed", range(20))
def test_what_waits_is_never_thrown_away(files: list[int], few: int, seed: int) -> None:
    """Whatever happens, each message is given once, in order, or was counted; also to the next
    router, which may come at any time and reads the workers from where this one was."""
    choice = random.Random(seed)
    stream = HostStream(files, 1000.0)
    stream.save()
    given: list[int] = []
    refused = sent = 0
    for _ in range(400):
        event = choice.randrange(10)
        if event < 6:
            sent += 1
            refused += not add(stream, sent)
        elif event < 8:
            given += map(int, stream.take(choice.randrange(1, 5)))
        elif event == 8:
            taken = [int(data) for data in stream.take(3)]
            count = min(choice.randrange(4), len(taken))
            stream.give_back(count)
            given += taken[: len(taken) - count]
        else:
            stream.save()
            stream = HostStream(files, 5.0)
            assert next_numbers(stream) == ({"w": (sent + 1, 1)} if sent else {})
    while messages := stream.take(9):
        given += map(int, messages)
    assert given == sorted(set(given))
    assert stream.unsent == refused
    assert len(given) == sent - refused


# --- for the next router ---------------------------------------------------------------


def test_the_next_router_goes_on(stream: HostStream, files: list[int]) -> None:
    for number in range(1, 6):
        add(stream, number)
    stream.take(2)
    stream.add(Origin("v", True, 7, 0.0), lambda given: b"v")
    successor = HostStream(files, 2000.0)  # nothing was saved before it was killed
    assert successor.continued and not stream.continued
    assert (successor.last, successor.given, successor.waiting) == (6, 2, 4)
    assert next_numbers(successor) == {"w": (6, 1), "v": (1, 8)}
    assert successor.take(9) == [*texts(3, 4, 5), b"v"]
    assert successor.again(1, 2) == (1, texts(1, 2))
    add(successor, 5)
    add(successor, 6)
    assert successor.take(9) == texts(7)


def test_its_name_stays(stream: HostStream, files: list[int]) -> None:
    assert HostStream(files, 2000.0).id == stream.id
    assert HostStream(files, 2000.0).part().since == 1000.0


def test_what_was_read_and_is_for_nobody_stays_read(
    stream: HostStream, files: list[int], few: int
) -> None:
    stream.skip(Origin("w", False, 4, 0.0))
    stream.skip(Origin("w", False, 3, 0.0))
    stream.save()
    for number in range(1, 30):  # so that no file has what was read first
        add(stream, number, sender="v")
        stream.take(1)
    assert next_numbers(HostStream(files, 0.0)) == {"w": (5, 1), "v": (30, 1)}


def test_a_sender_that_was_forgotten_is_not_read_again(stream: HostStream) -> None:
    for number in range(BRIDGE_MOST_ORIGINS + 1):
        stream.skip(Origin(f"w{number}", False, 1, 2000.0 + number))
    part = stream.part()
    assert len(part.senders) == BRIDGE_MOST_ORIGINS
    assert "w0" not in part.senders and 2000.0 < part.since < 2001.0


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_message_that_was_not_written_to_its_end_is_none(
    stream: HostStream, files: list[int], cut: int
) -> None:
    for number in (1, 2):
        add(stream, number, b"y" * 40)
    (file,) = (one for one in files[1:] if os.fstat(one).st_size)
    os.ftruncate(file, os.fstat(file).st_size - cut)
    successor = HostStream(files, 0.0)
    assert successor.last == 1 and next_numbers(successor) == {"w": (2, 1)}
    add(successor, 2)
    assert HostStream(files, 0.0).take(9) == [b"y" * 40, b"2"]


def test_a_message_whose_bytes_are_others_is_none(stream: HostStream, files: list[int]) -> None:
    for number in (1, 2, 3):
        add(stream, number, b"y" * 40)
    (file,) = (one for one in files[1:] if os.fstat(one).st_size)
    os.pwrite(file, b"z", os.fstat(file).st_size - 150)
    assert HostStream(files, 0.0).last == 1
    os.pwrite(file, bytes(40), 0)
    assert HostStream(files, 0.0).last == 0


def test_a_state_that_was_not_written_to_its_end_is_the_one_before(
    stream: HostStream, files: list[int]
) -> None:
    for number in (1, 2):
        stream.skip(Origin("w", False, number, 0.0))
        stream.save()
    newest = stream_file._PLACES[stream._state._generation % 2]
    os.pwrite(files[0], b"!", newest + 30)
    assert next_numbers(HostStream(files, 0.0)) == {"w": (2, 1)}
    os.pwrite(files[0], b"\xff" * 16, newest)
    assert next_numbers(HostStream(files, 0.0)) == {"w": (2, 1)}


def test_what_another_version_has_saved_is_given_up(
    stream: HostStream, files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(stream, 1)
    stream.take(1)
    monkeypatch.setattr(module, "_FORMAT", 2)
    successor = HostStream(files, 0.0)
    assert not successor.continued and successor.id != stream.id
    assert (successor.last, successor.given, successor.waiting) == (0, 0, 0)


def test_a_state_that_is_too_long_leaves_the_one_before(
    stream: HostStream, files: list[int]
) -> None:
    long = "x" * stream_file._LONGEST
    for number in (1, 2):
        stream.note_passed({long: number})
        with pytest.raises(OSError, match="too large"):
            stream.save()
    successor = HostStream(files, 2000.0)
    assert successor.continued and successor.id == stream.id
    del stream.passed[long]
    stream.note_passed({"x": 1})
    stream.save()
    assert HostStream(files, 2000.0).passed == {"x": 1}


def test_messages_without_a_state_are_given_up(stream: HostStream, files: list[int]) -> None:
    """Other hosts would take them for messages of a host that they do not know."""
    add(stream, 1)
    stream.take(1)
    add(stream, 2)
    for place in stream_file._PLACES:
        os.pwrite(files[0], b"\xff" * 16, place)
    successor = HostStream(files, 0.0)
    assert not successor.continued and successor.id != stream.id
    assert (successor.last, successor.given, successor.waiting) == (0, 0, 0)


def test_of_so_many_others_it_knows_how_far_they_are(stream: HostStream, files: list[int]) -> None:
    for number in range(BRIDGE_MOST_OTHERS + 2):
        stream.note_passed({"bridge-1": number + 1, f"bridge-x{number}": 1})
    assert len(stream.passed) == BRIDGE_MOST_OTHERS
    stream.save()
    passed = HostStream(files, 0.0).passed
    assert passed == stream.passed and passed["bridge-1"] == BRIDGE_MOST_OTHERS + 2


def test_without_memory_it_is_counted(
    stream: HostStream, files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(stream, 1)
    real = os.pwrite

    def half(descriptor: int, data: Any, at: int) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: len(data) - 10], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match="No space"):
            add(stream, 2)
    assert (stream.unsent, stream.waiting) == (1, 1)
    add(stream, 3)
    assert stream.take(9) == texts(1, 3)
    assert HostStream(files, 0.0).again(1, 3) == (1, texts(1))


# --- in several threads ------------------------------------------------------------


@pytest.mark.parametrize(
    "call, expected",
    [
        (lambda stream: stream.waiting, 1),
        (lambda stream: [*stream.part().senders], ["w"]),
        (lambda stream: stream.take(9), texts(1)),
        (lambda stream: stream.again(1, 1), (1, texts(1))),
        (lambda stream: add(stream, 1) and stream.last, 1),
    ],
    ids=["waiting", "part", "take", "again", "add"],
)
def test_a_message_is_added_before_another_thread_sees_any_of_it(
    stream: HostStream,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[HostStream], Any],
    expected: Any,
) -> None:
    other = Other(stream, call, stream)
    other.interrupt(monkeypatch, memory_file, "write_at")
    add(stream, 1)
    assert other.result() == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda stream: stream.skip(Origin("v", False, 7, 0.0)),
        lambda stream: stream.note_passed({"bridge-2": 7}),
    ],
    ids=["skip", "note_passed"],
)
def test_what_is_noted_while_it_is_saved_is_saved_the_next_time(
    stream: HostStream,
    files: list[int],
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[HostStream], Any],
) -> None:
    stream.note_passed({"bridge-1": 1})
    other = Other(stream, call, stream)
    other.interrupt(monkeypatch, memory_file, "write_at")
    stream.save()
    other.result()
    stream.save()
    successor = HostStream(files, 0.0)
    assert successor.passed == stream.passed
    assert next_numbers(successor) == next_numbers(stream)


def test_what_waits_is_counted_right_if_it_is_given_back_while_more_comes(
    stream: HostStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BRIDGE_MOST_WAITING_BYTES", 3)
    add(stream, 1)
    stream.take(1)
    other = Other(stream, add, stream, 2)
    other.interrupt(monkeypatch, Messages, "bytes_after")
    stream.give_back(1)
    assert other.result()
    assert not add(stream, 3, b"33"), "two of three bytes are in use"
