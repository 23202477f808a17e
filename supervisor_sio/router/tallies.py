"""The memory in which a worker counts what it sends on the relay.

It is read when the worker has ended: whoever still misses some of that learns how much.
"""

from __future__ import annotations

import os
from typing import Iterator

from ..common import channel
from ..common.channel import ChannelError, Message
from ..common.limits import TALLIES
from ..relay import tally
from ..relay.tally import Sent


class Tallies:
    """Of one worker: a descriptor for each channel of the relay."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def take(self, message: Message, descriptors: list[int]) -> None:
        """Keep the descriptor that came with a message ``tally``, in place of the one before.

        :raises ChannelError: when it is not one, or one too many; none is kept of it.
        """
        name = message.get("channel")
        if not isinstance(name, str) or len(descriptors) != 1:
            channel.close_all(descriptors)
            raise ChannelError("a tally without its channel or memory")
        old = self._descriptors.pop(name, None)
        if old is not None:
            os.close(old)
        if len(self._descriptors) >= TALLIES:
            channel.close_all(descriptors)
            raise ChannelError("one tally too many")
        self._descriptors[name] = descriptors[0]

    def end(self) -> Iterator[tuple[str, Sent]]:
        """What each says, by channel; they are closed."""
        descriptors, self._descriptors = self._descriptors, {}
        for name, descriptor in descriptors.items():
            sent = tally.read(descriptor)
            os.close(descriptor)
            if sent is not None:
                yield name, sent
