from __future__ import annotations

import asyncio
import json
import warnings
from typing import Any

import pytest

from supervisor_sio.channel import MAX_PACKET, in_parts
from supervisor_sio.router import queries
from supervisor_sio.router.queries import Queries, Result, answer_packets

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from supervisor_sio.worker import queries as worker_queries

SOCKETS = {"what": "sockets", "tag": "", "id": 5}


class Workers:
    """Takes questions for three workers, of whom one is too busy."""

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
    assert workers.results == [Result({"workers:0": [1, 2, 3], "workers:1": [9]}, 31, 1)]


def test_a_worker_that_is_lost_is_not_waited_for(workers: Workers) -> None:
    number = workers.ask()
    workers.queries.lost("a")
    workers.queries.lost("stranger")
    workers.say("b", number, last=True, total=0)
    assert workers.results == [Result({"workers:1": []}, 0, 2)]


def test_the_time_is_up(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_TIMEOUT", 0.01)
    number = workers.ask()
    workers.say("a", number, rows=[1], last=True, total=1)
    workers.loop.run_until_complete(asyncio.sleep(0.05))
    assert workers.results == [Result({"workers:0": [1]}, 1, 2)]
    workers.say("b", number, rows=[2], last=True, total=1)  # too late


def test_answers_to_nothing_are_ignored(workers: Workers) -> None:
    number = workers.ask()
    for tag, said in (("a", 99), ("c", number), ("a", None), ("a", [])):
        if not isinstance(said, list):
            workers.say(tag, said, rows=[1], last=True)
    workers.say("a", number, rows="x", last=True)
    assert workers.results == []


def test_parts_fit_into_packets() -> None:
    rows = [["x" * 1000, number] for number in range(200)]
    parts = in_parts(rows)
    assert [row for part in parts for row in part] == rows
    assert len(parts) > 1
    assert all(len(json.dumps(part)) < MAX_PACKET * 0.6 for part in parts)
    assert in_parts([]) == [[]]

    *some, last = answer_packets(7, rows, Result(total=200, missing=1))
    assert [message["type"] for message in some] == ["rows"] * len(parts)
    assert last == {"type": "result", "id": 7, "error": "", "total": 200, "missing": 1}

    *some, last = worker_queries.packets(SOCKETS, rows, 300)
    assert all(message["last"] is False for message in some)
    assert last["last"] is True and last["total"] == 300 and last["id"] == 5
