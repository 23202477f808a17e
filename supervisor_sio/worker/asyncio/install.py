"""The clients of a ``socketio.AsyncServer``, served by this worker on asyncio."""

from __future__ import annotations

import logging
from typing import Any

from ...cluster.sessions import Outlet, PlainOutlet
from .. import clients
from ..few_lines import FEW_LINES
from ..tracebacks import FEW_TRACEBACKS
from .runtime import AsyncioRuntime


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
    for few in (FEW_TRACEBACKS, FEW_LINES):
        logging.getLogger("uvicorn.error").addFilter(few)
    return clients.install(server, make_runtime(), max_attachments)
