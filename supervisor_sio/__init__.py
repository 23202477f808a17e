"""Socket.IO clusters under Supervisor.

:class:`ZmqManager`, its :class:`RelayUnreachable` and :func:`serve` are loaded on first use:
supervisord and supervisorctl import this package too, and have no use for eventlet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .cluster.manager import RelayUnreachable as RelayUnreachable
    from .cluster.manager import ZmqManager as ZmqManager
    from .worker import serve as serve

__all__ = ["RelayUnreachable", "ZmqManager", "__version__", "serve"]


def __getattr__(name: str) -> Any:
    if name in ("RelayUnreachable", "ZmqManager"):
        from .cluster import manager

        return getattr(manager, name)
    if name == "serve":
        from .worker import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
