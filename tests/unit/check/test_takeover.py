from __future__ import annotations

from typing import Optional

import pytest

from unit.check.deployment import Deployment

_APPLICATION = """\
import socketio
from supervisor_sio import ZmqManager
manager = ZmqManager({options})
sio = socketio.Server(async_mode="eventlet", client_manager=manager)
app = socketio.WSGIApp(sio)
"""


def _serving(deployment: Deployment, options: str = "takeover=True") -> Deployment:
    (deployment.directory / "myapp.py").write_text(_APPLICATION.format(options=options))
    return deployment.set("program:workers", directory=str(deployment.directory))


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("drain_timeout", "10", None),
        ("drain_timeout", "2", "and 1 s to end their handlers and pass their sessions on"),
        ("drain_timeout", "1", "and 0.5 s to end their handlers"),
        ("drain_timeout", "0", "and 0 s to end their handlers"),
        ("hold_timeout", "10", None),
        ("hold_timeout", "5", "the sessions of a worker of [program:workers] wait so long"),
    ],
)
def test_times_of_the_cluster(
    deployment: Deployment, option: str, value: str, text: Optional[str]
) -> None:
    lines = _serving(deployment).set("rpcinterface:sio", **{option: value}).lines()
    if text is None:
        assert lines == []
    else:
        (line,) = lines
        assert f"[rpcinterface:sio] {option}: {value}: " in line and text in line


def test_a_worker_that_is_killed_while_it_ends(deployment: Deployment) -> None:
    _serving(deployment).set("program:workers", stopwaitsecs="12")
    (line,) = deployment.lines()
    assert "stopwaitsecs: 12 leaves a worker with takeover=True less than 5 s after" in line
    assert line.endswith("write stopwaitsecs = 15")
    deployment.set("program:workers", stopwaitsecs="10")
    (line,) = deployment.lines()
    assert "is not longer than drain_timeout" in line


@pytest.mark.parametrize("options", ["", "takeover=False", "**options", "takeover=given"])
def test_where_no_takeover_shows(deployment: Deployment, options: str) -> None:
    _serving(deployment, options).set("program:workers", stopwaitsecs="12")
    assert deployment.set("rpcinterface:sio", hold_timeout="1", drain_timeout="2").lines() == []
