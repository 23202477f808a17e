"""Dispatches Socket.IO packets of clients to the application's handlers, and sends packets.

python-socketio calls the handlers; this module replaces slow code around these calls. A plain event
starts its handler at once; a packet for many clients is encoded once. All other packets run alone
for their session: the next message waits until they are handled.

:class:`Dispatcher` serves sync and async servers. Methods that may wait for a handler are
``async def``; a :class:`.SyncDispatcher` runs them in a greenlet or a thread, which they block.
Only the call of an event's handler is implemented separately for each kind of server, in
:mod:`.dispatchers`, because it takes most of the time of an event.

The private names of python-socketio that this needs are in :mod:`.compat`.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Callable, ContextManager, Iterator, Optional, Sequence, Union

from engineio import packet
from socketio import exceptions as sio_exceptions
from socketio import packet as sio_packet

from ..cluster.packets import Partial, Skipped, ack_text, coders, read_event
from ..cluster.sessions import traffic
from ..common.blocking import settle
from ..common.emission import RESERVED_EVENTS
from ..common.limits import CONNECT_SECONDS, EVENT_SIZES
from ..common.reasons import NO_ANSWER, WRONG_ARGUMENTS
from ..engine.frames import Payload, message_frame
from ..engine.session import Session
from . import compat
from .eio import ENDS, EngineOwner
from .hold import Hold
from .recovery import Recovery
from .unconnected import Unconnected

_MESSAGE = str(packet.MESSAGE)
_EVENTS = (sio_packet.EVENT, sio_packet.BINARY_EVENT)
_ACKS = (sio_packet.ACK, sio_packet.BINARY_ACK)
#: The modules with ``call()`` of sync and async servers.
_CALLERS = ("socketio.server", "socketio.async_server")
#: The first characters of encoded acknowledgements.
_ANSWERS = tuple(str(kind) for kind in _ACKS)
_WITH_ATTACHMENTS = (sio_packet.BINARY_EVENT, sio_packet.BINARY_ACK)


class Dispatcher:
    """Connects the engine with one ``socketio.Server`` or ``AsyncServer``.

    :param threads: other threads call the loop through it, see :class:`.runtime.Threads`.
    :param max_attachments: most attachments of a client's event.
    """

    concurrent = False

    def __init__(self, server: Any, eio: EngineOwner, threads: Any, max_attachments: int) -> None:
        self.threads = threads
        self.max_attachments = max_attachments
        self._server = server
        self._eio = eio
        self._sessions = eio.engine.sessions
        #: Packets some of whose attachments have not arrived.
        self._partials: dict[Session, Union[Partial, Skipped]] = {}
        self._unconnected = Unconnected(
            eio.engine.deadlines,
            getattr(server.manager, "connect_timeout", CONNECT_SECONDS),
            eio.is_busy,
        )
        #: Clients that are being disconnected, each with a token of the call that does it.
        self._leaving: dict[Optional[str], object] = {}
        #: Whether no subclass changes how events are handled.
        self._plain = compat.handles_events_as_usual(server)
        #: JSON functions for :func:`.ack_text` and :func:`.read_event`.
        self._dumps: Optional[Callable[[Any], str]] = None
        self._loads: Optional[Callable[[str], Any]] = None
        known = coders(server.packet_class)
        if known is not None:
            self._dumps, self._loads = known
        eio.on_message = self.on_message  # type: ignore[method-assign]
        eio.began = self._unconnected.add
        eio.ended = self._forget
        #: Messages that are held while their session moves.
        self.hold = Hold(self, eio)
        #: Set if the manager has ``recovery``.
        self.recovery: Optional[Recovery] = None
        if getattr(server.manager, "recovery", 0):
            self.recovery = Recovery(server, eio, self.end_client)
        self._send_packet = self.send_packet
        compat.replace_send_packet(server, self._send_packet)
        self._handle_disconnect = compat.replace_handle_disconnect(
            server, self._as_called(self._leave)
        )
        self._disconnect = server.disconnect
        server.disconnect = self._as_called(self.disconnect)

    @property
    def call_soon(self) -> Callable[[Callable[[], None]], None]:
        """See :class:`.Outlet`."""
        return self._eio.runtime.call_soon

    def _as_called(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a coroutine function as a method of the server: sync or async."""
        raise NotImplementedError

    def _run_handler(
        self, sid: str, session: Session, namespace: str, number: Optional[int], event: list[Any]
    ) -> Any:
        """Call the handler of an event, send the acknowledgement, and then remove an item from
        :attr:`.Session.running`.
        """
        raise NotImplementedError

    def _run_counted(
        self, sid: str, session: Session, namespace: str, number: Optional[int], event: list[Any]
    ) -> Any:
        """:meth:`_run_handler` with ``event_metrics``."""
        raise NotImplementedError

    @property
    def _runner(self) -> Callable[..., Any]:
        return self._run_handler if self._eio.runtime.events is None else self._run_counted

    def _counting(self, namespace: str, event: Any) -> ContextManager[None]:
        figures = self._eio.runtime.events
        return (
            nullcontext() if figures is None else figures.counting(self._server, namespace, event)
        )

    def _reply(self, eio_sid: str, encoded: Any) -> None:
        """Send an encoded packet; called where handlers run."""
        self._send(eio_sid, encoded)

    # --- to clients -------------------------------------------------------------------

    def send_packet(self, eio_sid: str, pkt: Any) -> Any:
        """``Server._send_packet``, without creating an Engine.IO packet for each part."""
        raise NotImplementedError

    def _encode(self, eio_sid: str, pkt: Any) -> Any:
        if pkt.packet_type == sio_packet.CONNECT:
            session = self._sessions.get(eio_sid)
            if session is not None:
                # With `always_connect` before the handler has run: the client may emit now.
                session.connected = True
            if self.recovery is not None:
                self.recovery.begin(eio_sid, pkt)
        elif pkt.packet_type == sio_packet.DISCONNECT:
            # With `always_connect` python-socketio adds a reason, which JavaScript's parser takes
            # for an error, so that the client reconnects.
            pkt.data = None
        return pkt.encode()

    def _send(self, eio_sid: str, encoded: Any) -> None:
        self._eio.before_sending()
        session = self._sessions.get(eio_sid)
        if (
            session is not None
            and session.live is not None
            and isinstance(encoded, str)
            and not self._eio.logger.isEnabledFor(logging.INFO)
        ):
            session.live.send(message_frame(_MESSAGE + encoded))
            traffic.sent += 1
            return
        self.fan_out((eio_sid,), encoded if isinstance(encoded, list) else (encoded,))

    def fan_out(self, eio_sids: Sequence[str], packets: Sequence[Payload]) -> None:
        """Send an encoded Socket.IO packet to clients; it is framed once for all websockets."""
        if self._eio.logger.isEnabledFor(logging.INFO):
            self._eio.deliver_each(eio_sids, packets)
            return
        messages = [_MESSAGE + p if isinstance(p, str) else p for p in packets]
        frames = [message_frame(message) for message in messages]
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        many = len(eio_sids) > 1
        sessions = [found for found in map(self._sessions.get, eio_sids) if found is not None]
        for session in sessions:
            link = session.live
            if link is not None:
                link.send(data, many)
            else:
                for message in messages:
                    session.send(message)
        traffic.sent += len(packets) * len(sessions)

    def fan_out_volatile(self, eio_sids: Sequence[str], packets: Sequence[Payload]) -> None:
        """As :meth:`fan_out`, without the clients that have pending output."""
        self.fan_out(self._eio.up_to_date(eio_sids), packets)

    def is_behind(self) -> bool:
        """Whether much output is pending for a client."""
        return self._eio.is_behind()

    def waiting(self, eio_sid: str) -> int:
        """:meth:`.Outlet.waiting`"""
        return self._eio.waiting(eio_sid)

    def proven(self, eio_sid: str) -> tuple[float, bool]:
        """:meth:`.Outlet.proven`"""
        session = self._sessions.get(eio_sid)
        return (0.0, True) if session is None else (session.proven, session.behind)

    def close_connection(self, eio_sid: str) -> None:
        """End a session as if its connection broke, because the client has a new one."""
        self._eio.in_loop(self._abort, eio_sid)

    def _abort(self, eio_sid: str) -> None:
        session = self._sessions.get(eio_sid)
        if session is not None:
            session.close(self._eio.reason.TRANSPORT_CLOSE, abort=True)

    def ask_client(self, eio_sid: str, answered: Callable[[bool], None]) -> None:
        """:meth:`.Outlet.ask_client`"""
        self._eio.in_loop(self._eio.engine.ask, eio_sid, answered)

    # --- from clients -----------------------------------------------------------------

    def on_message(self, session: Session, data: Payload) -> bool:
        """:meth:`.Owner.on_message`"""
        traffic.received += 1
        loads = self._loads
        if loads is not None and data.__class__ is str and session not in self._partials:
            event = read_event(data, loads)
            if event is not None and _is_event(event[2]) and self._start(session, *event):
                return True
        try:
            pkt = self._whole(session, data)
        except Exception:
            session.refuse()
            return True
        if pkt is None:
            return True
        if pkt.packet_type in _EVENTS and self._start(
            session, pkt.namespace or "/", pkt.id, pkt.data
        ):
            return True
        runtime = self._eio.runtime
        run = runtime.run_answer if pkt.packet_type in _ACKS else partial(self._run, session)
        return self._eio.run_alone(session, self._dispatch, session.sid, pkt, run=run)

    def _whole(self, session: Session, data: Payload) -> Any:
        """The packet that a message completes; ``None`` if attachments are missing.

        :raises Exception: of any kind, if the message is not valid.
        """
        begun = self._partials.pop(session, None) if self._partials else None
        if begun is not None:
            if isinstance(data, bytes):
                if begun.add(data):
                    return begun.packet
                self._partials[session] = begun
                return None
            raise ValueError("a text instead of an attachment")
        pkt = self._parse(session, data)
        if not pkt.attachment_count:
            return pkt
        if not self._is_connected(session.sid, pkt.namespace or "/"):
            self._partials[session] = Skipped(pkt.attachment_count)
            return None
        most = EVENT_SIZES * int(self._eio.max_http_buffer_size)
        self._partials[session] = Partial(pkt, data, most - len(data))  # type: ignore[arg-type]
        return None

    def _parse(self, session: Session, data: Payload) -> Any:
        pkt = self._server.packet_class(encoded_packet=data)
        kind, namespace = pkt.packet_type, pkt.namespace or "/"
        valid = isinstance(namespace, str) and (pkt.id is None or type(pkt.id) is int)
        if kind in _EVENTS:
            valid = valid and _is_event(pkt.data)
        elif kind in _ACKS:
            # The ids of our acknowledgements begin at 1.
            valid = valid and isinstance(pkt.data, list) and bool(pkt.id)
        else:
            valid = valid and kind in (sio_packet.CONNECT, sio_packet.DISCONNECT)
        if kind in _WITH_ATTACHMENTS:
            valid = (
                valid
                # Without attachments the packet must contain "0-".
                and (pkt.attachment_count or data[1:3] == "0-")
                and pkt.attachment_count <= self.max_attachments
            )
        elif pkt.attachment_count:
            valid = False
        if kind != sio_packet.CONNECT and not session.connected:
            # A recovered client may send before its session is marked as connected.
            valid = valid and self._is_connected(session.sid, namespace)
        if not valid:
            raise ValueError("an invalid packet")
        return pkt

    def _is_connected(self, eio_sid: str, namespace: str) -> bool:
        manager = self._server.manager
        return bool(manager.is_connected(manager.sid_from_eio_sid(eio_sid, namespace), namespace))

    def drop(self, session: Session) -> None:
        """Remove all state of a session that has ended, or moved."""
        self._partials.pop(session, None)
        self._unconnected.discard(session)

    def _forget(self, session: Session) -> Optional[Callable[[], None]]:
        self.drop(session)
        return self.hold.forget(session)

    # --- while sessions move ------------------------------------------------------------

    def has_come(self, session: Session, is_connected: bool) -> None:
        """A session has arrived from another worker.

        :param is_connected: whether its client is connected to a namespace.
        """
        session.connected = is_connected
        if not is_connected:
            self._unconnected.add(session)

    def serves(self, server: Any) -> bool:
        """Whether this dispatcher serves ``server``."""
        return server is self._server

    @property
    def moves(self) -> bool:
        """Whether its sessions can move: only if all handlers are started here."""
        return self._plain and bool(getattr(self._server.manager, "takeover", False))

    def is_running(self, session: Session) -> bool:
        """Whether a handler runs for a message of the session or for a client's disconnect, or the
        session has an incomplete packet, which does not move.
        """
        if session.running or session in self._partials or self._eio.is_busy(session):
            return True
        leaving = list(self._leaving)  # other threads may change the dictionary
        if not leaving:
            return False
        sid_of = self._server.manager.sid_from_eio_sid
        namespaces = list(self._server.manager.get_namespaces())
        return any(sid_of(session.sid, namespace) in leaving for namespace in namespaces)

    def take_back(self) -> Iterator[tuple[Session, Sequence[Payload]]]:
        """Yield messages whose handler has not started, a session's last one first.

        They will not be handled here. In this class they are incomplete events.
        """
        for session, begun in list(self._partials.items()):
            if begun.packet is not None and begun.packet.packet_type in _EVENTS:
                del self._partials[session]
                yield session, begun.messages

    def is_full(self, session: Session) -> bool:
        """Whether so many events of the session wait for a thread that no more of them are taken;
        :attr:`.EngineOwner.proceed` is called when that is over."""
        return False

    def is_within(self, session: Session) -> bool:
        """Whether attachments of the session's last message are missing."""
        return session in self._partials

    def take_answer(self, session: Session, data: Payload) -> Optional[bool]:
        """Handle a message if it is, or belongs to, an acknowledgement.

        :return: whether the next message may be read now; ``None`` if it is another message.
        """
        if session not in self._partials and not self._is_answer(data):
            return None
        traffic.received += 1
        try:
            pkt = self._whole(session, data)
        except Exception:
            session.refuse()
            return True
        if pkt is None:
            return True
        run = self._eio.runtime.run_answer
        if not self._eio.is_busy(session):
            return self._eio.run_alone(session, self._dispatch, session.sid, pkt, run=run)
        # The task that runs alone for the session may wait for it.
        self._count(session)
        run(self._eio.call, self._run_answer, session, pkt)
        return True

    def _is_answer(self, data: Payload) -> bool:
        if self._loads is not None:
            return data.__class__ is str and data[:1] in _ANSWERS
        try:
            return self._server.packet_class(encoded_packet=data).packet_type in _ACKS
        except Exception:  # raised by the application's packet class; checked again later
            return False

    async def _run_answer(self, session: Session, pkt: Any) -> None:
        try:
            await self._dispatch(session.sid, pkt)
        finally:
            assert session.running is not None
            session.running.pop()

    # --- handlers ---------------------------------------------------------------------

    def _run(self, session: Session, call: Callable[..., Any], *args: Any) -> None:
        """Start a task that runs alone for its session."""
        self._eio.runtime.run(call, *args)

    @staticmethod
    def _count(session: Session) -> None:
        """Note that a handler of this session starts."""
        if session.running is None:
            session.running = []
        session.running.append(None)

    def _start(
        self, session: Session, namespace: str, number: Optional[int], data: list[Any]
    ) -> bool:
        """Start the handler of a plain event now; false if the event has to run alone."""
        server = self._server
        if not self._plain or not server.async_handlers:
            return False
        if server.logger.isEnabledFor(logging.INFO):
            return False  # a logging handler may block its greenlet
        sid = server.manager.sid_from_eio_sid(session.sid, namespace)
        if server.manager.is_connected(sid, namespace):
            self._begin(sid, session, namespace, number, data)
        elif not session.connected:
            session.refuse()
        return True

    def _begin(self, sid: str, session: Session, *event: Any) -> None:
        running = session.running
        if running is None:
            running = session.running = []
        running.append(None)
        self._eio.runtime.run(self._runner, sid, session, *event)

    async def _dispatch(self, eio_sid: str, pkt: Any) -> None:
        """Handle a complete packet, as ``Server._handle_eio_message`` does."""
        server, kind = self._server, pkt.packet_type
        if kind in _EVENTS:
            await self._start_in_turn(eio_sid, pkt)
        elif kind in _ACKS:
            await settle(compat.handle_ack(server, eio_sid, pkt))
        elif kind == sio_packet.CONNECT:
            await self._connect(eio_sid, pkt)
        else:
            reason = server.reason.CLIENT_DISCONNECT
            await self.end_client(eio_sid, pkt.namespace or "/", reason)

    async def _start_in_turn(self, eio_sid: str, pkt: Any) -> None:
        """Start the handler of an event as a new task, in the order of the events."""
        server, namespace = self._server, pkt.namespace or "/"
        if not self._plain:
            await settle(compat.handle_event(server, eio_sid, namespace, pkt))
            return
        sid = server.manager.sid_from_eio_sid(eio_sid, namespace)
        server.logger.info('received event "%s" from %s [%s]', pkt.data[0], sid, namespace)
        session = self._sessions.get(eio_sid)
        if session is None or not server.manager.is_connected(sid, namespace):
            server.logger.info("%s is not connected to namespace %s", sid, namespace)
        elif server.async_handlers:
            # It starts before the next message, which waits for the end of this call.
            self._count(session)
            soon = self._eio.runtime.soon
            self._eio.in_loop(soon, self._runner, sid, session, namespace, pkt.id, pkt.data)
        else:
            self._count(session)
            await settle(self._runner(sid, session, namespace, pkt.id, pkt.data))

    def _is_counted(self, session: Session, error: Exception) -> bool:
        """Count an error that the client has caused, not the handler; return whether it was."""
        if isinstance(error, TypeError) and _never_began(error):
            self._eio.count_of(session, WRONG_ARGUMENTS, str(error))
            return True
        if isinstance(error, sio_exceptions.TimeoutError) and _of_call(error):
            self._eio.count_of(session, NO_ANSWER)
            return True
        return False

    def _acknowledge(self, session: Session, namespace: str, number: int, answer: Any) -> Any:
        """Send a handler's return value as acknowledgement.

        :return: the result of the server's own ``_send_packet``, if the application replaced it.
        """
        server = self._server
        if answer is server.not_handled:
            return None
        if answer is None:
            data = []
        else:
            data = list(answer) if isinstance(answer, tuple) else [answer]
        if self._dumps is not None and compat.sends_by(server, self._send_packet):
            text = ack_text(namespace, number, data, self._dumps)
            if text is not None:
                self._reply(session.sid, text)
                return None
        ack = server.packet_class(sio_packet.ACK, namespace=namespace, id=number, data=data)
        return compat.send_packet(server, session.sid, ack)

    async def _connect(self, eio_sid: str, pkt: Any) -> None:
        namespace = pkt.namespace or "/"
        await self._connect_to(eio_sid, namespace, pkt)
        session = self._sessions.get(eio_sid)
        if session is not None and self._is_connected(eio_sid, namespace):
            session.connected = True

    async def _connect_to(self, eio_sid: str, namespace: str, pkt: Any) -> None:
        server = self._server
        if not self._is_known(namespace):
            data = {"message": "Invalid namespace"}  # an object like Node's, not python-socketio's
            refused = server.packet_class(sio_packet.CONNECT_ERROR, data=data, namespace=namespace)
            await settle(compat.send_packet(server, eio_sid, refused))
        elif self.recovery is None:
            await self._connect_anew(eio_sid, namespace, pkt)
        elif not await self.recovery.recovers(eio_sid, namespace, pkt):
            try:
                await self._connect_anew(eio_sid, namespace, pkt)
            finally:
                self.recovery.connected(eio_sid, namespace)

    async def _connect_anew(self, eio_sid: str, namespace: str, pkt: Any) -> None:
        server = self._server
        try:
            await settle(compat.handle_connect(server, eio_sid, namespace, pkt))
        except BaseException as error:
            # Without this the client would be neither refused nor connected.
            await self._refuse(eio_sid, namespace)
            if not isinstance(error, TypeError) or not _never_began(error):
                raise
            self._eio.count_of(self._sessions[eio_sid], WRONG_ARGUMENTS, str(error))

    async def _leave(self, eio_sid: str, namespace: Optional[str], reason: Any = None) -> None:
        """The session of a client has ended: it becomes lost, or leaves the namespace."""
        namespace = namespace or "/"
        if self.recovery is None or not self.recovery.loses(eio_sid, namespace, reason):
            await self.end_client(eio_sid, namespace, reason)

    async def end_client(self, eio_sid: str, namespace: str, reason: Any = None) -> None:
        """A client finally leaves a namespace.

        If the ``disconnect`` handler fails, python-socketio alone would keep the client's rooms and
        environment, and not call the handlers of its other namespaces.
        """
        sid = self._server.manager.sid_from_eio_sid(eio_sid, namespace)
        with self._disconnecting(sid) as first:
            if not first:
                return
            try:
                await settle(self._handle_disconnect(eio_sid, namespace, reason))
            except BaseException as error:
                await self._forget_client(sid, namespace)
                if isinstance(error, ENDS):
                    raise
                self._eio.logger.exception("disconnect handler error")

    async def disconnect(
        self, sid: str, namespace: Optional[str] = None, ignore_queue: bool = False
    ) -> None:
        """``Server.disconnect``; an error of the handler is raised to the caller, too.

        After such an error python-socketio alone would keep the client's rooms.
        """
        if self.recovery is not None:
            with self.recovery.environment(sid, namespace or "/"):
                await self._disconnect_once(sid, namespace, ignore_queue)
        else:
            await self._disconnect_once(sid, namespace, ignore_queue)

    async def _disconnect_once(
        self, sid: str, namespace: Optional[str], ignore_queue: bool
    ) -> None:
        with self._disconnecting(sid) as first:
            if not first:
                return
            try:
                await settle(self._disconnect(sid, namespace, ignore_queue))
            except BaseException:
                namespace = namespace or "/"
                if sid in self._server.manager.pending_disconnect.get(namespace, ()):
                    await self._forget_client(sid, namespace)
                raise

    @contextmanager
    def _disconnecting(self, sid: Optional[str]) -> Iterator[bool]:
        """Yield true to the first caller that disconnects a client: its handler is called once.

        python-socketio checks that the client is connected, and marks it as disconnected later, so
        two threads could both call the handler.
        """
        this = object()
        first = self._leaving.setdefault(sid, this) is this
        try:
            yield first
        finally:
            if first:
                del self._leaving[sid]

    async def _forget_client(self, sid: str, namespace: str) -> None:
        await settle(self._server.manager.disconnect(sid, namespace, ignore_queue=True))

    def _is_known(self, namespace: str) -> bool:
        """Whether the application has handlers for a namespace, or allows it."""
        server = self._server
        return (
            namespace in server.handlers
            or namespace in server.namespace_handlers
            or server.namespaces == "*"
            or namespace in server.namespaces
        )

    async def _refuse(self, eio_sid: str, namespace: str) -> None:
        server = self._server
        sid = server.manager.sid_from_eio_sid(eio_sid, namespace)
        kind = sio_packet.CONNECT_ERROR
        if server.always_connect and server.manager.is_connected(sid, namespace):
            kind = sio_packet.DISCONNECT  # the client got its CONNECT already
        elif not server.manager.is_pre_connected(sid, namespace):
            return
        await self._forget_client(sid, namespace)
        reason = sio_exceptions.ConnectionRefusedError().error_args
        refused = server.packet_class(kind, data=reason, namespace=namespace)
        await settle(compat.send_packet(server, eio_sid, refused))


def _is_event(data: Any) -> bool:
    """Whether a client may emit this; Node's servers refuse the same events.

    python-socketio alone would call the application's ``connect`` or ``disconnect`` handler.
    """
    if not isinstance(data, list) or not data:
        return False
    name = data[0]
    return isinstance(name, (str, int)) and name not in RESERVED_EVENTS


def _never_began(error: TypeError) -> bool:
    """Whether the error is the call of a handler with the wrong arguments: its traceback contains
    only frames of the libraries that call handlers.
    """
    trace = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in ("supervisor_sio", "socketio", "flask_socketio"):
            return False
        trace = trace.tb_next
    return True


def _of_call(error: sio_exceptions.TimeoutError) -> bool:
    """Whether ``call()`` has raised the error because a client did not answer in time."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") in _CALLERS
