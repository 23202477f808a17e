"""The clients of a ``socketio.Server`` on eventlet, served by this worker."""

from __future__ import annotations

import logging
from typing import Any

from eventlet import patcher

from ...cluster.sessions import Outlet, PlainOutlet
from .. import clients
from .runtime import HubRuntime

logger = logging.getLogger("supervisor_sio.worker")


def make_runtime() -> HubRuntime:
    """The loop of this process, which is about to serve."""
    _warn_unpatched()
    runtime = HubRuntime.of_this_process()
    runtime.begin()
    return runtime


def _warn_unpatched() -> None:
    waits = [name for name in ("socket", "time") if not patcher.is_monkey_patched(name)]
    if waits:
        logger.warning(
            "eventlet has not patched %s: a handler that waits there stops all clients of this "
            "worker; begin the program with: import eventlet; eventlet.monkey_patch()",
            " and ".join(waits),
        )


def install(server: Any, max_attachments: int) -> Outlet:
    """Serve its clients from here on.

    :param max_attachments: most of an event of a client.
    :raises ValueError: for an option of engineio that cannot be.
    """
    if server.eio.async_mode != "eventlet":
        return PlainOutlet(server)  # the worker refuses it
    return clients.install(server, HubRuntime.of_this_process(), max_attachments)
