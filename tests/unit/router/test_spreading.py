from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.router.spreading import Spreading


@given(
    st.integers(1, 40),
    st.integers(0, 400),
    st.lists(st.integers(0, 40), max_size=40),
)
def test_all_have_the_same_in_the_end(workers: int, clients: int, more: list[int]) -> None:
    """In whatever order workers become ready and clients come."""
    spreading = Spreading()
    names = [f"worker-{number}" for number in range(workers)]
    spreading.starting.update(dict.fromkeys(names, 0.0))
    given: dict[str, int] = {}
    waiting = clients
    for number, name in enumerate(names):
        del spreading.starting[name]
        given[name] = 0
        if number == 0:
            assert spreading.begin({}) is (workers > 1)
        waiting += more[number] if number < len(more) else 0
        if not spreading.on:
            continue
        while waiting:
            having_room = spreading.with_room(list(given), waiting)
            if not having_room:
                break
            chosen = min(having_room, key=lambda tag: given[tag])
            given[chosen] += 1
            spreading.gave(chosen)
            waiting -= 1
    if workers > 1:
        assert not waiting
        assert max(given.values()) - min(given.values()) <= 1


def test_those_of_a_worker_that_is_gone_count_no_more() -> None:
    spreading = Spreading()
    spreading.starting.update(one=0.0, two=0.0)
    assert spreading.begin({})
    for _ in range(100):
        spreading.gave("gone")
    assert spreading.with_room(["a"], 3) == {"a"}
    spreading.gave("a")
    assert not spreading.with_room(["a"], 2)
    spreading.starting.clear()
    assert spreading.with_room(["a", "b"], 2) == {"a", "b"}
    spreading.end()
    assert not spreading.on


def test_a_worker_in_the_place_of_another_gets_its_share() -> None:
    spreading = Spreading()
    spreading.starting["last"] = 0.0
    assert spreading.begin({"a": 10, "b": 12})
    assert spreading.with_room(["a", "b"], 1) == set()
    assert spreading.with_room(["a", "b"], 11) == {"a"}
    spreading.starting.clear()
    assert spreading.with_room(["a", "b", "last"], 11) == {"a", "last"}
