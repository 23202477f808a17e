"""Commands that stop workers wait while one is recycled; supervisord begins no further one then."""

from __future__ import annotations

import time
from typing import Any, Callable

from .progress import Progress
from .session import refused

#: Seconds between looks.
_LOOK = 0.1

#: Seconds after which a command gives up: a worker takes its ``stopwaitsecs`` to end, and a minute
#: to be ready again, at most.
_TIMEOUT = 180.0


def wait_for_recycling(
    status: Callable[[], dict[str, Any]], about: str, progress: Progress
) -> bool:
    """Return when supervisord recycles no worker: whether it has until now.

    :param status: asks for ``sio.getStatus``.
    :param about: what the command is about to stop.
    :raises CommandError: when it does for too long.
    """
    recycling = status().get("recycling", {})  # a supervisord of an older version has none
    if not recycling.get("worker"):
        return False
    began = time.monotonic()
    with progress.waiting(lambda: f"{recycling['worker']} is recycled ({recycling['text']})"):
        while recycling["worker"]:
            if time.monotonic() - began > _TIMEOUT:
                raise refused(
                    about,
                    f"{recycling['worker']} is recycled, {recycling['step']}, "
                    f"for {recycling['seconds']} s",
                )
            time.sleep(_LOOK)
            recycling = status()["recycling"]
    return True
