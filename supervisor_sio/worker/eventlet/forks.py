"""Detaches a child process that a handler forks from the worker's hub.

The child has a copy of the hub with all its greenlets, of every client's connection and of the
channel to the router, which all belong to the parent. It gets a new hub, in which only the forking
greenlet continues.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Optional

import greenlet
from eventlet import hubs

from ..forks import end_child
from . import greenlets

#: Keeps the parent's hub and greenlets alive: if collected, the greenlets would run to their ends.
_kept: list[Any] = []


def leave_hub(at_end: Callable[[], None]) -> None:
    """Continue in a new hub. When the forking greenlet has ended, the process exits.

    :param at_end: called before the exit.
    """
    old = hubs.get_hub()
    old.abort()  # in case a callback of the hub has forked
    _kept.append(old)
    hubs.use_hub(type(old))
    _kept.append(hubs.get_hub())
    greenlets.forget()
    _forget_threads()
    current = root = greenlet.getcurrent()
    while root.parent is not None:
        root = root.parent
    if current is root:
        return  # not forked by a handler, so the program continues
    last = greenlet.greenlet(_wait_for_end, root)
    last.switch(current, at_end)
    current.parent = last
    _kept.append(last)


def _forget_threads() -> None:
    """Do not wait for the parent's threads when the child exits.

    eventlet removes the hook by which ``threading`` forgets them in a child, because green threads
    normally survive a fork; here they do not. eventlet keeps several copies of ``threading``.
    """
    for name, module in list(sys.modules.items()):
        if name.rpartition("_module_")[2] == "threading":
            getattr(module, "_shutdown_locks", set()).clear()


def _wait_for_end(current: Any, at_end: Callable[[], None]) -> None:
    error: Optional[BaseException] = None
    try:
        current.switch()
    except BaseException as raised:
        error = raised
    end_child(error, at_end)
