from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.cluster.manager import ZmqManager
from supervisor_sio.relay.methods import _CHECKS, _REQUIRED, MalformedFields, check_fields

COMPLETE: list[dict[str, Any]] = [
    {"method": "emit", "namespace": "/", "packet": "p"},
    {"method": "volatile", "namespace": "/", "packet": "p"},
    {"method": "callback", "ack": 1},
    {"method": "disconnect", "sid": "s", "namespace": "/"},
    {"method": "enter_room", "sid": "s", "namespace": "/", "room": "r"},
    {"method": "leave_room", "sid": "s", "namespace": "/", "room": 1},
    {"method": "close_room", "room": "r", "namespace": "/"},
    {"method": "sockets_join", "rooms": ["a", 1], "namespace": "/"},
    {"method": "sockets_leave", "rooms": "a", "namespace": "/"},
    {"method": "disconnect_sockets", "namespace": "/"},
    {"method": "server_side_emit", "event": "e", "namespace": "/"},
    {"method": "request", "request": 1, "operation": "fetch_rooms", "namespace": "/"},
    {"method": "expect", "request": 1, "worker": "w", "count": 0},
    {"method": "answer", "request": 1, "worker": "w"},
    {"method": "repeat", "request": 1, "worker": "w", "first": 0},
    {"method": "gone", "to_tag": "w", "sid": "s"},
    {"method": "arrived", "to_tag": "w", "sid": "s", "worker": "w", "at": 1.5},
]
IDS = [fields["method"] for fields in COMPLETE]


def reason(fields: dict[str, Any]) -> str:
    with pytest.raises(MalformedFields) as caught:
        check_fields(fields)
    return str(caught.value)


def test_all_methods_that_a_worker_heeds_are_checked() -> None:
    assert set(IDS) == set(_REQUIRED) == set(ZmqManager.HANDLERS)


@pytest.mark.parametrize("fields", COMPLETE, ids=IDS)
def test_what_a_method_needs(fields: dict[str, Any]) -> None:
    check_fields(fields)
    check_fields({**fields, "of a newer version": object()})
    for name in set(fields) - {"method"}:
        rest = {key: value for key, value in fields.items() if key != name}
        assert reason(rest) == f"{fields['method']} without {name}"


@pytest.mark.parametrize("method", ["", "Emit", "HANDLERS", "__init__", "position"])
def test_an_unknown_method(method: str) -> None:
    assert reason({"method": method}) == f"unknown method {method!r}"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("namespace", ["/", ""]),
        ("room", [None, "r", "", 0, [], ["a", 1]]),
        ("rooms", ["r", ["a", "b"]]),
        ("except_room", [None, "r", ["a"]]),
        ("skip_sid", [[], ["a"]]),
        ("ack", [0, 2**52]),
        ("request", [1]),
        ("count", [0, 10]),
        ("reply_to", ["0a1b2c3d"]),
        ("to", ["0a1b2c3d"]),
        ("timeout", [0, 5, 0.5]),
        ("at", [0, 5, 0.5]),
    ],
)
def test_good_values(name: str, values: list[Any]) -> None:
    for value in values:
        check_fields({**COMPLETE[0], name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("namespace", [None, 1, ["/"]]),
        ("packet", [None, 1]),
        ("room", [{}, [[]], [{"a": 1}], 1.5, True, ["a", None]]),
        ("rooms", [{}, [["a"]], None, [None], [1.0]]),
        ("except_room", [{}, [[]]]),
        ("skip_sid", [None, "a", [1], {}]),
        ("ack", [-1, "1", 1.0, True, None]),
        ("sid", [None, 1]),
        ("request", [-1, "1", True]),
        ("worker", [None, 1]),
        ("count", [-1, 1.5, None]),
        ("operation", [None, ["fetch_rooms"]]),
        ("event", [None, 1]),
        ("reply_to", [None, 1]),
        ("to", [None, ["a"]]),
        ("timeout", [-1, True, "1", None, float("nan"), float("inf")]),
        ("at", [-1, True, "1", None, float("nan"), float("inf")]),
    ],
)
def test_bad_values(name: str, values: list[Any]) -> None:
    for value in values:
        fields = {**COMPLETE[0], name: value}
        assert reason(fields) == f"emit with {name} {value!r}"


@pytest.mark.parametrize("method", ["enter_room", "leave_room", "close_room"])
@pytest.mark.parametrize("room", [None, ["a"], 1.0, True, {}])
def test_what_is_done_to_one_room_names_one(method: str, room: Any) -> None:
    fields = {"method": method, "sid": "s", "namespace": "/", "room": room}
    assert reason(fields) == f"{method} with room {room!r}"


def test_a_long_value_is_cut_short() -> None:
    assert len(reason({**COMPLETE[0], "ack": "x" * 10_000})) < 120


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(COMPLETE), st.dictionaries(st.sampled_from(sorted(_CHECKS)), json_values))
def test_no_fields_raise_anything_else(complete: dict[str, Any], more: dict[str, Any]) -> None:
    try:
        check_fields({**complete, **more})
    except MalformedFields as error:
        assert str(error).startswith(complete["method"])
