"""Listening to the relay in the place of workers that have ended."""

from __future__ import annotations

from typing import Any, Iterable

from ..common.rundir import ClusterInfo, RunDir
from ..relay.position import Position
from ..relay.stand_in import StandIn
from .held_group import Listener


class StandIns:
    """Makes them, of memory files, and makes memory files of what they have heard."""

    def __init__(self, run_dir: RunDir, cluster: ClusterInfo) -> None:
        self._run_dir = run_dir
        self._cluster = cluster
        #: The workers of this host that send.
        self._senders: frozenset[str] = frozenset()

    def set_members(self, members: Iterable[Any]) -> None:
        """The workers of this host, as :mod:`.membership` has them."""
        self._senders = frozenset(tag for tag, _, _, alias in members if not alias)

    def listen(self, descriptor: int) -> Listener:
        """Go on where a worker has ended.

        :raises ValueError: when its place in the streams is not understood.
        """
        position = Position.read(descriptor)
        cluster = self._cluster
        if position.channel != cluster.channel:
            # Other hosts hear the one channel of the cluster.
            cluster = cluster._replace(channel=position.channel, bridged=False)
        return _Listener(StandIn(self._run_dir, cluster, position, lives=self._lives))

    def _lives(self, tag: str) -> bool:
        return tag in self._senders


class _Listener:
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in

    def stop(self) -> int:
        return self._stand_in.stop().write()
