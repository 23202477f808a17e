from __future__ import annotations

from supervisor_sio.common.limits import FAILURE_PAUSE, FAILURES_WITHOUT_PAUSE, STEADY_AFTER
from supervisor_sio.supervisord.lives import Lives, pause_after


def test_a_process_that_was_never_ready_fails_once_more() -> None:
    lives = Lives()
    for failures in range(1, 5):
        lives.starting("w", 100.0 * failures)
        assert lives.started("w") == 100.0 * failures
        lives.ended("w")
        assert lives.failures("w").count == failures
    assert lives.failures("other").count == 0 == lives.started("other")
    lives.stopped("w")
    assert lives.failures("w").count == 0


def test_a_process_that_was_ready_for_a_while_begins_anew() -> None:
    lives = Lives()
    lives.starting("w", 0)
    lives.ended("w")
    for seconds, failures in ((STEADY_AFTER - 1, 2), (STEADY_AFTER, 0)):
        lives.starting("w", 100)
        lives.ready(["w", "unknown"], 105)
        lives.ready(["w"], 105 + seconds)
        lives.ready([], 300)  # the router knows earlier than supervisord that it is gone
        lives.ended("w")
        assert lives.failures("w").count == failures
        assert lives.started("unknown") == 0


def test_late_figures_of_its_predecessor_do_not_count() -> None:
    lives = Lives()
    lives.starting("w", 0)
    lives.ready(["w"], 0)
    lives.ready([], 1)
    lives.ready([], 60)
    lives.ended("w")
    assert lives.failures("w").count == 1


def test_who_is_gone_is_forgotten() -> None:
    lives = Lives()
    for name in ("a", "b"):
        lives.starting(name, 5)
        lives.ended(name)
    lives.forget(["b"])
    assert (lives.started("a"), lives.failures("a").count) == (0, 0)
    assert (lives.started("b"), lives.failures("b").count) == (5, 1)


def test_the_pause_grows() -> None:
    more = range(FAILURES_WITHOUT_PAUSE + 1, FAILURES_WITHOUT_PAUSE + 8)
    assert [pause_after(count) for count in more] == [1, 2, 4, 8, 16, FAILURE_PAUSE, FAILURE_PAUSE]
    assert [pause_after(count) for count in range(FAILURES_WITHOUT_PAUSE + 1)] == [0, 0, 0]
    assert pause_after(10**6) == FAILURE_PAUSE


def test_who_was_ready_is_down_no_longer_than_it_has_lived() -> None:
    lives = Lives()
    for failures in range(1, 9):
        lives.starting("w", 100)
        lives.ready(["w"], 101)
        lives.ended("w")
        assert lives.waits("w", 103) == min(pause_after(failures), 3)
    lives.starting("w", 200)  # this time it does not become ready
    lives.ended("w")
    assert lives.waits("w", 203) == FAILURE_PAUSE


def test_what_it_said_when_it_failed_last() -> None:
    lives = Lives()
    for failures in range(1, 4):
        lives.starting("w", 100)
        lives.ended("w", f"error {failures}")
        assert lives.failures("w").last_line == f"error {failures}"
        assert lives.waits("w", 100) == (1 if failures > FAILURES_WITHOUT_PAUSE else 0)
    assert lives.failures("w").remaining(100.25) == 0.75
    assert lives.failures("w").remaining(102) == 0
    lives.starting("w", 100.5)  # somebody did not want to wait
    assert lives.failures("w").remaining(100.5) == 0 and lives.failures("w").count == 3
    lives.ready(["w"], 101)
    lives.ready(["w"], 101 + STEADY_AFTER)
    lives.ended("w", "something else")
    assert (lives.failures("w").count, lives.failures("w").last_line) == (0, "")
