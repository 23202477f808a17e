"""Accept clients while the process has descriptors for them."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Any, Callable, Optional

from ..common import reasons
from ..common.descriptors import limit, lowest_free
from ..common.refusals import Refusals

logger = logging.getLogger("supervisor_sio.router")

#: Connections accepted before other descriptors get a turn.
_BATCH = 64

#: Seconds without accepting after an error, or when clients have all their descriptors.
_PAUSE = 0.1

#: Seconds between log lines about missing descriptors.
_TELL = 60.0

#: Seconds between two checks of the limit of open files, which prlimit(1) may change.
_LOOK = 0.02


class _Listener(socket.socket):
    """A socket with plain numbers instead of enums, whose creation takes a fifth of ``accept``."""

    family: Any = 0
    type: Any = 0

    def __init__(self, sock: socket.socket) -> None:
        family, kind = int(sock.family), int(sock.type)
        super().__init__(family, kind, sock.proto, sock.detach())
        self.family, self.type = family, kind
        self.local = self.getsockname()
        self.setblocking(False)


class Acceptor:
    """:param accepted: receives each connection, and the addresses of client and listener.
    :param ceiling: the number below which clients' descriptors must be.
    :param taken: the number of descriptors that clients have; ``None`` if it is not known.
    :param due: how many more descriptors the accepted connections will need.
    """

    def __init__(
        self,
        *,
        refusals: Refusals,
        accepted: Callable[[socket.socket, Any, Any], None],
        ceiling: Callable[[], int],
        taken: Optional[Callable[[], int]],
        due: Callable[[], int],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._refusals = refusals
        self._accepted = accepted
        self._ceiling = ceiling
        self._taken = taken
        self._due = due
        self._listeners: list[_Listener] = []
        self._told = -_TELL
        #: The number of descriptors that clients may certainly have, and when it was computed.
        self._certain = 0
        self._looked = -_LOOK

    def listen(self, listeners: list[socket.socket]) -> None:
        """Accept connections from these sockets, which are closed with this object."""
        self._listeners = [_Listener(listener) for listener in listeners]
        for listener in self._listeners:
            self._resume(listener)

    def close(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners = []

    def _pause(self, listener: _Listener) -> None:
        self._loop.remove_reader(listener)
        self._loop.call_later(_PAUSE, self._resume, listener)

    def _resume(self, listener: _Listener) -> None:
        if listener.fileno() >= 0:  # not closed meanwhile
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: _Listener) -> None:
        many = self._has_many()
        for _ in range(_BATCH):
            if not many and self._is_full(listener):
                self._pause(listener)
                return
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                # Most likely out of descriptors: wait until some are closed.
                self._refusals.count(reasons.ACCEPT_FAILED, str(error))
                self._pause(listener)
                return
            self._accepted(sock, peer, listener.local)

    def _has_many(self) -> bool:
        """Whether descriptors certainly suffice for a batch, so :meth:`_is_full` is not needed."""
        if self._taken is None:
            return False
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            # The descriptors above the ceiling are reserved for other uses. If all of these had
            # numbers below it instead, this many would be left for clients.
            ceiling = self._ceiling()
            self._certain = ceiling - (limit() - ceiling)
        return self._taken() + _BATCH < self._certain

    def _is_full(self, listener: _Listener) -> bool:
        """Whether clients have all the descriptors that they may have."""
        ceiling = self._ceiling()
        if lowest_free(listener.fileno()) + self._due() < ceiling:
            return False
        now = time.monotonic()
        if now - self._told >= _TELL:
            self._told = now
            logger.warning(
                "new connections wait in the kernel: all %d descriptors for clients are in use; "
                "raise the limit of open files",
                ceiling,
            )
        return True
