from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common.emission import Emission, EmissionError, parse_emission

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "emission"),
    [
        ("news", Emission("news")),
        ('news {"a": [1, 2]}', Emission("news", [{"a": [1, 2]}])),
        ('news 1 "two words" null', Emission("news", [1, "two words", None])),
        ("news --room red 1", Emission("news", [1], room="red")),
        ("news --to 0a1b2c3d.xyz 1", Emission("news", [1], room="0a1b2c3d.xyz")),
        ("news --namespace /chat", Emission("news", namespace="/chat")),
        ("news --namespace chat", Emission("news", namespace="/chat")),
        ('"two words" --room "my room" true', Emission("two words", [True], room="my room")),
        ("news --room=red 1", Emission("news", [1], room="red")),
        ('news --json "--json"', Emission("news", ["--json"], json=True)),
        ("  news   -1.5e3 ", Emission("news", [-1500.0])),
    ],
)
def test_what_is_typed_is_what_is_emitted(text: str, emission: Emission) -> None:
    assert parse_emission(text) == emission


@given(st.lists(json_values, max_size=4))
def test_any_json_comes_through_a_shell(values: list[Any]) -> None:
    line = shlex.join(["news", *map(json.dumps, values)])
    typed = " ".join(shlex.split(line))  # what supervisorctl makes of its arguments
    assert parse_emission(typed).arguments == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no event; usage: sio emit EVENT [JSON ...]"),
        ("--room red", "no event"),
        ("news hello", "not JSON: hello; a string needs its quotes, as in '\"hello\"'"),
        ("news {", "not JSON: {"),
        ("news --colour red", "unknown option --colour; usage: sio emit"),
        ("news --room", "--room needs a value"),
        ('news --room "red', 'a quote without its end: "red'),
        ("news --room red --to sid", "--room and --to name one room or one sid"),
        ("news NaN", "the argument cannot be sent: it has NaN, Infinity or a number that is too"),
        ('news 1 {"a": [-Infinity]}', "the argument cannot be sent: it has NaN"),
        ("connect", "connect cannot be emitted: the name is reserved by Socket.IO"),
        ("disconnect 1", "disconnect cannot be emitted"),
        ("news 1e400", "the argument cannot be sent: it has NaN"),
        ("news " + "[" * 100_000, "not JSON: [["),
    ],
)
def test_mistakes_are_told(text: str, reason: str) -> None:
    with pytest.raises(EmissionError) as caught:
        parse_emission(text)
    assert reason in str(caught.value)
