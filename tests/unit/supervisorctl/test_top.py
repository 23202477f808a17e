"""The live view, on a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from supervisor.supervisorctl import LSBInitExitStatuses

from supervisor_sio.supervisorctl import top as module
from supervisor_sio.supervisorctl.grammar import parse_line
from supervisor_sio.supervisorctl.session import CommandError
from supervisor_sio.supervisorctl.top import top

from .test_rates import figures, status

#: What it does to the screen, first and last.
ENTERS, LEAVES = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Terminal:
    """A session on a pseudo-terminal: a script of keys is typed, and what is drawn is read.

    :param answers: what ``sio.getStatus`` answers, one after the other, or the error that it
        raises; the last one again and again.
    """

    as_json = False

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.ours, theirs = pty.openpty()
        self.stdin = os.fdopen(theirs, "r+b", buffering=0)
        self.stdout = io.TextIOWrapper(self.stdin, "utf-8", write_through=True)
        self.ctl = self
        self.drawn = ""
        #: By what is on the screen, the next key to type, or what to do.
        self.script: list[tuple[str, Any]] = []
        self.resize(80, 24)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def size(self) -> Optional[os.terminal_size]:
        size = os.get_terminal_size(self.ours)
        return size if size.columns else None

    def encodable(self, text: str) -> str:
        return text

    def call(self, method: str) -> Any:
        self.read()
        while self.script and self.script[0][0] in self.drawn:
            act = self.script.pop(0)[1]
            self.drawn = ""
            if callable(act):
                act()
            else:
                os.write(self.ours, act)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def read(self) -> str:
        while select.select([self.ours], [], [], 0)[0]:
            self.drawn += os.read(self.ours, 65536).decode()
        return self.drawn


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PERIOD", 0.02)
    monkeypatch.setattr(module, "_GLANCE", 0.01)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Terminal] = []

    def on(*answers: Any) -> Terminal:
        terminal = Terminal(*answers)
        monkeypatch.setattr(sys, "stdin", terminal.stdin)
        made.append(terminal)
        return terminal

    yield on
    for terminal in made:
        terminal.stdout.close()
        os.close(terminal.ours)


def watch(terminal: Terminal) -> str:
    """What is on the screen at the end, when the terminal has the mode that it had before."""
    before = termios.tcgetattr(terminal.stdin)
    line = parse_line("top")
    assert top(terminal, line) is None  # type: ignore[arg-type]
    assert termios.tcgetattr(terminal.stdin) == before
    text = terminal.read()
    assert text.endswith(LEAVES)
    return text


def test_it_shows_rates_until_q_is_typed(on: Any) -> None:
    terminal = on(status(figures("w:0", 20)), status(figures("w:0", 20, events_in=300)))
    terminal.script = [("sio top: a moment", b"x"), ("w:0", b"q")]
    text = watch(terminal)
    assert "sio top: q quits" in text + terminal.drawn and "listen   127.0.0.1:8000" in text


@pytest.mark.parametrize("key", [b"Q", b"\x04"])
def test_other_keys_that_end_it(on: Any, key: bytes) -> None:
    terminal = on(status(figures("w:0", 20)))
    terminal.script = [("listen", key)]
    watch(terminal)


def test_ctrl_z_does_not_stop_it_on_the_other_screen(on: Any) -> None:
    terminal = on(status(figures("w:0", 20)))
    terminal.script = [("listen", b"\x1a"), ("listen", b"q")]
    watch(terminal)


def test_ctrl_c_ends_it_without_an_error(on: Any) -> None:
    terminal = on(status(figures("w:0", 20)), KeyboardInterrupt())
    watch(terminal)


def test_an_error_is_shown_until_supervisord_answers(on: Any) -> None:
    refused = CommandError("unix:///s.sock: refused", LSBInitExitStatuses.GENERIC, "refused")
    answer = status(figures("w:0", 20))
    terminal = on(answer, refused, answer, answer)
    terminal.script = [("refused; retrying, q quits", b""), ("listen", b"q")]
    watch(terminal)
    assert not terminal.script


def test_it_follows_the_size_of_the_terminal(on: Any) -> None:
    workers = [figures(f"workers:workers_{number:02}", 20 + number) for number in range(8)]
    terminal = on(status(*workers))
    terminal.script = [("workers_07", lambda: terminal.resize(60, 8)), ("more", b"q")]
    text = watch(terminal)
    drawn = text.rpartition("\x1b[H")[2].partition("\x1b[J")[0].splitlines()
    assert len(drawn) == 8
    assert max(len(line.removesuffix("\x1b[K").rstrip()) for line in drawn) <= 60


def test_a_terminal_that_has_gone_ends_it(on: Any) -> None:
    terminal = on(status(figures("w:0", 20)))
    terminal.script = [("listen", lambda: terminal.resize(0, 0))]
    watch(terminal)


def test_keys_of_something_else_than_a_terminal_do_nothing(
    on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on(status(figures("w:0", 20)), status(figures("w:0", 20)), KeyboardInterrupt())
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        began = time.monotonic()
        watch(terminal)
        assert time.monotonic() - began < 20
