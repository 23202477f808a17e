from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Callable, Optional

import pytest

from supervisor_sio.common.event_figures import OTHERS, EventRow
from supervisor_sio.common.limits import EVENT_METRICS, EVENT_METRICS_TEXT
from supervisor_sio.worker import event_figures
from supervisor_sio.worker.event_figures import EventFigures
from supervisor_sio.worker.event_reports import EventReports
from unit.in_the_middle import Other
from unit.worker.served import APPS, connect, serve_by


@pytest.fixture(params=APPS, ids=[app.mode for app in APPS])
def app(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    serve_by(request.param, monkeypatch)
    made = request.param()
    monkeypatch.setattr(made.runtime, "events", EventFigures())
    yield made


class Server:
    """The attributes of an application's server that :class:`EventFigures` reads."""

    def __init__(self) -> None:
        self.handlers: dict[str, dict[str, Any]] = {"/": {"echo": None, "*": None}, "*": {"any": 1}}
        self.namespace_handlers = {"/class": SimpleNamespace(on_move=None)}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def counted(figures: EventFigures) -> dict[tuple[str, str], int]:
    return {(row.namespace, row.event): row.calls for row in figures.rows()}


def test_what_handlers_do_is_counted(app: Any) -> None:
    client = connect(app)
    for text in ('2["echo"]', '2["echo",1]', '2["fail"]', '2["nobody knows this"]', '2["wait"]'):
        client.text("4" + text)
    app.settle(lambda: app.waiting == 1)
    app.settle(lambda: sum(counted(app.runtime.events).values()) == 4)
    assert counted(app.runtime.events) == {("/", "echo"): 2, ("/", "fail"): 1, (OTHERS, OTHERS): 1}
    app.sleep(0.02)
    if app.mode == "eventlet":
        app.go_on.set(None)
    else:
        app.go_on.set()
    app.settle(lambda: sum(counted(app.runtime.events).values()) == 5)
    rows = {row.event: row for row in app.runtime.events.rows()}
    assert rows["wait"].microseconds > 15_000, "also the time in which it waits"
    assert [row.event for row in rows.values() if row.failures] == ["fail"]
    app.gone()


def test_names_that_clients_make_up_have_one_row() -> None:
    figures, server = EventFigures(), Server()
    names: list[tuple[str, Any]] = [
        *(("/", "echo"), ("/", "any"), ("/class", "move"), ("/class", "any")),
        *(("/", f"made up {n}") for n in range(10_000)),
        *((f"/made up {n}", "any") for n in range(EVENT_METRICS + 1)),
        *(("/class", "__init__"), ("/", 5), ("/other", "echo")),
    ]
    for name in names:
        with figures.counting(server, *name):
            pass
    assert counted(figures) == {
        **dict.fromkeys((("/", "echo"), ("/class", "move")), 1),
        ("*", "any"): 2 + EVENT_METRICS + 1,
        (OTHERS, OTHERS): 10_003,
    }


def test_there_are_so_many_rows_and_no_more() -> None:
    figures, server = EventFigures(), Server()
    server.handlers["/"] = {f"event {n}": None for n in range(EVENT_METRICS + 7)}
    server.handlers["/long"] = {"x" * EVENT_METRICS_TEXT: None}
    for namespace, handlers in server.handlers.items():
        for name in handlers:
            with figures.counting(server, namespace, name):
                pass
    rows = figures.rows()
    assert len(rows) == EVENT_METRICS + 1
    assert rows[-1] == EventRow(OTHERS, OTHERS, 9, rows[-1].microseconds, 0)


def test_time_and_failures() -> None:
    clock = Clock()
    figures, server = EventFigures(clock), Server()
    with figures.counting(server, "/", "echo"):
        clock.now += 0.25
    with pytest.raises(ValueError), figures.counting(server, "/", "echo"):
        clock.now += 0.5
        raise ValueError
    with pytest.raises(KeyboardInterrupt), figures.counting(server, "/", "echo"):
        raise KeyboardInterrupt  # the worker ends, and nobody has failed
    assert figures.rows() == [EventRow("/", "echo", 3, 750_000, 1)]


# --- handlers in several threads ----------------------------------------------------


class Row(event_figures._Row):
    """A row at which another thread calls while this one adds a call to it."""

    interrupt: Optional[Callable[[], None]] = None

    @property
    def seconds(self) -> float:  # type: ignore[override]
        before = self._before
        if self.interrupt is not None:
            self.interrupt()
        return before

    @seconds.setter
    def seconds(self, seconds: float) -> None:
        self._before = seconds


def count(figures: EventFigures, event: str) -> None:
    server = Server()
    server.handlers["/"][event] = None
    with figures.counting(server, "/", event):
        pass


@pytest.fixture
def figures() -> EventFigures:
    """By its clock each call takes a quarter of a second."""
    clock = Clock()

    def now() -> float:
        clock.now += 0.25
        return clock.now

    return EventFigures(now)


def count_interrupted(figures: EventFigures, call: Callable[..., Any], *args: Any) -> Any:
    """Count a call; in the middle of this another thread calls. Return what that call returns."""
    row = figures._rows["/", "echo"] = Row("/", "echo")
    other = Other(figures, call, *args)
    row.interrupt = other.call
    count(figures, "echo")
    return other.result()


def test_calls_that_two_threads_count_at_the_same_time(figures: EventFigures) -> None:
    count_interrupted(figures, count, figures, "echo")
    assert figures.rows() == [EventRow("/", "echo", 2, 500_000, 0)]


def test_a_call_is_reported_with_its_time(figures: EventFigures) -> None:
    rows = count_interrupted(figures, figures.rows)
    assert rows == [EventRow("/", "echo", 1, 250_000, 0)]


@pytest.mark.parametrize("event", ["last", "another"])
def test_two_threads_that_count_events_for_the_first_time(
    figures: EventFigures, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """One row is left: they share it if they count the same event, else one of them gets it."""
    for number in range(EVENT_METRICS - 1):
        count(figures, f"event {number}")
    other = Other(figures, count, figures, event)
    other.interrupt(monkeypatch, event_figures, "_Row")
    count(figures, "last")
    other.result()
    made = {f"event {number}" for number in range(EVENT_METRICS - 1)}
    counts = {name: calls for name, calls in counted(figures).items() if name[1] not in made}
    assert counts == (
        {("/", "last"): 2} if event == "last" else {("/", "last"): 1, (OTHERS, OTHERS): 1}
    )


class Told:
    """A channel that records messages, and a clock."""

    generation = 1

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.due: list[Any] = []
        self.events: Any = None

    def post(self, message: Any) -> None:
        self.posted.append(message)

    def call_later(self, seconds: float, task: Any) -> Any:
        self.due.append(task)
        return SimpleNamespace(cancel=lambda: self.due.remove(task))

    def go_on(self) -> None:
        (task,) = self.due
        self.due.clear()
        task()


def test_the_router_is_told_what_is_new() -> None:
    told: Any = Told()
    reports = EventReports(told, told)
    reports.turn(False)
    assert told.events is None and not told.due
    reports.turn(True)
    reports.turn(True)
    told.go_on()
    assert not told.posted, "there is nothing to say"
    with told.events.counting(Server(), "/", "echo"):
        pass
    told.go_on()
    told.go_on()
    assert len(told.posted) == 1
    told.generation = 2
    told.go_on()
    assert told.posted[1] == told.posted[0], "a router that is new knows nothing"
    reports.turn(False)
    assert told.events is None and not told.due
