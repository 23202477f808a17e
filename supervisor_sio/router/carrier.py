"""The interface of a channel to one worker."""

from __future__ import annotations

from typing import Optional, Protocol, Sequence

from ..common.channel import Message
from .pool import Member


class Carrier(Protocol):
    @property
    def member(self) -> Optional[Member]: ...

    def tell(self, message: Message) -> None:
        """Send a message after those that are already queued."""

    def pass_on(self, data: bytes, descriptors: Sequence[int]) -> bool:
        """Send now, past the queue; false when the worker must read first, or is gone."""
