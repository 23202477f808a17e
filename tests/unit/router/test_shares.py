"""How many clients each worker is to give up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common.limits import REBALANCE_TOLERANCE
from supervisor_sio.router.pool import Member
from supervisor_sio.router.shares import is_even, loads_of, surplus

loads = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(0, 5000))


def tagged(*counts: int) -> dict[str, int]:
    return {f"t{number}": count for number, count in enumerate(counts)}


@pytest.mark.parametrize(
    ("counts", "given_up"),
    [
        ((40, 40, 0, 0), (20, 20)),
        ((30, 30, 30, 3), (6, 7, 7)),  # 93 are 24, 23, 23 and 23
        ((3, 0), (1,)),
        ((100, 100, 100, 60), (10, 10, 10)),
        # Each is near its share: one client, or 5 %.
        ((2, 0), ()),
        ((21, 20, 19), ()),
        ((105, 95), ()),
        ((0, 0, 0), ()),
        ((50,), ()),
        ((), ()),
        # Beyond: here the last one lacks more, though nobody has much more.
        ((106, 94), (6,)),
        ((104, 104, 104, 104, 84), (4, 4, 4, 4)),
    ],
)
def test_the_surplus(counts: tuple[int, ...], given_up: tuple[int, ...]) -> None:
    assert surplus(tagged(*counts)) == tagged(*given_up)


@given(loads)
def test_afterwards_all_have_as_many(loads: dict[str, int]) -> None:
    given_up = surplus(loads)
    kept = {tag: count - given_up.get(tag, 0) for tag, count in loads.items()}
    for _ in range(sum(given_up.values())):
        kept[min(kept, key=lambda tag: kept[tag])] += 1
    assert sum(kept.values()) == sum(loads.values())
    assert not surplus(kept), "and then nobody has to move"
    if given_up:
        assert max(kept.values()) - min(kept.values()) <= 1
        assert all(count > 0 for count in given_up.values())


@given(loads)
def test_nobody_moves_while_all_are_near_their_share(loads: dict[str, int]) -> None:
    if loads:
        share = sum(loads.values()) / len(loads)
        most = max(1, share * REBALANCE_TOLERANCE)
        assert is_even(loads) == (max(abs(count - share) for count in loads.values()) <= most)
        assert bool(surplus(loads)) != is_even(loads)


def test_without_workers_nothing_is_even() -> None:
    assert not is_even({}) and not surplus({})


def test_only_those_count_that_take_new_clients() -> None:
    states: list[dict[str, bool]] = [
        {"ready": True},
        {"ready": True, "draining": True},
        {"ready": True, "drained": True},
        {"ready": True, "hung": True},
        {"ready": False},
    ]
    members = [Member(f"t{n}", f"w:w_{n}", n, **state) for n, state in enumerate(states)]
    for member in members:
        member.figures = {"sessions": 7}
    members[0].handshakes = 2  # on their way
    assert loads_of(members) == {"t0": 9}
