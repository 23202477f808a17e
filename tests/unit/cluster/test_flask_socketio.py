"""Flask-SocketIO with a ZmqManager: an application's unit tests, and processes without one."""

from __future__ import annotations

from typing import Any

import pytest

flask_socketio = pytest.importorskip("flask_socketio")
flask = pytest.importorskip("flask")

from supervisor_sio import RelayUnreachable, ZmqManager  # noqa: E402
from supervisor_sio.cluster import sessions  # noqa: E402
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE  # noqa: E402


@pytest.fixture(autouse=True)
def outside_supervisord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.mark.parametrize("async_mode", ["eventlet", "threading"])
def test_the_test_client(async_mode: str) -> None:
    app = flask.Flask(__name__)
    socketio = flask_socketio.SocketIO(app, async_mode=async_mode, client_manager=ZmqManager())
    answers: list[Any] = []

    @socketio.on("join")
    def join(room: str) -> str:
        flask_socketio.join_room(room)
        flask_socketio.emit("joined", {"b": b"\0", "room": room}, to=room)
        return "done"

    @socketio.on("ask")
    def ask() -> None:
        socketio.emit("question", 1, to=flask.request.sid, callback=answers.append)

    with app.app_context():
        first = socketio.test_client(app)
        second = socketio.test_client(app)
        assert first.is_connected() and second.is_connected()
        assert first.emit("join", "red", callback=True) == "done"
        (got,) = first.get_received()
        assert (got["name"], got["args"]) == ("joined", [{"b": b"\0", "room": "red"}])
        assert second.get_received() == []
        socketio.emit("news", 1)
        assert [client.get_received()[0]["name"] for client in (first, second)] == ["news"] * 2
        second.emit("ask")
        assert second.get_received()[0]["args"] == [1]
        second.disconnect()
        assert not second.is_connected() and first.is_connected()


def test_many_applications_in_one_process(no_leak: Any) -> None:
    """Application factories make a new one for each test."""
    with no_leak():
        for _ in range(20):
            app = flask.Flask(__name__)
            manager = ZmqManager()
            socketio = flask_socketio.SocketIO(app, async_mode="eventlet", client_manager=manager)
            with app.app_context():
                assert socketio.test_client(app).is_connected()


def test_a_manager_that_message_queue_replaces_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redis")
    monkeypatch.setattr(sessions, "_managers_without_server", 0)
    assert "write socketio.Server(client_manager=ZmqManager())" in sessions.why_no_manager()
    app = flask.Flask(__name__)
    flask_socketio.SocketIO(client_manager=ZmqManager()).init_app(app)
    assert "write socketio.Server(client_manager=ZmqManager())" in sessions.why_no_manager()
    socketio = flask_socketio.SocketIO(client_manager=ZmqManager())
    socketio.init_app(app, message_queue="redis://127.0.0.1:1")
    assert "leave message_queue out" in sessions.why_no_manager()


def test_a_process_without_an_application_emits_as_flask_socketio_does() -> None:
    """Celery's tasks do so; for several processes see tests/ledger/test_emitters.py."""
    manager = ZmqManager("zmq+ipc:///nowhere", write_only=True)
    socketio = flask_socketio.SocketIO(message_queue="zmq", client_manager=manager)
    assert socketio.server.manager is manager
    with pytest.raises(RelayUnreachable, match="/nowhere is not the run directory"):
        socketio.emit("news", {"n": 1}, namespace="/chat", to="red", skip_sid="x")
