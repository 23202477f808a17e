"""Delay the restart of a worker that fails repeatedly.

Supervisor itself delays, with a growing pause, only the restart of a process that ends within its
``startsecs``, and stops after ``startretries``. It restarts a process that ends later at once,
without limit.
"""

from __future__ import annotations

import time
from typing import Any

from supervisor.datatypes import RestartUnconditionally
from supervisor.states import ProcessStates, SupervisorStates

from .guard import Guard


def starts_again(process: Any, expected: bool) -> bool:
    """Whether supervisord will restart a process that has just exited.

    :param expected: whether its exit status is one of its ``exitcodes``.
    """
    autorestart = process.config.autorestart
    return autorestart is RestartUnconditionally or (bool(autorestart) and not expected)


def hold_back(process: Any, seconds: float, guard: Guard) -> None:
    """Delay the restart of a process that has just exited.

    Meanwhile the process is in Supervisor's state BACKOFF, in which ``supervisorctl`` can stop and
    restart it. It enters this state in supervisord's next turn, because this is called from the
    event of the process's end, which other subscribers have not received yet.
    """
    resumes = time.monotonic() + seconds

    def waits() -> bool:
        if process.config.options.mood < SupervisorStates.RUNNING:
            return False
        if process.get_state() == ProcessStates.EXITED:
            process.change_state(ProcessStates.BACKOFF)
        if process.get_state() != ProcessStates.BACKOFF:
            return False  # supervisorctl has started or stopped it
        # Do not count it among `startretries`, and let it be due when we return False.
        process.backoff, process.delay = 0, 0
        return time.monotonic() < resumes

    def transition() -> None:
        if not guard.call("the pause before a start", waits, False):
            vars(process).pop("transition", None)  # restores the method of its class
            process.transition()

    process.transition = transition
