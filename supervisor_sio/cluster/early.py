"""What is emitted to clients whose connect handlers have yet to say yes."""

from __future__ import annotations

from typing import Any

from ..common.limits import EARLY_OUTPUT, OUTPUT_OBJECT
from ..relay.message import EncodedPacket


class Early:
    """What is emitted to one of them.

    :param connecting: the task, greenlet or thread that runs the handler.
    """

    __slots__ = ("connecting", "emits", "whole", "_size")

    def __init__(self, connecting: Any) -> None:
        self.connecting = connecting
        #: And whether it gets an offset, where clients can come back.
        self.emits: list[tuple[list[EncodedPacket], bool]] = []
        #: Whether all of it was kept.
        self.whole = True
        self._size = 0

    def add(self, packets: list[EncodedPacket], numbered: bool = False) -> bool:
        """Whether it was kept."""
        self._size += sum(map(len, packets)) + OUTPUT_OBJECT
        if self._size > EARLY_OUTPUT:
            self.whole = False
            return False
        self.emits.append((packets, numbered))
        return True
