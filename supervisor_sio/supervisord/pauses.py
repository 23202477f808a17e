"""A pause before supervisord starts a worker again that fails again and again.

Supervisor has one, which grows, for a process that ends within its ``startsecs``; then it gives
up. One that ends later it starts again in its next turn, for ever.
"""

from __future__ import annotations

import time
from typing import Any

from supervisor.datatypes import RestartUnconditionally
from supervisor.states import ProcessStates, SupervisorStates

from .guard import Guard


def starts_again(process: Any, expected: bool) -> bool:
    """Whether supervisord starts a process again that has just exited.

    :param expected: whether its exit status is one of its ``exitcodes``.
    """
    autorestart = process.config.autorestart
    return autorestart is RestartUnconditionally or (bool(autorestart) and not expected)


def hold_back(process: Any, seconds: float, guard: Guard) -> None:
    """Let supervisord wait before it starts a process again that has just exited.

    Meanwhile it is in Supervisor's own state for that, BACKOFF, in which ``supervisorctl`` can
    stop and restart it. That begins in supervisord's next turn: the event of the process's end,
    from within which this is called, is still on its way to others.
    """
    resumes = time.monotonic() + seconds

    def waits() -> bool:
        if process.config.options.mood < SupervisorStates.RUNNING:
            return False
        if process.get_state() == ProcessStates.EXITED:
            process.change_state(ProcessStates.BACKOFF)
        if process.get_state() != ProcessStates.BACKOFF:
            return False  # somebody has started or stopped it
        # It does not count among its `startretries`, and is due when we say so.
        process.backoff, process.delay = 0, 0
        return time.monotonic() < resumes

    def transition() -> None:
        if not guard.call("the pause before a start", waits, False):
            vars(process).pop("transition", None)  # the method of its class is back
            process.transition()

    process.transition = transition
