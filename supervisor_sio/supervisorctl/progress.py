"""Progress of a slow command: step n of m, what it waits for, and for how long.

On a terminal it prints a line each second; elsewhere, one line when it begins to wait.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Callable, Iterator, Optional, Union

from .tables import fold, shorten

#: Seconds between two lines on a terminal.
_PERIOD = 1.0


class Progress:
    """Prints the progress of a command.

    :param say: prints a line; also called from another thread.
    :param width: width of the terminal; ``None`` if the output is not a terminal.
    :param total: number of steps of the command.
    """

    def __init__(
        self, say: Callable[[str], None], width: Optional[int] = None, total: int = 0
    ) -> None:
        self._say = say
        self._width = width
        self._total = total
        self._steps = 0
        self._subject = ""

    def say(self, line: str) -> None:
        """Print what was done."""
        for part in fold(line, self._width, 2):
            self._say(part)

    def step(self, name: str) -> None:
        """Begin the next step; later lines name it."""
        self._steps += 1
        self.about(f"{name}: {self._steps} of {self._total}")

    def about(self, subject: str) -> None:
        """Set the subject that later lines name."""
        self._subject = subject

    @contextlib.contextmanager
    def waiting(self, what: Union[str, Callable[[], str]]) -> Iterator[None]:
        """Print what the command waits for, while the block runs.

        :param what: what it waits for; a function is called for each line.
        """
        subject, began = self._subject, time.monotonic()
        text = what if callable(what) else lambda: what
        self._line(f"{subject}: {text()}")
        if self._width is None:
            yield
            return
        done = threading.Event()

        def repeat() -> None:
            due = began + _PERIOD
            while not done.wait(max(0.0, due - time.monotonic())):
                self._line(f"{subject}, {time.monotonic() - began:.0f} s: {text()}")
                due = max(due + _PERIOD, time.monotonic())

        # The command's own thread blocks while it waits for supervisord's answers.
        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _line(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal has gone
            self._say(line if self._width is None else shorten(line, self._width))
