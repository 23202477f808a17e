from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.router.pool import Member, Pool
from supervisor_sio.settings import BALANCE_METHODS


def pool_of(count: int, method: str = "least-connection", ready: bool = True) -> Pool:
    pool = Pool(method)
    for number in range(count):
        pool.add(Member(f"tag{number}", f"workers:{number}", 100 + number, ready=ready))
    return pool


def place(pool: Pool) -> Member:
    """Hand a handshake over, as the router does."""
    member = pool.place_handshake()
    assert member is not None
    member.handshakes += 1
    return member


def drain(pool: Pool, name: str) -> None:
    """The process of this name is being stopped."""
    for member in pool.named(name):
        member.draining = True


def with_tag(pool: Pool, tag: str) -> Member:
    return next(member for member in pool if member.tag == tag)


def report(member: Member, sessions: int) -> None:
    """The worker reports its sessions; no handshake is in transit."""
    member.figures = {"sessions": sessions, "handshakes_seen": member.handshakes}


@given(st.integers(1, 8), st.integers(0, 60), st.data())
def test_least_connection_keeps_loads_within_one(
    count: int, handshakes: int, data: st.DataObject
) -> None:
    pool = pool_of(count)
    for _ in range(handshakes):
        member = place(pool)
        if data.draw(st.booleans()):  # sooner or later the worker reports it
            report(member, member.load)
        loads = [member.load for member in pool]
        assert max(loads) - min(loads) <= 1
    assert sum(member.load for member in pool) == handshakes


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from("hhhcrd"), st.integers(0, 5)), max_size=60),
)
def test_least_connection_chooses_a_least_loaded_ready_worker(
    count: int, steps: list[tuple[str, int]]
) -> None:
    pool = pool_of(count)
    for step, number in steps:
        member = with_tag(pool, f"tag{number % count}")
        assert member is not None
        if step == "c":  # clients leave
            report(member, member.load // 2)
        elif step == "r":
            member.ready = not member.ready
        elif step == "d":
            drain(pool, member.name)
        else:
            eligible = [other for other in pool if other.ready and not other.draining]
            chosen = pool.place_handshake()
            if chosen is None:
                assert not eligible
            else:
                assert chosen in eligible
                assert chosen.load == min(other.load for other in eligible)
                chosen.handshakes += 1


def test_a_handshake_counts_from_hand_over_until_it_is_reported() -> None:
    (member,) = pool = list(pool_of(1))
    assert [other.load for other in pool] == [0]
    member.handshakes += 3
    assert member.load == 3
    member.figures = {"sessions": 2, "handshakes_seen": 2}
    assert member.load == 3
    member.figures = {"sessions": 1, "handshakes_seen": 3}
    assert member.load == 1


def test_a_report_of_more_handshakes_than_were_handed_over() -> None:
    # A router that restarted knows less than its workers.
    assert Member("t", "w", 1, figures={"sessions": 5, "handshakes_seen": 10}).load == 5


def test_a_new_worker_gets_the_next_sessions() -> None:
    pool = pool_of(2)
    for _ in range(10):
        place(pool)
    pool.add(Member("new", "workers:new", 200, ready=True))
    assert [place(pool).tag for _ in range(4)] == ["new"] * 4


@given(st.integers(1, 7), st.integers(0, 5))
def test_ties_take_turns(count: int, rounds: int) -> None:
    pool = pool_of(count)
    placed: Counter[str] = Counter()
    for _ in range(count * rounds):
        member = pool.place_handshake()  # nobody's load changes
        assert member is not None
        placed[member.tag] += 1
    assert set(placed.values()) <= {rounds}


@given(st.integers(1, 7), st.integers(0, 20))
def test_round_robin_takes_turns_whatever_the_load(count: int, before: int) -> None:
    pool = pool_of(count, "round-robin")
    next(iter(pool)).figures = {"sessions": 1000}
    for _ in range(before):
        place(pool)
    assert len({place(pool).tag for _ in range(count)}) == count


def test_random_reaches_every_worker() -> None:
    pool = pool_of(4, "random")
    assert len({place(pool).tag for _ in range(400)}) == 4


@pytest.mark.parametrize("method", BALANCE_METHODS)
def test_every_method_of_the_settings_leaves_out_who_is_not_eligible(method: str) -> None:
    pool = pool_of(4, method)
    starting, stopping, draining, left = pool
    starting.ready = False
    drain(pool, stopping.name)
    draining.draining = True
    for _ in range(50):
        assert place(pool) is left
        assert pool.place_plain() is left


@pytest.mark.parametrize("method", BALANCE_METHODS)
@pytest.mark.parametrize("count", [0, 3])
def test_nobody_is_there(method: str, count: int) -> None:
    pool = pool_of(count, method, ready=False)
    assert pool.place_handshake() is None
    assert pool.place_plain() is None


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=40))
def test_plain_connections_take_turns_of_their_own(count: int, kinds: list[bool]) -> None:
    pool = pool_of(count)
    plain: list[str] = []
    for handshake in kinds:
        if handshake:
            place(pool)
        else:
            member = pool.place_plain()
            assert member is not None
            plain.append(member.tag)
    counts = Counter(plain)
    assert max(counts.values(), default=0) - min((counts[m.tag] for m in pool), default=0) <= 1


def test_the_owner_of_a_tag() -> None:
    pool = pool_of(2)
    first, second = pool
    assert pool.owner("tag0") is first
    assert pool.owner("tag1") is second
    assert pool.owner("tag2") is None
    assert pool.owner("") is None


def test_a_draining_worker_keeps_its_sessions() -> None:
    pool = pool_of(2)
    drain(pool, "workers:0")
    owner = pool.owner("tag0")
    assert owner is not None and owner.state == "draining"


def test_a_worker_that_is_not_ready_owns_nothing_yet() -> None:
    pool = pool_of(1, ready=False)
    assert pool.owner("tag0") is None
    assert with_tag(pool, "tag0") is not None


def test_drain_goes_by_name_and_takes_all_of_that_name() -> None:
    pool = pool_of(3)
    pool.add(Member("twin", "workers:1", 300, ready=True))
    drain(pool, "workers:1")
    drain(pool, "workers")
    assert [member.tag for member in pool if member.draining] == ["tag1", "twin"]


def test_one_that_left_is_gone() -> None:
    pool = pool_of(2)
    first, second = pool
    pool.remove(first)
    pool.remove(first)
    assert list(pool) == [second]
    assert pool.owner("tag0") is None


def test_a_predecessor_that_leaves_late_does_not_take_its_successor_along() -> None:
    pool = pool_of(1)
    (old,) = pool
    new = Member("tag0", "workers:0", 100, ready=True)
    pool.add(new)
    pool.remove(old)
    assert pool.owner("tag0") is new


@pytest.mark.parametrize(
    ("ready", "draining", "state"),
    [
        (False, False, "starting"),
        (True, False, "ready"),
        (True, True, "draining"),
        (False, True, "draining"),
    ],
)
def test_states(ready: bool, draining: bool, state: str) -> None:
    member = Member("t", "w", 1, ready=ready, draining=draining)
    assert member.state == state
    assert member.eligible is (state == "ready")


def test_who_hangs_keeps_its_sessions_and_gets_no_new_ones() -> None:
    pool = Pool("least-connection")
    hung, other = Member("a", "w:0", 1, ready=True, hung=True), Member("b", "w:1", 2, ready=True)
    pool.add(hung)
    pool.add(other)
    assert hung.state == "hung" and pool.owner("a") is hung
    assert [pool.place_handshake() for _ in range(4)] == [other] * 4
    assert [pool.place_plain() for _ in range(4)] == [other] * 4


@pytest.mark.parametrize("method", sorted(BALANCE_METHODS))
def test_while_it_evens_out_the_one_with_the_fewest_is_next(method: str) -> None:
    pool = pool_of(3, method)
    for member, sessions in zip(pool, (9, 4, 9)):
        report(member, sessions)
    pool.evens_out = True
    assert [place(pool).name for _ in range(5)] == ["workers:1"] * 5
