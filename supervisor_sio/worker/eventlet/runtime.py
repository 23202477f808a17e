"""The :class:`..runtime.Runtime` on eventlet's hub.

Each coroutine runs in its own greenlet, and blocks it while it waits.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Coroutine, Iterable, Optional, TypeVar

import eventlet
from eventlet import event, hubs, patcher
from greenlet import getcurrent

from ...common.blocking import run_blocking
from ...engine.http import Head
from ..base_runtime import BaseRuntime, write_log
from ..loop_thread import LoopThread
from ..runtime import DescriptorOwner, Watch
from . import forks, greenlets, wsgi
from .apart import Apart

if TYPE_CHECKING:
    from ..connection import Connection

# The original module: patched functions may wait, which is not allowed in the hub.
_os: Any = patcher.original("os")

T = TypeVar("T")


class _Watch:
    """A listener of the hub, and the callback for a descriptor that other code has closed."""

    __slots__ = ("_hub", "_listener", "_owner")

    def __init__(
        self,
        hub: Any,
        kind: str,
        descriptor: int,
        call: Callable[..., None],
        owner: Optional[DescriptorOwner],
    ) -> None:
        self._hub = hub
        self._owner = owner
        self._listener = hub.add(kind, descriptor, call, self, None)
        # Otherwise the listener would keep a request's greenlet for the life of the connection.
        self._listener.greenlet = hub.greenlet

    def cancel(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._hub.remove(listener)

    def __call__(self, *error: object) -> None:
        self._listener = None
        if self._owner is not None:
            self._owner.descriptor_lost()


class _Event:
    """:class:`..runtime.Event`"""

    def __init__(self) -> None:
        self._event = event.Event()

    def set(self) -> None:
        if not self._event.ready():
            self._event.send()

    def is_set(self) -> bool:
        return bool(self._event.ready())

    async def wait(self, timeout: Optional[float] = None) -> bool:
        with eventlet.Timeout(timeout, False):
            self._event.wait()
        return self.is_set()


class _Task:
    """A coroutine in its own greenlet."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._green = eventlet.spawn(greenlets.call, run_blocking, coroutine)

    def cancel(self) -> None:
        self._green.kill()


class HubRuntime(BaseRuntime):
    """The hub of the creating thread, and the state that all its connections share."""

    _of_this_process: ClassVar[Optional[HubRuntime]] = None

    def __init__(self) -> None:
        super().__init__()
        self.hub = hubs.get_hub()
        #: Both ends of the pipe through which signals arrive.
        self._signals: tuple[int, ...] = ()

    @classmethod
    def of_this_process(cls) -> HubRuntime:
        """The runtime of this process, created by the first call, in the main thread."""
        if cls._of_this_process is None:
            cls._of_this_process = cls()
        return cls._of_this_process

    def begin(self) -> None:
        """Prepare for serving: the application may have selected another hub meanwhile."""
        before, self.hub = self.hub, hubs.get_hub()
        if self._calls and self.hub is not before:
            self._in_next_turn(self._call_all)

    # --- tasks and calls -----------------------------------------------------------

    def run(self, task: Callable[..., Any], *args: Any) -> None:
        if getcurrent() is self.hub.greenlet:
            greenlets.run(task, *args)
        else:
            greenlets.call(task, *args)

    def run_apart(
        self,
        name: str,
        function: Callable[[], Any],
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
    ) -> Watch:
        return Apart(function, may_run, ended)

    def soon(self, task: Callable[..., Any], *args: Any) -> None:
        self.call_soon(greenlets.run, task, *args)

    def _in_next_turn(self, call: Callable[[], None]) -> None:
        self.hub.schedule_call_global(0, call)

    def call_later(self, seconds: float, task: Callable[..., Any], *args: Any) -> Watch:
        timer: Watch = self.hub.schedule_call_global(seconds, task, *args)
        return timer

    def log(
        self,
        logger: logging.Logger,
        level: int,
        message: str,
        *args: Any,
        exc_info: Optional[BaseException] = None,
    ) -> None:
        # In a greenlet: one of the application's logging handlers may have to wait for its lock.
        self.run(write_log, logger, level, message, args, exc_info)

    # --- descriptors -----------------------------------------------------------------

    def descriptor_opened(self, descriptor: int) -> None:
        hubs.notify_opened(descriptor)

    def add_reader(
        self, descriptor: int, call: Callable[..., None], owner: Optional[DescriptorOwner] = None
    ) -> Watch:
        return _Watch(self.hub, self.hub.READ, descriptor, call, owner)

    def add_writer(
        self, descriptor: int, call: Callable[..., None], owner: Optional[DescriptorOwner] = None
    ) -> Watch:
        return _Watch(self.hub, self.hub.WRITE, descriptor, call, owner)

    # --- the life of the worker ------------------------------------------------------

    def event(self) -> _Event:
        return _Event()

    async def sleep(self, seconds: float) -> None:
        eventlet.sleep(seconds)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Watch:
        return _Task(coroutine)

    def run_until_complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run_blocking(coroutine)

    def on_signal(self, numbers: Iterable[int], call: Callable[[int], None]) -> None:
        watched = set(numbers)
        self._signals = reader, writer = _os.pipe()
        for descriptor in self._signals:
            _os.set_blocking(descriptor, False)
            hubs.notify_opened(descriptor)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in watched:
            signal.signal(number, _ignore)

        def read(_descriptor: int) -> None:
            for number in _os.read(reader, 512):
                if number in watched:
                    call(number)

        self.add_reader(reader, read)

    def leave_in_child(self, at_end: Callable[[], None]) -> None:
        forks.leave_hub(at_end)
        for descriptor in self._signals:
            _os.close(descriptor)

    # --- requests ----------------------------------------------------------------------

    def serve(self, connection: Connection, head: Head) -> None:
        greenlets.run(wsgi.serve, connection, head)

    def _make_threads(self) -> LoopThread:
        return LoopThread(self)


def _ignore(*_: Any) -> None:
    """An empty signal handler: Python writes the signal to the pipe that the hub reads."""
