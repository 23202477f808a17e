"""Threads and locks of the operating system, also where a library has replaced them.

A process that only emits has one thread that listens; whether eventlet or
gevent have patched the process is not to matter.
"""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator


def _patched_by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def original(name: str) -> Any:
    """A module of the standard library without what eventlet has replaced in it."""
    if "eventlet" in sys.modules:
        from eventlet import patcher

        return patcher.original(name)
    return importlib.import_module(name)


def lock() -> Any:
    """A lock of the operating system, to be held for no longer than a moment."""
    if _patched_by_gevent():
        from gevent import monkey

        return monkey.get_original("_thread", "allocate_lock")()
    return original("threading").Lock()


@contextmanager
def holding(lock: Any) -> Iterator[None]:
    """Hold a lock for longer, while other threads and greenlets of this thread want it, too."""
    while not lock.acquire(blocking=False):
        time.sleep(0.005)  # where a library has replaced it, other greenlets run
    try:
        yield
    finally:
        lock.release()


def start_thread(target: Callable[[], None], name: str) -> None:
    """Run ``target`` in a thread that does not keep the process alive."""
    if _patched_by_gevent():
        from gevent import get_hub

        get_hub().threadpool.spawn(target)
    else:
        original("threading").Thread(target=target, name=name, daemon=True).start()
