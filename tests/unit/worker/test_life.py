from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor_sio.common.blocking import run_blocking
from supervisor_sio.common.limits import CLOSING_AT_ONCE
from supervisor_sio.worker import life
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from unit.engine.fakes import World


class Loop:
    """A runtime whose turns are code of the test."""

    def __init__(self, *engines: Any) -> None:
        self.engines = engines
        self.outlets: list[Any] = []
        self.turns = 0
        self.turn: Any = lambda: None

    async def sleep(self, seconds: float) -> None:
        self.turns += 1
        assert self.turns < 1000, "it waits for ever"
        self.turn()


def test_the_end_does_not_wait_for_a_session_that_has_ended_and_was_not_fetched() -> None:
    world = World()
    session = world.open()
    session.close()
    world.engine.forget(session.sid)  # its handlers are done
    life.close_session(world.engine, session.sid)
    assert session.sid in world.engine.sessions
    assert not life.has_handler(world.engine, session.sid)


def test_so_many_disconnect_handlers_run_at_a_time_and_each_session_is_closed() -> None:
    world = World()
    sids = [world.open().sid for _ in range(3 * CLOSING_AT_ONCE + 1)]
    loop: Any = Loop(world.engine)
    most = 0

    def turn() -> None:
        nonlocal most
        closing = [sid for sid in sids if sid in open_ones() and open_ones()[sid].closed]
        most = max(most, len(closing))
        for sid in closing[: CLOSING_AT_ONCE // 2]:  # half of the handlers end
            world.engine.forget(sid)
            world.engine.sessions.pop(sid, None)

    def open_ones() -> Any:
        return world.engine.sessions

    loop.turn = turn
    run_blocking(life.Life._close_sessions(SimpleNamespace(runtime=loop)))  # type: ignore[arg-type]
    assert most == CLOSING_AT_ONCE and not world.engine.sessions


class Ending(life.Life):
    """A draining worker; the test provides the turns of its loop."""

    def __init__(self, world: World, turn: Any, has_connections: Any) -> None:
        self.runtime: Any = Loop(world.engine)
        self.runtime.turn = turn
        self.server: Any = SimpleNamespace(end_websockets=lambda: None)
        self.signals: Any = SimpleNamespace(wait=self.leave)
        self._look_for_connections = has_connections

    @property
    def _has_connections(self) -> bool:
        return bool(self._look_for_connections())


def test_a_session_that_opens_while_the_worker_ends_does_not_hold_it() -> None:
    world = World()
    opened: list[Any] = []

    def turn() -> None:
        if not opened:
            opened.append(world.open())
        elif opened[0].closed:
            world.engine.forget(opened[0].sid)

    # Its poll waits.
    run_blocking(Ending(world, turn, lambda: not opened or not opened[0].closed)._drain())
    assert opened[0].closed


def test_a_session_that_opens_while_others_are_closed_is_closed_without_a_connection() -> None:
    world = World()
    sessions = [world.open()]

    def turn() -> None:
        for session in sessions:
            if session.closed:
                world.engine.forget(session.sid)
        if len(sessions) == 1:
            sessions.append(world.open())

    run_blocking(Ending(world, turn, lambda: False)._drain())
    assert len(sessions) == 2 and sessions[1].closed


def test_a_session_that_cannot_be_closed_does_not_keep_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(abort: bool) -> None:
        raise ValueError("a mistake")

    bad = SimpleNamespace(close=fail, forgotten=False)
    engine: Any = SimpleNamespace(sessions={"a": bad})
    loop: Any = Loop(engine)
    run_blocking(life.Life._close_sessions(SimpleNamespace(runtime=loop)))  # type: ignore[arg-type]
    assert "closing session a" in caplog.text and loop.turns < 5


def test_what_takes_too_long_is_cancelled_and_what_fails_ends() -> None:
    runtime = HubRuntime()
    done: list[str] = []

    async def wait() -> None:
        try:
            await runtime.sleep(60)
        finally:
            done.append("cancelled")

    async def fail() -> None:
        raise ValueError("a mistake")

    began = time.monotonic()
    run_blocking(life.within(runtime, 0.02, wait()))
    run_blocking(life.within(runtime, 60, fail()))
    assert done == ["cancelled"] and time.monotonic() - began < 30


def test_a_worker_that_is_already_stopped_does_not_start_the_application_up() -> None:
    """Its shutdown would come before a startup that takes a turn of the loop."""
    runtime = HubRuntime()
    started: list[Any] = []

    async def start_up(app: Any) -> None:
        started.append(app)

    runtime.start_up = start_up  # type: ignore[method-assign]
    worker: Any = SimpleNamespace(
        runtime=runtime, stopped=runtime.event(), server=SimpleNamespace(app="the application")
    )
    run_blocking(life.Life.start_up(worker))
    worker.stopped.set()
    run_blocking(life.Life.start_up(worker))
    assert started == ["the application"]
