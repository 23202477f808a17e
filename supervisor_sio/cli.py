"""The command ``supervisor-sio``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
import warnings
from typing import Optional, Sequence

from ._version import __version__
from .common.clusters import USUAL
from .common.modes import ASYNC_MODES, EVENTLET, AsyncMode
from .common.worker_options import WorkerOptions, add_mode, add_worker_options, worker_options

_ROUTER = "the router and relay of the cluster; run by supervisord in [eventlistener:sio]"
_WORKER = "serve a WSGI or ASGI application; run by supervisord in a [program:x] section"
_CHECK = "report what is missing, misspelt or risky in supervisord's configuration"
_INIT = "print the sections to paste into supervisord's configuration"

_CHECK_MORE = """\
%(prog)s reads the file and the files that it includes, as supervisord does. It starts no
program; it only asks the Python of each supervisor-sio for its packages, and reads the
module of the application. Run it as the user that starts supervisord, and in the same
environment.
With --app it imports the application as a worker does, in the current directory, and
reports what kind of application it is and what would keep it from serving clients. With
--app and without a file, it checks no configuration.
The exit status is 0 without errors, 1 with errors, 2 when a file cannot be read."""


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="supervisor-sio", description="Socket.IO clusters under Supervisor."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(show_help=parser.print_help)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("router", help=_ROUTER, description=_ROUTER)
    worker = commands.add_parser("worker", help=_WORKER, description=_WORKER)
    add_worker_options(worker)
    worker.set_defaults(fail=worker.error)
    check = commands.add_parser(
        "check",
        help=_CHECK,
        description=_CHECK,
        epilog=_CHECK_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "configuration",
        metavar="supervisord.conf",
        nargs="?",
        help="the main file (default: the one that supervisord finds without -c)",
    )
    check.add_argument(
        "--app", metavar="MODULE:APP", help="import this application, and report what is wrong"
    )
    add_mode(check)
    init = commands.add_parser("init", help=_INIT, description=_INIT)
    init.add_argument(
        "application",
        metavar="MODULE:APP",
        nargs="?",
        default="myapp:app",
        help="for example chat:app",
    )
    add_mode(init)
    init.add_argument(
        "--listen",
        metavar="ADDRESS",
        default="127.0.0.1:8000",
        help="where clients connect: host:port, [v6]:port or unix:/path; several are separated by "
        "commas (default: %(default)s)",
    )
    init.add_argument(
        "--full",
        action="store_true",
        help="print a complete supervisord.conf, for a separate supervisord",
    )
    init.add_argument(
        "--cluster",
        metavar="NAME",
        default=USUAL,
        help="name of the cluster, if supervisord runs several (default: %(default)s)",
    )
    init.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=os.cpu_count() or 1,
        help="number of workers (default: the number of cores, %(default)s)",
    )
    return parser


#: What router and workers import; supervisord and `check` do not need it.
_DEPENDENCIES = ("zmq", "socketio", "engineio", "httptools", "eventlet", "greenlet")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Entry point; returns the exit status."""
    arguments = _make_parser().parse_args(argv)
    if arguments.command is None:
        arguments.show_help()
        return 0
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        if error.name not in _DEPENDENCIES:
            raise
        sys.stderr.write(
            f"supervisor-sio {arguments.command}: error: {sys.executable} has no {error.name}: "
            "write the full path of the supervisor-sio in the virtual environment of your "
            "application, see docs/howto/debian.md; or install supervisor-sio here with its "
            "dependencies\n"
        )
        return 1


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "check":
        return _check(arguments)
    if arguments.command == "init":
        return _init(arguments)
    if arguments.command == "router":
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        from .router.process import run

        return run()
    try:
        options = worker_options(arguments)
    except ValueError as error:
        arguments.fail(str(error))
    return _worker(options)


def _check(arguments: argparse.Namespace) -> int:
    from .check import max_memory_of, paths_of
    from .check import run as run_check

    file, app = arguments.configuration, arguments.app
    status = run_check(file) if file or not app else 0
    if app and status != 2:
        expected = paths_of(file), max_memory_of(file)
        status = max(status, _check_app(app, arguments.async_mode, *expected))
        _leave_threads(app, status)
    return status


def _check_app(spec: str, async_mode: str, paths: Sequence[str], max_memory: Optional[int]) -> int:
    """Report what is wrong with an application; returns the exit status."""
    mode = ASYNC_MODES[async_mode]
    _prepare(mode)
    from .settings import without_credentials
    from .worker.inspection import inspect_application

    report = inspect_application(spec, mode, paths, max_memory)
    sys.stderr.write(report.detail)
    with contextlib.suppress(BrokenPipeError):  # the reader has ended, such as `head`
        for severity, lines in (("error", report.errors), ("warning", report.warnings)):
            for line in lines:
                print(f"{severity}: {without_credentials(line)}")
        for line in report.facts:
            print(line)
    return 1 if report.errors else 0


def _leave_threads(spec: str, status: int) -> None:
    """End here if Python would wait for threads of the application, some of which never end."""
    # With eventlet these are two.
    own = threading.main_thread(), threading.current_thread()
    names = [each.name for each in threading.enumerate() if each not in own and not each.daemon]
    if names:
        with contextlib.suppress(OSError):  # likewise, or the disk is full
            print(
                f"importing {spec} has started threads with daemon=False, which is not an error: "
                f"{', '.join(names)}"
            )
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


def _init(arguments: argparse.Namespace) -> int:
    from .check.sections import make_sections

    mode = ASYNC_MODES[arguments.async_mode]
    try:
        sections = make_sections(
            arguments.application,
            arguments.listen,
            arguments.workers,
            mode,
            arguments.full,
            arguments.cluster,
        )
    except ValueError as error:
        sys.stderr.write(f"supervisor-sio init: error: {error}\n")
        return 2
    print(sections, end="")
    return 0


def _prepare(mode: AsyncMode) -> None:
    """To be called before anything of the application is imported."""
    # eventlet warns at each import that it is deprecated, which is of no use in an operator's log.
    # A server made for eventlet imports it in any mode.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    if mode is EVENTLET:
        _patch()


def _worker(options: WorkerOptions) -> int:
    _prepare(options.mode)
    from .cluster import sessions
    from .worker import logs, modes
    from .worker.application import ApplicationError, load
    from .worker.service import run as run_worker

    logs.show_lines_at_once()
    try:
        install = modes.installer(options.mode)
        sessions.expect_clients()
        sessions.serve_by(install)
        app = load(options.application, options.mode)
    except ApplicationError as error:
        if error.detail:
            sys.stderr.write(error.detail)
        sys.stderr.write(f"supervisor-sio worker: error: {error}\n")
        return 1
    run_worker(app, spec=options.application, mode=options.mode, threads=options.threads)
    return 0


def _patch() -> None:
    import eventlet

    eventlet.monkey_patch()
