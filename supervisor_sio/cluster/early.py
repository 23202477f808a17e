"""What is emitted to clients whose connect handlers have not returned yet."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional, Tuple

from ..common.limits import EARLY_OUTPUT, OUTPUT_OBJECT
from ..relay.message import EncodedPacket

#: Its sender, the tag it was sent to (``None``: all), and its number in that stream.
Source = Tuple[str, Optional[str], int]


class EarlyEmit(NamedTuple):
    packets: list[EncodedPacket]
    #: Whether it gets an offset, if the client can recover.
    numbered: bool
    source: Optional[Source]


class Early:
    """The emits to one such client.

    :param connecting: the task, greenlet or thread that runs the connect handler.
    """

    __slots__ = ("connecting", "emits", "whole", "ends", "_size")

    def __init__(self, connecting: Any) -> None:
        self.connecting = connecting
        #: The oldest first.
        self.emits: list[EarlyEmit] = []
        #: Whether all of it was kept.
        self.whole = True
        #: Whether the client is to be disconnected as soon as it is connected.
        self.ends = False
        self._size = 0

    def add(
        self,
        packets: list[EncodedPacket],
        numbered: bool = False,
        source: Optional[Source] = None,
    ) -> bool:
        """Keep an emit. Return whether it is the first that is too much: it and later ones are
        dropped."""
        self._size += sum(map(len, packets)) + OUTPUT_OBJECT
        if self._size > EARLY_OUTPUT:
            was_whole, self.whole = self.whole, False
            return was_whole
        self.emits.append(EarlyEmit(packets, numbered, source))
        return False

    def drop(self, has: Callable[[str, Optional[str], int], bool]) -> None:
        """Drop the emits that the client has received already, by sender, tag and number."""
        self.emits = [one for one in self.emits if one.source is None or not has(*one.source)]
