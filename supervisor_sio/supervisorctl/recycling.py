"""Commands that stop workers wait while one is recycled; supervisord begins no further one then."""

from __future__ import annotations

import time
from typing import Any, Callable

from .progress import Progress
from .session import LOOK, refused

#: Seconds after the longest time that a step may take, such as the worker's ``stopwaitsecs``, until
#: a command gives up: without a router, which may be about to come back, nothing goes on.
_LATE = 60.0


def wait_for_recycling(
    status: Callable[[], dict[str, Any]], about: str, progress: Progress
) -> bool:
    """Return when supervisord recycles no worker: whether it has until now.

    :param status: asks for ``sio.getStatus``.
    :param about: what the command is about to stop.
    :raises CommandError: when a step of that takes too long.
    """
    recycling = status().get("recycling", {})  # a supervisord of an older version has none
    if not recycling.get("worker"):
        return False
    with progress.waiting(lambda: f"{recycling['worker']} is recycled ({recycling['text']})"):
        while recycling["worker"]:
            if recycling["seconds"] > recycling["limit"] + _LATE:
                raise refused(
                    about,
                    f"{recycling['worker']} is recycled, {recycling['step']}, "
                    f"for {recycling['seconds']} s",
                )
            time.sleep(LOOK)
            recycling = status()["recycling"]
    return True
