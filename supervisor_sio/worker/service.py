"""A worker from the application to the end of the process: which life it is, and the errors."""

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

#: Where a server by hand listens.
_LISTEN = "127.0.0.1:8000"


def serve(app: Any, listen: str = _LISTEN) -> None:
    """Serve an application until the process is told to stop: a WSGI one, or one of ASGI.

    Under supervisord with ``[rpcinterface:sio]`` the connections come from the
    router; by hand, on a laptop, it listens itself. Returns after SIGTERM,
    SIGINT or SIGHUP, when requests in flight are finished. The application's own
    handlers for SIGTERM and SIGINT are called as well.

    The mode is that of the application: asyncio for ASGI, threading for a
    ``socketio.Server(async_mode="threading")``, and else eventlet. That wants
    ``eventlet.monkey_patch()`` before all other imports, and warns without it:
    whatever waits in a handler would stop all others.

    :param app: a WSGI application such as ``socketio.WSGIApp(sio)`` or a Flask
        application, whose Socket.IO server has a :class:`ZmqManager`; or an ASGI
        application such as ``socketio.ASGIApp(sio)`` or one of FastAPI, with an
        :class:`AsyncZmqManager`.
    :param listen: where to listen when supervisord is not there to do it,
        ``host:port``.
    :raises SystemExit: with status 1 and a line on standard error when the
        application cannot be served. With 128 and the number of the signal after
        one under supervisord that is not supervisord's: it starts what ends with
        another status than 0 again.
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
    """As :func:`serve`.

    :param spec: what the application is called in errors.
    :param who: says the error.
    :param threads: that run handlers and requests, in the mode that has them.
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
            run_dir.read_cluster()  # says what is wrong, if something is
        runtime = modes.make_runtime(mode, threads)
        life = Alone(app, runtime, listen) if run_dir is None else Worker(app, runtime, run_dir)
        life.run()
    except (ApplicationError, Refused, RunDirError) as error:
        sys.stderr.write(getattr(error, "detail", ""))
        sys.stderr.write(f"{who}: error: {error}\n")
        raise SystemExit(1) from None


def find_cluster() -> Optional[RunDir]:
    """Where the cluster of this process is; ``None`` when it was started by hand.

    :raises ApplicationError: when supervisord has none for it.
    """
    run_dir = RunDir.from_environment()
    if run_dir is None and "SUPERVISOR_ENABLED" in os.environ:
        raise ApplicationError(
            why_none()
            or "supervisord has no [rpcinterface:sio] section: add it, and restart supervisord"
        )
    return run_dir
