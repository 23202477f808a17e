"""The Socket.IO servers of this process, and the ids of their sessions."""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import Any, Awaitable, Callable, NamedTuple, Optional, Protocol, Sequence

from engineio import packet

from ..common import identity
from ..common.ids import new_id
from ..relay.message import EncodedPacket
from . import packets

#: The text of the ``RuntimeError`` in another asyncio loop than the one that serves the clients.
ANOTHER_LOOP = (
    "another loop serves the clients: use "
    "asyncio.run_coroutine_threadsafe(coroutine, loop), with the loop of the worker"
)


class Threads(Protocol):
    """The thread that serves the clients, for calls from other threads."""

    @property
    def here(self) -> bool:
        """Whether the calling thread is that thread."""

    def run(self, size: int, call: Callable[..., Any], *args: Any) -> None:
        """Have a call made there soon; calls of one thread keep their order.

        :param size: bytes that the call keeps until then.
        :raises RuntimeError: when too much has been waiting for too long.
        """


class Outlet(Protocol):
    """Sends to the clients of a server."""

    #: ``None`` where any thread may serve clients, or no thread has begun to.
    threads: Optional[Threads]

    #: Whether handlers run in other threads than the one that serves the clients. They may call
    #: everything of a manager then; only sending goes through ``threads``.
    concurrent: bool

    @property
    def call_soon(self) -> Optional[Callable[[Callable[[], None]], None]]:
        """Makes a call in the loop's next turn, in its thread; ``None`` where there is no loop."""

    def fan_out(
        self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]
    ) -> Optional[Awaitable[Any]]:
        """Send an encoded Socket.IO packet to clients, by their Engine.IO sids.

        :return: an awaitable, if the emit must await it before the client may get anything else.
        """

    def fan_out_volatile(
        self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]
    ) -> Optional[Awaitable[Any]]:
        """The same, but not to clients that have not taken everything sent to them before."""

    def is_behind(self) -> bool:
        """Whether much output waits for clients to take it."""

    def waiting(self, eio_sid: str) -> int:
        """Bytes that a client has yet to take; called where clients are served."""

    def proven(self, eio_sid: str) -> tuple[float, bool]:
        """Until when a client has certainly received everything, as its answers to pings prove, by
        the host's monotonic clock; and whether it answers late, see :meth:`.Owner.on_behind`.
        """

    def close_connection(self, eio_sid: str) -> None:
        """Close the old connection of a client that has come back on another one; in any thread."""

    def ask_client(self, eio_sid: str, answered: Callable[[bool], None]) -> None:
        """Ask whether the client at a connection is still there; in any thread.

        :param answered: called where clients are served: with true when the client answers, with
            false when its connection has ended; not called before.
        """


class PlainOutlet:
    """Sends through a server's engineio as it is."""

    threads: Optional[Threads] = None
    concurrent = False
    call_soon: Optional[Callable[[Callable[[], None]], None]] = None

    def __init__(self, server: Any) -> None:
        self._server = server

    def fan_out(
        self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]
    ) -> Optional[Awaitable[Any]]:
        send_to_each(self._server, eio_sids, packets)
        return None

    def fan_out_volatile(
        self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]
    ) -> Optional[Awaitable[Any]]:
        return self.fan_out(eio_sids, packets)  # what clients have taken is not known here

    def is_behind(self) -> bool:
        return False  # not known here

    def waiting(self, eio_sid: str) -> int:
        return 0  # not known here

    def proven(self, eio_sid: str) -> tuple[float, bool]:
        return 0.0, True  # not known here

    def close_connection(self, eio_sid: str) -> None:
        """No client comes back here."""

    def ask_client(self, eio_sid: str, answered: Callable[[bool], None]) -> None:
        answered(False)  # no client comes back here


class PlainAsyncOutlet(PlainOutlet):
    """Sends through the engineio of a ``socketio.AsyncServer``."""

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        #: References that keep the futures alive.
        self._sending: set[asyncio.Future[Any]] = set()

    def fan_out(
        self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]
    ) -> Optional[Awaitable[Any]]:
        if not eio_sids:
            return None
        # One task each: a client that has gone may have a disconnect handler that takes long.
        each = [self._send(eio_sid, packets) for eio_sid in eio_sids]
        sending = asyncio.gather(*each, return_exceptions=True)
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        return sending

    async def _send(self, eio_sid: str, packets: Sequence[EncodedPacket]) -> None:
        for part in packets:
            await self._server.eio.send_packet(eio_sid, packet.Packet(packet.MESSAGE, part))


class Traffic:
    """Counters of this process since its start."""

    def __init__(self) -> None:
        #: Sessions opened, and Engine.IO messages from and to their clients.
        self.opened = 0
        self.received = 0
        self.sent = 0


traffic = Traffic()

#: Prepares a ``socketio.Server`` to serve clients in this process, with a limit for the attachments
#: of an event, and returns the outlet.
Install = Callable[[Any, int], Outlet]

#: Set by the worker of this process.
_install: Optional[Install] = None


class _Attached(NamedTuple):
    max_attachments: int
    #: Gives the outlet to the manager; dead when the server has got another manager.
    use: weakref.WeakMethod[Callable[[Outlet], None]]


_servers: weakref.WeakKeyDictionary[Any, _Attached] = weakref.WeakKeyDictionary()

#: Client managers of this process that have no server; one that a server replaced counts as well.
_managers_without_server = 0

#: The pid of a process that will serve clients as soon as its application is imported.
_worker_pid = 0


def expect_clients() -> None:
    """This process is a worker: what its application emits while it is imported may wait."""
    global _worker_pid
    _worker_pid = os.getpid()


def are_expected() -> bool:
    return _worker_pid == os.getpid()


def serve_by(install: Install) -> None:
    """This process serves clients: ``install`` prepares each of its servers once.

    A worker calls this before it imports the application; with ``serve(app)`` the application and
    its servers exist before.
    """
    global _install
    if _install is install:
        return
    _install = install
    for server, attached in list(_servers.items()):
        use = attached.use()
        if use is not None:
            use(install(server, attached.max_attachments))


def has_worker() -> bool:
    """Whether one of our workers serves in this process."""
    return _install is not None


def manager_made() -> None:
    global _managers_without_server
    _managers_without_server += 1


def why_no_manager(
    app: str = "the application", fault: str = "has no", is_async: bool = False
) -> str:
    """The text for an application whose servers have none of our managers.

    :param is_async: whether it is for a ``socketio.AsyncServer``.
    """
    if _managers_without_server > 0:
        return (
            f"{app} makes a ZmqManager, but its server has another manager: sessions are "
            "not sticky and emits stay in this worker; Flask-SocketIO puts that of message_queue "
            "in its place: leave message_queue out of SocketIO() and init_app()"
        )
    kind = "Async" if is_async else ""
    return (
        f"{app} {fault} {kind}ZmqManager: sessions are not sticky and emits stay in this worker; "
        f"write socketio.{kind}Server(client_manager={kind}ZmqManager())"
    )


def attach(server: Any, max_attachments: int, use: Callable[[Outlet], None]) -> None:
    """Let the session ids of a ``socketio.Server`` or ``AsyncServer`` name this worker.

    An id becomes ``<tag>.<random>``, so each process can tell from it which worker has the session,
    without a table. The server also gets a faster packet class.

    :param max_attachments: most attachments of a client's event.
    :param use: a method of the server's manager that takes the outlet: now, and again when this
        process begins to serve clients.
    """
    global _managers_without_server
    _managers_without_server -= 1
    prefix = identity.tag() + "."
    server.eio.generate_id = lambda: prefix + new_id()
    server.packet_class = packets.class_for(server)
    _servers[server] = _Attached(max_attachments, weakref.WeakMethod(use))
    plain = PlainAsyncOutlet if server.is_asyncio_based() else PlainOutlet
    use(_install(server, max_attachments) if _install is not None else plain(server))


def send_to_each(server: Any, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]) -> None:
    # Flask-SocketIO's test client replaces this method.
    send = getattr(server, "_send_eio_packet", server.eio.send_packet)
    texts = {p: packet.Packet(packet.MESSAGE, p) for p in packets if isinstance(p, str)}
    for eio_sid in eio_sids:
        for part in packets:
            # An Engine.IO packet keeps its first encoding, and the encoding of bytes differs
            # between the transports.
            known = texts.get(part) if isinstance(part, str) else None
            send(eio_sid, known or packet.Packet(packet.MESSAGE, part))


def abandon() -> None:
    """In a forked child: forget the parent's sessions. The managers forget theirs themselves."""
    for server in _servers:
        for table in (server.environ, server.eio.sockets):
            table.clear()


def servers() -> list[Any]:
    return list(_servers)


def count() -> int:
    """Number of open sessions; python-socketio keeps the WSGI environment of each."""
    return sum(len(server.environ) for server in _servers)
