"""How a worker runs an application, as ``--async-mode`` names it."""

from __future__ import annotations

from typing import NamedTuple


class AsyncMode(NamedTuple):
    """One of the ways, and what it takes in the Python of the worker."""

    name: str
    #: The oldest Python.
    python: tuple[int, int]
    #: Modules beyond those of every worker.
    modules: tuple[str, ...]
    #: The extra of this package that installs them; without one they come with the package.
    extra: str = ""
    #: Modules without which it needs more CPU.
    faster: tuple[str, ...] = ()


EVENTLET = AsyncMode("eventlet", (3, 9), ("eventlet",))
ASYNCIO = AsyncMode("asyncio", (3, 10), ("uvicorn", "wsproto"), "asyncio", ("uvloop",))
THREADING = AsyncMode("threading", (3, 10), (), "threading", ("uvloop",))

#: By name; the first is the default.
ASYNC_MODES = {mode.name: mode for mode in (EVENTLET, ASYNCIO, THREADING)}
