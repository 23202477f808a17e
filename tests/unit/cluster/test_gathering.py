from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.cluster.gathering import Answers, Gathering


def test_nobody_is_waited_for() -> None:
    assert Gathering([]).done
    assert Gathering([], each=1).done


def test_one_answer_of_each() -> None:
    gathering = Gathering(["a", "b"], each=1)
    gathering.answer("b", 2)
    assert not gathering.done
    gathering.answer("a", 1)
    assert gathering.done
    assert (gathering.answers, gathering.missing) == ([2, 1], 0)


def test_each_says_how_many() -> None:
    gathering = Gathering(["a", "b", "c"])
    gathering.expect("a", 2)
    gathering.expect("b", 0)
    for value in (1, 2):
        assert not gathering.done
        gathering.answer("a", value)
    assert not gathering.done
    gathering.expect("c", 1)
    gathering.answer("c", 3)
    assert gathering.done
    assert (gathering.answers, gathering.missing) == ([1, 2, 3], 0)


def test_answers_before_it_is_known_how_many() -> None:
    gathering = Gathering(["a"])
    gathering.answer("a", 1)
    gathering.no_answer("a")
    assert not gathering.done
    gathering.expect("a", 3)
    assert not gathering.done
    gathering.answer("a", 2)
    assert gathering.done
    assert (gathering.answers, gathering.missing) == ([1, 2], 1)


def test_all_answers_before_it_is_known_how_many() -> None:
    gathering = Gathering(["a"])
    gathering.answer("a", 1)
    gathering.expect("a", 1)
    assert gathering.done


@pytest.mark.parametrize(("each", "missing"), [(None, 1), (1, 1), (3, 3)])
def test_a_worker_that_is_lost(each: Optional[int], missing: int) -> None:
    gathering = Gathering(["a", "b"], each)
    gathering.lost("a")
    gathering.lost("a")
    assert gathering.missing == missing and not gathering.done
    gathering.answer("a", "too late")
    gathering.expect("a", 5)
    gathering.no_answer("a")
    assert gathering.answers == [] and gathering.missing == missing
    gathering.lost("b")
    assert gathering.done


def test_a_worker_lost_half_way() -> None:
    gathering = Gathering(["a"])
    gathering.expect("a", 5)
    gathering.answer("a", 1)
    gathering.no_answer("a")
    gathering.lost("a")
    assert gathering.done
    assert (gathering.answers, gathering.missing) == ([1], 4)


def test_the_time_is_up() -> None:
    gathering = Gathering(["a", "b", "c"])
    gathering.expect("a", 2)
    gathering.answer("a", 1)
    gathering.expect("b", 0)
    gathering.give_up()
    assert gathering.done
    assert (gathering.answers, gathering.missing) == ([1], 2)


def test_strangers_do_not_count() -> None:
    gathering = Gathering(["a"], each=1)
    gathering.answer("x", 1)
    gathering.no_answer("x")
    gathering.expect("x", 1)
    gathering.lost("x")
    assert not gathering.done
    assert (gathering.answers, gathering.missing) == ([], 0)


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.booleans(), max_size=5)), st.data())
def test_whatever_the_order(plan: dict[str, list[bool]], data: st.DataObject) -> None:
    """A worker may announce its number of answers at any time, and each client may answer or
    not."""
    gathering = Gathering(plan)
    words: list[tuple[str, Optional[bool]]] = [
        (worker, word) for worker, answers in plan.items() for word in (None, *answers)
    ]
    order = data.draw(st.permutations(words))
    for number, (worker, word) in enumerate(order):
        assert not gathering.done, order[:number]
        if word is None:
            gathering.expect(worker, len(plan[worker]))
        elif word:
            gathering.answer(worker, worker)
        else:
            gathering.no_answer(worker)
    assert gathering.done
    expected = [worker for worker, word in order if word]
    assert gathering.answers == expected
    assert gathering.missing == sum(answers.count(False) for answers in plan.values())


def test_answers_are_a_list_and_complete_unless_they_say_so() -> None:
    answers: Answers[int] = Answers([1, 2])
    assert answers == [1, 2]
    assert (answers.timed_out, answers.missing) == (False, 0)
