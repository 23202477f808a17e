"""Detects that supervisord, or a start script between it and this worker, has ended."""

from __future__ import annotations

import errno
import os
import time
from typing import Callable, Optional

from ..common import identity
from ..common.processes import has_ended, has_parent, lineage

#: Seconds without supervisord's socket after which a worker that does not know supervisord's pid
#: considers it gone. supervisord has the socket from before it starts a worker until it ends.
_GONE = 5.0


class Ancestors:
    """:param log: called once, when supervisord or a wrapper has ended."""

    def __init__(self, log: Callable[[], None]) -> None:
        self._log = log
        #: This process, and each wrapper between it and supervisord, with its parent.
        self._lineage = [(os.getpid(), os.getppid())]
        self._gone = False
        #: Whether a router has sent supervisord's pid. Until then the parent may be the process
        #: that adopted this one when a wrapper ended.
        self._knows_supervisord = False
        #: supervisord's pid, if it is in the same pid namespace as this process.
        self._supervisord: Optional[int] = None
        #: Since when supervisord's socket has been missing.
        self._no_socket_since: Optional[float] = None

    @property
    def gone(self) -> bool:
        """Whether supervisord, or a wrapper between it and this process, has ended.

        A signal to a start script that runs the worker without ``exec`` ends only the script.
        """
        if not self._gone and not all(has_parent(*pair) for pair in self._lineage):
            self._note_gone()
        return self._gone

    @property
    def without_supervisord(self) -> bool:
        """Whether supervisord itself has ended: it will start no other router."""
        return self._supervisord is not None and has_ended(self._supervisord)

    def _note_gone(self) -> None:
        self._gone = True
        self._log()

    def note_no_router(self, error: OSError) -> None:
        """Connecting to the router has failed."""
        if error.errno not in (errno.ENOENT, errno.ECONNREFUSED):
            self._no_socket_since = None
            return
        now = time.monotonic()
        if self._no_socket_since is None:
            self._no_socket_since = now
        elif now - self._no_socket_since > _GONE:
            if identity.of_supervisord() and not self._knows_supervisord:
                self._note_gone()

    def note_router(self) -> None:
        """A router has accepted the connection."""
        self._no_socket_since = None

    def take_supervisord(self, pid: int, same_host: bool) -> None:
        """A router has sent supervisord's process id.

        :param same_host: whether supervisord is in the same pid namespace as this process.
        """
        self._knows_supervisord = True
        self._supervisord = pid if same_host else None
        pairs = lineage(os.getpid(), pid)
        if pairs:
            self._lineage = pairs
        elif identity.of_supervisord() and same_host:
            # The wrapper has ended already.
            self._lineage = [(os.getpid(), pid)]
