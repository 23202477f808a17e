"""Receives for the sessions of a worker that has ended, until another one adopts them.

It runs in the router process. It keeps their messages, in order, and confirms them to workers that
end: as soon as they are stored where they outlive this process, see :mod:`.checkpoints`.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Mapping, Optional

from ..common.limits import RELAY_KEPT_OVERHEAD, STAND_IN_BYTES, STAND_IN_MESSAGES
from ..common.rundir import ClusterInfo, RunDir
from .checkpoints import Checkpoints
from .message import RelayMessage
from .methods import ANSWERS
from .position import Held, Position
from .publisher import Publisher
from .subscriber import Wait
from .threaded import ThreadSubscriber

logger = logging.getLogger("supervisor_sio.relay")

#: Seconds between two probes, until the relay carries them.
_PROBE = 0.02


class StandIn:
    """Receives from its creation on, in a thread of its own, until :meth:`stop`.

    :param position: of these sessions.
    :param lives: whether a sender is known to live; called in that thread.
    :param keep: gets the present result of :meth:`stop`, as the descriptor of a file of
        :meth:`.Position.write`, which it owns then; it calls :meth:`kept` once the file is stored
        where it outlives this process. Called in that thread. ``None`` when nothing outlives this
        process.
    :param confirms: whether it confirms to senders what it has received. If not, another process
        receives the same.
    """

    def __init__(
        self,
        run_dir: RunDir,
        cluster: ClusterInfo,
        position: Position,
        lives: Callable[[str], bool] = lambda sender: False,
        keep: Optional[Callable[[int], None]] = None,
        confirms: bool = True,
    ) -> None:
        self._keep_elsewhere = keep
        self._confirms = confirms
        checkpoints = None if keep is None else Checkpoints(self._begin_checkpoint)
        self._checkpoints = checkpoints
        self._channel, self._tags = position.channel, position.tags
        #: By part of the position: the messages that are kept.
        self._kept: list[list[Held]] = []
        #: By part of the position: the number of messages over the limit.
        self._over = [0] * len(position.parts)
        self._messages = self._bytes = 0
        cluster = cluster._replace(channel=position.channel)
        self._publisher = Publisher(run_dir, cluster, f"stand-in-{secrets.token_hex(6)}")
        self._subscriber = _Probing(self._publisher, run_dir, lives, checkpoints, confirms)
        self._subscriber.detach()  # it has no clients of its own
        for number, part in enumerate(position.parts):
            self._kept.append([])
            for held in part.kept:
                self._keep_held(number, held)
            self._subscriber.adopt(replace(part, kept=[]), partial(self._keep, number))
        self._subscriber.start()

    @property
    def dropped(self) -> int:
        """Messages for these sessions that are lost for good."""
        return self._subscriber.dropped + sum(self._over)

    def stop(self) -> Position:
        """Stop receiving. Return the position from which a worker, or another stand-in, goes on."""
        self._subscriber.stop()
        position = self._position()
        self._publisher.close(linger=0)
        return position

    def discard(self) -> None:
        """Stop receiving, when nobody goes on from here."""
        self._subscriber.stop()
        self._publisher.close(linger=0)

    def kept(self) -> None:
        """The file that ``keep`` got last is stored."""
        if self._checkpoints is not None:
            self._checkpoints.end()

    def _position(self) -> Position:
        parts = self._subscriber.save()
        for part, kept, over in zip(parts, self._kept, self._over):
            part.kept[:0] = kept
            part.dropped += over
            part.has_gap |= over > 0
        return Position(self._channel, parts)

    def _begin_checkpoint(self) -> None:
        assert self._keep_elsewhere is not None
        try:
            self._keep_elsewhere(self._position().write())
        except OSError as error:  # then they are kept in this process only
            logger.warning("messages for held sessions are kept in the router only: %s", error)
            self.kept()

    def _keep(self, number: int, message: RelayMessage) -> None:
        if message.fields["method"] not in ANSWERS:
            self._keep_held(number, Held(message.stream, message.pack()))

    def _keep_held(self, number: int, held: Held) -> None:
        size = len(held.data) + RELAY_KEPT_OVERHEAD
        if self._messages == STAND_IN_MESSAGES or self._bytes + size > STAND_IN_BYTES:
            if self._confirms and not any(self._over):
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
        self._kept[number].append(held)


class _Probing(ThreadSubscriber):
    """A subscriber that probes by itself until the relay carries its messages."""

    def __init__(
        self,
        publisher: Publisher,
        run_dir: RunDir,
        lives: Callable[[str], bool],
        checkpoints: Optional[Checkpoints],
        confirms: bool,
    ) -> None:
        self._checkpoints = checkpoints
        self._confirms = confirms
        super().__init__(publisher, run_dir, lives=lives)

    def _may_confirm(self, sender: str, confirmed: Mapping[str, Any]) -> bool:
        checkpoints = self._checkpoints
        return self._confirms and (
            checkpoints is None or checkpoints.may_confirm(sender, confirmed)
        )

    def _wait(self, wait: Wait) -> None:
        if not self.joined:
            self._publisher.probe()
            wait = wait._replace(seconds=min(wait.seconds, _PROBE))
        super()._wait(wait)
