"""Lets this worker serve the clients of a ``socketio.Server`` whose handlers run in threads."""

from __future__ import annotations

from typing import Any, Optional

from ...cluster.sessions import Outlet, PlainOutlet
from .. import clients
from .runtime import ThreadsRuntime


def make_runtime(threads: Optional[int] = None) -> ThreadsRuntime:
    """The runtime of this process.

    :param threads: size of the pool for handlers and requests.
    """
    runtime = ThreadsRuntime.of_this_process()
    if threads is not None:
        runtime.pool.size = threads
    return runtime


def install(server: Any, max_attachments: int) -> Outlet:
    """Start serving the server's clients.

    :param max_attachments: most attachments of a client's event.
    :raises ValueError: for an invalid option of python-engineio.
    """
    if server.eio.async_mode != "threading":
        return PlainOutlet(server)  # the worker will refuse this server
    return clients.install(server, make_runtime(), max_attachments)
