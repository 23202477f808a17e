from __future__ import annotations

import asyncio
import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common.channel import MAX_PACKET, ChannelError, in_parts, row_size
from supervisor_sio.common.limits import LONGEST_ROOM, MAX_ROOMS
from supervisor_sio.router import queries
from supervisor_sio.router.queries import Queries, Result, answer_packets, rooms

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from supervisor_sio.worker import queries as worker_queries

SOCKETS = {"what": "sockets", "tag": "", "id": 5}


class Workers:
    """Receives questions for three workers, one of which is busy."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.questions: list[dict[str, Any]] = []
        self.results: list[Result] = []
        self.queries = Queries(self.loop, self.take)

    def take(self, question: dict[str, Any]) -> tuple[dict[str, str], int]:
        self.questions.append(question)
        return {"a": "workers:0", "b": "workers:1"}, 1

    def ask(self) -> int:
        self.queries.ask(SOCKETS, self.results.append)
        number: int = self.questions[-1]["id"]
        return number

    def say(self, tag: str, number: Any, **message: Any) -> None:
        self.queries.answer(tag, {"type": "answer", "id": number, "rows": [], **message})


@pytest.fixture
def workers() -> Any:
    made = Workers()
    yield made
    made.loop.close()


def test_answers_are_gathered(workers: Workers) -> None:
    number = workers.ask()
    workers.say("a", number, rows=[1, 2], last=False)
    workers.say("b", number, rows=[9], last=True, total=1)
    assert workers.results == []
    workers.say("a", number, rows=[3], last=True, total=30)
    rows = {"workers:0": [1, 2, 3], "workers:1": [9]}
    assert workers.results == [Result(rows, 31, 1, {"workers:0": 30, "workers:1": 1})]


def test_a_worker_that_is_lost_is_not_waited_for(workers: Workers) -> None:
    number = workers.ask()
    workers.queries.lost("a")
    workers.queries.lost("stranger")
    workers.say("b", number, last=True, total=0)
    assert workers.results == [Result({"workers:1": []}, 0, 2, {"workers:1": 0})]


def test_the_time_is_up(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_TIMEOUT", 0.01)
    number = workers.ask()
    workers.say("a", number, rows=[1], last=True, total=1)
    workers.loop.run_until_complete(asyncio.sleep(0.05))
    assert workers.results == [Result({"workers:0": [1]}, 1, 2, {"workers:0": 1})]
    workers.say("b", number, rows=[2], last=True, total=1)  # too late


def test_answers_to_nothing_are_ignored(workers: Workers) -> None:
    number = workers.ask()
    for tag, said in (("a", 99), ("c", number), ("a", None), ("a", [])):
        if not isinstance(said, list):
            workers.say(tag, said, rows=[1], last=True)
    workers.say("a", number, rows="x", last=True)
    assert workers.results == []


def test_a_worker_that_fails_counts_as_missing(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    number = workers.ask()
    workers.say("a", number, last=True, error="KeyError: 'x'" * 1000)
    workers.say("b", number, rows=[2], last=True, total=1)
    rows: dict[str, list[Any]] = {"workers:0": [], "workers:1": [2]}
    assert workers.results == [Result(rows, 1, 2, {"workers:1": 1})]
    (line,) = caplog.messages
    assert line.startswith("worker workers:0: KeyError: 'x'") and len(line) < 1100


def test_parts_fit_into_packets() -> None:
    rows = [["x" * 1000, number] for number in range(200)]
    parts = list(in_parts(rows))
    assert [row for part in parts for row in part] == rows
    assert len(parts) > 1
    assert all(len(json.dumps(part)) < MAX_PACKET * 0.6 for part in parts)
    assert list(in_parts([])) == [[]]
    assert list(in_parts(range(7), most=3)) == [[0, 1, 2], [3, 4, 5], [6]]
    with pytest.raises(ChannelError, match="a row of 16388 bytes is over the limit of 16384"):
        list(in_parts([1, "x" * 16386]))

    *some, last = answer_packets(7, rows, Result(total=200, missing=1))
    assert [message["type"] for message in some] == ["rows"] * len(parts)
    assert last == {"type": "result", "id": 7, "error": "", "total": 200, "missing": 1}
    *some, last = answer_packets(7, [1, "x" * 17000], Result(total=2))
    assert last["type"] == "result" and last["error"].startswith("a row of 17002 bytes")

    *some, last = worker_queries.packets(SOCKETS, rows, 300)
    assert all(message["last"] is False for message in some)
    assert last["last"] is True and last["total"] == 300 and last["id"] == 5


def test_rooms_are_counted_over_all_workers() -> None:
    result = Result({"a": [["x", 1], ["y", 5]], "b": [["x", 3], ["z", 1]]}, 4, 0, {"a": 2, "b": 2})
    assert rooms(result) == [["y", 5], ["x", 4], ["z", 1]] and result.total == 3
    assert rooms(Result()) == []


def test_only_rooms_that_all_workers_count_are_shown() -> None:
    """A worker says its rooms in the order of their names, up to a number of them."""
    result = Result(
        {"a": [["a", 1], ["c", 1]], "b": [["a", 3], ["b", 1]], "c": [["b", 2], ["d", 9]]},
        total=0,
        totals={"a": 9, "b": 7, "c": 2},
    )
    assert rooms(result) == [["a", 4], ["b", 3]] and result.total == 9


@given(st.lists(st.text(max_size=3000), max_size=80))
def test_whatever_clients_name_their_rooms_a_row_has_its_bound(names: list[str]) -> None:
    for name in names:
        cut = worker_queries.cut(name)
        assert row_size(cut) <= LONGEST_ROOM
        assert cut == name or (cut.endswith("…") and name.startswith(cut[:-1]))
    shown = worker_queries.shown(iter(names))
    assert row_size(shown) <= MAX_ROOMS + 40
    if len(shown) < len(names) or (shown and shown[-1].endswith(" more")):
        kept, more = shown[:-1], shown[-1]
        assert more == f"… {len(names) - len(kept)} more"


def test_fifty_rooms_of_emoji_fit_into_a_row() -> None:
    shown = worker_queries.shown("\U0001f600" * 199 + str(number) for number in range(50))
    assert row_size(shown) <= MAX_ROOMS + 40 and shown[-1] == "… 46 more"
    assert shown[0].startswith("\U0001f600" * 60) and shown[0].endswith("…")
