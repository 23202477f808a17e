"""Sets up a worker's logging and stdout, so that its lines reach supervisord's log."""

from __future__ import annotations

import logging
import sys

#: The loggers that report errors in the application's handlers and tasks.
_LOGGERS = ("supervisor_sio", "socketio", "engineio", "asyncio")

#: Writes to stderr why a record could not be logged, as for a handler that fails.
_SUBSTITUTE = logging.Handler()


class _Steady:
    """A logger that the application can neither disable by accident, nor make raise.

    ``dictConfig`` and ``fileConfig`` disable all existing loggers, unless the application passes
    ``disable_existing_loggers=False``; the tracebacks of handlers would be lost.

    ``logging`` catches the errors of handlers and formatters, but not of filters. A filter that
    reads the current request raises where there is none; that would end what has logged: a thread
    of the pool, or the checks of all clients' deadlines.
    """

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass

    def handle(self, record: logging.LogRecord) -> None:
        try:
            super().handle(record)  # type: ignore[misc]
        except Exception:
            _SUBSTITUTE.handleError(record)


def show_lines_at_once() -> None:
    """Flush stdout after each line: supervisord's pipe is buffered in blocks of 8 KB otherwise."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # missing if stdout was replaced
    if reconfigure is not None:
        reconfigure(line_buffering=True)


def configure_logging() -> None:
    """Log supervisor-sio's messages to stderr, unless the application has configured logging."""
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        ours = logging.getLogger("supervisor_sio")
        if not ours.handlers:
            ours.addHandler(handler)
            ours.setLevel(logging.INFO)
    for name in list(logging.Logger.manager.loggerDict):
        if name.partition(".")[0] in _LOGGERS:
            _keep_steady(logging.getLogger(name))


def adopt(logger: logging.Logger) -> None:
    """Log a library's messages as our own, unless the application has configured its logger."""
    _keep_steady(logger)
    if not logger.hasHandlers():
        for handler in logging.getLogger("supervisor_sio").handlers:
            logger.addHandler(handler)


def _keep_steady(logger: logging.Logger) -> None:
    cls = type(logger)
    if not issubclass(cls, _Steady):
        logger.disabled = False
        logger.__class__ = type(cls.__name__, (_Steady, cls), {})
