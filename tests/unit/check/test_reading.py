from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from supervisor_sio.check import run
from supervisor_sio.check.reading import Unreadable, default_path
from unit.check.deployment import Deployment


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file or directory"),
        (b"hello\n", "line 1: no [section] before 'hello'"),
        (b"[supervisord]\nhello\n", "line 2: neither a section, an option nor a comment: "),
        (b"\xff\xfe\x00", "not a text file"),
        (b"[supervisord]\nx = \x00", "not a text file"),
    ],
)
def test_a_file_that_is_no_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    path = tmp_path / "supervisord.conf"
    if content is not None:
        path.write_bytes(content)
    assert run(str(path)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"supervisor-sio check: error: {path}")
    assert reason in err
    assert err.count("\n") == 1


def test_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path)) == 2
    assert capsys.readouterr().err.endswith("is a directory\n")


def test_an_included_file_that_is_no_configuration(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "x.in").write_text("hello")
    deployment.set("include", files="x.in")
    with pytest.raises(Unreadable, match="x.in, line 1: no \\[section\\]"):
        deployment.lines()


def test_the_default_is_where_supervisord_looks(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.lines()
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "supervisor-sio")])
    assert default_path() == deployment.path
    os.unlink(deployment.path)
    monkeypatch.setattr(ServerOptions, "default_configfile", None)
    monkeypatch.chdir(tmp_path)
    # Supervisor's package of Debian has one of them.
    if not any(map(os.path.exists, ("/etc/supervisord.conf", "/etc/supervisor/supervisord.conf"))):
        with pytest.raises(Unreadable, match="no configuration file at .*; name yours"):
            default_path()
