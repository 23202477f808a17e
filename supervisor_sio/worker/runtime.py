"""What the worker needs of a runtime: a loop, tasks that may wait, and a clock.

All methods of the engine are called in the loop of the runtime, where nothing may wait.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol

from ..engine.deadlines import Deadlines


class Runtime(Protocol):
    """A loop with the sessions of this process."""

    #: Of the sessions and connections of this process.
    deadlines: Deadlines

    def date(self) -> str:
        """The value of the field Date for an answer that is made now (RFC 9110, 5.6.7)."""

    def run(self, task: Callable[..., Any], *args: Any) -> None:
        """Start a task at once, until it is done or waits for something; only in the loop.

        What it raises is logged.
        """

    def soon(self, task: Callable[..., Any], *args: Any) -> None:
        """Start a task in a later turn of the loop, in the order of the calls; from anywhere
        in the thread of the loop.
        """

    def call_soon(self, task: Callable[..., Any], *args: Any) -> None:
        """Call what may not wait in a later turn of the loop, in the loop itself; the same."""
