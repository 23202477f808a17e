from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.relay import sequence
from supervisor_sio.relay.sequence import GapCounter


@given(st.integers(1, 1000), st.lists(st.booleans(), max_size=50))
def test_what_is_missing_between_first_and_last_is_counted(first: int, arrived: list[bool]) -> None:
    counter = GapCounter()
    assert counter.observe("a", b"t", first) == 0
    lost = 0  # since the last that arrived
    total = 0
    for number, here in enumerate(arrived, first + 1):
        if here:
            assert counter.observe("a", b"t", number) == lost
            total, lost = total + lost, 0
        else:
            lost += 1
    assert counter.missed == total


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([b"s", b"t"]), st.integers(1, 3)),
        max_size=60,
    )
)
def test_senders_and_topics_are_counted_apart(steps: list[tuple[str, bytes, int]]) -> None:
    together = GapCounter()
    apart = {(sender, topic): GapCounter() for sender in "ab" for topic in (b"s", b"t")}
    numbers = dict.fromkeys(apart, 0)
    for sender, topic, step in steps:
        numbers[sender, topic] += step
        gap = together.observe(sender, topic, numbers[sender, topic])
        assert gap == apart[sender, topic].observe(sender, topic, numbers[sender, topic])
    assert together.missed == sum(counter.missed for counter in apart.values())


def test_the_first_message_sets_the_start() -> None:
    counter = GapCounter()
    assert counter.observe("a", b"t", 1_000_000) == 0
    assert counter.observe("a", b"t", 1_000_001) == 0
    assert counter.missed == 0


def test_a_sender_that_starts_anew_has_lost_nothing() -> None:
    counter = GapCounter()
    for number in (1, 2, 3, 1, 2, 4):
        counter.observe("a", b"t", number)
    assert counter.missed == 1


def test_a_message_that_comes_twice() -> None:
    counter = GapCounter()
    assert [counter.observe("a", b"t", number) for number in (1, 1, 2, 2, 3)] == [0] * 5


def test_the_sender_not_heard_for_longest_is_forgotten() -> None:
    counter = GapCounter()
    most = sequence._MOST_SENDERS
    for number in range(most):
        counter.observe(f"s{number}", b"t", 1)
    counter.observe("s0", b"t", 2)  # heard again
    counter.observe("new", b"t", 1)  # one too many: s1 goes
    assert counter.observe("s0", b"t", 4) == 1
    assert counter.observe("s1", b"t", 9) == 0
    assert counter.observe(f"s{most - 1}", b"t", 9) == 7
