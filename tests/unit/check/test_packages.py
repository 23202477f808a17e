from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional

import pytest

from supervisor_sio.check import packages
from supervisor_sio.check.host import obstacle
from supervisor_sio.check.shebang import python_of
from unit.check.deployment import NOBODY, PYTHON, Deployment, as_root
from unit.pythons import NEW_PYTHON


def test_redis_is_not_installed(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    (line,) = deployment.set("rpcinterface:sio", message_queue="redis://host").lines()
    assert line.endswith(
        "[rpcinterface:sio] message_queue: needs the redis package in the Python of "
        f"[eventlistener:sio]: {PYTHON} -m pip install 'supervisor-sio[redis]'"
    )


def test_eventlet_is_not_installed(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "eventlet", None)
    (line,) = deployment.lines()
    assert line.endswith(
        f"[program:workers] command: its Python, {PYTHON}, has no eventlet: {PYTHON} -m pip "
        "install supervisor-sio"
    )


@NEW_PYTHON
@pytest.mark.parametrize(
    ("mode", "module", "severity", "text"),
    [
        ("asyncio", "uvicorn", "error", "has no uvicorn: "),
        (
            "threading",
            "uvloop",
            "warning",
            "has no uvloop, with which --async-mode threading takes less CPU: ",
        ),
        (
            "asyncio",
            "uvloop",
            "warning",
            "has no uvloop, with which --async-mode asyncio takes less CPU: ",
        ),
    ],
)
def test_what_a_mode_needs_is_not_installed(
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    module: str,
    severity: str,
    text: str,
) -> None:
    command = f"supervisor-sio worker --async-mode {mode} myapp:app"
    deployment.set("program:workers", command=command)
    assert deployment.lines() == []
    monkeypatch.setitem(sys.modules, module, None)
    (line,) = deployment.lines()
    assert line.startswith(f"{severity}: ")
    assert line.endswith(
        f"[program:workers] command: its Python, {PYTHON}, {text}{PYTHON} -m pip install "
        f"'supervisor-sio[{mode}]'"
    )


@NEW_PYTHON
def test_asyncio_needs_no_eventlet(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "eventlet", None)
    deployment.set(
        "program:workers", command="supervisor-sio worker --async-mode asyncio myapp:app"
    )
    assert deployment.lines() == []


def test_the_python_is_too_old_for_the_mode(deployment: Deployment) -> None:
    python = deployment.directory / "python3"
    python.write_text("#!/bin/sh\necho 3 9\necho uvicorn\necho 0\n")
    script = deployment.directory / "supervisor-sio"
    script.write_text(f"#!{python}\n")
    for path in (python, script):
        path.chmod(0o755)
    command = f"{script} worker --async-mode asyncio myapp:app"
    (line,) = deployment.set("program:workers", command=command).lines()
    assert line.endswith(
        f"[program:workers] command: --async-mode asyncio needs Python 3.10, and {python} is 3.9"
    )


@pytest.mark.parametrize(
    ("first", "python"),
    [
        ("#!/opt/venv/bin/python3.11\nimport sys\n", "/opt/venv/bin/python3.11"),
        ("#!/opt/venv/bin/python -s\n", "/opt/venv/bin/python"),
        ('#!/bin/sh\n\'\'\'exec\' "/my apps/bin/python3" "$0" "$@"\n', "/my apps/bin/python3"),
        ("#!/bin/sh\n'''exec' /apps/bin/python3 \"$0\" \"$@\"\n", "/apps/bin/python3"),
        ("#!/usr/bin/env python3\n", None),
        ("#!/bin/sh\nexec /opt/supervisor-sio\n", None),
        ("", None),
    ],
)
def test_the_python_of_a_script(tmp_path: Path, first: str, python: Optional[str]) -> None:
    (tmp_path / "supervisor-sio").write_text(first)
    assert python_of(str(tmp_path / "supervisor-sio")) == python


@pytest.mark.parametrize("command", ["{}", "env X=1 {}", "sh -c 'cd / && exec {}'"])
def test_a_python_that_does_not_run(deployment: Deployment, command: str) -> None:
    script = deployment.directory / "supervisor-sio"
    script.write_text("#!/no/such/python3\n")
    script.chmod(0o755)
    command = command.format(f"{script} worker myapp:app")
    (line,) = deployment.set("program:workers", command=command).lines()
    assert line.endswith(
        "[program:workers] command: its Python, /no/such/python3, does not run: "
        "No such file or directory"
    )


@as_root
def test_a_python_in_a_home_that_is_closed_to_the_worker(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "obstacle", obstacle)
    for directory in list(tmp_path.parents)[:-2]:
        directory.chmod(0o755)
    home, name = tmp_path / "home", NOBODY.pw_name
    (home / "bin").mkdir(parents=True)
    home.chmod(0o700)
    python = home / "bin" / "python3"
    python.symlink_to("/usr/bin/python3")
    script = home / "bin" / "supervisor-sio"
    script.write_text(f"#!{python}\n")
    script.chmod(0o755)
    deployment.set("rpcinterface:sio", run_dir="/run/sio", chown=name)
    deployment.set("program:workers", command=f"{script} worker myapp:app", user=name)
    (line,) = (line for line in deployment.lines() if "program:workers" in line)
    assert line.endswith(
        f"[program:workers] command: {name} may not enter {home}, and cannot run {python}; create "
        f"the virtual environment in a directory, and with a Python, that {name} may use"
    )
