"""Commands, with the parts of the router that they need."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, Callable, Optional
from unittest.mock import Mock

import pytest

from supervisor_sio.router.commands import Commands
from supervisor_sio.router.pool import Member, Pool
from supervisor_sio.router.queries import Result
from supervisor_sio.router.supervisord import CommandError

NAME = "workers:workers_00"


class Parts:
    def __init__(self, *members: Member, drained: Optional[dict[str, int]] = None) -> None:
        pool = Pool("least-connection")
        for member in members:
            pool.add(member)
        self.results: list[tuple[Any, str]] = []
        self.answered: list[Any] = []
        self.figures = Mock()
        self.placement = Mock()
        self.asked: list[Callable[[Result], None]] = []
        self.emits: list[Any] = []
        self.rebalancing = Mock()
        parts: Any = SimpleNamespace(
            ask=lambda command, done: self.asked.append(done),
            emit=lambda command, done: self.emits.append(done),
            result=lambda command, error="": self.results.append((command.get("id"), error)),
            answer=lambda messages: self.answered.extend(messages),
        )
        self.commands = Commands(
            drained=drained or {},
            pool=pool,
            placement=self.placement,
            queries=parts,
            rebalancing=self.rebalancing,
            emitter=parts,
            answers=parts,
            figures=self.figures,
            terminator=None,
            tls_files=("", None),
        )

    def execute(self, kind: str, **arguments: Any) -> None:
        self.commands.execute({"type": kind, "id": 7, **arguments})


def worker(**more: Any) -> Member:
    return Member(tag="0a1b2c3d", name=NAME, pid=20, **more)


def test_a_drained_worker_stays_drained_until_it_is_undrained() -> None:
    member = worker()
    parts = Parts(member)
    parts.execute("drain", name=NAME)
    assert member.drained and parts.commands.is_drained(NAME, 20)
    assert not parts.commands.is_drained(NAME, 21)  # the next process of that name
    assert parts.results == [(7, "")] and parts.figures.called
    parts.execute("undrain", name=NAME)
    assert not member.drained and not parts.commands.is_drained(NAME, 20)
    assert parts.placement.place_held.called


def test_those_that_another_router_drained() -> None:
    assert Parts(drained={NAME: 20}).commands.is_drained(NAME, 20)


def test_one_that_is_undrained_before_it_has_connected_to_a_new_router() -> None:
    parts = Parts(drained={NAME: 20})
    with pytest.raises(CommandError, match="no worker .* is connected"):
        parts.execute("undrain", name=NAME)
    assert not parts.commands.is_drained(NAME, 20)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("drain", "no worker .* is connected"),
        ("undrain", "no worker .* is connected"),
        ("reload-tls", "TLS is off"),
        ("emit", "no worker is ready"),
        ("dance", "has no command 'dance'"),
    ],
)
def test_what_cannot_be_done(kind: str, reason: str) -> None:
    parts = Parts()
    with pytest.raises(CommandError, match=reason):
        parts.execute(kind, name=NAME)
    assert parts.results == [] and not parts.figures.called


def test_the_result_of_an_emit_comes_later() -> None:
    parts = Parts(worker(channels=["socketio"]))
    parts.execute("emit", event="news")
    assert parts.results == []
    parts.emits[0]("no relay")
    assert parts.results == [(7, "no relay")]


def test_answers_to_a_question_are_cut() -> None:
    parts = Parts()
    parts.execute("query", what="sockets", limit=2)
    parts.asked[0](Result(rows={NAME: [1, 2, 3]}, total=3))
    assert [message.get("rows") for message in parts.answered] == [[[NAME, 1], [NAME, 2]], None]
    assert parts.answered[-1]["total"] == 3


def test_an_answer_that_is_none_is_told() -> None:
    parts = Parts()
    parts.execute("query", what="rooms", limit=2)
    parts.asked[0](Result(rows={NAME: [1]}))
    ((number, error),) = parts.results
    assert number == 7 and error.startswith("a worker's answer is malformed: ")


def test_a_rebalance_is_begun_and_stopped() -> None:
    parts = Parts()
    parts.execute("rebalance")
    parts.execute("stop-rebalance")
    assert [call[0] for call in parts.rebalancing.method_calls] == ["begin", "stop"]
    assert parts.results == [(7, ""), (7, "")] and parts.figures.call_count == 2


def test_a_rebalance_that_cannot_be() -> None:
    parts = Parts()
    parts.rebalancing.begin.side_effect = CommandError("at least two workers must be ready")
    with pytest.raises(CommandError, match="at least two workers must be ready"):
        parts.execute("rebalance")
    assert not parts.results


def test_it_is_known_since_when_a_worker_is_drained() -> None:
    member, before = worker(), time.monotonic()
    Parts(member).execute("drain", name=NAME)
    assert before <= member.drained_at <= time.monotonic()
