"""Records that are damaged in a known way: each is refused, and the error names its fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor_sio.relay import journal_format
from supervisor_sio.relay.journal_format import (
    BRIDGE,
    EVENT,
    GUESTS,
    HEAD,
    MARK,
    PART,
    RECORD,
    SOURCE,
    STATE,
    TO_ALL,
    TO_ONE,
    TO_OWN,
    VERSION,
    Kind,
    read_event,
    read_head,
    read_part,
    read_scope,
    read_source,
    read_state,
    records,
)

TOO_LARGE = 2**53 + 1


def head(**changed: Any) -> bytes:
    """The head of a segment of events: the third, with records up to its end."""
    fields = {
        "mark": MARK,
        "version": VERSION,
        "log": 1,
        "number": 3,
        "previous": 2,
        "next": 4,
        "commit": HEAD.size,
        "first": 7,
        "gap": 5,
        "gap_time": 1.0,
        "since": 2.0,
        "began": 3.0,
        "tag": b"abc",
    }
    assert changed.keys() <= fields.keys()
    return HEAD.pack(*{**fields, **changed}.values())


def test_a_head() -> None:
    got = read_head(head(), HEAD.size)
    assert (got.number, got.previous, got.next, got.commit) == (3, 2, 4, HEAD.size)
    assert (got.first, got.gap, got.tag) == (7, 5, "abc")


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"mark": b"zip!"}, "not a segment"),
        ({"version": VERSION + 1}, f"version {VERSION + 1} of the format, not {VERSION}"),
        ({"log": 3}, "log 3"),
        ({"gap_time": -1.0}, "impossible numbers"),
        ({"since": float("nan")}, "impossible numbers"),
        ({"began": float("inf")}, "impossible numbers"),
        ({"first": TOO_LARGE}, "impossible numbers"),
        ({"gap": TOO_LARGE}, "impossible numbers"),
        ({"commit": HEAD.size - 1}, f"records up to {HEAD.size - 1} in {HEAD.size} bytes"),
        ({"commit": HEAD.size + 1}, f"records up to {HEAD.size + 1} in {HEAD.size} bytes"),
        ({"number": 0, "previous": 0}, "segment 0 after 0"),
        ({"previous": 3}, "segment 3 after 3"),
        ({"next": 3}, "segment 3 after 2, before 3"),
    ],
)
def test_a_damaged_head(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_head(head(**changed), HEAD.size)


def test_a_head_cut_short() -> None:
    with pytest.raises(ValueError, match="cut short"):
        read_head(head(), HEAD.size - 1)


@pytest.mark.parametrize("length", [0, STATE.size - 1, 25])
def test_the_length_of_a_record(length: int) -> None:
    memory = RECORD.pack(length, Kind.STATE) + bytes(24 - RECORD.size)
    with pytest.raises(ValueError, match=f"a record of {length} bytes at 0 of 24"):
        list(records(memory, 0, 24))


def event(
    tag: bytes = b"abc", scope: bytes = b"", message: bytes = b"news", **changed: int
) -> bytes:
    length = EVENT.size + len(tag) + len(scope) + len(message)
    fields = {
        "length": length,
        "kind": Kind.EVENT,
        "stream": TO_ONE,
        "tag_length": len(tag),
        "scope_length": len(scope),
    }
    assert changed.keys() <= fields.keys()
    return EVENT.pack(*{**fields, **changed}.values(), 1.5) + tag + scope + message


@pytest.mark.parametrize(
    "code, stream", [(TO_ALL, None), (TO_ONE, "abc"), (TO_OWN, journal_format.OWN)]
)
def test_an_event(code: int, stream: Any) -> None:
    got = read_event(event(scope=b'[true,["x"]]', stream=code), 0, 9)
    assert (got.k, got.time, got.stream, got.scope) == (9, 1.5, stream, [True, ["x"]])
    assert got.data == b"news"


@pytest.mark.parametrize(
    "damaged, told",
    [
        (event(kind=Kind.GAP), "not an event at 0"),
        (event(stream=BRIDGE), "not an event at 0"),
        (event(tag=b"", message=b"", scope_length=1), "not an event at 0"),
        (event(tag=b"\xff"), "not UTF-8"),
        (event()[: EVENT.size - 1], "a record cut short at 0"),
    ],
)
def test_a_damaged_event(damaged: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_event(damaged, 0, 9)


@pytest.mark.parametrize(
    "scope", [b"", b"1", b"{}", b"[true]", b"[1,[]]", b'[true,"x"]', b"[true,[1]]", b"[" * 100_000]
)
def test_a_damaged_scope(scope: bytes) -> None:
    with pytest.raises(ValueError, match="a malformed scope"):
        read_scope(scope)


def source(
    name: bytes = b"sender",
    tag: bytes = b"abc",
    code: int = GUESTS,
    number: int = 8,
    longer: int = 0,
) -> bytes:
    length = SOURCE.size + len(name) + len(tag)
    packed = SOURCE.pack(length, Kind.SOURCE, code, 2, number, len(name) + longer)
    return packed + name + tag


def test_a_source() -> None:
    assert read_source(source(), 0) == (False, GUESTS, 2, 8, "sender", "abc")


@pytest.mark.parametrize(
    "damaged, told",
    [
        (source(longer=4), "not a source at 0"),
        (source(code=TO_OWN), "not a source at 0"),
        (source(number=TOO_LARGE), "not a source at 0"),
        (source(name=b"\xff"), "not UTF-8"),
        (source(tag=b"\xff"), "not UTF-8"),
    ],
)
def test_a_damaged_source(damaged: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_source(damaged, 0)


def part(tags: Any = ("x", "y"), due: int = 4, since: float = 1.5, text: bytes = b"") -> bytes:
    text = text or json.dumps(tags).encode()
    return PART.pack(PART.size + len(text), Kind.PART, 2, due, since) + text


def test_a_part() -> None:
    assert read_part(part(), 0) == (2, 4, 1.5, ["x", "y"])


@pytest.mark.parametrize(
    "damaged",
    [
        PART.pack(PART.size - 1, Kind.PART, 2, 4, 1.5),
        part(text=b"{"),
        part(text=b"[" * 100_000),
        part(tags=()),
        part(tags=(1,)),
        part(tags={"x": 1}),
        part(due=TOO_LARGE),
        part(since=-1.0),
    ],
)
def test_a_damaged_part(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="not a part at 0"):
        read_part(damaged, 0)


def state(pid: bytes = b"pid", longer: int = 0) -> bytes:
    length = STATE.size + len(pid) + len(b"state")
    return STATE.pack(length, Kind.STATE, len(pid) + longer) + pid + b"state"


def test_a_state() -> None:
    assert read_state(state(), 0) == ("pid", b"state")


@pytest.mark.parametrize(
    "damaged, told", [(state(longer=6), "not a state at 0"), (state(pid=b"\xff"), "not UTF-8")]
)
def test_a_damaged_state(damaged: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_state(damaged, 0)
