"""An application's data as JSON and back: either the same, or refused with its place."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.cluster.plain import NotPlain, TooLong, Writer, read
from supervisor_sio.common.limits import PLAIN_DEPTH

_LEAVES = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
_LEAVES = _LEAVES.filter(lambda value: value not in (math.inf, -math.inf))
_DATA = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.text()), inner)
    ),
    max_leaves=20,
)


def same(first: Any, second: Any) -> bool:
    """Whether they are equal, with the same types and order, which == ignores."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return same(list(first.items()), list(second.items()))
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


@given(_DATA)
def test_all_that_is_written_is_read_as_it_was(data: Any) -> None:
    assert same(read(json.loads(json.dumps(Writer().write(data)))), data)


def test_a_key_that_looks_like_a_mark_is_none() -> None:
    for data in ({"\0tuple": [1]}, {"\0bytes": 1}, {"\0pairs": None, "a": (1,)}, {"\0": 1}):
        assert same(read(json.loads(json.dumps(Writer().write(data)))), data)


def test_bytes_only_where_they_may_be() -> None:
    data = {"raw": b"\x00\xff"}
    assert read(json.loads(json.dumps(Writer().write_binary(data)))) == data
    with pytest.raises(NotPlain, match="raw is of type bytes"):
        Writer().write(data)


class Name(str):
    pass


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (datetime(2026, 1, 1), "of type datetime"),
        ({1, 2}, "of type set"),
        (OrderedDict(a=1), "of type OrderedDict"),
        (Name("x"), "of type Name"),
        (math.nan, "nan"),
        pytest.param(10**5000, "too large", id="long"),
        (object(), "of type object"),
    ],
)
def test_what_would_be_something_else_is_refused_with_its_place(value: Any, what: str) -> None:
    with pytest.raises(NotPlain) as caught:
        Writer().write({"user": {"tags": ["a", (1, value)]}})
    assert (caught.value.path, caught.value.what) == ("user.tags[1][1]", what)
    with pytest.raises(NotPlain, match="a key of user is"):
        Writer().write({"user": {frozenset(): 1}})


def test_what_contains_itself_is_refused() -> None:
    data: dict[str, Any] = {}
    data["self"] = data
    with pytest.raises(NotPlain, match="in itself"):
        Writer().write(data)


@pytest.mark.parametrize(
    "nest",
    [
        lambda value: [value],
        lambda value: (value,),
        lambda value: {"a": value},
        lambda value: {"\0": value},
        lambda value: {1: value},
    ],
)
def test_nested_so_deeply_that_it_can_be_read(nest: Any) -> None:
    """At whatever depth of the stack it is read."""
    data: Any = 1
    for _ in range(PLAIN_DEPTH):
        data = nest(data)

    def read_deep(text: str, calls: int) -> Any:
        return read_deep(text, calls - 1) if calls else read(json.loads(text))

    assert same(read_deep(json.dumps(Writer().write(data)), 300), data)
    with pytest.raises(NotPlain, match="nested too deeply"):
        Writer().write(nest(data))


def test_a_place_is_a_short_line() -> None:
    """Clients may have chosen the keys, so they may be long or unprintable."""
    with pytest.raises(NotPlain, match=r"^user\.a\\nb is of type object$"):
        Writer().write({"user": {"a\nb": object()}})
    data: Any = object()
    for _ in range(50):
        data = {"x" * 100: data}
    with pytest.raises(NotPlain) as caught:
        Writer().write(data)
    assert len(str(caught.value)) < 300


def test_no_more_than_there_may_be() -> None:
    writer = Writer(1000)
    writer.write({"a": "x" * 900})
    with pytest.raises(TooLong, match=r"too long at b\[0\]"):
        writer.write({"b": ["x" * 200]})
    with pytest.raises(TooLong):
        Writer(1000).write([None] * 1000)
    with pytest.raises(TooLong):
        Writer(1000).write({"k" * 2000: 1, "a": 1})


@pytest.mark.parametrize(
    "value", [{"\0tuple": 1}, {"\0bytes": []}, {"\0pairs": [1]}, {"\0pairs": 5}]
)
def test_what_was_not_written_here_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not what was written"):
        read(value)
