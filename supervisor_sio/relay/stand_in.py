"""Hears for the sessions of a worker that has ended, until another one adopts them.

In the router process. It keeps what is for them, in order, and confirms that to workers that
end.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from functools import partial
from typing import Callable

from ..common.limits import RELAY_KEPT_OVERHEAD, STAND_IN_BYTES, STAND_IN_MESSAGES
from ..common.rundir import ClusterInfo, RunDir
from .message import RelayMessage
from .methods import ANSWERS
from .position import Position
from .publisher import Publisher
from .subscriber import Wait
from .threaded import ThreadSubscriber

logger = logging.getLogger("supervisor_sio.relay")

#: Seconds between words to itself, until the relay carries them.
_PROBE = 0.02


class StandIn:
    """Hears from the beginning, in a thread of its own, until :meth:`stop`.

    :param position: how far those sessions have heard the others.
    :param lives: whether the sender of this name is known to live; called in that thread.
    """

    def __init__(
        self,
        run_dir: RunDir,
        cluster: ClusterInfo,
        position: Position,
        lives: Callable[[str], bool] = lambda sender: False,
    ) -> None:
        self._channel, self._tags = position.channel, position.tags
        #: What is kept, for each part of the position.
        self._kept: list[list[bytes]] = []
        #: Messages over the limit, for each part.
        self._over = [0] * len(position.parts)
        self._messages = self._bytes = 0
        cluster = cluster._replace(channel=position.channel)
        self._publisher = Publisher(run_dir, cluster, f"stand-in-{secrets.token_hex(6)}")
        self._subscriber = _Probing(self._publisher, run_dir, lives=lives)
        self._subscriber.detach()  # it has no clients of its own
        for number, part in enumerate(position.parts):
            self._kept.append([])
            for data in part.kept:
                self._keep_data(number, data)
            self._subscriber.adopt(replace(part, kept=[]), partial(self._keep, number))
        self._subscriber.start()

    @property
    def dropped(self) -> int:
        """Messages for these sessions that are lost for good."""
        return self._subscriber.dropped + sum(self._over)

    def stop(self) -> Position:
        """Hear no more; another worker, or the next one of these, goes on from the result."""
        self._subscriber.stop()
        parts = self._subscriber.save()
        for part, kept, over in zip(parts, self._kept, self._over):
            part.kept[:0] = kept
            part.dropped += over
        self._publisher.close(linger=0)
        return Position(self._channel, parts)

    def _keep(self, number: int, message: RelayMessage) -> None:
        if message.fields["method"] not in ANSWERS:
            self._keep_data(number, message.pack())

    def _keep_data(self, number: int, data: bytes) -> None:
        size = len(data) + RELAY_KEPT_OVERHEAD
        if self._messages == STAND_IN_MESSAGES or self._bytes + size > STAND_IN_BYTES:
            if not any(self._over):
                logger.error(
                    "the sessions of %s, which no worker has adopted yet, lose messages: over %d "
                    "messages or %d bytes",
                    ", ".join(self._tags[:5]),
                    STAND_IN_MESSAGES,
                    STAND_IN_BYTES,
                )
            self._over[number] += 1
            return
        self._messages += 1
        self._bytes += size
        self._kept[number].append(data)


class _Probing(ThreadSubscriber):
    """One that finds out itself when the relay carries what it says."""

    def _wait(self, wait: Wait) -> None:
        if not self.joined:
            self._publisher.probe()
            wait = wait._replace(seconds=min(wait.seconds, _PROBE))
        super()._wait(wait)
