"""A thread that calls in the middle of a call by this one: what locks are there for.

Nothing is left to luck, and no test waits for a time to pass: the other thread runs until its call
returns, or until it waits for the lock. Without the lock it returns in the middle.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Callable

import pytest

#: Seconds for what has to happen.
_PATIENCE = 30


class Other:
    """A call by another thread.

    :param owner: has the lock, as the attribute with this name.
    """

    def __init__(self, owner: Any, call: Callable[..., Any], *args: Any, lock: str = "_lock"):
        self._call, self._args = call, args
        self._outcome: Future[Any] = Future()
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._begun = False
        #: Whether it waited for the lock.
        self.waited = False
        setattr(owner, lock, _Watched(getattr(owner, lock), self._settled))

    def call(self, *_: Any) -> None:
        """Let the other thread call, as far as it gets; once, however often this is called."""
        if not self._begun:
            self.begin()
            self.settle()

    def interrupt(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Let it call when this thread calls the function first."""
        interrupted = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            self.call()
            return interrupted(*args, **options)

        monkeypatch.setattr(owner, name, call)

    def begin(self) -> None:
        self._begun = True
        self._thread.start()

    def settle(self) -> None:
        """Wait until the call has returned, or one of the two threads waits for the lock."""
        assert self._settled.wait(_PATIENCE), "the other thread hangs"
        self.waited = not self._outcome.done()

    def result(self) -> Any:
        """What the call has returned; also waits for its end."""
        assert self._begun, "nothing let it call"
        return self._outcome.result(_PATIENCE)

    def _run(self) -> None:
        try:
            self._outcome.set_result(self._call(*self._args))
        except BaseException as error:
            self._outcome.set_exception(error)
        finally:
            self._settled.set()


class _Watched:
    """A lock that tells when a thread has to wait for it."""

    def __init__(self, lock: Any, waits: threading.Event) -> None:
        self._lock, self._waits = lock, waits

    def acquire(self, blocking: bool = True) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        self._waits.set()
        return blocking and bool(self._lock.acquire())

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: Any) -> None:
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)
