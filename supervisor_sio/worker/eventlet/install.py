"""The clients of a ``socketio.Server`` on eventlet, served by this worker."""

from __future__ import annotations

from typing import Any

from ...cluster.sessions import Outlet, PlainOutlet
from .. import clients
from . import greenlets
from .runtime import HubRuntime
from .tracebacks import FEW_TRACEBACKS


def install(server: Any, max_attachments: int) -> Outlet:
    """Serve its clients from here on.

    :param max_attachments: most of an event of a client.
    :raises ValueError: for an option of engineio that cannot be.
    """
    if server.eio.async_mode != "eventlet":
        return PlainOutlet(server)  # the worker refuses it
    runtime = HubRuntime.of_this_process()
    outlet = clients.install(server, runtime, runtime.threads, max_attachments)
    runtime.engines.append(server.eio.engine)
    runtime.outlets.append(outlet)
    for log in (*clients.loggers(server), greenlets.logger):
        log.addFilter(FEW_TRACEBACKS)
    return outlet
