"""Why supervisord could not start a process, in the words of the installed Supervisor."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import supervisor.process
from supervisor.states import ProcessStates

from supervisor_sio.common.commands import ENDED_BY_ITSELF
from supervisor_sio.supervisord.cluster import _spawn_error


def error_of(spawnerr: str | None, state: int) -> str:
    return _spawn_error(SimpleNamespace(spawnerr=spawnerr, get_state=lambda: state))


@pytest.mark.parametrize("state", [ProcessStates.BACKOFF, ProcessStates.FATAL])
def test_one_that_could_not_be_started(state: int) -> None:
    assert error_of("can't find command 'x'", state) == "can't find command 'x'"


def test_one_that_ended_by_itself_was_started() -> None:
    """The plugin holds it back, in the same states."""
    written = re.findall(r"spawnerr = '([^'%(]*)", Path(supervisor.process.__file__).read_text())
    assert written == ["Exited too quickly ", "Bad exit code "]
    for text in written:
        assert text.startswith(ENDED_BY_ITSELF)
        assert error_of(f"{text}1", ProcessStates.BACKOFF) == ""


def test_one_that_was_started_since() -> None:
    assert error_of("can't find command 'x'", ProcessStates.RUNNING) == ""
    assert error_of(None, ProcessStates.FATAL) == ""
