from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from supervisor.options import make_namespec

from supervisor_sio.common import identity


def test_the_tag_is_that_of_a_session_id() -> None:
    assert re.fullmatch("[0-9a-f]{8}", identity.tag())
    assert identity.tag() == identity.tag()


def test_every_process_has_its_own_tag() -> None:
    command = [
        sys.executable,
        "-c",
        "from supervisor_sio.common import identity; print(identity.tag())",
    ]
    tags = {subprocess.check_output(command, text=True).strip() for _ in range(2)}
    assert len(tags | {identity.tag()}) == 3


def test_a_forked_child_too() -> None:
    program = """
import os
from supervisor_sio.common import identity
first = identity.tag()
child = os.fork()
if child:
    os.waitpid(child, 0)
print(first, identity.tag(), flush=True)
"""
    lines = subprocess.check_output([sys.executable, "-c", program], text=True).splitlines()
    (of_child, child), (before, after) = (line.split() for line in lines)
    assert of_child == before == after != child


@pytest.mark.parametrize(
    ("process", "group", "name"),
    [
        ("workers_00", "workers", "workers:workers_00"),
        ("chat", "chat", "chat"),
        ("chat", None, "chat"),
        (None, None, "pid {pid}"),
        ("", "workers", "pid {pid}"),
    ],
)
def test_the_name_that_supervisorctl_shows(
    monkeypatch: pytest.MonkeyPatch, process: str | None, group: str | None, name: str
) -> None:
    for variable, value in (
        ("SUPERVISOR_PROCESS_NAME", process),
        ("SUPERVISOR_GROUP_NAME", group),
    ):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    assert identity.process_name() == name.format(pid=os.getpid())
    if process and group:
        assert identity.process_name() == make_namespec(group, process)
