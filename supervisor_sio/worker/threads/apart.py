"""A function in a thread of its own, which nobody can end."""

from __future__ import annotations

import threading
from asyncio import CancelledError
from typing import Any, Callable, Optional


class Apart:
    """Runs a function in a daemon thread: the process does not wait for it at its end.

    :param may_run: is asked before the call: its thread may have come late.
    :param ended: is called in that thread, with what the function has raised; again as long as
        it raises ``RuntimeError``, because the loop does not run.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[], Any],
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
    ) -> None:
        self._function = function
        self._may_run = may_run
        self._ended = ended
        threading.Thread(target=self._run, name=f"run-once-{name}", daemon=True).start()

    def _run(self) -> None:
        error: Optional[BaseException] = None
        try:
            if not self._may_run():
                raise CancelledError
            self._function()
        except BaseException as caught:  # SystemExit as well, as with a handler in a thread
            error = caught
        while True:
            try:
                self._ended(error)
            except RuntimeError:
                continue  # else the worker would hold the task for as long as it lives
            return

    def cancel(self) -> None:
        """It can only be told by what it looks at itself."""
