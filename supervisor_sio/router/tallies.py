"""The memory files in which a worker counts the messages that it sends on the relay.

The router reads them when the worker has ended, and tells the receivers how many messages there
were, so that they know what they miss.
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
    """The tallies of one worker: a descriptor for each channel of the relay."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def take(self, message: Message, descriptors: list[int]) -> None:
        """Keep the descriptor of a message ``tally``, in place of the previous one.

        :raises ChannelError: when the message is malformed, or has one tally too many; then its
            descriptors are closed.
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
        """Read and close the tallies; yields each channel with its counts."""
        descriptors, self._descriptors = self._descriptors, {}
        for name, descriptor in descriptors.items():
            sent = tally.read(descriptor)
            os.close(descriptor)
            if sent is not None:
                yield name, sent
