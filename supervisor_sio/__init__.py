"""Socket.IO clusters under Supervisor.

Applications import the names in ``__all__`` from here. Each is loaded on first use, because
supervisord and supervisorctl import this package too, and do not need Socket.IO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._version import __version__

__all__ = [
    "Answers",
    "AsyncLease",
    "AsyncZmqManager",
    "Lease",
    "MessageTooLong",
    "RelayUnreachable",
    "RemoteSocket",
    "Room",
    "RoomSizes",
    "ZmqManager",
    "__version__",
    "serve",
]

if TYPE_CHECKING:
    from .cluster.async_manager import AsyncZmqManager
    from .cluster.fetching import RemoteSocket, RoomSizes
    from .cluster.gathering import Answers
    from .cluster.manager import ZmqManager
    from .cluster.relaying import RelayUnreachable
    from .cluster.rooms import Room
    from .cluster.run_once import AsyncLease, Lease
    from .relay.publisher import MessageTooLong
    from .worker import serve
else:  # hidden from type checkers: with __getattr__ they would accept any name
    _MODULES = {
        "Answers": ".cluster.gathering",
        "AsyncLease": ".cluster.run_once",
        "AsyncZmqManager": ".cluster.async_manager",
        "Lease": ".cluster.run_once",
        "MessageTooLong": ".relay.publisher",
        "RelayUnreachable": ".cluster.relaying",
        "RemoteSocket": ".cluster.fetching",
        "Room": ".cluster.rooms",
        "RoomSizes": ".cluster.fetching",
        "ZmqManager": ".cluster.manager",
        "serve": ".worker",
    }

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_MODULES[name], __name__), name)

    def __dir__():
        return sorted({*globals(), *__all__})
