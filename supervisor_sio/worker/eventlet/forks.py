"""What a child that a handler forks must not have of its worker.

The child has a copy of everything: the hub with all its greenlets, every client's
connection, the channel to the router. None of that is its own. It gets a hub of its own,
in which only the greenlet that forked goes on.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Optional

import greenlet
from eventlet import hubs

from ..forks import end_child
from . import greenlets

#: What the parent's greenlets refer to. Were it collected, they would run to their ends.
_kept: list[Any] = []


def leave_hub(at_end: Callable[[], None]) -> None:
    """Go on in a new hub. When the greenlet that has forked is done, the process ends.

    :param at_end: called before that.
    """
    old = hubs.get_hub()
    old.abort()  # in case that it was a callback of the hub that has forked
    _kept.append(old)
    hubs.use_hub(type(old))
    _kept.append(hubs.get_hub())
    greenlets.forget()
    _forget_threads()
    current = root = greenlet.getcurrent()
    while root.parent is not None:
        root = root.parent
    if current is root:
        return  # not in a handler: the program goes on
    last = greenlet.greenlet(_wait_for_end, root)
    last.switch(current, at_end)
    current.parent = last
    _kept.append(last)


def _forget_threads() -> None:
    """Let the end of the child wait for none of the parent's threads.

    eventlet takes the hook away by which ``threading`` does this, because green threads
    live on in a child of its own; here they do not. It keeps several of that module.
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
