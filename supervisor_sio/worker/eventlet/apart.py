"""A greenlet that runs as long as it may: it is asked each time that it goes on."""

from __future__ import annotations

from typing import Any, Callable, Optional

from eventlet import hubs
from eventlet.greenthread import GreenThread
from greenlet import GreenletExit


class Apart(GreenThread):  # type: ignore[misc]
    """Runs a function from the next turn of the hub on.

    Whatever it waits for, its ``switch`` is called to let it go on, or its ``throw``, by a timeout.
    The first time that it may not, it gets ``GreenletExit`` instead, which only its ``finally``
    clauses should notice. When it may not even begin, it is not called.

    :param ended: is called with what the function has raised, in a later turn of the hub.
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
            if self._was_ended or not self._may_run():  # turns may be long
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
        """Whether it would go on now, and may not; only once."""
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
        if self:  # else it has not begun, and will not; or has ended
            self.throw(GreenletExit)
