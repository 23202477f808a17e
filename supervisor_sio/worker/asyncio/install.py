"""Lets this worker serve the clients of a ``socketio.AsyncServer`` on asyncio."""

from __future__ import annotations

import logging
from typing import Any

from ...cluster.sessions import Outlet, PlainOutlet
from .. import clients
from ..few_lines import FEW_LINES
from ..tracebacks import FEW_TRACEBACKS
from .runtime import AsyncioRuntime


def make_runtime() -> AsyncioRuntime:
    """The runtime of this process."""
    return AsyncioRuntime.of_this_process()


def install(server: Any, max_attachments: int) -> Outlet:
    """Start serving the server's clients.

    :param max_attachments: most attachments of a client's event.
    :raises ValueError: for an invalid option of python-engineio.
    """
    if not server.eio.is_asyncio_based():
        return PlainOutlet(server)  # the worker will refuse this server
    for few in (FEW_TRACEBACKS, FEW_LINES):
        logging.getLogger("uvicorn.error").addFilter(few)
    return clients.install(server, make_runtime(), max_attachments)
