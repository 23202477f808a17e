"""Listening to the relay in the place of workers that have ended."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Callable, Iterable, Optional

from ..common.rundir import ClusterInfo, RunDir
from ..relay.journal_reader import JournalReader
from ..relay.position import Position
from ..relay.stand_in import StandIn
from .held_group import Keep, Listener
from .journals import Journal


def place(journal: Journal, tags: list[str]) -> int:
    """How far the worker of a journal has heard the others, as :meth:`StandIns.listen` takes it.

    :param tags: of its clients.
    :raises ValueError: when the journal is not understood.
    """
    reader = JournalReader({log: list(some.values()) for log, some in journal.logs.items()})
    return reader.position(journal.source.channel, tags).write()


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

    def listen(self, descriptor: int, keep: Optional[Keep] = None) -> Listener:
        """Go on where a worker has ended.

        :param keep: gets a memory file each time that others rely on what was heard, and puts it
            where the next router finds it; called in the loop. ``None`` without a next router.
        :raises ValueError: when its place in the streams is not understood.
        """
        position = Position.read(descriptor)
        cluster = self._cluster
        if position.channel != cluster.channel:
            # Other hosts hear the one channel of the cluster.
            cluster = cluster._replace(channel=position.channel, bridged=False)
        return _Listener(self._run_dir, cluster, position, self._lives, keep)

    def _lives(self, tag: str) -> bool:
        return tag in self._senders


class _Listener:
    def __init__(
        self,
        run_dir: RunDir,
        cluster: ClusterInfo,
        position: Position,
        lives: Callable[[str], bool],
        keep: Optional[Keep],
    ) -> None:
        self._keep = keep
        self._loop = asyncio.get_running_loop() if keep is not None else None
        self._stopped = False
        heard = self._heard if keep is not None else None
        self._stand_in = StandIn(run_dir, cluster, position, lives=lives, keep=heard)

    def stop(self) -> int:
        self._stopped = True
        return self._stand_in.stop().write()

    def _heard(self, descriptor: int) -> None:
        """In the thread of the stand-in."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._keep_it, descriptor)
        except RuntimeError:  # the router ends
            os.close(descriptor)

    def _keep_it(self, descriptor: int) -> None:
        if self._stopped:  # what it has returned since then is more
            os.close(descriptor)
            return
        assert self._keep is not None
        self._keep(descriptor)
        self._stand_in.kept()
