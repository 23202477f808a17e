"""The clients of a ``socketio.Server`` whose handlers run in threads, served by this worker."""

from __future__ import annotations

from typing import Any, Optional

from ...cluster.sessions import Outlet, PlainOutlet
from .. import clients
from .runtime import ThreadsRuntime


def make_runtime(threads: Optional[int] = None) -> ThreadsRuntime:
    """The loop of this process.

    :param threads: that run handlers and requests.
    """
    runtime = ThreadsRuntime.of_this_process()
    if threads is not None:
        runtime.pool.size = threads
    return runtime


def install(server: Any, max_attachments: int) -> Outlet:
    """Serve its clients from here on.

    :param max_attachments: most of an event of a client.
    :raises ValueError: for an option of engineio that cannot be.
    """
    if server.eio.async_mode != "threading":
        return PlainOutlet(server)  # the worker refuses it
    return clients.install(server, make_runtime(), max_attachments)
