from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

import pytest

from unit.check.deployment import HOST, NOBODY, Deployment, as_root, host_with


@pytest.mark.parametrize("section", ["eventlistener:sio", "program:workers"])
def test_what_runs_as_root(deployment: Deployment, section: str) -> None:
    host = host_with(uid=0)
    deployment.set("rpcinterface:sio", chown=f"root:{NOBODY.pw_gid}", chmod="0710")
    for other in {"eventlistener:sio", "program:workers"} - {section}:
        deployment.set(other, user="root")  # as if it must be
    (line,) = [str(each) for each in deployment.judge(host) if "runs as root" in each.text]
    assert f"warning: {deployment.path}: [{section}] user: the " in line
    assert "write user = www-data, or another user, here, and chown = root:GROUP" in line
    deployment.set(section, user="nobody")
    assert not any("runs as root" in finding.text for finding in deployment.judge(host))
    deployment.set(section, user=None).set("supervisord", user="nobody")
    assert not any("runs as root" in finding.text for finding in deployment.judge(host))


def _script(directory: Path, text: str) -> str:
    path = directory / "start.sh"
    path.write_text(f"#!/bin/sh\n# supervisor-sio router would be something else\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("cd /srv\nsupervisor-sio worker myapp:app", True),
        ("cd /srv && /opt/bin/supervisor-sio worker myapp:app", True),
        ("if true; then supervisor-sio worker myapp:app; fi", True),
        ("exec echo; supervisor-sio worker myapp:app", True),
        ("exec supervisor-sio worker myapp:app", False),
        ("cd /srv && exec env A=b supervisor-sio worker myapp:app", False),
    ],
)
def test_a_start_script_without_exec(deployment: Deployment, text: str, stays: bool) -> None:
    script = _script(deployment.directory, text)
    for command, shown in (
        (script, script),
        (f"sh {script}", script),
        (f"sh -c '{text}'", "the shell"),
    ):
        if "\n" in command:
            continue
        lines = deployment.set("program:workers", command=command).lines()
        expected = (
            f"warning: {deployment.path}: [program:workers] command: {shown} starts "
            "supervisor-sio without exec and stays its parent: supervisord stops only the shell, "
            "and the old worker keeps running; write exec before the command"
        )
        assert lines == [expected] * stays, command


def test_a_router_in_a_start_script(deployment: Deployment) -> None:
    script = _script(deployment.directory, "exec supervisor-sio router")
    (line,) = deployment.set("eventlistener:sio", command=script).lines()
    assert f"error: {deployment.path}: [eventlistener:sio] command: {script} starts the " in line


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"command": "supervisor-sio worker other:app"}, "other:app in "),
        ({"directory": "other"}, "myapp:app in other is another application than myapp:app in "),
        ({"command": "sh -c 'exec supervisor-sio worker myapp:app'"}, None),
    ],
)
def test_two_applications_of_one_port(
    deployment: Deployment, changes: dict[str, str], told: Optional[str]
) -> None:
    other = deployment.directory / "other"
    other.mkdir()
    for path in (deployment.directory / "other.py", other / "myapp.py"):
        path.touch()
    changes = {**changes, **({"directory": str(other)} if "directory" in changes else {})}
    deployment.set("program:more", **{**deployment.sections["program:workers"], **changes})
    lines = [line.replace(str(other), "other") for line in deployment.lines()]
    if told is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(f"warning: {deployment.path}: [program:more] command: {told}")
        assert line.endswith(
            "of [program:workers], and both serve the same port: a client may get either; give "
            "each application its own cluster"
        )


@as_root
def test_a_log_on_a_terminal_of_another_user(deployment: Deployment) -> None:
    ours, theirs = os.openpty()
    try:
        path = f"/dev/fd/{theirs}"
        deployment.set("program:workers", stdout_logfile=path, stdout_logfile_maxbytes="0")
        assert deployment.lines() == []
        expected = (
            f"[program:workers] stdout_logfile: supervisord reopens {path} as user nobody, which "
            "fails if that is a terminal or pipe of root: the program does not start; write a file"
        )
        for host in (HOST, host_with(uid=NOBODY.pw_uid)):
            deployment.set("supervisord", user="nobody")
            assert [line for line in deployment.lines(host) if line.endswith(expected)]
        os.chown(theirs, NOBODY.pw_uid, -1)
        lines = deployment.lines(host_with(uid=NOBODY.pw_uid))
        assert not [line for line in lines if "stdout_logfile" in line]
    finally:
        os.close(ours)
        os.close(theirs)
