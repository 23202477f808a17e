"""The hashes of the rooms that a message is for."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common.limits import RELAY_MOST_ROOMS
from supervisor_sio.relay import rooms as module
from supervisor_sio.relay.rooms import hashes_of, room_hash

EMIT = {"method": "emit", "namespace": "/", "packet": "p"}
SID = "0a1b2c3d.AbCdEfGhIjKlMnOpQ-_t"

names = st.none() | st.integers() | st.text(st.characters())


class Named(str, enum.Enum):
    RED = "red"


class Numbered(enum.IntEnum):
    ONE = 1


@given(st.lists(st.tuples(st.text(st.characters()), names), unique=True, min_size=2, max_size=8))
def test_each_room_of_each_namespace_has_its_own(rooms: list[tuple[str, Any]]) -> None:
    assert len({room_hash(*room) for room in rooms}) == len(rooms)
    assert all(0 <= room_hash(*room) < 2**64 for room in rooms)


def test_it_is_the_same_in_every_process() -> None:
    assert room_hash("/", "red") == 0xD2A9CA2A5C5DB604
    assert room_hash("/", Named.RED) == room_hash("/", "red")
    assert room_hash("/", Numbered.ONE) == room_hash("/", 1) != room_hash("/", "1")


def test_an_emit_has_those_of_all_its_rooms() -> None:
    red, one, everyone = (room_hash("/", room) for room in ("red", 1, None))
    assert hashes_of({**EMIT, "room": "red", "except_room": "x", "skip_sid": [SID]}) == [red]
    assert hashes_of({**EMIT, "method": "volatile", "room": ["red", 1]}) == [red, one]
    assert hashes_of({**EMIT, "room": ("red",), "ack": 1}) == [red]
    assert hashes_of(EMIT) == hashes_of({**EMIT, "room": None}) == [everyone]


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "close_room", "room": "red", "namespace": "/"},
        {**EMIT, "room": "red", "request": 1},
        {**EMIT, "room": "red", "after": {"tag": 1}},
        {**EMIT, "room": "red", "only": "tag"},
        {**EMIT, "room": "red", "via": ["bridge", 1]},
        {**EMIT, "room": SID},
        {**EMIT, "room": ["red", SID]},
        {**EMIT, "room": 1.5},
        {**EMIT, "room": list(range(RELAY_MOST_ROOMS + 1))},
        {"method": "emit", "room": "red"},
        {"method": "emit", "room": "red", "namespace": 1},
        {},
    ],
)
def test_what_everybody_has_to_look_at_has_none(fields: dict[str, Any]) -> None:
    assert not hashes_of(fields)


@pytest.mark.parametrize(("namespace", "room"), [("/", "r" * 512), ("/" + "n" * 511, "r")])
def test_a_long_name_is_not_remembered(namespace: str, room: Any) -> None:
    before = module._known_hash.cache_info().currsize
    fields = {**EMIT, "namespace": namespace, "room": room}
    assert hashes_of(fields) == [room_hash(namespace, room)]
    assert module._known_hash.cache_info().currsize == before


def test_as_many_rooms_as_there_may_be() -> None:
    assert len(hashes_of({**EMIT, "room": list(range(RELAY_MOST_ROOMS))})) == RELAY_MOST_ROOMS
