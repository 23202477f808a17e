"""Lets other threads of the operating system call functions in the worker's loop.

eventlet cannot be used from another thread, where it creates a new hub that nobody runs. asyncio
has only ``call_soon_threadsafe``, which does not limit the number of waiting calls.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Callable, Deque, Optional

from ..common.limits import THREAD_CALLS, THREAD_CALLS_BYTES, THREAD_WAIT
from ..relay import native

if TYPE_CHECKING:
    from .runtime import Runtime

#: Seconds between checks whether there is room for one more call.
_LOOK = 0.005

#: Most calls to run in one turn of the loop.
_TURN = 64


class LoopThread:
    """Calls into the current thread's loop; create it in that thread.

    :param make_call: calls a function in the loop, and logs its exceptions; by default the
        runtime's ``run``.
    """

    def __init__(self, runtime: Runtime, make_call: Optional[Callable[..., None]] = None) -> None:
        self._runtime = runtime
        self._make_call = make_call or runtime.run
        # Not at the import of this module: the application may monkey-patch them after that.
        self._os = native.original("os")
        self._time = native.original("time")
        self._get_ident = native.original("threading").get_ident
        self._ident = self._get_ident()
        self._calls: Deque[tuple[int, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._bytes = 0
        self._lock = native.lock()
        self._reader, self._writer = self._os.pipe()
        for descriptor in (self._reader, self._writer):
            self._os.set_blocking(descriptor, False)
            runtime.descriptor_opened(descriptor)
        runtime.add_reader(self._reader, self._awake)

    @property
    def here(self) -> bool:
        """Whether the calling thread is the loop's."""
        same: bool = self._get_ident() == self._ident
        return same

    def run(self, size: int, call: Callable[..., Any], *args: Any) -> None:
        """Call ``call`` in the loop soon; calls of one thread run in order.

        :param size: the bytes of memory that the call holds until then.
        :raises RuntimeError: if too many calls are waiting for ``THREAD_WAIT`` seconds.
        """
        until = self._time.monotonic() + THREAD_WAIT
        while not self._add(size, call, args):
            if self._time.monotonic() > until:
                raise RuntimeError(
                    f"the worker's loop has not run for {THREAD_WAIT:g} seconds: "
                    "does it wait for this thread?"
                )
            self._time.sleep(_LOOK)

    def _add(self, size: int, call: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        with self._lock:
            if len(self._calls) >= THREAD_CALLS or self._bytes > THREAD_CALLS_BYTES:
                return False
            if not self._calls:
                self._os.write(self._writer, b"\0")
            self._calls.append((size, call, args))
            self._bytes += size
            return True

    def _awake(self, *_: object) -> None:
        self._os.read(self._reader, 4096)
        self._run_some()

    def _run_some(self) -> None:
        with self._lock:
            calls = list(islice(self._calls, _TURN))
        done = 0
        try:
            for _, call, args in calls:
                done += 1
                self._make_call(call, *args)
        finally:
            # Only now, so that _add() does not wake the loop while calls are running.
            with self._lock:
                for size, _, _ in calls[:done]:
                    self._calls.popleft()
                    self._bytes -= size
                more = bool(self._calls)
            if more:
                self._runtime.call_soon(self._run_some)
