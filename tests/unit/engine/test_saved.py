"""States read back from JSON, including states that were edited wrongly."""

from __future__ import annotations

from enum import Enum
from typing import Any, Callable

import pytest

from supervisor_sio.engine.saved import Saved, as_text


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


STATE = {
    "text": "x",
    "flag": False,
    "integer": 5,
    "seconds": 1.5,
    "data": as_text(b"\x00\xff"),
    "choice": "blue",
    "object": {"a": "b"},
    "list": ["x", "y"],
    "none": None,
}


def test_what_is_right() -> None:
    saved = Saved(STATE, "thing")
    assert saved.text("text") == "x" and saved.flag("flag") is False
    assert saved.integer("integer") == 5 and saved.seconds("seconds") == 1.5
    assert saved.seconds("integer") == 5
    assert saved.data("data") == b"\x00\xff" and saved.choice("choice", Colour) is Colour.BLUE
    assert saved.object("object").text("a") == "b"
    assert len(saved.list("list")) == 2 and saved.list("list").text(1) == "y"
    assert saved.is_none("none") and not saved.is_none("text") and not saved.is_none("nothing")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda s: s.text("flag"), "thing: flag is not a text"),
        (lambda s: s.text("nothing"), "thing: nothing is missing"),
        (lambda s: s.flag("integer"), "thing: integer is not true or false"),
        (lambda s: s.integer("flag"), "thing: flag is not an integer"),
        (lambda s: s.integer("seconds"), "thing: seconds is not an integer"),
        (lambda s: s.seconds("text"), "thing: text is not a number of seconds"),
        (lambda s: s.data("list"), "thing: list is not base64"),
        (lambda s: s.choice("text", Colour), "thing: text is not one of red, blue"),
        (lambda s: s.object("list"), "thing: list is not an object"),
        (lambda s: s.list("object"), "thing: object is not a list"),
        (lambda s: s.list("list").text(2), "thing: list[2] is missing"),
        (lambda s: s.list("list").flag(0), "thing: list[0] is not true or false"),
        (lambda s: s.object("object").text("b"), "thing: object.b is missing"),
        (lambda s: Saved("text", "thing"), "thing is not an object"),
    ],
)
def test_what_is_wrong(read: Callable[[Saved], Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(Saved(STATE, "thing"))
    assert str(caught.value) == message


def test_the_fields_and_items_that_are_there() -> None:
    saved = Saved({"a": 1, "list": [{"b": "c"}, "d"]}, "thing")
    assert dict(saved.pairs()) == {"a": 1, "list": [{"b": "c"}, "d"]}
    assert list(saved.list("list").pairs()) == [(0, {"b": "c"}), (1, "d")]
    items = saved.objects("list")
    assert next(items).text("b") == "c"
    with pytest.raises(ValueError, match=r"^thing: list\[1\] is not an object$"):
        next(items)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_a_number_that_is_none(value: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        Saved({"a": value}, "thing").seconds("a")


@pytest.mark.parametrize("value", ["ä", "a", "abcde"])
def test_what_is_not_base64(value: str) -> None:
    with pytest.raises(ValueError, match="thing: a is not base64"):
        Saved({"a": value}, "thing").data("a")
