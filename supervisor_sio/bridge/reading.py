"""What the bridge sends to its relay while it handles messages that have arrived together.

The publisher sends the messages of one turn of a loop together. The thread that reads from Redis
has no loop: a turn lasts as long as more messages are there to read.
"""

from __future__ import annotations

import threading
from typing import Callable, Optional

from ..relay.publisher import CallSoon


class ReadingTurn:
    """A turn of one thread; other threads may publish meanwhile, and their messages do not wait."""

    def __init__(self) -> None:
        self._thread: Optional[int] = None
        self._calls: list[Callable[[], None]] = []

    def begin(self) -> None:
        """The calling thread has a message to handle; further ones belong to the same turn."""
        self._thread = threading.get_ident()

    def call_soon(self) -> Optional[CallSoon]:
        """How to run a call at the end of this turn; ``None`` in another thread."""
        return self._calls.append if self._thread == threading.get_ident() else None

    def end(self) -> None:
        """There is nothing more to read at present."""
        self._thread = None
        calls, self._calls = self._calls, []
        for call in calls:
            call()
