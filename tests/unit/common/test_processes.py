from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from supervisor_sio.common.processes import (
    has_ended,
    has_parent,
    is_alive,
    is_descendant,
    process_memory,
)

ME = os.getpid()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_and_those_it_started(child: subprocess.Popen[bytes]) -> None:
    assert is_descendant(ME, ME)
    assert is_descendant(child.pid, ME)
    assert is_descendant(child.pid, os.getppid())
    assert not is_descendant(ME, child.pid)


def test_through_a_wrapper() -> None:
    command = ["sh", "-c", "sh -c 'echo $$; cat; true'; true"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        inner = int(shell.stdout.readline())
        assert inner != shell.pid
        assert is_descendant(inner, ME)
        assert is_descendant(inner, shell.pid)
        assert not is_descendant(shell.pid, inner)
        shell.communicate()


def test_strangers(child: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as sibling:
        assert not is_descendant(child.pid, sibling.pid)
        sibling.communicate()
    assert not is_descendant(1, ME)
    assert not is_descendant(0, ME)  # a process that this namespace does not see


def test_one_that_is_gone(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    assert not is_descendant(child.pid, ME)
    assert process_memory(child.pid) == 0


def test_any_name_of_a_command(tmp_path: Path) -> None:
    path = tmp_path / "x) R 1 (y"
    shutil.copy(shutil.which("cat") or "/bin/cat", path)
    with subprocess.Popen([path], stdin=subprocess.PIPE) as process:
        assert is_descendant(process.pid, ME)
        assert not is_descendant(process.pid, 1) or is_descendant(ME, 1)
        process.communicate()


def test_the_first_process_is_an_ancestor_too() -> None:
    parents = [ME]
    while parents[-1] > 1:
        status = Path(f"/proc/{parents[-1]}/status").read_text()
        parents.append(int(status.partition("PPid:")[2].split()[0]))
    assert all(is_descendant(ME, parent) for parent in parents if parent)


def test_memory() -> None:
    # In KiB; a Python interpreter takes some MiB.
    assert 2_000 < process_memory(ME) < 10_000_000


def test_without_descriptors_nobody_counts_as_gone() -> None:
    """Else a worker whose clients use all descriptors would end, as if supervisord were gone."""
    program = (
        "import os, resource\n"
        "from supervisor_sio.common.processes import has_parent\n"
        "child = os.fork() or os.execvp('sleep', ['sleep', '60'])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "print(has_parent(child, os.getpid()))\n"
        "os.kill(child, 9), os.waitpid(child, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_who_has_which_parent() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert has_parent(child.pid, os.getpid()) and not has_parent(child.pid, 1)
        child.kill()
    assert not has_parent(child.pid, os.getpid())


def test_whether_a_process_is_there() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_alive(process.pid) and is_alive(ME)
    process.communicate(b"")
    assert not is_alive(process.pid) and not is_alive(0)


def test_whether_a_process_has_ended() -> None:
    """Also one whose parent has not waited for it: it still has a pid."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not has_ended(process.pid) and not has_ended(ME)
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(process.pid) and has_ended(process.pid)
    process.wait()
    assert has_ended(process.pid)
