"""The runtime of each mode; its package is imported only where it runs."""

from __future__ import annotations

import importlib.util
import sys
from typing import Optional

from ..cluster.sessions import Install
from ..common.modes import ASYNCIO, EVENTLET, AsyncMode
from .application import ApplicationError
from .runtime import Runtime


def installer(mode: AsyncMode) -> Install:
    """What prepares the Socket.IO servers of this process.

    :raises ApplicationError: when this Python lacks something that the mode needs.
    """
    _check_python(mode)
    if mode is EVENTLET:
        from .eventlet.install import install

        return install
    if mode is ASYNCIO:
        from .asyncio.install import install as install_async
        from .asyncio.install import make_runtime as make_async_runtime

        make_async_runtime()  # an application may want a loop at its import
        return install_async
    from .threads.install import install as install_threads

    return install_threads


def make_runtime(mode: AsyncMode, threads: Optional[int] = None) -> Runtime:
    """The loop of this process, which is about to serve.

    :param threads: that run handlers and requests, in the mode that has them.
    :raises ApplicationError: as :func:`installer`.
    """
    _check_python(mode)
    if mode is EVENTLET:
        from .eventlet.install import make_runtime

        return make_runtime()
    if mode is ASYNCIO:
        from .asyncio.install import make_runtime as make_async_runtime

        return make_async_runtime()
    from .threads.install import make_runtime as make_threads_runtime

    return make_threads_runtime(threads)


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
