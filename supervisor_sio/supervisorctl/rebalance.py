"""``supervisorctl sio rebalance``: clients reconnect until all workers have as many.

The router does it. This command begins it, says how far it is, and stops it when it is interrupted.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from .formatting import disconnected, how_far, readiness, split_by_readiness, spread
from .progress import Progress
from .session import LOOK, CommandError, Session, Unreachable, refused

#: Seconds that figures of the router may be behind, when supervisord was busy, and some.
_LATE = 5.0

_ABOUT = "rebalance"


def rebalance(session: Session) -> dict[str, Any]:
    """Spread the clients: what was done.

    :raises CommandError: when it cannot be done, or ends in between.
    """
    before = session.call("sio.getStatus")
    begun = False
    try:
        session.call("sio.rebalance", about=_ABOUT)
        begun = True
        status = _follow(session, before, session.progress())
    except BaseException as error:  # also Ctrl-C
        if begun or _may_have_begun(error, before):
            with contextlib.suppress(CommandError):
                session.call("sio.stopRebalance")
        raise
    return _report(status, before, session.progress())


def _may_have_begun(error: BaseException, before: dict[str, Any]) -> bool:
    """Whether it may have begun although the call to begin it has failed with this error.

    If another one was under way then it has not, and it is not for this command to stop that one.
    """
    answered = isinstance(error, CommandError) and not isinstance(error, Unreachable)
    return not answered and before.get("rebalancing", {}).get("state", "idle") == "idle"


class _Watched:
    """The rebalance that was begun.

    :param before: the status before that.
    """

    def __init__(self, session: Session, before: dict[str, Any]) -> None:
        self._session = session
        self._before = before
        self.look()

    @property
    def phase(self) -> tuple[str, int]:
        return self.rebalancing["state"], self.rebalancing["round"]

    @property
    def is_over(self) -> bool:
        return bool(self.rebalancing["state"] == "idle")

    def look(self) -> None:
        """Ask for the status; figures from before its begin do not count.

        :raises CommandError: when the router that has begun it has ended, or says nothing of it.
        """
        until = time.monotonic() + _LATE
        while True:
            status: dict[str, Any] = self._session.call("sio.getStatus")
            if status["router"]["pid"] != self._before["router"]["pid"]:
                raise refused(_ABOUT, "the router has ended, and with it the rebalance; try again")
            if _number(status) != _number(self._before):
                self.status, self.rebalancing = status, status["rebalancing"]
                return
            if time.monotonic() > until:
                raise refused(_ABOUT, "the router does not say how far it is; see sio status")
            time.sleep(LOOK)


def _follow(session: Session, before: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The status at its end."""
    watched = _Watched(session, before)
    progress.about(_ABOUT)
    while not watched.is_over:
        phase = watched.phase
        with progress.waiting(lambda: how_far(watched.rebalancing)):
            while watched.phase == phase:
                time.sleep(LOOK)
                watched.look()
    return watched.status


def _number(status: dict[str, Any]) -> Any:
    # Of a router that has just come there are no figures yet.
    return status.get("rebalancing", {}).get("number", 0)


def _report(status: dict[str, Any], before: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Say how it ended.

    :raises CommandError: when somebody has stopped it.
    """
    rebalancing, workers = status["rebalancing"], status["workers"]
    result, closed = rebalancing["result"], rebalancing["closed"]
    if result == "stopped":
        raise refused(_ABOUT, f"somebody has stopped it; {disconnected(closed)}")
    had = {worker["name"]: worker["sessions"] for worker in reversed(before["workers"])}
    rows = [
        {
            "name": worker["name"],
            "before": had.get(worker["name"], 0),
            "sessions": worker["sessions"],
        }
        for worker in workers
    ]
    if closed:
        for row in rows:
            progress.say(f"{row['name']}: {row['sessions']} clients, {row['before']} before")
    done = disconnected(closed) if closed else "nobody had to reconnect"
    progress.say(f"rebalance: {result}, {spread(workers)}; {done}, {rebalancing['seconds']} s")
    progress.say(readiness(workers))
    return {
        "ok": result == "even",
        "result": result,
        "closed": closed,
        "seconds": rebalancing["seconds"],
        "workers": rows,
        **split_by_readiness(workers),
    }
