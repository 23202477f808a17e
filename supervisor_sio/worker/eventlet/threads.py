"""Calls from other threads of the operating system, run in the thread whose hub serves.

Nothing of eventlet may be used from another thread: its hub there is one that nobody runs.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque

from eventlet import hubs, patcher

from ...common.limits import THREAD_CALLS, THREAD_CALLS_BYTES, THREAD_WAIT
from ...relay import native
from . import greenlets

_os: Any = patcher.original("os")
_time: Any = patcher.original("time")
_get_ident: Callable[[], int] = patcher.original("threading").get_ident

#: Seconds between looks whether there is room for one more call.
_LOOK = 0.005

#: Calls in a row before others have a turn.
_TURN = 64


class HubThread:
    """This thread and its hub; made where the hub runs."""

    def __init__(self) -> None:
        self._ident = _get_ident()
        self._calls: Deque[tuple[int, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._bytes = 0
        self._lock = native.lock()
        self._hub = hubs.get_hub()
        reader, self._writer = _os.pipe()
        for descriptor in (reader, self._writer):
            _os.set_blocking(descriptor, False)
            hubs.notify_opened(descriptor)
        listener = self._hub.add(self._hub.READ, reader, self._awake, lambda *error: None, None)
        listener.greenlet = self._hub.greenlet  # not that of some request

    @property
    def here(self) -> bool:
        """Whether the thread that asks is the one of the hub."""
        return _get_ident() == self._ident

    def run(self, size: int, call: Callable[..., Any], *args: Any) -> None:
        """Have it called there, soon, in the order of the calls of a thread.

        :param size: the bytes that it keeps until then.
        :raises RuntimeError: when too much has been waiting for too long.
        """
        until = _time.monotonic() + THREAD_WAIT
        while not self._add(size, call, args):
            if _time.monotonic() > until:
                raise RuntimeError(
                    f"the thread that serves has not run for {THREAD_WAIT:g} seconds: "
                    "does it wait for this one?"
                )
            _time.sleep(_LOOK)

    def _add(self, size: int, call: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        with self._lock:
            if len(self._calls) >= THREAD_CALLS or self._bytes > THREAD_CALLS_BYTES:
                return False
            if not self._calls:
                _os.write(self._writer, b"\0")
            self._calls.append((size, call, args))
            self._bytes += size
            return True

    def _awake(self, reader: int) -> None:
        _os.read(reader, 4096)
        self._run_some()

    def _run_some(self) -> None:
        for _ in range(_TURN):
            with self._lock:
                if not self._calls:
                    return
                size, call, args = self._calls.popleft()
                self._bytes -= size
            greenlets.run(call, *args)
        self._hub.schedule_call_global(0, self._run_some)
