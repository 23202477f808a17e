"""The :class:`..runtime.Runtime` on asyncio's loop, or uvloop's.

The worker's calls run in their own contexts. Otherwise a connection that was first read in a task
of the application would keep that task's context variables.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextvars import Context
from types import CodeType, CoroutineType
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Coroutine, Iterable, Optional, TypeVar

from ...engine.http import Head
from ..base_runtime import BaseRuntime, logger
from ..ending import end_in_time
from ..loop_thread import LoopThread
from ..runtime import DescriptorOwner, Watch
from . import forks
from .apart import error_of, run_apart
from .uv_readers import UvReaders

if TYPE_CHECKING:
    from ..connection import Connection
    from .asgi import Application

T = TypeVar("T")

#: Seconds to wait for cancelled tasks at the end of the process.
_LAST_TASKS = 1.0

_FAILED = "a handler of the application failed"

#: An eager task saves a turn of the loop, and half of a task's cost.
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


def new_loop() -> asyncio.AbstractEventLoop:
    """A new loop: uvloop's if it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _Watch:
    """A descriptor that the loop watches."""

    __slots__ = ("_remove", "_descriptor")

    def __init__(self, remove: Callable[[int], object], descriptor: int) -> None:
        self._remove: Optional[Callable[[int], object]] = remove
        self._descriptor = descriptor

    def cancel(self) -> None:
        remove, self._remove = self._remove, None
        if remove is not None:
            remove(self._descriptor)


class _Event:
    """:class:`..runtime.Event`"""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.set = self._event.set
        self.is_set = self._event.is_set

    async def wait(self, timeout: Optional[float] = None) -> bool:
        try:
            await asyncio.wait_for(self._event.wait(), timeout)
        except asyncio.TimeoutError:
            pass
        return self._event.is_set()


class _Task:
    """A task of the worker."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    def cancel(self) -> None:
        self._task.cancel()


class AsyncioRuntime(BaseRuntime):
    """An event loop, and the state that all its connections share.

    :param loop: by default a new one.
    """

    _of_this_process: ClassVar[Optional[AsyncioRuntime]] = None

    def __init__(self, loop: Optional[asyncio.AbstractEventLoop] = None) -> None:
        super().__init__()
        self.loop = loop or new_loop()
        # One bound method each, shared by all watches.
        self._remove_reader = self.loop.remove_reader
        is_uv = type(self.loop).__module__.partition(".")[0] == "uvloop"
        self._uv_readers = UvReaders(self.loop, self._add_reader) if is_uv else None
        self._remove_writer = self.loop.remove_writer
        #: Answers requests that are not the engine's; set before the first connection.
        self.application: Optional[Application] = None
        #: References to running tasks: the loop keeps only weak ones.
        self._tasks: set[asyncio.Task[Any]] = set()
        # Two contexts, because a context cannot be entered twice: for calls, and for adding calls.
        self._calling, self._adding = Context(), Context()
        #: The descriptor to which a signal writes to wake the loop.
        self._wakeup = -1
        #: Whether this is a child process that a handler has forked.
        self._left = False

    @classmethod
    def of_this_process(cls) -> AsyncioRuntime:
        """The runtime of this process, created by the first call, in the main thread."""
        if cls._of_this_process is None:
            cls._of_this_process = cls()
            # For objects that an application creates during its import.
            asyncio.set_event_loop(cls._of_this_process.loop)
        return cls._of_this_process

    # --- tasks and calls -------------------------------------------------------------

    def run(self, task: Callable[..., Any], *args: Any) -> None:
        """:meth:`.Runtime.run`: a coroutine continues as a task of the loop."""
        try:
            result = task(*args)
        except Exception as error:
            self.log(logger, logging.ERROR, _FAILED, exc_info=error)
            result = None
        if result.__class__ is CoroutineType:
            self._start(result)
        if self._left:
            forks.end()

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=self.loop, **_EAGER)
        if task.done():
            self._log_failure(task)
        else:
            self._tasks.add(task)
            task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._log_failure(task)

    def _log_failure(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
                self.log(logger, logging.ERROR, _FAILED, exc_info=error)

    def run_apart(
        self,
        name: str,
        function: Callable[[], Any],
        may_run: Callable[[], bool],
        ended: Callable[[Optional[BaseException]], None],
    ) -> Watch:
        # Its exceptions are passed to ``ended``, and it has its own context variables.
        task = Context().run(self.loop.create_task, run_apart(function, may_run))
        task.add_done_callback(lambda task: self.call_soon(ended, error_of(task)))
        return _Task(task)

    def soon(self, task: Callable[..., Any], *args: Any) -> None:
        self.call_soon(self.run, task, *args)

    def _in_next_turn(self, call: Callable[[], None]) -> None:
        self.loop.call_soon(call, context=self._calling)

    def call_later(self, seconds: float, task: Callable[..., Any], *args: Any) -> Watch:
        return self.loop.call_later(seconds, self._call, task, args, context=self._calling)

    def _call(self, task: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            task(*args)
        except Exception as error:
            self.log(logger, logging.ERROR, "error in a call of the loop", exc_info=error)

    def log(
        self,
        logger: logging.Logger,
        level: int,
        message: str,
        *args: Any,
        exc_info: Optional[BaseException] = None,
    ) -> None:
        logger.log(level, message, *args, exc_info=exc_info)

    # --- descriptors -----------------------------------------------------------------

    def descriptor_opened(self, descriptor: int) -> None:
        """Do nothing: a watch is cancelled before its descriptor is closed."""

    def add_reader(
        self, descriptor: int, call: Callable[..., None], owner: Optional[DescriptorOwner] = None
    ) -> Watch:
        if self._uv_readers is not None:
            return self._uv_readers.add(descriptor, call)
        self._add_reader(descriptor, call)
        return _Watch(self._remove_reader, descriptor)

    def _add_reader(self, descriptor: int, call: Callable[..., None]) -> None:
        self._adding.run(self.loop.add_reader, descriptor, call)

    def add_writer(
        self, descriptor: int, call: Callable[..., None], owner: Optional[DescriptorOwner] = None
    ) -> Watch:
        self._adding.run(self.loop.add_writer, descriptor, call)
        return _Watch(self._remove_writer, descriptor)

    # --- the life of the worker ------------------------------------------------------

    def event(self) -> _Event:
        return _Event()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Watch:
        return _Task(self._start(coroutine))

    def run_until_complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        self.loop.call_soon(self._note_wakeup)
        status: object = 1
        try:
            result = status = self.loop.run_until_complete(coroutine)
            return result
        finally:
            self._end_tasks()
            if self is self._of_this_process:
                end_in_time(status if isinstance(status, int) else 0)

    def _note_wakeup(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._wakeup = forks.wakeup_descriptor()

    def _end_tasks(self) -> None:
        """Cancel all running tasks like :func:`asyncio.run`, but wait for them for limited time."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=_LAST_TASKS))
        closing = self.loop.create_task(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(asyncio.wait((closing,), timeout=_LAST_TASKS))

    def on_signal(self, numbers: Iterable[int], call: Callable[[int], None]) -> None:
        for number in numbers:
            self.loop.add_signal_handler(number, call, number)

    def leave_in_child(self, at_end: Callable[[], None]) -> None:
        self._left = True
        self._leave(AsyncioRuntime.run_until_complete.__code__, at_end)

    def _leave(self, running: CodeType, at_end: Callable[[], None]) -> None:
        forks.leave_loop(running, self._wakeup, at_end)

    def _make_threads(self) -> LoopThread:
        return LoopThread(self)

    # --- the application -----------------------------------------------------------------

    async def start_up(self, app: Any) -> None:
        from .asgi import Application  # uvicorn is not needed where threads run WSGI

        self.application = Application(app, self)
        await self.application.start_up()

    def lifespan_state(self) -> dict[str, Any]:
        return {} if self.application is None else self.application.state

    async def shut_down(self) -> None:
        if self.application is not None:
            await self.application.shut_down()

    @property
    def busy(self) -> bool:
        return self.application is not None and self.application.busy

    def serve(self, connection: Connection, head: Head) -> None:
        assert self.application is not None
        self.application.serve(connection, head)
