"""Selects the runtime of a mode; only that runtime's package is imported."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any, Optional

from ..cluster.sessions import Install
from ..common.modes import ASYNCIO, EVENTLET, THREADING, AsyncMode
from .application import ApplicationError
from .runtime import Runtime


def installer(mode: AsyncMode) -> Install:
    """The function that prepares the Socket.IO servers of this process.

    :raises ApplicationError: if this Python lacks something that the mode needs.
    """
    _check_python(mode)
    package = _package(mode)
    if mode is ASYNCIO:
        package.make_runtime()  # an application may need a loop while it is imported
    install: Install = package.install
    return install


def make_runtime(mode: AsyncMode, threads: Optional[int] = None) -> Runtime:
    """The runtime of this process; call :func:`installer` first.

    :param threads: size of the pool for handlers and requests, in mode ``threading``.
    """
    make = _package(mode).make_runtime
    runtime: Runtime = make(threads) if mode is THREADING else make()
    return runtime


def _package(mode: AsyncMode) -> Any:
    if mode is EVENTLET:
        from .eventlet import install as eventlet

        return eventlet
    if mode is ASYNCIO:
        from .asyncio import install as asyncio

        return asyncio
    from .threads import install as threads

    return threads


def _check_python(mode: AsyncMode) -> None:
    if sys.version_info < mode.python:
        oldest, here = (".".join(map(str, v[:2])) for v in (mode.python, sys.version_info))
        raise ApplicationError(f"--async-mode {mode.name} needs Python {oldest}, this is {here}")
    missing = [module for module in mode.modules if importlib.util.find_spec(module) is None]
    if missing:
        package = f"supervisor-sio[{mode.extra}]" if mode.extra else "supervisor-sio"
        raise ApplicationError(
            f"--async-mode {mode.name} needs {' and '.join(missing)}, which {sys.executable} does "
            f"not have: {sys.executable} -m pip install '{package}'"
        )
