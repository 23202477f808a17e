"""Threads and locks of the operating system, even if a library has patched the modules.

A process that only emits has one thread that receives, whether eventlet or gevent have patched the
process or not.
"""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator

#: Seconds between two looks of a greenlet whether an event of another thread was set: the first, as
#: an answer takes a few milliseconds, and the longest pause.
_FIRST_LOOK = 0.001
_LAST_LOOK = 0.02


def _patched_by_gevent(name: str = "threading") -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched(name))


def _patched_by_eventlet(name: str) -> bool:
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and bool(patcher.is_monkey_patched(name))


def original(name: str) -> Any:
    """A module of the standard library, unpatched by eventlet."""
    if "eventlet" in sys.modules:
        from eventlet import patcher

        return patcher.original(name)
    return importlib.import_module(name)


def lock() -> Any:
    """A lock of the operating system, to be held for moments only."""
    if _patched_by_gevent():
        from gevent import monkey

        return monkey.get_original("_thread", "allocate_lock")()
    return original("threading").Lock()


@contextmanager
def holding(lock: Any) -> Iterator[None]:
    """Hold a lock for longer, while other threads and greenlets may want it, too."""
    while not lock.acquire(blocking=False):
        time.sleep(0.005)  # if it is patched, other greenlets run
    try:
        yield
    finally:
        lock.release()


class Event:
    """An event that is set once, in any thread.

    A waiting greenlet lets the other greenlets of its thread run.
    """

    def __init__(self) -> None:
        self._happened = False
        # The operating system's, unless that would block other greenlets.
        patched = _patched_by_eventlet("time") or _patched_by_gevent("time")
        self._event = None if patched else original("threading").Event()

    def set(self) -> None:
        self._happened = True
        if self._event is not None:
            self._event.set()

    def wait(self, timeout: float) -> None:
        """:param timeout: seconds to wait at most."""
        if self._event is not None:
            self._event.wait(timeout)
            return
        # Another thread cannot wake a greenlet: it looks less and less often.
        until, pause = time.monotonic() + timeout, _FIRST_LOOK
        while not self._happened and time.monotonic() < until:
            time.sleep(pause)
            pause = min(pause * 1.5, _LAST_LOOK)


def start_thread(target: Callable[[], None], name: str) -> None:
    """Run ``target`` in a thread that does not keep the process alive."""
    if _patched_by_gevent():
        from gevent import get_hub

        get_hub().threadpool.spawn(target)
    else:
        original("threading").Thread(target=target, name=name, daemon=True).start()


def run_in_thread(call: Callable[[], None], name: str) -> None:
    """Run ``call`` in another thread, and block this one until it has returned.

    Unlike ``call`` in this thread it lets no other greenlet of this thread run.
    """
    thread = original("threading").Thread(target=call, name=name, daemon=True)
    thread.start()
    thread.join()
