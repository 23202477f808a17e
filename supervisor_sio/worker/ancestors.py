"""Whether supervisord is there, and each start script between it and this worker."""

from __future__ import annotations

import errno
import os
import time
from typing import Callable, Optional

from ..common import identity
from ..common.processes import has_parent, lineage

#: Seconds without supervisord's socket after which a worker leaves that knows no parents to go
#: by. supervisord has the socket from before it starts a worker until its end.
_GONE = 5.0


class Ancestors:
    """:param log: is called once, when one is gone."""

    def __init__(self, log: Callable[[], None]) -> None:
        self._log = log
        #: This process, and each wrapper between it and supervisord, with its parent.
        self._lineage = [(os.getpid(), os.getppid())]
        self._gone = False
        #: Whether a router has said who supervisord is: until then the parent may be the one
        #: that got this process when a wrapper ended.
        self._knows_supervisord = False
        #: Since when there is no socket to connect to.
        self._no_socket_since: Optional[float] = None

    @property
    def gone(self) -> bool:
        """Whether supervisord is gone, or a wrapper that it started.

        A signal for a start script without ``exec`` ends only that script.
        """
        if not self._gone and not all(has_parent(*pair) for pair in self._lineage):
            self._note_gone()
        return self._gone

    def _note_gone(self) -> None:
        self._gone = True
        self._log()

    def note_no_router(self, error: OSError) -> None:
        """There was nothing to connect to."""
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
        """There is a router."""
        self._no_socket_since = None

    def take_supervisord(self, pid: int, same_host: bool) -> None:
        """A router says which process supervisord is.

        :param same_host: and not another pid namespace, where the kernel says 0.
        """
        self._knows_supervisord = True
        pairs = lineage(os.getpid(), pid)
        if pairs:
            self._lineage = pairs
        elif identity.of_supervisord() and same_host:
            # The wrapper is gone already.
            self._lineage = [(os.getpid(), pid)]
