"""Socket.IO clusters under Supervisor.

:class:`ZmqManager`, :class:`AsyncZmqManager`, their :class:`RelayUnreachable` and :func:`serve`
are loaded on first use: supervisord and supervisorctl import this package too, and have no use
for Socket.IO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .cluster.async_manager import AsyncZmqManager as AsyncZmqManager
    from .cluster.manager import RelayUnreachable as RelayUnreachable
    from .cluster.manager import ZmqManager as ZmqManager
    from .cluster.run_once import AsyncLease as AsyncLease
    from .cluster.run_once import Lease as Lease
    from .worker import serve as serve

__all__ = [
    "AsyncLease",
    "AsyncZmqManager",
    "Lease",
    "RelayUnreachable",
    "ZmqManager",
    "__version__",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name == "AsyncZmqManager":
        from .cluster.async_manager import AsyncZmqManager

        return AsyncZmqManager
    if name in ("RelayUnreachable", "ZmqManager"):
        from .cluster import manager

        return getattr(manager, name)
    if name in ("AsyncLease", "Lease"):
        from .cluster import run_once

        return getattr(run_once, name)
    if name == "serve":
        from .worker import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
