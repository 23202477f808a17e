"""Detaches a child process that a handler forks from the worker's loop.

The child has a copy of the loop, with the descriptors of the parent's epoll and of the socket pair
through which signals wake the parent. Changes that the child makes there also affect the parent.
So these descriptors are replaced with /dev/null, and what the loop does in the child, for example
when a transport ends, has no effect.

Only the forking handler continues. When it returns control to the loop, which also serves other
clients, the child exits.
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

#: The modules of asyncio whose frames belong to the loop itself.
_OF_LOOP = ("asyncio.base_events", "asyncio.events", "asyncio.unix_events")

_at_end: Callable[[], None] = print


def wakeup_descriptor() -> int:
    """The descriptor to which a signal writes."""
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor


def leave_loop(running: CodeType, wakeup: int, at_end: Callable[[], None]) -> None:
    """Continue without the loop. When the forking handler has returned, the process exits.

    :param running: the code object that runs the loop.
    :param wakeup: the loop's :func:`wakeup_descriptor`.
    :param at_end: called before the exit.
    """
    global _at_end
    _at_end = at_end
    signal.set_wakeup_fd(-1)
    _replace_descriptors(wakeup)
    frame = _first_of_handler(running)
    if frame is not None:  # None: not forked by a handler, so the program continues
        _Leaving(frame).watch()


def _replace_descriptors(wakeup: int) -> None:
    """Replace all epolls of the parent, including libzmq's, whose threads the child lacks."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if wakeup >= 0:
        os.dup2(null, wakeup, inheritable=False)
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of the directory listing, closed by now
            if os.readlink(f"/proc/self/fd/{name}") == _EPOLL:
                for watched in filter(_is_of_pair, _watched_by(name)):
                    os.dup2(null, watched, inheritable=False)
                os.dup2(null, int(name), inheritable=False)
    os.close(null)


def _watched_by(epoll: str) -> list[int]:
    with open(f"/proc/self/fdinfo/{epoll}") as file:
        return [int(line.split()[1]) for line in file if line.startswith("tfd:")]


def _is_of_pair(descriptor: int) -> bool:
    """Whether the descriptor is one of a socket pair: unnamed, and connected to an unnamed one."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        return False  # not a socket, or closed in the child
    try:
        return sock.family == socket.AF_UNIX and sock.getsockname() == sock.getpeername() == ""
    except OSError:
        return False
    finally:
        sock.detach()


def _first_of_handler(running: CodeType) -> Optional[FrameType]:
    """The frame of the handler that the loop has called; ``None`` outside the loop."""
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
    """Ends the child when a frame is left, by a return, an error or an ``await``.

    It traces the frame like a debugger.
    """

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame
        self._error: Optional[BaseException] = None

    def watch(self) -> None:
        self._frame.f_trace = self._trace
        sys.settrace(lambda *_: None)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "exception":
            if arg[0] is not StopIteration:  # raised when an awaited coroutine returns
                self._error = arg[1]
        elif event == "line":
            self._error = None  # the frame has caught the error
        elif event == "return":
            end(self._error)
        return self._trace


def end(error: Optional[BaseException] = None) -> None:
    """Exit the child process.

    :param error: the exception that the handler raised, or ``None``.
    """
    sys.settrace(None)
    end_child(error, _at_end)
