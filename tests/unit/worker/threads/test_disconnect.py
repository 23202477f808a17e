"""A client that several threads disconnect at the same time."""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any, Callable, Iterator

import pytest
import socketio

from supervisor_sio import ZmqManager
from supervisor_sio.worker.dispatchers import ThreadDispatcher
from unit.polling import make_server


@pytest.fixture(autouse=True)
def switching() -> Iterator[None]:
    """Let threads switch as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def server() -> socketio.Server:
    server = make_server(client_manager=ZmqManager())
    eio = SimpleNamespace(
        engine=SimpleNamespace(sessions={}, deadlines=None),
        logger=logging.getLogger("engineio.server"),
        is_busy=None,
    )
    server.manager._send_through(ThreadDispatcher(server, eio, None, 10))  # type: ignore[arg-type]
    server._send_packet = lambda eio_sid, pkt: None
    return server


def at_the_same_time(*calls: Callable[[], Any]) -> list[BaseException]:
    barrier, errors = threading.Barrier(len(calls)), []

    def run(call: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_its_handler_is_called_once(server: socketio.Server) -> None:
    manager = server.manager
    told: list[str] = []
    server.on("disconnect", lambda sid, reason: told.append(sid))
    sids = []
    for number in range(500):
        eio_sid = f"eio-{number}"
        sid = manager.connect(manager.pre_connect(eio_sid, "/"), "/")
        sids.append(sid)
        errors = at_the_same_time(
            lambda sid=sid: server.disconnect(sid),
            lambda sid=sid: server.disconnect(sid, ignore_queue=True),
            lambda sid=sid: manager.disconnect(sid, "/"),
            lambda eio_sid=eio_sid: server._handle_disconnect(eio_sid, "/", "it has gone"),
        )
        assert errors == []
    assert Counter(told) == dict.fromkeys(sids, 1)
    assert manager.rooms == manager.pending_disconnect == {}
