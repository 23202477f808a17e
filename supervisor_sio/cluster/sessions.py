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

#: Of a ``RuntimeError`` in another asyncio loop than the one that serves the clients.
ANOTHER_LOOP = (
    "another loop serves the clients: use "
    "asyncio.run_coroutine_threadsafe(coroutine, loop), with the loop of the worker"
)


class Threads(Protocol):
    """The thread that serves the clients, for calls from others."""

    @property
    def here(self) -> bool:
        """Whether the thread that asks is that one."""

    def run(self, size: int, call: Callable[..., Any], *args: Any) -> None:
        """Have it called there, soon, in the order of the calls of each thread.

        :param size: bytes that it keeps until then.
        :raises RuntimeError: when too much has been waiting for too long.
        """


class Outlet(Protocol):
    """The way to the clients of a server."""

    #: ``None`` where clients may be served in any thread, or none has come yet.
    threads: Optional[Threads]

    #: Whether handlers run in other threads than the one that serves the clients. They may do
    #: all that a manager can do then; only what is sent goes by ``threads``.
    concurrent: bool

    @property
    def call_soon(self) -> Optional[Callable[[Callable[[], None]], None]]:
        """Has a call made in the next turn of the loop, in its thread; ``None``: nobody can."""

    def fan_out(
        self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]
    ) -> Optional[Awaitable[Any]]:
        """Send an encoded Socket.IO packet to clients, by their Engine.IO sids.

        :return: what an emit has to await yet, before the client may get anything else.
        """

    def fan_out_volatile(
        self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]
    ) -> Optional[Awaitable[Any]]:
        """The same, but not to clients that have yet to take what they were sent before."""

    def is_behind(self) -> bool:
        """Whether much waits for a client to take it."""

    def waiting(self, eio_sid: str) -> int:
        """Bytes that a client has yet to take; where clients are served."""

    def proven(self, eio_sid: str) -> tuple[float, bool]:
        """Until when a client has all that it was sent, by the host's monotonic clock, as far as
        its answers to pings prove it; and whether it is behind, see :meth:`.Owner.on_behind`.
        """

    def close_connection(self, eio_sid: str) -> None:
        """Close the connection of a client that has come back by another one, in any thread."""

    def ask_client(self, eio_sid: str, answered: Callable[[bool], None]) -> None:
        """Ask whether the client at a connection is there, in any thread.

        :param answered: is called, where clients are served, with true when it answers, with
            false when its connection has ended; not at all before.
        """


class PlainOutlet:
    """Through the engineio of a server, as it is."""

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
        return self.fan_out(eio_sids, packets)  # nobody knows here what they have taken

    def is_behind(self) -> bool:
        return False  # nobody counts it here

    def waiting(self, eio_sid: str) -> int:
        return 0  # likewise

    def proven(self, eio_sid: str) -> tuple[float, bool]:
        return 0.0, True  # nobody knows it here

    def close_connection(self, eio_sid: str) -> None:
        """Here no client comes back."""

    def ask_client(self, eio_sid: str, answered: Callable[[bool], None]) -> None:
        answered(False)  # nobody else comes


class PlainAsyncOutlet(PlainOutlet):
    """The same for a ``socketio.AsyncServer``."""

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        #: Nobody else may refer to them.
        self._sending: set[asyncio.Future[Any]] = set()

    def fan_out(
        self, eio_sids: Sequence[str], packets: Sequence[EncodedPacket]
    ) -> Optional[Awaitable[Any]]:
        if not eio_sids:
            return None
        # One for each, as one that has gone may have a disconnect handler that takes its time.
        each = [self._send(eio_sid, packets) for eio_sid in eio_sids]
        sending = asyncio.gather(*each, return_exceptions=True)
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        return sending

    async def _send(self, eio_sid: str, packets: Sequence[EncodedPacket]) -> None:
        for part in packets:
            await self._server.eio.send_packet(eio_sid, packet.Packet(packet.MESSAGE, part))


class Traffic:
    """What this process has counted since its start."""

    def __init__(self) -> None:
        #: Sessions opened, and Engine.IO messages from and to their clients.
        self.opened = 0
        self.received = 0
        self.sent = 0


traffic = Traffic()

#: Prepares a ``socketio.Server`` for clients of this process, whose events may have so many
#: attachments at most, and returns the way to them.
Install = Callable[[Any, int], Outlet]

#: Of the worker that this process is, or becomes; the cluster does not know which one.
_install: Optional[Install] = None


class _Attached(NamedTuple):
    max_attachments: int
    #: Takes the way to the clients. The server may have got another manager than this one.
    use: weakref.WeakMethod[Callable[[Outlet], None]]


_servers: weakref.WeakKeyDictionary[Any, _Attached] = weakref.WeakKeyDictionary()

#: Client managers of this process that no server has, or had: one that was replaced is gone.
_managers_without_server = 0

#: The process that will serve clients as soon as its application is imported.
_worker_pid = 0


def expect_clients() -> None:
    """This process is a worker: what its application emits while it is imported may wait."""
    global _worker_pid
    _worker_pid = os.getpid()


def are_expected() -> bool:
    return _worker_pid == os.getpid()


def serve_by(install: Install) -> None:
    """This process serves clients: ``install`` prepares each of its servers once.

    A worker says so before it imports the application; with ``serve(app)`` the application,
    and its servers, are there first.
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
    """Whether a worker of ours serves in this process."""
    return _install is not None


def manager_made() -> None:
    global _managers_without_server
    _managers_without_server += 1


def why_no_manager(
    app: str = "the application", fault: str = "has no", is_async: bool = False
) -> str:
    """What to tell when no server of the application has one of our managers.

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

    An id becomes ``<tag>.<random>``: whoever sees it knows where it belongs,
    without a table of sessions. The server's packets are coded faster, too.

    :param max_attachments: most of an event of a client.
    :param use: a method of the server's manager that takes the way to its clients: now, and
        again when this process begins to serve them.
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
    # Flask-SocketIO's test client puts a method of its own in this place.
    send = getattr(server, "_send_eio_packet", server.eio.send_packet)
    texts = {p: packet.Packet(packet.MESSAGE, p) for p in packets if isinstance(p, str)}
    for eio_sid in eio_sids:
        for part in packets:
            # An Engine.IO packet keeps its first encoding, and that of bytes is
            # base64 for one transport and not for the other.
            known = texts.get(part) if isinstance(part, str) else None
            send(eio_sid, known or packet.Packet(packet.MESSAGE, part))


def abandon() -> None:
    """In a forked child: the sessions are the parent's. The managers forget theirs themselves."""
    for server in _servers:
        for table in (server.environ, server.eio.sockets):
            table.clear()


def servers() -> list[Any]:
    return list(_servers)


def count() -> int:
    """Open sessions; python-socketio keeps the WSGI environment of each."""
    return sum(len(server.environ) for server in _servers)
