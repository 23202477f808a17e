"""Receive from the relay in place of workers that have ended."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Callable, Iterable, Optional, Sequence

from ..common.rundir import ClusterInfo, RunDir
from ..relay.journal_reader import JournalReader
from ..relay.position import Position
from ..relay.stand_in import StandIn
from .held_group import Keep, Listener
from .journals import Journal


def place(journal: Journal, tags: list[str], given: Sequence[int] = ()) -> int:
    """The position in the relay of the worker that wrote a journal, as a memory file.

    :param tags: the tags of its clients.
    :param given: memory files with the positions of adopted clients for which the worker may not
        have begun to receive. Its journal says whether it has: it may have died before its report
        arrived.
    :raises ValueError: when the journal, or one of these positions, is malformed.
    """
    reader = JournalReader({log: list(some.values()) for log, some in journal.logs.items()})
    unheard = [part for one in given for part in reader.not_heard(Position.read(one))]
    for part in unheard:
        reader.add_own(part)
    others = {tag for part in unheard for tag in part.tags}
    own = reader.position(journal.source.channel, [tag for tag in tags if tag not in others])
    return Position(own.channel, [*own.parts, *unheard]).write()


class StandIns:
    """Creates stand-ins from positions in memory files."""

    def __init__(self, run_dir: RunDir, cluster: ClusterInfo) -> None:
        self._run_dir = run_dir
        self._cluster = cluster
        #: The tags of the workers of this host that send.
        self._senders: frozenset[str] = frozenset()

    def set_members(self, members: Iterable[Any]) -> None:
        """Set the workers of this host, as rows of :mod:`.membership`."""
        self._senders = frozenset(tag for tag, _, _, alias in members if not alias)

    def listen(
        self, descriptor: int, keep: Optional[Keep] = None, confirm: bool = True
    ) -> Listener:
        """Receive from the position at which a worker has ended.

        :param keep: called in the loop with the state as a memory file, before received messages
            are confirmed to their senders; keeps it for the next router. ``None`` without one.
        :param confirm: whether received messages are confirmed to their senders.
        :raises ValueError: when the position is malformed.
        """
        position = Position.read(descriptor)
        cluster = self._cluster
        if position.channel != cluster.channel:
            # The bridge carries only the cluster's own channel.
            cluster = cluster._replace(channel=position.channel, bridged=False)
        return _Listener(self._run_dir, cluster, position, self._lives, keep, confirm)

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
        confirm: bool,
    ) -> None:
        self._keep = keep
        self._loop = asyncio.get_running_loop() if keep is not None else None
        self._stopped = False
        heard = self._heard if keep is not None else None
        self._stand_in = StandIn(
            run_dir, cluster, position, lives=lives, keep=heard, confirms=confirm
        )

    def stop(self) -> int:
        self._stopped = True
        return self._stand_in.stop().write()

    def discard(self) -> None:
        self._stopped = True
        self._stand_in.discard()

    def _heard(self, descriptor: int) -> None:
        """Called in the thread of the stand-in."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._keep_it, descriptor)
        except RuntimeError:  # the router ends
            os.close(descriptor)

    def _keep_it(self, descriptor: int) -> None:
        if self._stopped:  # stop() has returned a later state, or nobody needs it any more
            os.close(descriptor)
            return
        assert self._keep is not None
        self._keep(descriptor)
        self._stand_in.kept()
