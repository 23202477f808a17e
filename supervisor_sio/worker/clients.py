"""The way to the clients of a server, where a worker serves them."""

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
    """By python-socketio's public interface alone."""

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
        return 0.0, True  # none of them comes back

    def close_connection(self, eio_sid: str) -> None:
        """None of them comes back: they do not know that they could."""

    def ask_client(self, eio_sid: str, answered: Callable[[bool], None]) -> None:
        answered(False)  # nobody else comes


def _loggers(server: Any) -> list[logging.Logger]:
    """Those of a server that are not the application's own."""
    names = ("socketio.", "engineio.")
    return [log for log in (server.logger, server.eio.logger) if log.name.startswith(names)]


def install(server: Any, runtime: Runtime, max_attachments: int) -> Outlet:
    """Let the worker serve the clients of a ``socketio.Server`` or an ``AsyncServer``.

    :param max_attachments: most of an event of a client.
    :raises ValueError: for an option of engineio that cannot be.
    """
    eio = server.eio
    for log in _loggers(server):
        log.addFilter(PRINTABLE)
        log.addFilter(FEW_TRACEBACKS)
    logger.addFilter(FEW_TRACEBACKS)
    eio.__class__ = AsyncEngineServer if compat.is_async(server) else EngineServer
    eio.start(runtime)
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
        "this python-socketio has changed %s: messages take more time, until there is a "
        "supervisor-sio that knows it",
        ", ".join(changed),
    )
    return PlainClients(server, runtime)


def _dispatcher_for(server: Any) -> type[Dispatcher]:
    if compat.is_async(server):
        return AsyncDispatcher
    return ThreadDispatcher if _has_threads(server) else SyncDispatcher


def _has_threads(server: Any) -> bool:
    """Whether its handlers run in threads."""
    return bool(server.eio.async_mode == "threading")
