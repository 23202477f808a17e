"""What a worker writes, and that it is seen."""

from __future__ import annotations

import logging
import sys

#: A handler or a task of the application that fails is told of by one of these.
_LOGGERS = ("supervisor_sio", "socketio", "engineio", "asyncio")


class _StaysEnabled:
    """``dictConfig`` and ``fileConfig`` disable every logger that was there before them.

    Unless the application says ``disable_existing_loggers=False``, ours and
    python-socketio's are among these, and the traceback of a handler would be lost.
    """

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass


def show_lines_at_once() -> None:
    """Written to supervisord's pipe, ``print()`` would be seen 8 KB later."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # the application may have its own
    if reconfigure is not None:
        reconfigure(line_buffering=True)


def configure_logging() -> None:
    """Show our own lines unless the application has arranged its logging."""
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
    """Show what a library logs as our own lines are, unless the application has arranged that."""
    _keep_enabled(logger)
    if not logger.hasHandlers():
        for handler in logging.getLogger("supervisor_sio").handlers:
            logger.addHandler(handler)


def _keep_enabled(logger: logging.Logger) -> None:
    cls = type(logger)
    if not issubclass(cls, _StaysEnabled):
        logger.disabled = False
        logger.__class__ = type(cls.__name__, (_StaysEnabled, cls), {})
