from __future__ import annotations

import pytest

from supervisor_sio.router.pool import Member, Pool
from supervisor_sio.settings import BALANCE_METHODS


def pool_of(count: int, method: str) -> Pool:
    pool = Pool(method)
    for number in range(count):
        pool.add(Member(f"tag{number}", f"workers:{number}", 100 + number, ready=True))
    return pool


@pytest.mark.parametrize("method", BALANCE_METHODS)
def test_a_drained_worker_gets_nothing_new_and_keeps_its_sessions(method: str) -> None:
    pool = pool_of(3, method)
    drained = pool.named("workers:0")[0]
    drained.drained = True
    for _ in range(30):
        assert pool.place_handshake() is not drained
        assert pool.place_plain() is not drained
    assert pool.owner("tag0") is drained


@pytest.mark.parametrize("method", BALANCE_METHODS)
def test_all_are_drained(method: str) -> None:
    pool = pool_of(2, method)
    for member in pool:
        member.drained = True
    assert pool.place_handshake() is None and pool.place_plain() is None
    for member in pool:
        member.drained = False
    assert pool.place_handshake() is not None and pool.place_plain() is not None


def test_state() -> None:
    member = Member("tag", "workers:0", 1)
    assert member.state == "starting"
    member.drained = True
    assert member.state == "drained"
    member.ready = True
    assert member.state == "drained" and not member.eligible
    member.draining = True  # on its way out: that says more
    assert member.state == "draining"
    member.draining = member.drained = False
    assert member.state == "ready" and member.eligible
