"""Runs a worker, under supervisord or by hand, and reports errors of its start."""

from __future__ import annotations

import os
import sys
from typing import Any, Optional

from ..cluster import sessions
from ..common.clusters import why_none
from ..common.modes import EVENTLET, AsyncMode
from ..common.rundir import RunDir, RunDirError
from . import logs, modes
from .alone import Alone
from .application import ApplicationError, check, check_manager, check_servers, mode_for
from .link import Refused
from .supervised import Worker

_COMMAND = "supervisor-sio worker"

#: The default address of a worker that is started by hand.
_LISTEN = "127.0.0.1:8000"


def serve(app: Any, listen: str = _LISTEN) -> None:
    """Serve a WSGI or ASGI application until a signal stops the process.

    Under supervisord with ``[rpcinterface:sio]`` the worker gets its connections
    from the router; started by hand, on a laptop, it opens the port itself.
    Returns after SIGTERM, SIGINT or SIGHUP, when requests in flight are finished.
    The application's own handlers for SIGTERM and SIGINT are called as well.

    The application determines the mode: asyncio for ASGI, threading for a
    ``socketio.Server(async_mode="threading")``, otherwise eventlet. Eventlet
    needs ``eventlet.monkey_patch()`` before all other imports; without it a
    blocking call in one handler stops all others, and the worker logs a warning.

    :param app: a WSGI application such as ``socketio.WSGIApp(sio)`` or a Flask
        application, whose Socket.IO server has a :class:`ZmqManager`; or an ASGI
        application such as ``socketio.ASGIApp(sio)`` or a FastAPI application,
        with an :class:`AsyncZmqManager`.
    :param listen: ``host:port`` to listen on without supervisord.
    :raises SystemExit: with status 1, and a line on standard error, if the
        application cannot be served. Under supervisord also with 128 plus the
        number of a signal that supervisord did not send, so that it starts the
        worker again, as after any exit status other than 0.
    """
    by_hand = RunDir.from_environment() is None
    who = "supervisor_sio.serve" if by_hand else _COMMAND
    run(app, listen, who=who, mode=mode_for(app))


def run(
    app: Any,
    listen: str = _LISTEN,
    spec: str = "the application",
    who: str = _COMMAND,
    mode: AsyncMode = EVENTLET,
    threads: Optional[int] = None,
) -> None:
    """Like :func:`serve`.

    :param spec: the application's name in error messages.
    :param who: the prefix of error messages.
    :param threads: size of the pool for handlers and requests, in mode ``threading``.
    """
    logs.show_lines_at_once()
    logs.configure_logging()
    try:
        sessions.serve_by(modes.installer(mode))
        check(app, spec, mode)
        check_servers(mode)
        run_dir = find_cluster()
        if run_dir is not None:
            check_manager(app, spec)
            run_dir.read_cluster()  # raises an error that says what is wrong, if anything
        runtime = modes.make_runtime(mode, threads)
        life = Alone(app, runtime, listen) if run_dir is None else Worker(app, runtime, run_dir)
        life.run()
    except (ApplicationError, Refused, RunDirError) as error:
        sys.stderr.write(getattr(error, "detail", ""))
        sys.stderr.write(f"{who}: error: {error}\n")
        raise SystemExit(1) from None


def find_cluster() -> Optional[RunDir]:
    """The run_dir of this process's cluster; ``None`` if the process was started by hand.

    :raises ApplicationError: if supervisord has no cluster for it.
    """
    run_dir = RunDir.from_environment()
    if run_dir is None and "SUPERVISOR_ENABLED" in os.environ:
        raise ApplicationError(
            why_none()
            or "supervisord has no [rpcinterface:sio] section: add it, and restart supervisord"
        )
    return run_dir
