"""Catch exceptions in calls from supervisord, which would end supervisord and all its processes."""

from __future__ import annotations

import time
import traceback
from typing import Any, Callable, TypeVar

from supervisor.xmlrpc import Faults, RPCError

from ..common.limits import GUARD_LOG_INTERVAL

T = TypeVar("T")

#: Seconds until supervisord asks again for an answer that was not done yet.
_DELAY = 0.05


class Guard:
    """Wraps calls from supervisord; counts and logs their exceptions, and does not raise them.

    :param logger: supervisord's logger.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        #: Number of exceptions so far.
        self.caught = 0
        self._logged: dict[str, float] = {}

    def call(self, what: str, call: Callable[[], T], otherwise: T) -> T:
        """Return the result of ``call``, or ``otherwise`` when it raises.

        :param what: name of the call in the log.
        """
        try:
            return call()
        except Exception as error:
            self.note(what, error)
            return otherwise

    def deferred(self, what: str, result: Callable[[], T]) -> Callable[[], T]:
        """Wrap the deferred answer of an XML-RPC method; an exception becomes a fault."""

        def guarded() -> T:
            try:
                return result()
            except RPCError:
                raise
            except Exception as error:
                self.note(what, error)
                raise RPCError(
                    Faults.FAILED, "supervisor-sio failed to answer; see supervisord's log"
                ) from None

        guarded.delay = _DELAY  # type: ignore[attr-defined]
        return guarded

    def subscriber(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """Wrap a callback for ``supervisor.events.subscribe``."""

        def notified(event: Any) -> None:
            self.call(f"the event {type(event).__name__}", lambda: callback(event), None)

        return notified

    def note(self, what: str, error: Exception) -> None:
        """Count an exception, and log it at most once a second for each ``what``."""
        self.caught += 1
        now = time.monotonic()
        if now - self._logged.get(what, -GUARD_LOG_INTERVAL) < GUARD_LOG_INTERVAL:
            return
        self._logged[what] = now
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "unknown place"
        text = " ".join(f"{type(error).__name__}: {error}".split())
        self._logger.error(
            f"sio: an error of supervisor-sio in {what}, supervisord continues; "
            f"please report it: {text} ({place})"
        )
