"""A position as a file in memory."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Iterator

import pytest

from supervisor_sio.common.limits import POSITION_BYTES, RELAY_MOST_STREAMS
from supervisor_sio.relay import position as module
from supervisor_sio.relay.position import Held, Part, Position

PART = Part(
    ("a", "b"),
    12.5,
    {"s": [True, 8, 7, {"a": [3, 4]}, False], "new": [False, 1, 3, {}, True]},
    {"bridge-1": 17},
    [Held(None, b"kept 1"), Held("a", b""), Held(None, b"kept 2")],
    [Held(None, b"to all"), Held("a", b"to a")],
    dropped=3,
)
POSITION = Position("chat", [PART, Part(("c",), 13, {}, {})])


@pytest.fixture
def written() -> Iterator[Callable[[bytes], int]]:
    """A descriptor of a file with these contents."""
    descriptors = []

    def write(data: bytes) -> int:
        descriptors.append(os.memfd_create("test"))
        os.write(descriptors[-1], data)
        return descriptors[-1]

    yield write
    for descriptor in descriptors:
        os.close(descriptor)


def content(position: Position) -> bytes:
    descriptor = position.write()
    try:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def changed(**fields: Any) -> bytes:
    """A position with a changed first part."""
    data = content(POSITION)
    length = module._HEAD.unpack_from(data)[2]
    head = json.loads(data[module._HEAD.size :][:length])
    head["parts"][0].update(fields)
    text = json.dumps(head).encode()
    start = module._HEAD.pack(b"siop", 3, len(text)) + text
    return start + data[module._HEAD.size + length :]


def test_it_is_read_as_it_was_written(no_leak: Any) -> None:
    """More than once, and wherever other readers have left the offset."""
    assert POSITION.tags == ("a", "b", "c")
    with no_leak():
        descriptor = POSITION.write()
        for _ in range(2):
            os.lseek(descriptor, 7, os.SEEK_SET)
            assert Position.read(descriptor) == POSITION
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)


def test_what_a_sender_has_sent_to_nobody_is_not_noted() -> None:
    part = Part(("a", "b"), 1.0, {}, {})
    part.has("s", {None: 0})
    assert part.senders == {}
    part.has("s", {None: 0, "a": 2})
    assert part.senders == {"s": [True, 1, 0, {"a": [3, 2]}, False]}


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("tags", []),
        ("tags", ["a", "a"]),
        ("tags", ["a", "b", "c"]),
        ("tags", ["a", ""]),
        ("tags", "ab"),
        ("tags", [f"{number}" for number in range(RELAY_MOST_STREAMS + 1)]),
        ("guest_tags", None),
        ("guest_tags", [1]),
        ("guest_tags", ["a"]),
        ("guest_tags", ["c", "c"]),
        ("since", "1"),
        ("since", -1),
        ("since", None),
        ("since", float("nan")),
        ("senders", []),
        ("senders", {"s": [True, 1, 0, {}]}),
        ("senders", {"s": [1, 1, 0, {}, False]}),
        ("senders", {"s": [True, 1, 0, {}, 0]}),
        ("senders", {"s": [True, 0, 0, {}, False]}),
        ("senders", {"s": [True, 3, 1, {}, False]}),
        ("senders", {"s": [True, 1.0, 0, {}, False]}),
        ("senders", {"s": [True, 1, 2**53 + 1, {}, False]}),
        ("senders", {"s": [True, 1, 0, {"z": [1, 0]}, False]}),
        ("senders", {"s": [True, 1, 0, {"a": [1]}, False]}),
        ("senders", {"s": [True, 1, 0, [], False]}),
        ("senders", {f"{n}": [True, 1, 0, {}, False] for n in range(12_000)}),
        ("passed", {"bridge-1": "17"}),
        ("passed", None),
        ("dropped", -1),
        ("has_gap", 1),
        ("kept", 2**60),
        ("kept", ["c"]),
        ("kept", True),
        ("held", ["z", None]),
        ("held", [None, None, None]),
        ("held", [{}]),
        ("held", 2),
    ],
)
def test_the_field_that_is_wrong_is_named(
    written: Callable[[bytes], int], field: str, wrong: Any
) -> None:
    with pytest.raises(ValueError) as raised:
        Position.read(written(changed(**{field: wrong})))
    assert str(raised.value).partition(":")[0] == field
    assert len(str(raised.value)) < 200 and "\n" not in str(raised.value)


def test_one_of_another_version_is_refused(written: Callable[[bytes], int]) -> None:
    data = content(POSITION)
    for version in (0, 2, 4):
        other = module._HEAD.pack(b"siop", version, module._HEAD.unpack_from(data)[2])
        with pytest.raises(ValueError, match=f"position: version {version} of the format, not 3"):
            Position.read(written(other + data[module._HEAD.size :]))


def test_however_it_is_cut_or_changed_it_is_read_or_refused(
    written: Callable[[bytes], int],
) -> None:
    data = content(POSITION)
    for length in range(len(data)):
        with pytest.raises(ValueError):
            Position.read(written(data[:length]))
    with pytest.raises(ValueError, match="longer"):
        Position.read(written(data + b"x"))
    for at in range(len(data)):
        other = bytearray(data)
        other[at] ^= 0xFF
        try:
            Position.read(written(bytes(other)))
        except ValueError:
            pass


@pytest.mark.parametrize("head", [b"[]", b"{", b"\xff", b"[" * 100_000, b'{"channel": "a"}'])
def test_a_head_that_is_none(written: Callable[[bytes], int], head: bytes) -> None:
    with pytest.raises(ValueError):
        Position.read(written(module._HEAD.pack(b"siop", 3, len(head)) + head))


def test_one_that_is_too_long_is_not_even_read() -> None:
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, POSITION_BYTES + 1)  # it takes no memory
    with pytest.raises(ValueError, match="position: .* over the limit"):
        Position.read(descriptor)
    os.close(descriptor)


def test_what_is_no_file_is_refused() -> None:
    reading, writing = os.pipe()
    with pytest.raises(ValueError):
        Position.read(reading)
    os.close(reading)
    os.close(writing)
    with pytest.raises(ValueError, match="position: cannot be read"):
        Position.read(reading)
