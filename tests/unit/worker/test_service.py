"""How a worker is run, and the errors that prevent its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest
import socketio

from supervisor_sio import ZmqManager
from supervisor_sio.cluster import sessions
from supervisor_sio.common.modes import EVENTLET, THREADING
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE, ClusterInfo, OwnedRunDir
from supervisor_sio.worker import service
from supervisor_sio.worker.link import Refused


class Life:
    """Replaces a worker's life, and records its arguments."""

    made: list[tuple[Any, ...]] = []
    error: Optional[Exception] = None

    def __init__(self, *args: Any) -> None:
        Life.made.append((type(self).__name__, *args))

    def run(self) -> None:
        if Life.error is not None:
            raise Life.error


class OfSupervisord(Life):
    pass


class ByHand(Life):
    pass


@pytest.fixture(autouse=True)
def _lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "Worker", OfSupervisord)
    monkeypatch.setattr(service, "Alone", ByHand)
    monkeypatch.setattr(service.modes, "make_runtime", lambda mode, threads: (mode, threads))
    monkeypatch.setattr(service.modes, "installer", lambda mode: mode)
    monkeypatch.setattr(service.logs, "configure_logging", lambda: None)
    monkeypatch.setattr(sessions, "serve_by", lambda installer: None)
    monkeypatch.setattr(sessions, "servers", lambda: [])
    monkeypatch.setattr(sessions, "_managers_without_server", 0)  # of tests before
    for name in (ENVIRONMENT_VARIABLE, "SUPERVISOR_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Life, "made", [])
    monkeypatch.setattr(Life, "error", None)


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    run_dir = OwnedRunDir(str(tmp_path))
    run_dir.write_cluster(ClusterInfo())
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    monkeypatch.setenv("SUPERVISOR_ENABLED", "1")
    yield run_dir
    run_dir.close()


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def error_of(capsys: pytest.CaptureFixture[str], *args: Any, **options: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        service.run(*args, **options)
    assert ended.value.code == 1
    return capsys.readouterr().err


def test_by_hand_it_listens_itself() -> None:
    service.run(wsgi, "127.0.0.1:8001", mode=THREADING, threads=3)
    assert Life.made == [("ByHand", wsgi, (THREADING, 3), "127.0.0.1:8001")]


def test_under_supervisord_connections_come_from_the_router(supervised: OwnedRunDir) -> None:
    service.serve(wsgi)
    ((kind, app, runtime, run_dir),) = Life.made
    assert (kind, app, runtime) == ("OfSupervisord", wsgi, (EVENTLET, None))
    assert run_dir.path == supervised.path


def test_a_supervisord_without_the_section(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUPERVISOR_ENABLED", "1")
    assert error_of(capsys, wsgi) == (
        "supervisor-sio worker: error: supervisord has no [rpcinterface:sio] section: add it, and "
        "restart supervisord\n"
    )
    assert not Life.made


def test_a_server_without_our_manager(
    supervised: OwnedRunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    """Started by hand it is served: there are no other workers."""
    server = socketio.Server(async_mode="eventlet")
    assert "client_manager=ZmqManager()" in error_of(capsys, socketio.WSGIApp(server))
    assert not Life.made


def test_a_server_with_our_manager(
    supervised: OwnedRunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = socketio.Server(async_mode="eventlet", client_manager=ZmqManager())
    monkeypatch.setattr(sessions, "servers", lambda: [server])
    service.run(socketio.WSGIApp(server))
    assert len(Life.made) == 1


def test_a_run_directory_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert f"{tmp_path} is not the run directory of a running" in error_of(capsys, wsgi)
    assert not Life.made


def test_what_is_not_an_application(capsys: pytest.CaptureFixture[str]) -> None:
    text = error_of(capsys, 5.0, spec="myapp:app", who="me")
    assert text == "me: error: myapp:app is a float, not a WSGI application\n"


def test_a_worker_that_the_router_refuses(
    supervised: OwnedRunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Life, "error", Refused("the worker speaks version 5 of the channel"))
    text = "supervisor-sio worker: error: the worker speaks version 5 of the channel\n"
    assert error_of(capsys, wsgi) == text
