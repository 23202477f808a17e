"""A worker started by hand: one process, which opens the listening socket itself."""

from __future__ import annotations

import errno
import logging
import sys
from typing import Any, Optional

from ..common.addresses import parse_address
from ..relay import native
from . import forks
from .application import ApplicationError
from .connection import Connection
from .life import Life
from .lone_tasks import NoRouter
from .run_once import RunOnce
from .runtime import Runtime, Watch

logger = logging.getLogger("supervisor_sio.worker")

#: Seconds to pause accepting when no descriptor is free.
_ACCEPT_PAUSE = 0.1

#: Connections that the kernel queues until they are accepted.
_BACKLOG = 1024


class Alone(Life):
    """:param listen: ``host:port``
    :raises ApplicationError: if it cannot listen there.
    """

    def __init__(self, app: Any, runtime: Runtime, listen: str) -> None:
        self._listener = _listen_on(listen)
        runtime.descriptor_opened(self._listener.fileno())
        super().__init__(app, runtime)
        self._accepting: Optional[Watch] = None
        no_router = NoRouter(runtime)
        self.run_once = RunOnce(runtime, no_router)
        no_router.answer = self.run_once.handle

    async def live(self) -> int:
        await self.start_up()
        host, port = self._listener.getsockname()[:2]
        print(f"Serving on http://{host}:{port}/ (Ctrl-C stops)", file=sys.stderr)
        self._local = host, port
        self._listen()
        self.take_tasks()
        self.run_once.welcome(True)
        await self.stopped.wait()
        self._stop_listening()
        self._listener.close()
        await self.finish()
        return 0

    def abandon(self) -> None:
        super().abandon()
        self.run_once.abandon()
        forks.close_socket(self._listener)

    def _listen(self) -> None:
        if not self.stopped.is_set():
            self._accepting = self.runtime.add_reader(self._listener.fileno(), self._accept)

    def _stop_listening(self) -> None:
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            accepting.cancel()

    def _accept(self, _descriptor: int = -1) -> None:
        try:
            sock, peer = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            text = "cannot accept: %s"
            self.runtime.log(logger, logging.WARNING, text, error.strerror)
            self._stop_listening()
            self.runtime.call_later(_ACCEPT_PAUSE, self._listen)
            return
        self.runtime.descriptor_opened(sock.fileno())
        sock.setblocking(False)
        Connection(self.server, sock, peer, self._local).open()


def _listen_on(listen: str) -> Any:
    # The original class: a monkey-patched socket blocks, or closes when it is garbage-collected.
    socket = native.original("socket")
    try:
        address = parse_address(listen)
        if address.path:
            raise ValueError(f"{listen!r} is not host:port")
        listener = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
        # Only REUSEADDR: with REUSEPORT a second server could get half of the connections.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(False)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            another = f"{listen[: -len(str(address.port))]}{address.port % 65535 + 1}"
            reason = (
                "address already in use; stop the program that listens there, or "
                f'serve(app, listen="{another}")'
            )
        raise ApplicationError(f"cannot listen on {listen}: {reason}") from None
    return listener
