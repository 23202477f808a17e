"""Sends this worker's sessions to the router, see :mod:`supervisor_sio.common.takeover`.

It sends one batch at a time, and keeps the batch's descriptors open until the router confirms it.
So no session is lost if the router is killed meanwhile: the batch is sent again to the next router.
"""

from __future__ import annotations

import time
from typing import Any, AsyncIterator, Optional, Protocol, Sequence

from ..common import channel, reasons, takeover
from ..common.channel import Message
from ..common.limits import PASS_TIMEOUT
from .runtime import Event, Runtime

#: Seconds between checks whether a router is connected.
_LOOK = 0.02

#: The channel of the relay, the tags, and a memory file with the positions in its streams.
Position = tuple[str, list[str], int]

#: The tag of some sessions, their number, and descriptors: of a memory file with their states,
#: then of their connections.
Batch = tuple[str, int, list[int]]


class Router(Protocol):
    """Sends messages to the router."""

    @property
    def welcomed(self) -> bool: ...

    @property
    def alone(self) -> bool: ...

    def post(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message as soon as the router takes it; without a router, drop it.

        The descriptors stay open.
        """

    def withdraw(self, descriptors: Sequence[int]) -> None:
        """Drop the message with these descriptors, unless it has been sent."""


class Passing:
    """Passes on the sessions of this worker, once."""

    def __init__(self, runtime: Runtime, router: Router) -> None:
        self._runtime = runtime
        self._router = router
        #: Why not all sessions were passed on, see :mod:`.reasons`; empty if supervisord stops.
        self.failed = reasons.NO_ROUTER
        #: Whether the router refuses further batches.
        self._over = False
        #: The number of the next batch, from the router's last answer; and the event of its answer.
        self._wanted: Optional[int] = None
        self._answered: Event = runtime.event()

    async def run(self, positions: Sequence[Position], batches: AsyncIterator[Batch]) -> bool:
        """Send all batches; the next one is requested when the router has the one before.

        The descriptors of the positions and of confirmed batches are closed.

        :return: whether the router has all batches. If not, the caller owns the descriptors of the
            last one.
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
        """Send one batch, again to the next router if one ends; return whether a router has it."""
        deadline = time.monotonic() + PASS_TIMEOUT
        wanted = await self._ask(message, descriptors, deadline)
        while wanted is None or wanted <= number:
            while not (self._router.welcomed or self._over) and time.monotonic() < deadline:
                if self._router.alone:
                    return False
                await self._runtime.sleep(_LOOK)
            if self._over or time.monotonic() >= deadline:
                return False
            wanted = await self._announce(positions, deadline)
            if wanted is not None and wanted <= number:
                wanted = await self._ask(message, descriptors, deadline)
        return True

    async def _announce(self, positions: Sequence[Position], deadline: float) -> Optional[int]:
        """Announce the sessions, with what a stand-in needs to receive emits for their clients.

        :return: the number of the first batch that the router lacks; ``None`` if it takes none.
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
        """Send a message; return the router's answer, ``None`` if it refuses or does not answer."""
        self._wanted = None
        if self._over or not self._router.welcomed:
            return None
        self._answered = self._runtime.event()
        self._router.post(message, descriptors)
        await self._answered.wait(max(0.0, deadline - time.monotonic()))
        self._router.withdraw(descriptors)
        return self._wanted

    # --- called by the link ---------------------------------------------------------------

    def wants(self, message: Message) -> None:
        """The router has all batches before the one that it names.

        :raises ChannelError: if the message is malformed.
        """
        self._wanted = takeover.read_batch(message)
        self._answered.set()

    def end(self, reason: str) -> None:
        """The router takes no further batch.

        :param reason: see :attr:`failed`.
        """
        self.failed, self._over = reason, True
        self._answered.set()

    def lost(self) -> None:
        """The router has ended; another one may start."""
        self._answered.set()
