"""Greenlets for what comes in the hub: one that is done is used again.

To make a greenlet takes longer than all the rest of handling a short event:
since Python 3.11 each maps a stack of its own and unmaps it at its end. Who
runs in one must not find traces of who ran before, so a greenlet is used again
only if nobody knows of it: ``threading.local``, as eventlet patches it, keeps a
weak reference to each greenlet that has used it.
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
    """References to a greenlet that nobody else has, as :func:`run` counts them."""
    green = greenlet.greenlet(print)
    return sys.getrefcount(green)


_OWN_REFERENCES = _own_references()

_idle: list[Any] = []
_DONE = object()


def run(task: Callable[..., Any], *args: Any) -> None:
    """Run it at once, until it is done or waits for something. Only in the hub.

    What it raises is logged, but for what ends the process.
    """
    if _idle:
        green = _idle.pop()
        green.gr_context = None  # no context variables of the task before
    else:
        green = greenlet.greenlet(_run_tasks, hubs.get_hub().greenlet)
    if green.switch(task, args) is not _DONE:
        return  # it waits; who resumes it lets it go when it is done
    if (
        weakref.getweakrefcount(green)
        or sys.getrefcount(green) > _OWN_REFERENCES
        or len(_idle) >= IDLE_GREENLETS
    ):
        green.throw()
    else:
        _idle.append(green)


def call(task: Callable[..., Any], *args: Any) -> None:
    """As :func:`run`, in the greenlet that calls."""
    try:
        task(*args)
    except (KeyboardInterrupt, SystemExit, greenlet.GreenletExit):
        raise
    except BaseException:
        logger.exception("a task failed")


def forget() -> None:
    """In a forked child: those that wait here are of the parent's hub."""
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
        # The parent is the hub; in a forked child, what ends the process.
        task, args = greenlet.getcurrent().parent.switch(_DONE)  # type: ignore[union-attr]
