"""Threads and locks of the operating system, also where a library has replaced them.

A process that only emits has one thread that listens; whether eventlet or
gevent have patched the process is not to matter.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, Callable, ContextManager


def _patched_by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _threading() -> Any:
    if "eventlet" in sys.modules:
        from eventlet import patcher

        return patcher.original("threading")
    return threading


def lock() -> ContextManager[Any]:
    if _patched_by_gevent():
        from gevent import monkey

        new: ContextManager[Any] = monkey.get_original("_thread", "allocate_lock")()
    else:
        new = _threading().Lock()
    return new


def start_thread(target: Callable[[], None], name: str) -> None:
    """Run ``target`` in a thread that does not keep the process alive."""
    if _patched_by_gevent():
        from gevent import get_hub

        get_hub().threadpool.spawn(target)
    else:
        _threading().Thread(target=target, name=name, daemon=True).start()
