"""What is emitted to clients whose connect handlers have yet to say yes."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional

from ..common.limits import EARLY_OUTPUT, OUTPUT_OBJECT
from ..relay.message import EncodedPacket


class EarlyEmit(NamedTuple):
    packets: list[EncodedPacket]
    #: Whether it gets an offset, where clients can come back.
    numbered: bool
    #: Its sender, and its number among what that one has sent to all, if it was.
    source: Optional[tuple[str, int]]


class Early:
    """What is emitted to one of them.

    :param connecting: the task, greenlet or thread that runs the handler.
    """

    __slots__ = ("connecting", "emits", "whole", "_size")

    def __init__(self, connecting: Any) -> None:
        self.connecting = connecting
        #: The oldest first.
        self.emits: list[EarlyEmit] = []
        #: Whether all of it was kept.
        self.whole = True
        self._size = 0

    def add(
        self,
        packets: list[EncodedPacket],
        numbered: bool = False,
        source: Optional[tuple[str, int]] = None,
    ) -> bool:
        """Whether it was kept."""
        self._size += sum(map(len, packets)) + OUTPUT_OBJECT
        if self._size > EARLY_OUTPUT:
            self.whole = False
            return False
        self.emits.append(EarlyEmit(packets, numbered, source))
        return True

    def drop(self, has: Callable[[str, int], bool]) -> None:
        """Those of these senders and numbers need not be sent."""
        self.emits = [one for one in self.emits if one.source is None or not has(*one.source)]
