"""The modes in which a worker runs an application: the values of ``--async-mode``."""

from __future__ import annotations

from typing import NamedTuple


class AsyncMode(NamedTuple):
    """A mode, and what it needs in the worker's Python."""

    name: str
    #: The oldest supported Python.
    python: tuple[int, int]
    #: Modules that it needs besides those of every mode.
    modules: tuple[str, ...]
    #: The extra of this package that installs them; empty if the package itself does.
    extra: str = ""
    #: Optional modules with which it needs less CPU.
    faster: tuple[str, ...] = ()


EVENTLET = AsyncMode("eventlet", (3, 9), ("eventlet",))
ASYNCIO = AsyncMode("asyncio", (3, 10), ("uvicorn", "wsproto"), "asyncio", ("uvloop",))
THREADING = AsyncMode("threading", (3, 10), (), "threading", ("uvloop",))

#: By name; the first is the default.
ASYNC_MODES = {mode.name: mode for mode in (EVENTLET, ASYNCIO, THREADING)}
