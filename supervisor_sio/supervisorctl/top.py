"""``sio top``: a live view of the cluster, on the terminal until ``q`` is typed."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections import deque
from typing import Any, Iterable, Optional

from ..common import figures
from ..common.figures import Figure, Sample, TopColumn, Unit
from .formatting import INDENT, mebibytes, router_down
from .grammar import Line
from .rates import make_sample
from .session import CommandError, Session
from .tables import MARK, Column, fold, shorten, table

_PERIOD = 1.0

#: Seconds over which the live view computes rates. A status is up to a second old, so over one
#: second a rate would alternate between zero and twice its value.
_SPAN = 3

#: Seconds between two checks of the terminal's size.
_GLANCE = 0.2

#: q, Ctrl-C where it sends no signal, Ctrl-D, and the end of input.
_QUIT = {b"q", b"Q", b"\x03", b"\x04", b""}

_COLUMNS = (Column("worker", gives="middle"), Column("state"))


def top(session: Session, line: Line) -> Optional[dict[str, Any]]:
    """Show a live view on a terminal; elsewhere, print one sample."""
    history = History()
    history.add(session.call("sio.getStatus"))
    if not session.as_json and session.size:
        _watch(session, history)
        return None
    time.sleep(_PERIOD)
    history.add(session.call("sio.getStatus"))
    sample = history.sample()
    for text in format_sample(sample):
        session.say(text)
    return sample


class History:
    """The last statuses, with the times at which they were received."""

    def __init__(self) -> None:
        self._statuses: deque[tuple[float, dict[str, Any]]] = deque(maxlen=_SPAN + 1)

    def add(self, status: dict[str, Any]) -> None:
        self._statuses.append((time.monotonic(), status))

    def clear(self) -> None:
        self._statuses.clear()

    @property
    def complete(self) -> bool:
        return len(self._statuses) > 1

    def sample(self) -> dict[str, Any]:
        (began, before), (ended, after) = self._statuses[0], self._statuses[-1]
        return make_sample(before, after, ended - began)


def format_sample(sample: dict[str, Any], width: Optional[int] = None) -> Iterable[str]:
    """The lines of a sample."""
    router, shown = sample["router"], figures.top_columns()
    yield from fold(f"listen   {', '.join(sample['listen'])}", width, INDENT)
    if router["state"] == "running":
        sums = [f"{column.sum} {_sum(column, sample)}" for _, column in shown if column.sum]
        cluster = (
            f"cluster  {', '.join(sums)}, "
            f"relay messages {_number(sample['relay_messages_per_second'])}/s, "
            f"waiting {sample['waiting']:.0f}, refused {sample['refused']:.0f}"
            + (f", held {sample['held']:.0f}" if sample["held"] else "")
            + (f", lost {sample['lost']:.0f}" if sample["lost"] else "")
        )
        yield from fold(cluster, width, INDENT)
        process = (
            f"router   pid {router['pid']}, CPU {router['cpu_percent']:.0f} %, "
            f"{mebibytes(router['memory'])}"
        )
        yield from fold(process, width, INDENT)
    else:
        for text in router_down(sample):
            yield from fold(text, width, INDENT)
    yield ""
    heads = [Column(column.head, right=True) for _, column in shown]
    rows = [
        [worker["name"], worker["state"], *(_cell(*row, worker[row[1].key]) for row in shown)]
        for worker in sample["workers"]
    ]
    yield from table([*_COLUMNS, *heads], rows, width)


def _cell(figure: Figure, column: TopColumn, value: Optional[float]) -> str:
    if value is None:
        return "-"
    if figure.unit is Unit.KIBIBYTES:
        return mebibytes(value)
    return _number(value) if column.sample is Sample.PER_SECOND else f"{value:.0f}"


def _sum(column: TopColumn, sample: dict[str, Any]) -> str:
    value = sample[column.key]
    return f"{_number(value)}/s" if column.sample is Sample.PER_SECOND else f"{value:.0f}"


def _number(rate: float) -> str:
    return f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def fit(lines: list[str], width: int, height: int) -> list[str]:
    """Cut the lines to a screen; the last line gives the number of hidden ones."""
    if len(lines) > height:
        hidden = len(lines) - height + 1
        lines = [*lines[: height - 1], f"{MARK} {hidden} more"]
    return [shorten(line, width) for line in lines]


# --- the live view ---------------------------------------------------------------


def _watch(session: Session, history: History) -> None:
    with _Screen(session) as screen:
        sample: Optional[dict[str, Any]] = None
        note, drawn, due = "sio top: a moment, q quits", None, time.monotonic() + _PERIOD
        while True:
            if time.monotonic() >= due:
                due = time.monotonic() + _PERIOD
                note, drawn = "sio top: q quits", None
                try:
                    history.add(session.call("sio.getStatus"))
                    if history.complete:
                        sample = history.sample()
                except CommandError as error:
                    # The next answer may come from another supervisord.
                    history.clear()
                    note = f"{error.error}; retrying, q quits"
            size = session.size
            if size is None:
                return
            if size != drawn:
                drawn = size
                lines = fold(note, size.columns, 0)
                if sample:
                    lines += format_sample(sample, size.columns)
                screen.draw(fit(lines, size.columns, size.lines))
            if screen.key(min(_GLANCE, max(0.0, due - time.monotonic()))) in _QUIT:
                return


class _Screen:
    """The terminal's alternate screen, with keys read one by one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys: Optional[int] = sys.stdin.fileno() if sys.stdin.isatty() else None

    def __enter__(self) -> _Screen:
        if self._keys is not None:
            self._mode = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
            # Ctrl-Z would leave the shell on this screen.
            mode = termios.tcgetattr(self._keys)
            mode[6][termios.VSUSP] = b"\0"
            termios.tcsetattr(self._keys, termios.TCSANOW, mode)
        self._write("\x1b[?1049h\x1b[?25l")
        return self

    def __exit__(self, kind: Optional[type[BaseException]], *_: object) -> bool:
        self._write("\x1b[?25h\x1b[?1049l")
        if self._keys is not None:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._mode)
        return kind is KeyboardInterrupt

    def draw(self, lines: list[str]) -> None:
        self._write("\x1b[H" + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")

    def key(self, timeout: float) -> Optional[bytes]:
        """The next key, or ``None`` if none is typed in time."""
        if self._keys is None:
            time.sleep(timeout)
        elif select.select([self._keys], [], [], timeout)[0]:
            return os.read(self._keys, 1)
        return None

    def _write(self, text: str) -> None:
        self._session.ctl.stdout.write(self._session.encodable(text))
        self._session.ctl.stdout.flush()
