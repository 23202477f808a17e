from __future__ import annotations

from supervisor_sio.common.limits import STEADY_AFTER
from supervisor_sio.supervisord.lives import Lives


def test_a_process_that_was_never_ready_fails_once_more() -> None:
    lives = Lives()
    for failures in range(1, 5):
        lives.starting("w", 100.0 * failures)
        assert lives.started("w") == 100.0 * failures
        lives.ended("w")
        assert lives.failures("w") == failures
    assert lives.failures("other") == 0 == lives.started("other")
    lives.stopped("w")
    assert lives.failures("w") == 0


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
        assert lives.failures("w") == failures
        assert lives.started("unknown") == 0


def test_late_figures_of_its_predecessor_do_not_count() -> None:
    lives = Lives()
    lives.starting("w", 0)
    lives.ready(["w"], 0)
    lives.ready([], 1)
    lives.ready([], 60)
    lives.ended("w")
    assert lives.failures("w") == 1


def test_who_is_gone_is_forgotten() -> None:
    lives = Lives()
    for name in ("a", "b"):
        lives.starting(name, 5)
        lives.ended(name)
    lives.forget(["b"])
    assert (lives.started("a"), lives.failures("a")) == (0, 0)
    assert (lives.started("b"), lives.failures("b")) == (5, 1)
