"""The arguments of ``supervisor-sio worker``, for the command itself and for ``check``."""

from __future__ import annotations

import argparse
from typing import NamedTuple, NoReturn, Optional, Sequence

from .modes import ASYNC_MODES, ASYNCIO, EVENTLET, THREADING, AsyncMode

_MODE = (
    f"{EVENTLET.name} and {THREADING.name} run WSGI applications with a socketio.Server, "
    f"{ASYNCIO.name} ASGI applications with a socketio.AsyncServer (default: {EVENTLET.name})"
)
_THREADS = (
    f"with --async-mode {THREADING.name}: how many handlers and requests run at a time "
    "(default: 4 more than there are cores, 32 at most)"
)


class WorkerOptions(NamedTuple):
    """The arguments of a worker; ``threads`` is ``None`` for the default, and without a pool."""

    application: str
    mode: AsyncMode
    threads: Optional[int]


def add_mode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--async-mode", choices=list(ASYNC_MODES), default=EVENTLET.name, help=_MODE
    )


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    add_mode(parser)
    parser.add_argument("--threads", metavar="N", type=_count, help=_THREADS)
    parser.add_argument("application", metavar="MODULE:APP", help="for example chat:app")


def worker_options(arguments: argparse.Namespace) -> WorkerOptions:
    """:raises ValueError: for options that exclude each other; the text says which."""
    mode = ASYNC_MODES[arguments.async_mode]
    if arguments.threads is not None and mode is not THREADING:
        raise ValueError(f"argument --threads: only with --async-mode {THREADING.name}")
    return WorkerOptions(arguments.application, mode, arguments.threads)


def read_worker_options(words: Sequence[str]) -> WorkerOptions:
    """Parse the arguments after ``supervisor-sio worker``.

    :raises ValueError: for arguments that the command would refuse; the text says why.
    """
    parser = _Parser(add_help=False)
    add_worker_options(parser)
    return worker_options(parser.parse_args(words))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is too few, give 1 or more")
    return count
