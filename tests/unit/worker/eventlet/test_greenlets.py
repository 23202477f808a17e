from __future__ import annotations

import contextvars
import warnings
from typing import Any, Callable, Iterator

import greenlet
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
    from eventlet import corolocal, hubs

from supervisor_sio.worker.eventlet import greenlets
from unit.worker.turns import let_run


@pytest.fixture(autouse=True)
def none_idle() -> Iterator[None]:
    greenlets._idle.clear()
    yield
    greenlets._idle.clear()


def in_hub(call: Callable[[], Any]) -> Any:
    """The result of a call that is made where callbacks of the hub run."""
    done = eventlet.event.Event()

    def run() -> None:
        try:
            done.send(call())
        except BaseException as error:
            done.send_exception(error)

    hubs.get_hub().schedule_call_global(0, run)
    with eventlet.Timeout(20):
        return done.wait()


def test_it_runs_at_once() -> None:
    said: list[str] = []

    def task(word: str) -> None:
        said.append(word)
        eventlet.sleep(0)
        said.append(f"{word} again")

    def both() -> list[str]:
        greenlets.run(task, "one")
        greenlets.run(task, "two")
        return list(said)

    assert in_hub(both) == ["one", "two"]
    let_run(0.01)
    assert said == ["one", "two", "one again", "two again"]
    assert greenlets._idle == []  # who has waited is not used again


def test_it_is_used_again() -> None:
    ids: list[int] = []

    def task() -> None:
        ids.append(id(greenlet.getcurrent()))

    in_hub(lambda: [greenlets.run(task) for _ in range(3)])
    assert len(set(ids)) == 1
    assert len(greenlets._idle) == 1


def test_but_not_if_somebody_knows_it() -> None:
    known: list[Any] = []
    in_hub(lambda: [greenlets.run(lambda: known.append(greenlet.getcurrent())) for _ in range(2)])
    assert known[0] is not known[1]
    assert all(green.dead for green in known)
    assert greenlets._idle == []


def test_nothing_of_the_task_before_is_seen() -> None:
    local = corolocal.local()
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[Any] = []

    def task() -> None:
        seen.append((getattr(local, "value", None), variable.get()))
        local.value = 1
        variable.set(1)

    def only_variable() -> None:
        seen.append(variable.get())
        variable.set(1)

    in_hub(lambda: [greenlets.run(task) for _ in range(3)])
    assert seen == [(None, 0)] * 3
    in_hub(lambda: [greenlets.run(only_variable) for _ in range(3)])
    assert seen[3:] == [0] * 3


def test_what_it_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(error: BaseException) -> None:
        raise error

    def all_of_them() -> None:
        greenlets.run(fail, ValueError("this"))
        greenlets.run(fail, eventlet.Timeout())
        greenlets.run(fail, greenlet.GreenletExit())

    in_hub(all_of_them)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "this" in caplog.text
