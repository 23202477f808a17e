from __future__ import annotations

import subprocess
import sys

import pytest

from supervisor_sio import cli


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--async-mode thread", "argument --async-mode: invalid choice: 'thread'"),
        (
            "--async-mode threading --threads few",
            "argument --threads: 'few' is not a whole number",
        ),
        (
            "--async-mode threading --threads 0",
            "argument --threads: 0 is too few, give 1 or more",
        ),
        ("--threads 2", "argument --threads: only with --async-mode threading"),
        (
            "--async-mode asyncio --threads 2",
            "argument --threads: only with --async-mode threading",
        ),
    ],
)
def test_options_of_a_worker_that_mean_nothing(
    capsys: pytest.CaptureFixture[str], options: str, error: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["worker", *options.split(), "chat:app"])
    assert ended.value.code == 2
    assert f"\nsupervisor-sio worker: error: {error}" in capsys.readouterr().err


def test_without_arguments_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: supervisor-sio ") and not err
    for command in ("router", "worker", "check", "init"):
        assert f"\n    {command} " in out


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["chek"])
    assert ended.value.code == 2
    assert "invalid choice: 'chek'" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["router.process", "worker.service"])
def test_routers_and_workers_import_nothing_of_supervisor(module: str) -> None:
    """Importing it would take a fifth of a router's start."""
    program = (
        f"import sys, supervisor_sio.cli, supervisor_sio.{module}\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'supervisor'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("words", ["router", "worker myapp:app"])
def test_a_python_without_what_router_and_workers_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    """As Debian's Python, which has this package only for supervisord."""

    def fails(arguments: object) -> int:
        raise ModuleNotFoundError("No module named 'zmq'", name="zmq")

    monkeypatch.setattr(cli, "_run", fails)
    assert cli.main(words.split()) == 1
    out, err = capsys.readouterr()
    assert out == ""
    command = words.split()[0]
    assert err.startswith(f"supervisor-sio {command}: error: {sys.executable} has no zmq: write ")
    assert "docs/howto/debian.md" in err and err.count("\n") == 1


def test_another_module_that_is_missing_is_a_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(arguments: object) -> int:
        raise ModuleNotFoundError("No module named 'x'", name="x")

    monkeypatch.setattr(cli, "_run", fails)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["router"])
