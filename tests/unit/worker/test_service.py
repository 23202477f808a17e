from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import eventlet
import pytest

from supervisor_sio.cluster import sessions
from supervisor_sio.cluster.manager import ZmqManager
from supervisor_sio.common import figures
from supervisor_sio.worker import service
from unit.engine.fakes import World


def test_each_figure_that_a_worker_reports_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = SimpleNamespace(_subscriber=None, _publisher=SimpleNamespace(sent_again=7))
    manager.figures = lambda: ZmqManager.figures(manager)  # type: ignore[arg-type]
    two: list[Any] = [SimpleNamespace(manager=manager)] * 2
    monkeypatch.setattr(sessions, "servers", lambda: two)
    worker: Any = SimpleNamespace(
        server=SimpleNamespace(connections=3),
        _handshakes=4,
        _hub_lag=SimpleNamespace(worst=0.005),
    )
    worker._heard = lambda: service._Worker._heard(worker)
    counted = service._Worker._count(worker)
    assert sorted(counted) == sorted(figures.reported())
    assert (counted["connections"], counted["hub_lag_ms"], counted["sent_again"]) == (3, 5, 14)


def test_without_a_descriptor_for_a_connection_it_looks_again_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listening: list[Any] = []
    later: list[Any] = []

    def add(*listener: Any) -> Any:
        listening.append(listener)
        return listener

    def accept() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    alone: Any = service._Alone.__new__(service._Alone)
    alone._stop = SimpleNamespace(ready=lambda: False)
    alone._listener = SimpleNamespace(fd=SimpleNamespace(accept=accept), fileno=lambda: 7)
    alone.runtime = SimpleNamespace(
        hub=SimpleNamespace(
            READ="read",
            add=add,
            remove=listening.remove,
            schedule_call_global=lambda seconds, call: later.append(call),
        ),
        run=lambda task, *args: task(*args),
    )
    alone._listen()
    (_, _, accept_one, _, _) = listening[0]
    accept_one(7)
    assert (listening, caplog.messages) == ([], ["cannot accept: Too many open files"])
    later.pop()()
    assert len(listening) == 1
    alone._stop_listening()
    alone._stop_listening()
    alone._stop = SimpleNamespace(ready=lambda: True)
    alone._listen()
    assert not listening


def test_the_end_does_not_wait_for_a_session_that_has_ended_and_was_not_fetched() -> None:
    world = World()
    session = world.open()
    session.close()
    world.engine.forget(session.sid)  # its handlers are done
    with eventlet.Timeout(5):
        service._close_session(world.engine, session.sid)
    assert session.sid in world.engine.sessions
