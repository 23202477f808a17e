from __future__ import annotations

from types import SimpleNamespace

import pytest
from supervisor.xmlrpc import Faults, RPCError

from supervisor_sio.supervisord import guard
from supervisor_sio.supervisord.guard import Guard


def test_what_is_raised_is_counted_and_logged_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, logged = [1000.0], []
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: now[0]))
    guarded = Guard(SimpleNamespace(error=logged.append))
    assert guarded.call("this", lambda: 5, 0) == 5
    for _ in range(100):
        assert guarded.call("this", lambda: int("no\nnumber"), 0) == 0
    guarded.call("that", lambda: 1 / 0, 0.0)
    assert guarded.caught == 101
    assert [line.partition(":")[2].split(",")[0] for line in logged] == [
        " an error of supervisor-sio in this",
        " an error of supervisor-sio in that",
    ]
    assert all("\n" not in line and "test_guard.py, line" in line for line in logged)
    now[0] += 1
    guarded.call("this", lambda: 1 / 0, 0.0)
    assert len(logged) == 3


def test_a_subscriber_never_raises() -> None:
    guarded = Guard(SimpleNamespace(error=lambda text: None))
    heard: list[object] = []

    def callback(event: object) -> None:
        heard.append(event)
        raise RuntimeError

    guarded.subscriber(callback)("event")
    assert heard == ["event"] and guarded.caught == 1


def test_an_answer_that_fails_is_a_fault() -> None:
    guarded = Guard(SimpleNamespace(error=lambda text: None))
    answer = guarded.deferred("it", lambda: 1 // 0)
    with pytest.raises(RPCError, match="supervisor-sio failed to answer"):
        answer()
    assert guarded.caught == 1 and answer.delay > 0  # type: ignore[attr-defined]

    def refuse() -> None:
        raise RPCError(Faults.BAD_NAME, "w")

    with pytest.raises(RPCError, match="BAD_NAME: w"):
        guarded.deferred("it", refuse)()
    assert guarded.caught == 1
