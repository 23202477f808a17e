"""Runs a function in its own thread, which cannot be cancelled."""

from __future__ import annotations

import threading
from asyncio import CancelledError
from typing import Any, Callable, Optional


class Apart:
    """Runs a function in a daemon thread, for which the process does not wait at its end.

    :param may_run: called once before the function, because the thread may have started late.
    :param ended: called in that thread with the exception that the function raised; repeated while
        it raises ``RuntimeError``, because the loop is blocked.
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
        except BaseException as caught:  # including SystemExit, as for handlers in threads
            error = caught
        while True:
            try:
                self._ended(error)
            except RuntimeError:
                continue  # otherwise this worker would hold the task for its whole life
            return

    def cancel(self) -> None:
        """Do nothing: the function has to check its lease itself."""
