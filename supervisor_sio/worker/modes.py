"""The runtime of each mode; its package is imported only where it runs."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any, Optional

from ..cluster.sessions import Install
from ..common.modes import ASYNCIO, EVENTLET, THREADING, AsyncMode
from .application import ApplicationError
from .runtime import Runtime


def installer(mode: AsyncMode) -> Install:
    """What prepares the Socket.IO servers of this process.

    :raises ApplicationError: when this Python lacks something that the mode needs.
    """
    _check_python(mode)
    package = _package(mode)
    if mode is ASYNCIO:
        package.make_runtime()  # an application may want a loop at its import
    install: Install = package.install
    return install


def make_runtime(mode: AsyncMode, threads: Optional[int] = None) -> Runtime:
    """The loop of this process, which is about to serve; after :func:`installer`.

    :param threads: that run handlers and requests, in the mode that has them.
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
