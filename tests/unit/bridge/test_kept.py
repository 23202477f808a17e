"""What a bridge keeps of what it has sent, and what a worker notes of what has come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.bridge import kept as kept_module
from supervisor_sio.bridge.kept import Kept
from supervisor_sio.relay import passed as passed_module
from supervisor_sio.relay.passed import NOTE, Passed


@given(
    st.sets(st.integers(1, 30)),
    st.integers(1, 12),
    st.integers(1, 200),
    st.integers(1, 40),
    st.integers(1, 33),
    st.integers(1, 33),
)
def test_any_question_is_answered_with_what_is_kept(
    numbers: set[int], most: int, most_bytes: int, batch: int, first: int, last: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(kept_module, "BRIDGE_KEPT", most)
        monkeypatch.setattr(kept_module, "BRIDGE_KEPT_BYTES", most_bytes)
        monkeypatch.setattr(kept_module, "BRIDGE_BATCH", batch)
        kept = Kept()
        for number in sorted(numbers):
            kept.add(number, b"x" * number)
            assert len(kept._messages) <= most
            assert kept._bytes == sum(map(len, kept._messages.values())) <= most_bytes
        first, last = min(first, last), max(first, last)
        answer = kept.again(first, last)
    got = [len(message) for message in answer.messages]
    asked_for = [number for number in range(first, last + 1) if number in kept._messages]
    # What is not in the answer before its first one is not there.
    assert answer.first == min(asked_for, default=last + 1)
    assert got == list(range(answer.first, answer.first + len(got)))
    assert set(got) <= set(asked_for) and bool(got) == bool(asked_for)
    assert len(got) <= 1 or sum(got) <= batch


def test_what_has_come_through_a_bridge_before_is_not_new() -> None:
    passed = Passed()
    via = [("a", 1), ("a", 2), ("a", 2), ("b", 2), ("a", 1), ("a", 3)]
    news = [passed.is_new({"method": "emit", "via": list(one)}) for one in via]
    assert news == [True, True, False, True, False, True]
    assert passed.is_new({"method": "emit"}) and passed.is_new({"method": "emit"})
    assert not passed.is_new({"method": NOTE, "via": ["b", 9]})
    assert passed.numbers == {"a": 3, "b": 9}


def test_bridges_without_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passed_module, "BRIDGE_MOST_OTHERS", 2)
    passed = Passed()
    for number, bridge in enumerate("abacacd", 1):
        passed.is_new({"method": "emit", "via": [bridge, number]})
    assert passed.numbers == {"c": 6, "d": 7}


@pytest.mark.parametrize("via", [1, [], ["a"], ["a", "b"], [1, 2], ["a", True], ["a", 1, 2]])
def test_a_via_that_is_none(via: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Passed().is_new({"method": "emit", "via": via})
