"""What is emitted to clients whose connect handlers have yet to say yes."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional, Tuple

from ..common.limits import EARLY_OUTPUT, OUTPUT_OBJECT
from ..relay.message import EncodedPacket

#: Its sender, to whom it was, ``None`` for all, and its number there.
Source = Tuple[str, Optional[str], int]


class EarlyEmit(NamedTuple):
    packets: list[EncodedPacket]
    #: Whether it gets an offset, where clients can come back.
    numbered: bool
    source: Optional[Source]


class Early:
    """What is emitted to one of them.

    :param connecting: the task, greenlet or thread that runs the handler.
    """

    __slots__ = ("connecting", "emits", "whole", "ends", "_size")

    def __init__(self, connecting: Any) -> None:
        self.connecting = connecting
        #: The oldest first.
        self.emits: list[EarlyEmit] = []
        #: Whether all of it was kept.
        self.whole = True
        #: Whether somebody has disconnected it.
        self.ends = False
        self._size = 0

    def add(
        self,
        packets: list[EncodedPacket],
        numbered: bool = False,
        source: Optional[Source] = None,
    ) -> bool:
        """Whether it is the first that is too much: it is not kept, nor what comes after it."""
        self._size += sum(map(len, packets)) + OUTPUT_OBJECT
        if self._size > EARLY_OUTPUT:
            was_whole, self.whole = self.whole, False
            return was_whole
        self.emits.append(EarlyEmit(packets, numbered, source))
        return False

    def drop(self, has: Callable[[str, Optional[str], int], bool]) -> None:
        """Those of these senders and numbers need not be sent."""
        self.emits = [one for one in self.emits if one.source is None or not has(*one.source)]
