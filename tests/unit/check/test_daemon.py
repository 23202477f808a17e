"""The supervisord that a configuration is for is not always the one beside the check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest

from supervisor_sio.check.daemon import Daemon, daemon_of
from supervisor_sio.check.reading import read
from unit.check.deployment import BIN, HOST, Deployment


class OtherPython:
    """A supervisord with another Python, whose packages the test chooses."""

    def __init__(self, directory: Path) -> None:
        self.python = directory / "other" / "python3"
        self.python.parent.mkdir()
        self.supervisord = directory / "other" / "supervisord"
        self.supervisord.write_text(f"#!{self.python}\n")
        self.says("", managed=True)

    def says(self, missing: str, managed: bool) -> None:
        self.python.write_text(f"#!/bin/sh\necho 3 11\necho {missing}\necho {int(managed)}\n")
        self.python.chmod(0o755)


@pytest.fixture
def other(tmp_path: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> OtherPython:
    """The supervisord of Debian's package, to which the deployment's configuration belongs."""
    made = OtherPython(tmp_path)
    place = str(tmp_path.resolve()), str(made.supervisord)
    monkeypatch.setattr("supervisor_sio.check.daemon._DEBIAN", place)
    monkeypatch.setattr("supervisor_sio.check.daemon._SERVICE_PATH", (BIN,))
    return made


def test_debians_supervisord_has_the_plugin(deployment: Deployment, other: OtherPython) -> None:
    assert deployment.lines() == []


def test_debians_supervisord_lacks_the_plugin(deployment: Deployment, other: OtherPython) -> None:
    other.says("supervisor_sio", managed=True)
    (line,) = deployment.lines()
    assert line.endswith(
        "[rpcinterface:sio] supervisor.rpcinterface_factory: supervisord does not start, because "
        f"its Python, {other.python}, has no supervisor_sio: {sys.executable} "
        f"-m pip --python {other.python} install --break-system-packages --no-deps "
        "supervisor-sio; see docs/howto/debian.md"
    )


def test_a_supervisord_into_whose_python_pip_installs(
    deployment: Deployment, other: OtherPython
) -> None:
    other.says("supervisor_sio", managed=False)
    (line,) = deployment.lines()
    assert line.endswith(f"has no supervisor_sio: {other.python} -m pip install supervisor-sio")


def test_debians_supervisord_reads_other_files_only(
    deployment: Deployment, other: OtherPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.says("supervisor_sio", managed=True)
    place = "/etc/supervisor", str(other.supervisord)
    monkeypatch.setattr("supervisor_sio.check.daemon._DEBIAN", place)
    assert deployment.lines() == []


def test_the_supervisord_that_runs_is_asked_first(
    deployment: Deployment, other: OtherPython
) -> None:
    """Debian's package is installed, but a supervisord of this environment runs."""
    other.says("supervisor_sio", managed=True)
    script = deployment.directory / "supervisord"
    script.write_text("import time; print(flush=True); time.sleep(60)\n")
    words = [sys.executable, str(script)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None and running.stdout.readline()
            (deployment.directory / "pid").write_text(f"{running.pid}\n")
            assert deployment.lines() == []
        finally:
            running.kill()


@pytest.mark.parametrize("content", [None, "", "none", "1", "99999999"])
def test_a_pidfile_that_names_no_supervisord(
    deployment: Deployment, content: Optional[str]
) -> None:
    if content is not None:
        (deployment.directory / "pid").write_text(content)
    deployment.lines()
    assert daemon_of(read(deployment.path), HOST) == Daemon(sys.executable, HOST.path)


def test_a_command_that_only_this_environment_has(
    deployment: Deployment, other: OtherPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither supervisord's PATH nor the directory of its Python has it."""
    monkeypatch.setattr("supervisor_sio.check.daemon._SERVICE_PATH", ("/no/bin",))
    line, _ = deployment.lines()
    assert line.endswith(
        "[eventlistener:sio] command: supervisor-sio is not on the PATH "
        f"/no/bin:{other.python.parent}; install it, or write its full path"
    )


def test_nothing_can_be_installed_where_the_router_is(
    deployment: Deployment, other: OtherPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the copy of this package that is installed for Debian's supervisord."""
    monkeypatch.setattr("supervisor_sio.check.daemon._DEBIAN", ("/etc/supervisor", ""))
    script = deployment.directory / "supervisor-sio"
    script.write_text(f"#!{other.python}\n")
    script.chmod(0o755)
    deployment.set("eventlistener:sio", command=f"{script} router")
    other.says("zmq", managed=True)
    (line,) = deployment.lines()
    assert line.endswith(
        f"[eventlistener:sio] command: its Python, {other.python}, has no zmq: write the full path "
        "of the supervisor-sio in the virtual environment of your application; see "
        "docs/howto/debian.md"
    )
