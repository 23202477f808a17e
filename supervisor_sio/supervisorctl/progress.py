"""How far a command is that takes its time: n of m, what it waits for, and for how long.

On a terminal that is a line each second, elsewhere one when it begins to wait for something else.
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
    """Says so while a command runs.

    :param say: is called with a line, also from another thread.
    :param width: of the terminal; ``None`` where it is none.
    :param total: steps of the command.
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
        """What was done."""
        for part in fold(line, self._width, 2):
            self._say(part)

    def step(self, name: str) -> None:
        """What comes now is about the next of all steps."""
        self._steps += 1
        self.about(f"{name}: {self._steps} of {self._total}")

    def about(self, subject: str) -> None:
        """What comes now is about this."""
        self._subject = subject

    @contextlib.contextmanager
    def waiting(self, what: Union[str, Callable[[], str]]) -> Iterator[None]:
        """While this runs, the command waits.

        :param what: says for what; called again for each line where it is not always the same.
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

        # The command itself is busy: it waits for supervisord's answers.
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
