"""Sessions on their way from this worker to the router, see :mod:`supervisor_sio.common.takeover`.

One batch is on its way at a time. This worker's copies of its descriptors stay open until the
router has it, so a router that is killed meanwhile loses nothing: the next one is sent it again.
"""

from __future__ import annotations

import time
from typing import Any, AsyncIterator, Optional, Protocol, Sequence

from ..common import channel, reasons, takeover
from ..common.channel import Message
from ..common.limits import PASS_TIMEOUT
from .runtime import Event, Runtime

#: Seconds between looks whether there is a router.
_LOOK = 0.02

#: The channel of the relay, the tags, and the place in its streams as a memory file.
Position = tuple[str, list[str], int]

#: The tag of some sessions, how many they are, and their descriptors: a memory file with their
#: states, and their connections.
Batch = tuple[str, int, list[int]]


class Router(Protocol):
    """What sends to the router."""

    @property
    def welcomed(self) -> bool: ...

    def post(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send, if there is a router, as soon as it takes it; the descriptors stay open."""

    def withdraw(self, descriptors: Sequence[int]) -> None:
        """Forget the message with these, if it has not been sent yet."""


class Passing:
    """Passes on the sessions of this worker, once."""

    def __init__(self, runtime: Runtime, router: Router) -> None:
        self._runtime = runtime
        self._router = router
        #: Why it was not all, of :mod:`.reasons`; empty when all of supervisord stops.
        self.failed = reasons.NO_ROUTER
        #: Whether nothing more is to be sent.
        self._over = False
        #: The first batch that the router has yet to get, as it said last; and when it did.
        self._wanted: Optional[int] = None
        self._answered: Event = runtime.event()

    async def run(self, positions: Sequence[Position], batches: AsyncIterator[Batch]) -> bool:
        """Whether the router has all; if not, the descriptors of the last batch are open.

        Those of the positions, and of the other batches, are closed. The next batch is asked
        for when the router has the one before.
        """
        try:
            return await self._run(positions, batches)
        finally:
            channel.close_all([descriptor for _, _, descriptor in positions])
            close: Any = getattr(batches, "aclose", None)
            if close is not None:
                await close()

    async def _run(self, positions: Sequence[Position], batches: AsyncIterator[Batch]) -> bool:
        if await self._announce(positions, time.monotonic() + PASS_TIMEOUT) is None:
            return False
        number = 0
        async for tag, sessions, descriptors in batches:
            message = takeover.sessions(number, tag, sessions)
            if not await self._send(positions, number, message, descriptors):
                return False
            channel.close_all(descriptors)
            number += 1
        self._router.post({"type": "passed"})
        return True

    async def _send(
        self,
        positions: Sequence[Position],
        number: int,
        message: Message,
        descriptors: Sequence[int],
    ) -> bool:
        """Send one batch, to the next router if need be; whether a router has it."""
        deadline = time.monotonic() + PASS_TIMEOUT
        wanted = await self._ask(message, descriptors, deadline)
        while wanted is None or wanted <= number:
            while not (self._router.welcomed or self._over) and time.monotonic() < deadline:
                await self._runtime.sleep(_LOOK)
            if self._over or time.monotonic() >= deadline:
                return False
            wanted = await self._announce(positions, deadline)
            if wanted is not None and wanted <= number:
                wanted = await self._ask(message, descriptors, deadline)
        return True

    async def _announce(self, positions: Sequence[Position], deadline: float) -> Optional[int]:
        """Say that sessions are coming, and what is needed to listen in this worker's place.

        :return: the first batch that the router has not; ``None`` when it takes none.
        """
        wanted: Optional[int] = None
        for name, tags, descriptor in positions:
            wanted = await self._ask(takeover.passing(tags, name), [descriptor], deadline)
            if wanted is None:
                break
        return wanted

    async def _ask(
        self, message: Message, descriptors: Sequence[int], deadline: float
    ) -> Optional[int]:
        """The router's answer to a message; ``None`` when there is none, or it refuses."""
        self._wanted = None
        if self._over or not self._router.welcomed:
            return None
        self._answered = self._runtime.event()
        self._router.post(message, descriptors)
        await self._answered.wait(max(0.0, deadline - time.monotonic()))
        self._router.withdraw(descriptors)
        return self._wanted

    # --- what the link has heard ----------------------------------------------------------

    def wants(self, message: Message) -> None:
        """The router has all batches before one.

        :raises ChannelError: when it does not say which.
        """
        self._wanted = takeover.read_batch(message)
        self._answered.set()

    def end(self, reason: str) -> None:
        """The router takes no more, for a reason as :attr:`failed` has them."""
        self.failed, self._over = reason, True
        self._answered.set()

    def lost(self) -> None:
        """The router is gone; there may be another one."""
        self._answered.set()
