"""The command ``supervisor-sio``."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from typing import Optional, Sequence

from ._version import __version__

_ROUTER = "the router and relay of the cluster; run by supervisord in [eventlistener:sio]"
_WORKER = "serve a WSGI application; run by supervisord in a [program:x] section"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="supervisor-sio", description="Socket.IO clusters under Supervisor."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("router", help=_ROUTER, description=_ROUTER)
    worker = commands.add_parser("worker", help=_WORKER, description=_WORKER)
    worker.add_argument("application", metavar="MODULE:APP", help="for example chat:app")
    arguments = parser.parse_args(argv)
    if arguments.command == "router":
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        from .router.process import run

        return run()
    return _worker(arguments.application)


def _worker(spec: str) -> int:
    # Before anything of the application is imported.
    # What eventlet says of itself at every import is not news for an operator's log.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    import eventlet

    eventlet.monkey_patch()
    from .worker.application import ApplicationError, load
    from .worker.service import serve

    try:
        app = load(spec)
    except ApplicationError as error:
        if error.detail:
            sys.stderr.write(error.detail)
        sys.stderr.write(f"supervisor-sio worker: error: {error}\n")
        return 1
    serve(app)
    return 0
