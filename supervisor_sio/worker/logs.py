"""Sets up a worker's logging and stdout, so that its lines reach supervisord's log."""

from __future__ import annotations

import logging
import sys

#: The loggers that report errors in the application's handlers and tasks.
_LOGGERS = ("supervisor_sio", "socketio", "engineio", "asyncio")


class _StaysEnabled:
    """A logger that ``dictConfig`` and ``fileConfig`` cannot disable.

    Both disable all existing loggers, unless the application passes
    ``disable_existing_loggers=False``; the tracebacks of handlers would be lost.
    """

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass


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
            _keep_enabled(logging.getLogger(name))


def adopt(logger: logging.Logger) -> None:
    """Log a library's messages as our own, unless the application has configured its logger."""
    _keep_enabled(logger)
    if not logger.hasHandlers():
        for handler in logging.getLogger("supervisor_sio").handlers:
            logger.addHandler(handler)


def _keep_enabled(logger: logging.Logger) -> None:
    cls = type(logger)
    if not issubclass(cls, _StaysEnabled):
        logger.disabled = False
        logger.__class__ = type(cls.__name__, (_StaysEnabled, cls), {})
