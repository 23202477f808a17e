from __future__ import annotations

import re
import threading
from typing import Optional

import pytest

from supervisor_sio.supervisorctl import progress as module
from supervisor_sio.supervisorctl.progress import Progress


class Said:
    """The lines; :meth:`wait` for so many of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.more = threading.Condition()

    def __call__(self, line: str) -> None:
        with self.more:
            self.lines.append(line)
            self.more.notify()

    def wait(self, count: int) -> None:
        with self.more:
            assert self.more.wait_for(lambda: len(self.lines) >= count, 25)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.setattr(module, "_PERIOD", 0.02)
    return Said()


@pytest.mark.parametrize("width", [None, 80])
def test_one_line_an_event_and_on_a_terminal_more(said: Said, width: Optional[int]) -> None:
    progress = Progress(said, width, 2)
    progress.step("w:w_0")
    with progress.waiting("waiting for its end"):
        if width:
            said.wait(4)
    progress.say("done")
    count = len(said.lines)
    assert said.lines[0] == "w:w_0: 1 of 2: waiting for its end"
    assert said.lines[-1] == "done" and (count >= 5 if width else count == 2)
    for line in said.lines[1:-1]:
        assert re.fullmatch(r"w:w_0: 1 of 2, \d+ s: waiting for its end", line)
    progress.step("w:w_1")
    with progress.waiting("waiting"):
        pass
    assert said.lines[count:] == ["w:w_1: 2 of 2: waiting"]
    assert not any("repeat" in thread.name for thread in threading.enumerate())


def test_what_it_waits_for_changes(said: Said) -> None:
    progress = Progress(said, 40)
    progress.about("w")
    missing = ["w:w_0", "w:w_1 with a name that is very long"]
    with progress.waiting(lambda: f"waiting for {', '.join(missing)}"):
        said.wait(2)
        del missing[1:]
        said.wait(len(said.lines) + 2)
    assert said.lines[0] == "w: waiting for w:w_0, w:w_1 with a name…"
    assert said.lines[-1].endswith("waiting for w:w_0")
    progress.say(f"w: done, {'and more, ' * 9}")
    assert max(map(len, said.lines)) <= 40 and said.lines[-1].startswith("  and more")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_it_ends_with_the_wait(said: Said, error: type[BaseException]) -> None:
    progress = Progress(said, 80)
    with pytest.raises(error), progress.waiting("x"):
        said.wait(2)
        raise error
    assert not any("repeat" in thread.name for thread in threading.enumerate())


def test_a_terminal_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PERIOD", 0.02)
    tried = Said()

    def say(line: str) -> None:
        tried(line)
        raise OSError(5, "Input/output error")

    with Progress(say, 80).waiting("x"):
        tried.wait(3)
