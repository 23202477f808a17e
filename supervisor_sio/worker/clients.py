"""How a manager reaches the clients that this worker serves."""

from __future__ import annotations

import logging
from typing import Any, Callable, Sequence

from ..cluster.sessions import Outlet
from ..relay.message import EncodedPacket
from . import compat
from .dispatch import Dispatcher
from .dispatchers import AsyncDispatcher, SyncDispatcher, ThreadDispatcher
from .eio import AsyncEngineServer, EngineServer
from .printable import PRINTABLE
from .runtime import Runtime
from .tracebacks import FEW_TRACEBACKS

logger = logging.getLogger("supervisor_sio.worker")


class PlainClients:
    """Reaches clients through python-socketio's public interface only; see :mod:`.compat`."""

    def __init__(self, server: Any, runtime: Runtime) -> None:
        self.threads = runtime.threads
        self.call_soon = runtime.call_soon
        self.concurrent = _has_threads(server)
        self._server = server

    def fan_out(self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]) -> None:
        self._server.eio.deliver_each(eio_sids, packets)

    def fan_out_volatile(self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]) -> None:
        self.fan_out(self._server.eio.up_to_date(eio_sids), packets)

    def is_behind(self) -> bool:
        return bool(self._server.eio.is_behind())

    def waiting(self, eio_sid: str) -> int:
        return int(self._server.eio.waiting(eio_sid))

    def proven(self, eio_sid: str) -> tuple[float, bool]:
        return 0.0, True  # there is no recovery without the dispatcher

    def close_connection(self, eio_sid: str) -> None:
        """Do nothing: without the dispatcher clients cannot recover."""

    def ask_client(self, eio_sid: str, answered: Callable[[bool], None]) -> None:
        answered(False)  # no other client can claim the session


def _loggers(server: Any) -> list[logging.Logger]:
    """The server's loggers, without those that the application passed in."""
    names = ("socketio.", "engineio.")
    return [log for log in (server.logger, server.eio.logger) if log.name.startswith(names)]


def install(server: Any, runtime: Runtime, max_attachments: int) -> Outlet:
    """Let the worker serve the clients of a ``socketio.Server`` or an ``AsyncServer``.

    :param max_attachments: most attachments of a client's event.
    :raises ValueError: for an invalid option of python-engineio.
    """
    eio = server.eio
    for log in _loggers(server):
        log.addFilter(PRINTABLE)
        log.addFilter(FEW_TRACEBACKS)
    logger.addFilter(FEW_TRACEBACKS)
    eio.__class__ = AsyncEngineServer if compat.is_async(server) else EngineServer
    eio.start(runtime)
    if getattr(server.manager, "recovery", 0):
        eio.before_sending = server.manager.send_collected
    outlet = _way_to_clients(server, runtime, max_attachments)
    runtime.engines.append(eio.engine)
    runtime.outlets.append(outlet)
    return outlet


def _way_to_clients(server: Any, runtime: Runtime, max_attachments: int) -> Outlet:
    changed = compat.missing(server)
    if not changed:
        dispatcher = _dispatcher_for(server)
        return dispatcher(server, server.eio, runtime.threads, max_attachments)
    logger.warning(
        "this release of python-socketio has changed %s: messages are slower until you install "
        "a release of supervisor-sio that supports it",
        ", ".join(changed),
    )
    return PlainClients(server, runtime)


def _dispatcher_for(server: Any) -> type[Dispatcher]:
    if compat.is_async(server):
        return AsyncDispatcher
    return ThreadDispatcher if _has_threads(server) else SyncDispatcher


def _has_threads(server: Any) -> bool:
    """Whether the server's handlers run in threads."""
    return bool(server.eio.async_mode == "threading")
