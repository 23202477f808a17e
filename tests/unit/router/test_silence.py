from __future__ import annotations

from supervisor_sio.common.limits import SILENCE
from supervisor_sio.router.pool import Member
from supervisor_sio.router.silence import LOOK, Silence


def member(tag: str, reported_at: float = 0.0, ready: bool = True) -> Member:
    return Member(tag, f"workers:{tag}", 1, ready=ready, reported_at=reported_at)


def look_until(silence: Silence, end: float, members: list[Member]) -> list[tuple[float, str]]:
    """The tags of the workers found, with the times."""
    found = []
    now = LOOK
    while now <= end:
        found += [(now, member.tag) for member in silence.look(now, members)]
        now += LOOK
    return found


def test_who_does_not_report_hangs_and_is_told_of_once() -> None:
    silent, lively, starting = member("a"), member("b", 100.0), member("c", ready=False)
    found = look_until(Silence(0.0), 20.0, [silent, lively, starting])
    assert found == [(SILENCE + LOOK, "a")]
    assert silent.silent == 20 and lively.silent == starting.silent == 0
    assert silent.hung and not lively.hung and not starting.hung


def test_one_that_is_back_may_hang_again() -> None:
    silence, one = Silence(0.0), member("a")
    look_until(silence, 8.0, [one])
    one.is_back()
    one.reported_at = 8.0
    assert not one.hung and one.silent == 0
    assert not silence.look(9.0, [one])
    for now in range(10, 16):
        found = silence.look(float(now), [one])
    assert found == [one]


def test_a_router_that_could_not_run_calls_nobody_silent() -> None:
    silence, one = Silence(0.0), member("a")
    assert not silence.look(LOOK, [one])
    assert not silence.look(60.0, [one])  # it was stopped: reports may wait to be read
    assert silence.look(60.0 + LOOK, [one]) == [one]
    silence.look(1000.0, [one])  # nor does it say for how long
    assert one.silent == 60.0 + LOOK
