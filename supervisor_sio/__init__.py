"""Socket.IO clusters under Supervisor.

:class:`ZmqManager` and :func:`serve` are loaded on first use: supervisord and
supervisorctl import this package too, and have no use for eventlet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .manager import ZmqManager as ZmqManager
    from .worker import serve as serve

__all__ = ["ZmqManager", "__version__", "serve"]


def __getattr__(name: str) -> Any:
    if name == "ZmqManager":
        from .manager import ZmqManager

        return ZmqManager
    if name == "serve":
        from .worker import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
