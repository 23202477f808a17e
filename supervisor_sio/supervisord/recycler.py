"""Recycles workers: what :mod:`.recycling` decides is done here."""

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

#: Seconds after which figures of the router say nothing about now; it sends some each second.
_STALE = 2.5


class Recycler:
    """To be asked with each set of figures of the router.

    :param command: tells the router a command, and what it is about.
    :param tell_stopping: tells it that supervisord stops the process with this pid.
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
        """Whether it is time for a look.

        :param made: when the router made the figures that are there.
        """
        now = time.monotonic()
        return (
            self._recycling.on
            and now - self._looked_at >= RECYCLE_LOOK
            and (made is None or now - made < _STALE)
            and self._supervisord.options.mood >= SupervisorStates.RUNNING
        )

    def look(self, rows: list[dict[str, Any]]) -> bool:
        """Do what is to be done; whether some worker counts as recycled by that.

        :param rows: the workers of the status.
        """
        now = time.monotonic()
        self._looked_at = now
        before = sum(self._recycling.recycled.values())
        workers = {row["name"]: row for row in reversed(rows)}  # supervisord's own is the first
        for action in self._recycling.look(now, self._seen(workers)):
            if action.line:
                say = self._logger.info if action.do is Do.STOP else self._logger.warn
                say(f"sio: {action.line}")
            if action.do is not Do.SAY:
                self._do(action, workers[action.name])
        return sum(self._recycling.recycled.values()) > before

    def ends(self, name: str, process: int) -> Optional[Reason]:
        """Why the process of this name and pid was ended here; ``None`` when it was not."""
        return self._recycling.ends(name, process)

    @property
    def recycled(self) -> dict[str, int]:
        """How many, by reason; without the limits that are off."""
        return dict(self._recycling.recycled)

    def shown(self) -> dict[str, Any]:
        """For the status."""
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
        """supervisord's process of this name; ``None`` for a worker of somebody else."""
        group_name, process_name = split_namespec(name)
        group = self._supervisord.process_groups.get(group_name)
        return group and group.processes.get(process_name)

    def _do(self, action: Action, row: dict[str, Any]) -> None:
        process = self._process(action.name)
        if action.do is Do.STOP:
            # As Supervisor does it: the router knows before the worker has its signal.
            self._tell_stopping(process.pid)
            _send(process.config.stopsignal, process.pid, process.config.stopasgroup)
        elif action.do is Do.KILL:
            if is_descendant(row["pid"], process.pid):  # started by a script, perhaps
                _send(signal.SIGKILL, row["pid"])
            _send(signal.SIGKILL, process.pid, process.config.killasgroup)
        else:
            with contextlib.suppress(RPCError):  # it is gone: there will be another look
                self._command(action.do.name.lower(), action.name)


def _send(number: int, pid: int, group: bool = False) -> None:
    if not pid:
        return  # kill(2) has another meaning for that
    with contextlib.suppress(ProcessLookupError):  # supervisord is about to know
        os.kill(-pid if group else pid, number)
