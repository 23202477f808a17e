"""Runs tasks in greenlets, and reuses finished greenlets.

Creating a greenlet takes longer than the rest of handling a short event: since Python 3.11 each
maps its own stack, and unmaps it at its end. A task must not find traces of an earlier one, so a
greenlet is reused only if nothing refers to it: eventlet's ``threading.local`` keeps a weak
reference to each greenlet that has used it.
"""

from __future__ import annotations

import logging
import sys
import weakref
from typing import Any, Callable

import greenlet
from eventlet import hubs

from ...common.limits import IDLE_GREENLETS

logger = logging.getLogger("supervisor_sio.worker")


def _own_references() -> int:
    """The reference count of an otherwise unreferenced greenlet, as :func:`run` sees it."""
    green = greenlet.greenlet(print)
    return sys.getrefcount(green)


_OWN_REFERENCES = _own_references()

_idle: list[Any] = []
_DONE = object()


def run(task: Callable[..., Any], *args: Any) -> None:
    """Run a task now; return when it has ended or waits. Call it only in the hub.

    Exceptions are logged, except those that end the process.
    """
    if _idle:
        green = _idle.pop()
        green.gr_context = None  # drop the context variables of the previous task
    else:
        green = greenlet.greenlet(_run_tasks, hubs.get_hub().greenlet)
    if green.switch(task, args) is not _DONE:
        return  # the task waits: its greenlet is not reused
    if (
        weakref.getweakrefcount(green)
        or sys.getrefcount(green) > _OWN_REFERENCES
        or len(_idle) >= IDLE_GREENLETS
    ):
        green.throw()
    else:
        _idle.append(green)


def call(task: Callable[..., Any], *args: Any) -> None:
    """Like :func:`run`, in the current greenlet."""
    try:
        task(*args)
    except (KeyboardInterrupt, SystemExit, greenlet.GreenletExit):
        raise
    except BaseException:
        logger.exception("a task failed")


def forget() -> None:
    """In a forked child: drop the idle greenlets, which belong to the parent's hub."""
    _idle.clear()


def _run_tasks(task: Any, args: Any) -> None:
    while True:
        try:
            task(*args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except greenlet.GreenletExit:
            return
        except BaseException:  # an application's eventlet.Timeout is not an Exception
            logger.exception("a handler of the application failed")
        task = args = None
        # The parent is the hub; in a forked child, the greenlet that ends the process.
        task, args = greenlet.getcurrent().parent.switch(_DONE)  # type: ignore[union-attr]
