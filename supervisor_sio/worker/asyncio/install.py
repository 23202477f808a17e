"""The clients of a ``socketio.AsyncServer``, served by this worker on asyncio."""

from __future__ import annotations

import logging
from typing import Any

from ...cluster.sessions import Outlet, PlainOutlet
from .. import clients
from ..tracebacks import FEW_TRACEBACKS
from .runtime import AsyncioRuntime

logger = logging.getLogger("supervisor_sio.worker")


def make_runtime() -> AsyncioRuntime:
    """The loop of this process."""
    return AsyncioRuntime.of_this_process()


def install(server: Any, max_attachments: int) -> Outlet:
    """Serve its clients from here on.

    :param max_attachments: most of an event of a client.
    :raises ValueError: for an option of engineio that cannot be.
    """
    if not server.eio.is_asyncio_based():
        return PlainOutlet(server)  # the worker refuses it
    runtime = make_runtime()
    outlet = clients.install(server, runtime, runtime.threads, max_attachments)
    runtime.engines.append(server.eio.engine)
    runtime.outlets.append(outlet)
    for log in (*clients.loggers(server), logger, logging.getLogger("uvicorn.error")):
        log.addFilter(FEW_TRACEBACKS)
    return outlet
