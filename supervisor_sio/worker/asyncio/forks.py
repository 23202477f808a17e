"""What a child that a handler forks must not have of its worker.

The child has a copy of the loop, and the descriptors of the parent's epoll, and of the pair of
sockets by which a signal wakes the parent: whatever the child would remove there is removed for the
parent. So it gets something else by the same numbers, and what the loop does in the child, at the
end of a transport for example, has no effect.

Only the handler that has forked goes on. When it gives control back to the loop, for which other
clients are waiting, the child ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any, Callable, Optional

from ..forks import end_child

_EPOLL = "anon_inode:[eventpoll]"

#: Modules of asyncio whose frames are those of the loop itself.
_OF_LOOP = ("asyncio.base_events", "asyncio.events", "asyncio.unix_events")

_at_end: Callable[[], None] = print


def wakeup_descriptor() -> int:
    """To what a signal writes."""
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor


def leave_loop(running: CodeType, wakeup: int, at_end: Callable[[], None]) -> None:
    """Go on without the loop. When what has forked is done, the process ends.

    :param running: the code that runs the loop.
    :param wakeup: :func:`wakeup_descriptor` of that loop.
    :param at_end: called before that.
    """
    global _at_end
    _at_end = at_end
    signal.set_wakeup_fd(-1)
    _replace_descriptors(wakeup)
    frame = _first_of_handler(running)
    if frame is not None:  # else it was not a handler: the program goes on
        _Leaving(frame).watch()


def _replace_descriptors(wakeup: int) -> None:
    """Let no epoll of the parent be changed. libzmq has some as well, in threads that are gone."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if wakeup >= 0:
        os.dup2(null, wakeup, inheritable=False)
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            if os.readlink(f"/proc/self/fd/{name}") == _EPOLL:
                for watched in filter(_is_of_pair, _watched_by(name)):
                    os.dup2(null, watched, inheritable=False)
                os.dup2(null, int(name), inheritable=False)
    os.close(null)


def _watched_by(epoll: str) -> list[int]:
    with open(f"/proc/self/fdinfo/{epoll}") as file:
        return [int(line.split()[1]) for line in file if line.startswith("tfd:")]


def _is_of_pair(descriptor: int) -> bool:
    """Whether it is a socket without a name that is connected to such a one."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        return False  # not a socket, or the child has it no more
    try:
        return sock.family == socket.AF_UNIX and sock.getsockname() == sock.getpeername() == ""
    except OSError:
        return False
    finally:
        sock.detach()


def _first_of_handler(running: CodeType) -> Optional[FrameType]:
    """The frame that the loop has called."""
    frame: Optional[FrameType] = sys._getframe()
    inner: list[FrameType] = []
    while frame is not None and frame.f_code is not running:
        inner.append(frame)
        frame = frame.f_back
    if frame is None:
        return None
    while inner and inner[-1].f_globals.get("__name__") in _OF_LOOP:
        inner.pop()
    return inner[-1]


class _Leaving:
    """Sees, as a debugger does, how a frame is left: by its end, an error, or an ``await``."""

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame
        self._error: Optional[BaseException] = None

    def watch(self) -> None:
        self._frame.f_trace = self._trace
        sys.settrace(lambda *_: None)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "exception":
            if arg[0] is not StopIteration:  # which is how a coroutine that it awaits returns
                self._error = arg[1]
        elif event == "line":
            self._error = None  # it was caught
        elif event == "return":
            end(self._error)
        return self._trace


def end(error: Optional[BaseException] = None) -> None:
    """End the child.

    :param error: what the handler has raised.
    """
    sys.settrace(None)
    end_child(error, _at_end)
