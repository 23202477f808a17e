"""What is emitted to clients whose connect handlers have yet to say yes."""

from __future__ import annotations

from greenlet import getcurrent

from ..common.limits import EARLY_OUTPUT, OUTPUT_OBJECT
from ..relay.message import EncodedPacket


class Early:
    """What is emitted to one of them."""

    def __init__(self) -> None:
        #: Who runs the handler.
        self.connecting = getcurrent()
        self.emits: list[list[EncodedPacket]] = []
        self._size = 0

    def add(self, packets: list[EncodedPacket]) -> bool:
        """Whether it was kept."""
        self._size += sum(map(len, packets)) + OUTPUT_OBJECT
        if self._size > EARLY_OUTPUT:
            return False
        self.emits.append(packets)
        return True
