"""Which events of a journal were for a client, by the rooms that it was in then."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor_sio.cluster.histories import Stay
from supervisor_sio.common.limits import ROOMS_LEFT
from supervisor_sio.engine.saved import Saved

SID = "aaaaaaaa.01234567890123456789"


def event(number: int, scope: Any = None, stream: Any = None, **fields: Any) -> Any:
    message = SimpleNamespace(fields={"namespace": "/", **fields})
    return SimpleNamespace(k=number, scope=scope, stream=stream, message=message)


def is_for(stay: Stay, number: int, scope: Any = None, stream: Any = None, **fields: Any) -> bool:
    return stay.is_for(SID, "/", event(number, scope, stream, **fields))


@pytest.fixture
def stay() -> Stay:
    return Stay("aaaaaaaa", 10, ["red"], "aaaaaaaa")


def test_rooms_that_were_entered_and_left(stay: Stay) -> None:
    stay.enter("blue", 12)
    stay.leave("blue", 14, 0.0, 60)
    stay.enter("blue", 16)
    assert [is_for(stay, number, room="blue") for number in range(11, 19)] == [
        number in (13, 14, 17, 18) for number in range(11, 19)
    ]
    assert is_for(stay, 11, room=["green", "red"])
    assert is_for(stay, 11, room=SID) and is_for(stay, 11)
    assert not is_for(stay, 11, room="green")


def test_who_is_left_out(stay: Stay) -> None:
    assert not is_for(stay, 11, namespace="/chat")
    assert not is_for(stay, 11, skip_sid=[SID])
    assert not is_for(stay, 11, except_room="red")
    assert is_for(stay, 11, except_room="green") and is_for(stay, 11, except_room=[])


def test_scopes(stay: Stay) -> None:
    assert is_for(stay, 11, scope=[True, ["aaaaaaaa"]])
    assert not is_for(stay, 11, scope=[True, ["bbbbbbbb"]])
    assert not is_for(stay, 11, scope=[False, ["aaaaaaaa"]])
    assert not is_for(stay, 11, scope=[True, ["bbbbbbbb"]], stream="bbbbbbbb", room=SID)


def test_rooms_that_were_left_long_ago(stay: Stay) -> None:
    stay.leave("red", 12, 100.0, 60)
    assert is_for(stay, 12, room="red") and stay.floor == 10
    stay.enter("blue", 13)
    stay.leave("blue", 14, 161.0, 60)
    assert (stay.floor, stay.floor_time) == (12, 100.0)
    for number in range(ROOMS_LEFT + 5):
        stay.enter(number, 20 + number)
        stay.leave(number, 21 + number, 162.0, 60)
    assert len(stay.left) == ROOMS_LEFT


def test_it_is_the_same_when_it_is_read_again(stay: Stay) -> None:
    stay.enter(7, 12)
    stay.leave("red", 14, 1.5, 60)
    again = Stay.restored(Saved(json.loads(json.dumps(stay.save())), "stay"))
    assert json.dumps(again.save()) == json.dumps(stay.save())
    assert is_for(again, 13, room="red") and is_for(again, 13, room=7)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("begin", "1", "stay: begin is not an integer"),
        ("rooms", [[None, 1]], "None is not the name of a room"),
        ("left", [["red", 1]], "missing"),
    ],
)
def test_what_is_none(stay: Stay, field: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Stay.restored(Saved({**stay.save(), field: value}, "stay"))
