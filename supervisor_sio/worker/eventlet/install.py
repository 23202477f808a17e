"""Lets this worker serve the clients of a ``socketio.Server`` on eventlet."""

from __future__ import annotations

import logging
from typing import Any

from eventlet import patcher

from ...cluster.sessions import Outlet, PlainOutlet
from .. import clients
from .runtime import HubRuntime

logger = logging.getLogger("supervisor_sio.worker")


def make_runtime() -> HubRuntime:
    """The runtime of this process, ready to serve."""
    _warn_unpatched()
    runtime = HubRuntime.of_this_process()
    runtime.begin()
    return runtime


def _warn_unpatched() -> None:
    waits = [name for name in ("socket", "time") if not patcher.is_monkey_patched(name)]
    if waits:
        logger.warning(
            "eventlet has not patched %s: a handler that blocks there blocks all clients of this "
            "worker; begin the program with: import eventlet; eventlet.monkey_patch()",
            " and ".join(waits),
        )


def install(server: Any, max_attachments: int) -> Outlet:
    """Start serving the server's clients.

    :param max_attachments: most attachments of a client's event.
    :raises ValueError: for an invalid option of python-engineio.
    """
    if server.eio.async_mode != "eventlet":
        return PlainOutlet(server)  # the worker will refuse this server
    return clients.install(server, HubRuntime.of_this_process(), max_attachments)
