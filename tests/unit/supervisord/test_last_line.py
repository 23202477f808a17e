from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor_sio.common.limits import LAST_LINE, LAST_LINE_READ
from supervisor_sio.supervisord.last_line import last_line


def config(path: Any, redirect: bool = True) -> SimpleNamespace:
    logs = {"stdout_logfile": path} if redirect else {"stderr_logfile": path}
    return SimpleNamespace(redirect_stderr=redirect, **logs)


@pytest.mark.parametrize("redirect", [True, False])
@pytest.mark.parametrize(
    ("log", "line"),
    [
        (b"", ""),
        (b"\n\n", ""),
        (b"one\ntwo\n", "two"),
        (b"one\ntwo\n\n  \n", "two"),
        (b"no end of line", "no end of line"),
        ("Fehler: größer\n".encode(), "Fehler: größer"),
        (b"\x1b[1;31mValueError\x1b[0m: \x00 \x1b]0;title\x07 \xff\n", "ValueError: ]0;title �"),
        (b"no answer of redis://user:secret@host:1/0\n", "no answer of redis://host:1/0"),
        (b"early\n" + b"x" * LAST_LINE_READ + b"\nlate\n", "late"),
        (b"y" * (LAST_LINE + 1), "y" * (LAST_LINE - 1) + "…"),
        (b"z" * LAST_LINE, "z" * LAST_LINE),
    ],
)
def test_the_last_line(tmp_path: Path, log: bytes, line: str, redirect: bool) -> None:
    path = tmp_path / "worker.log"
    path.write_bytes(log)
    assert last_line(config(str(path), redirect)) == line


def test_only_the_end_of_a_long_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "worker.log"
    path.write_bytes(b"x\n" * 10_000_000)
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        read.append(len(data := pread(descriptor, size, offset)))
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert last_line(config(str(path))) == "x"
    assert read == [LAST_LINE_READ]


def test_what_is_not_a_file(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (None, "syslog", tmp_path / "none", tmp_path, fifo, "/dev/null", "/dev/fd/1000"):
        assert last_line(config(path)) == "", path
    assert len(os.listdir("/proc/self/fd")) == len(before)
