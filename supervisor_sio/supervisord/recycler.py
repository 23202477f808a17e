"""Recycle workers: execute what :mod:`.recycling` decides."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Callable, Iterator, Optional

from supervisor.options import split_namespec
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.xmlrpc import RPCError

from ..common.limits import RECYCLE_LOOK
from ..common.processes import is_descendant
from ..settings import Settings
from .dispatchers import Supervisord
from .overdue import Limits, Overdue, Reason, Seen
from .recycling import Action, Do, Recycling

#: Seconds after which the router's figures are too old; it sends new ones each second.
_STALE = 2.5


class Recycler:
    """Called with each set of figures of the router.

    :param command: sends the router a command about a worker.
    :param tell_stopping: tells the router that supervisord will stop the process with this pid.
    """

    def __init__(
        self,
        supervisord: Supervisord,
        settings: Settings,
        command: Callable[[str, str], Any],
        tell_stopping: Callable[[int], None],
    ) -> None:
        self._supervisord = supervisord
        self._logger = supervisord.options.logger
        self._command = command
        self._tell_stopping = tell_stopping
        limits = Limits(settings.max_memory, settings.max_lifetime, settings.hung_timeout)
        self._recycling = Recycling(Overdue(limits))
        self._looked_at = 0.0

    def is_due(self, made: Optional[float]) -> bool:
        """Whether it is time for :meth:`look`.

        :param made: when the router made the current figures.
        """
        now = time.monotonic()
        return (
            self._recycling.on
            and now - self._looked_at >= RECYCLE_LOOK
            and (made is None or now - made < _STALE)
            and self._supervisord.options.mood >= SupervisorStates.RUNNING
        )

    def look(self, rows: list[dict[str, Any]]) -> bool:
        """Execute the actions that are due; returns whether they recycled a worker.

        :param rows: the workers in the status.
        """
        now = time.monotonic()
        self._looked_at = now
        before = sum(self._recycling.recycled.values())
        workers = {row["name"]: row for row in reversed(rows)}  # the first is supervisord's own
        for action in self._recycling.look(now, self._seen(workers)):
            if action.line:
                say = self._logger.info if action.do is Do.STOP else self._logger.warn
                say(f"sio: {action.line}")
            if action.do is not Do.SAY:
                self._do(action, workers[action.name])
        return sum(self._recycling.recycled.values()) > before

    def ends(self, name: str, process: int) -> Optional[Reason]:
        """Why the recycler ended this process; ``None`` if it did not."""
        return self._recycling.ends(name, process)

    @property
    def recycled(self) -> dict[str, int]:
        """Recycled workers by reason; without reasons whose limit is off."""
        return dict(self._recycling.recycled)

    def shown(self) -> dict[str, Any]:
        """The struct ``recycling`` of the status."""
        return self._recycling.shown(time.monotonic())

    def _seen(self, workers: dict[str, dict[str, Any]]) -> Iterator[Seen]:
        for name, row in workers.items():
            process = self._process(name)
            if process is not None:
                yield Seen(
                    name=name,
                    process=process.pid or 0,
                    state=row["state"],
                    steady=process.get_state() == ProcessStates.RUNNING,
                    joined=bool(row["tag"]),
                    takes=row["takeover"],
                    memory=row["memory"] * 1024,
                    age=row["uptime"],
                    silent=row["silent"],
                    stop_time=process.config.stopwaitsecs,
                )

    def _process(self, name: str) -> Any:
        """supervisord's process of this name; ``None`` for a worker that it has not started."""
        group_name, process_name = split_namespec(name)
        group = self._supervisord.process_groups.get(group_name)
        return group and group.processes.get(process_name)

    def _do(self, action: Action, row: dict[str, Any]) -> None:
        process = self._process(action.name)
        if action.do is Do.STOP:
            # In Supervisor's order: the router is told before the worker gets its signal.
            self._tell_stopping(process.pid)
            _send(process.config.stopsignal, process.pid, process.config.stopasgroup)
        elif action.do is Do.KILL:
            if is_descendant(row["pid"], process.pid):  # the worker may be a child of a script
                _send(signal.SIGKILL, row["pid"])
            _send(signal.SIGKILL, process.pid, process.config.killasgroup)
        else:
            with contextlib.suppress(RPCError):  # the router is gone; the next look repeats it
                self._command(action.do.name.lower(), action.name)


def _send(number: int, pid: int, group: bool = False) -> None:
    if not pid:
        return  # kill(2) would send the signal to our own group
    with contextlib.suppress(ProcessLookupError):  # supervisord will notice its end
        os.kill(-pid if group else pid, number)
