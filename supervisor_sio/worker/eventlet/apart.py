"""Runs a function in a greenlet as long as a condition holds, checked each time it continues."""

from __future__ import annotations

from typing import Any, Callable, Optional

from eventlet import hubs
from eventlet.greenthread import GreenThread
from greenlet import GreenletExit


class Apart(GreenThread):  # type: ignore[misc]
    """Runs a function from the next turn of the hub on.

    After each wait the hub continues the greenlet through its ``switch``, or its ``throw`` after a
    timeout. When ``may_run`` first returns false, ``GreenletExit`` is raised in the function
    instead, which only its ``finally`` clauses should notice. If that is before the start, the
    function is not called.

    :param ended: called in a later turn of the hub, with the exception that the function raised.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
    ) -> None:
        self._hub = hubs.get_hub()
        super().__init__(self._hub.greenlet)
        self._may_run = may_run
        self._ended = ended
        self._was_ended = False
        self._hub.schedule_call_global(0, self.switch, self._call, (function,), {})

    def _call(self, function: Callable[[], Any]) -> None:
        error: Optional[BaseException] = None
        try:
            if self._was_ended or not self._may_run():  # check again: turns may be long
                raise GreenletExit
            function()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as caught:  # an application's eventlet.Timeout is not an Exception
            error = caught
        self._hub.schedule_call_global(0, self._ended, error)

    def switch(self, *args: Any, **kwargs: Any) -> Any:
        if self._is_to_end():
            return super().throw(GreenletExit)
        return super().switch(*args, **kwargs)

    def throw(self, *args: Any) -> Any:
        return super().throw(*((GreenletExit,) if self._is_to_end() else args))

    def _is_to_end(self) -> bool:
        """Whether to end it instead of continuing; true only once."""
        if not self or self._was_ended or self._may_run():
            return False
        self._was_ended = True
        return True

    def cancel(self, *_: object) -> None:
        """End it in the next turn of the hub."""
        if not self._was_ended:
            self._was_ended = True
            self._hub.schedule_call_global(0, self._end)

    def _end(self) -> None:
        if self:  # false if it has not started, and will not, or has ended
            self.throw(GreenletExit)
