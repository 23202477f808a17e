from __future__ import annotations

from supervisor_sio.common.allowance import Allowance


def test_so_many_a_second_and_some_at_once() -> None:
    now = [100.0]
    allowance = Allowance(10, 3, lambda: now[0])
    for _ in range(3):
        assert allowance.left
        allowance.use()
    assert not allowance.left
    now[0] += 0.15
    assert allowance.left
    allowance.use()
    assert not allowance.left
    now[0] += 1000
    for _ in range(5):  # there is no debt: they may be under way at the same time
        allowance.use()
    assert not allowance.left
    now[0] += 0.2
    assert allowance.left
