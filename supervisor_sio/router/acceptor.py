"""Accepting clients, for as long as there are descriptors for them."""

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

#: Seconds without accepting when it failed, or when clients have all their descriptors.
_PAUSE = 0.1

#: Seconds between log lines about that.
_TELL = 60.0

#: Seconds between looks at the limit of open files, which prlimit(1) may change.
_LOOK = 0.02


class _Listener(socket.socket):
    """With plain numbers where a socket has enums: to make those takes a fifth of ``accept``."""

    family: Any = 0
    type: Any = 0

    def __init__(self, sock: socket.socket) -> None:
        family, kind = int(sock.family), int(sock.type)
        super().__init__(family, kind, sock.proto, sock.detach())
        self.family, self.type = family, kind
        self.local = self.getsockname()
        self.setblocking(False)


class Acceptor:
    """:param accepted: gets each connection, and the addresses of the client and the listener.
    :param ceiling: below it are the numbers of descriptors that clients may have.
    :param taken: how many descriptors clients have; ``None`` where that is not known.
    :param due: how many more those will take for whom there is one already.
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
        #: As many descriptors clients may have, whatever their numbers; and when it was so.
        self._certain = 0
        self._looked = -_LOOK

    def listen(self, listeners: list[socket.socket]) -> None:
        """Take over these sockets."""
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
        if listener.fileno() >= 0:  # not closed in the meantime
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
                # Out of descriptors, most likely: let some go before the next try.
                self._refusals.count(reasons.ACCEPT_FAILED, str(error))
                self._pause(listener)
                return
            self._accepted(sock, peer, listener.local)

    def _has_many(self) -> bool:
        """Whether there are descriptors for a whole batch, so that none has to be looked for."""
        if self._taken is None:
            return False
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            # What is above the ceiling is in reserve for others than clients. If those had
            # their numbers below it, this would be left.
            ceiling = self._ceiling()
            self._certain = ceiling - (limit() - ceiling)
        return self._taken() + _BATCH < self._certain

    def _is_full(self, listener: _Listener) -> bool:
        """Whether clients have all the descriptors that are for them."""
        ceiling = self._ceiling()
        if lowest_free(listener.fileno()) + self._due() < ceiling:
            return False
        now = time.monotonic()
        if now - self._told >= _TELL:
            self._told = now
            logger.warning(
                "new connections wait in the kernel: all %d descriptors for clients are taken; "
                "raise the limit of open files",
                ceiling,
            )
        return True
