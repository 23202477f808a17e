"""Let commands that stop workers wait until supervisord recycles no worker.

supervisord recycles no further worker while an operator restarts workers.
"""

from __future__ import annotations

import time
from typing import Any, Callable

from .progress import Progress
from .session import LOOK, refused

#: Seconds added to the longest time of a step, such as the worker's ``stopwaitsecs``, after which a
#: command fails. A router that restarts meanwhile delays the step.
_LATE = 60.0


def wait_for_recycling(
    status: Callable[[], dict[str, Any]], about: str, progress: Progress
) -> bool:
    """Wait until supervisord recycles no worker; returns whether it had to wait.

    :param status: calls ``sio.getStatus``.
    :param about: what the command is about to stop.
    :raises CommandError: when a step of the recycling takes too long.
    """
    recycling = status().get("recycling", {})  # a supervisord of an older version has none
    if not recycling.get("worker"):
        return False
    with progress.waiting(lambda: f"{recycling['worker']} is recycled ({recycling['text']})"):
        while recycling["worker"]:
            if recycling["seconds"] > recycling["limit"] + _LATE:
                raise refused(
                    about,
                    f"{recycling['worker']} is being recycled, {recycling['step']}, "
                    f"for {recycling['seconds']} s",
                )
            time.sleep(LOOK)
            recycling = status()["recycling"]
    return True
