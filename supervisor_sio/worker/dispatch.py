"""Socket.IO packets to the handlers of an application, and back.

python-socketio calls the handlers; what it does around that is shortened here. A plain event
starts its handler at once; what is encoded once goes straight to each client. Whatever else
comes runs alone for its session: the next message waits for its end.

There is one :class:`Dispatcher`, for sync and for async servers. What may wait for a handler is
an ``async def``; a :class:`.SyncDispatcher` runs it in a greenlet or a thread, where it blocks.
Only the call of an event's handler is written for each of them, in :mod:`.dispatchers`, between
two halves that are plain functions: it is what an echo takes its time for.

The names of python-socketio that this needs, and that are not public, are in :mod:`.compat`.
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
#: Where ``call()`` is, of sync and of async servers.
_CALLERS = ("socketio.server", "socketio.async_server")
#: The first characters of these.
_ANSWERS = tuple(str(kind) for kind in _ACKS)
_WITH_ATTACHMENTS = (sio_packet.BINARY_EVENT, sio_packet.BINARY_ACK)


class Dispatcher:
    """Between the engine and one ``socketio.Server`` or ``AsyncServer``.

    :param threads: calls of other threads come here by it, see :class:`.runtime.Threads`.
    :param max_attachments: most of an event of a client.
    """

    concurrent = False

    def __init__(self, server: Any, eio: EngineOwner, threads: Any, max_attachments: int) -> None:
        self.threads = threads
        self.max_attachments = max_attachments
        self._server = server
        self._eio = eio
        self._sessions = eio.engine.sessions
        #: Packets whose attachments have yet to come.
        self._partials: dict[Session, Union[Partial, Skipped]] = {}
        self._unconnected = Unconnected(
            eio.engine.deadlines,
            getattr(server.manager, "connect_timeout", CONNECT_SECONDS),
            eio.is_busy,
        )
        #: Clients that are being disconnected, and by which call.
        self._leaving: dict[Optional[str], object] = {}
        #: Whether an event is handled as python-socketio does it.
        self._plain = compat.handles_events_as_usual(server)
        #: For packets that :func:`.read_event` and :func:`.ack_text` know.
        self._dumps: Optional[Callable[[Any], str]] = None
        self._loads: Optional[Callable[[str], Any]] = None
        known = coders(server.packet_class)
        if known is not None:
            self._dumps, self._loads = known
        eio.on_message = self.on_message  # type: ignore[method-assign]
        eio.began = self._unconnected.add
        eio.ended = self._forget
        #: What no handler gets before, or after, a session moves.
        self.hold = Hold(self, eio)
        #: Of clients that may come back, if the manager has them.
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
        """A coroutine function as a method of the server is called."""
        raise NotImplementedError

    def _run_handler(
        self, sid: str, session: Session, namespace: str, number: Optional[int], event: list[Any]
    ) -> Any:
        """Call the handler of an event, and send the acknowledgement; takes an item out of
        :attr:`.Session.running`.
        """
        raise NotImplementedError

    def _run_counted(
        self, sid: str, session: Session, namespace: str, number: Optional[int], event: list[Any]
    ) -> Any:
        """The same with ``event_metrics``."""
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
        """Send an encoded packet, from where handlers run."""
        self._send(eio_sid, encoded)

    # --- to clients -------------------------------------------------------------------

    def send_packet(self, eio_sid: str, pkt: Any) -> Any:
        """``Server._send_packet``, without an Engine.IO packet for each part."""
        raise NotImplementedError

    def _encode(self, eio_sid: str, pkt: Any) -> Any:
        if pkt.packet_type == sio_packet.CONNECT:
            session = self._sessions.get(eio_sid)
            if session is not None:
                # Before its handler has run, with `always_connect`: it may emit from here on.
                session.connected = True
            if self.recovery is not None:
                self.recovery.begin(eio_sid, pkt)
        elif pkt.packet_type == sio_packet.DISCONNECT:
            # python-socketio says why with `always_connect`; to JavaScript's parser that is an
            # error, after which the client connects again.
            pkt.data = None
        return pkt.encode()

    def _send(self, eio_sid: str, encoded: Any) -> None:
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
        """Send an encoded Socket.IO packet to clients.

        It is framed once, and goes straight to each websocket.
        """
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
        """The same, but not to clients that have yet to take what they were sent before."""
        self.fan_out(self._eio.up_to_date(eio_sids), packets)

    def is_behind(self) -> bool:
        """Whether much waits for a client to take it."""
        return self._eio.is_behind()

    def waiting(self, eio_sid: str) -> int:
        """:meth:`.Outlet.waiting`"""
        return self._eio.waiting(eio_sid)

    def proven(self, eio_sid: str) -> tuple[float, bool]:
        """:meth:`.Outlet.proven`"""
        session = self._sessions.get(eio_sid)
        return (0.0, True) if session is None else (session.proven, session.behind)

    def close_connection(self, eio_sid: str) -> None:
        """End a session as if its connection broke: the client has another one."""
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
        """A message of a client; whether the next one may come."""
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
        """The packet that a message is or completes; ``None``: more has to come.

        :raises Exception: of any kind, when the client may not send it.
        """
        begun = self._partials.pop(session, None) if self._partials else None
        if begun is not None:
            if isinstance(data, bytes):
                if begun.add(data):
                    return begun.packet
                self._partials[session] = begun
                return None
            raise ValueError("an event whose attachments do not come")
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
            # Ours begin at 1.
            valid = valid and isinstance(pkt.data, list) and bool(pkt.id)
        else:
            valid = valid and kind in (sio_packet.CONNECT, sio_packet.DISCONNECT)
        if kind in _WITH_ATTACHMENTS:
            valid = (
                valid
                # Only "0-" says that there is none.
                and (pkt.attachment_count or data[1:3] == "0-")
                and pkt.attachment_count <= self.max_attachments
            )
        elif pkt.attachment_count:
            valid = False
        if kind != sio_packet.CONNECT and not session.connected:
            # One that is recovered has its CONNECT before that is noted, and may answer at once.
            valid = valid and self._is_connected(session.sid, namespace)
        if not valid:
            raise ValueError("not what a client may send")
        return pkt

    def _is_connected(self, eio_sid: str, namespace: str) -> bool:
        manager = self._server.manager
        return bool(manager.is_connected(manager.sid_from_eio_sid(eio_sid, namespace), namespace))

    def drop(self, session: Session) -> None:
        """Keep nothing of a session that has ended."""
        self._partials.pop(session, None)
        self._unconnected.discard(session)

    def _forget(self, session: Session) -> Optional[Callable[[], None]]:
        self.drop(session)
        return self.hold.forget(session)

    # --- while sessions move ------------------------------------------------------------

    def has_come(self, session: Session, is_connected: bool) -> None:
        """A session has come from another worker.

        :param is_connected: whether its client is in a namespace.
        """
        session.connected = is_connected
        if not is_connected:
            self._unconnected.add(session)

    def serves(self, server: Any) -> bool:
        """Whether this is for that server."""
        return server is self._server

    @property
    def moves(self) -> bool:
        """Whether its sessions do: all handlers are started here, so they can be waited for."""
        return self._plain and bool(getattr(self._server.manager, "takeover", False))

    def is_running(self, session: Session) -> bool:
        """Whether a handler runs for one of its messages, or for its end in a namespace; or only a
        part of a message has come, of those that :meth:`take_back` leaves here.
        """
        if session.running or session in self._partials or self._eio.is_busy(session):
            return True
        leaving = list(self._leaving)  # threads may be about to change it
        if not leaving:
            return False
        sid_of = self._server.manager.sid_from_eio_sid
        namespaces = list(self._server.manager.get_namespaces())
        return any(sid_of(session.sid, namespace) in leaving for namespace in namespaces)

    def take_back(self) -> Iterator[tuple[Session, Sequence[Payload]]]:
        """The messages of all whose handler has not begun; of a session the last one first.

        None is handled here then. These are events whose attachments have yet to come.
        """
        for session, begun in list(self._partials.items()):
            if begun.packet is not None and begun.packet.packet_type in _EVENTS:
                del self._partials[session]
                yield session, begun.messages

    def take_answer(self, session: Session, data: Payload) -> bool:
        """Handle a message that is, or belongs to, an acknowledgement; false for any other."""
        if session not in self._partials and not self._is_answer(data):
            return False
        traffic.received += 1
        try:
            pkt = self._whole(session, data)
        except Exception:
            session.refuse()
            return True
        if pkt is not None:
            # Also beside what runs alone: that may be what waits for it.
            self._count(session)
            self._eio.runtime.run_answer(self._eio.call, self._run_answer, session, pkt)
        return True

    def _is_answer(self, data: Payload) -> bool:
        if self._loads is not None:
            return data.__class__ is str and data[:1] in _ANSWERS
        try:
            return self._server.packet_class(encoded_packet=data).packet_type in _ACKS
        except Exception:  # the application's own class; it is looked at again
            return False

    async def _run_answer(self, session: Session, pkt: Any) -> None:
        try:
            await self._dispatch(session.sid, pkt)
        finally:
            assert session.running is not None
            session.running.pop()

    # --- handlers ---------------------------------------------------------------------

    def _run(self, session: Session, call: Callable[..., Any], *args: Any) -> None:
        """Start what runs alone for a session."""
        self._eio.runtime.run(call, *args)

    @staticmethod
    def _count(session: Session) -> None:
        """A handler of this session is about to run."""
        if session.running is None:
            session.running = []
        session.running.append(None)

    def _start(
        self, session: Session, namespace: str, number: Optional[int], data: list[Any]
    ) -> bool:
        """Start the handler of an event at once; false when it is not that simple."""
        server = self._server
        if not self._plain or not server.async_handlers:
            return False
        if server.logger.isEnabledFor(logging.INFO):
            return False  # it may write to where a greenlet has to wait
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
        """What ``Server._handle_eio_message`` does, with a packet that is whole."""
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
        """Handlers start in the order of their events, each as a task of its own."""
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
            # Before the next message, which waits for the end of this call.
            self._count(session)
            soon = self._eio.runtime.soon
            self._eio.in_loop(soon, self._runner, sid, session, namespace, pkt.id, pkt.data)
        else:
            self._count(session)
            await settle(self._runner(sid, session, namespace, pkt.id, pkt.data))

    def _is_counted(self, session: Session, error: Exception) -> bool:
        """Whether it is the client's mistake, and no handler's, that a handler has failed."""
        if isinstance(error, TypeError) and _never_began(error):
            self._eio.count_of(session, WRONG_ARGUMENTS, str(error))
            return True
        if isinstance(error, sio_exceptions.TimeoutError) and _of_call(error):
            self._eio.count_of(session, NO_ANSWER)
            return True
        return False

    def _acknowledge(self, session: Session, namespace: str, number: int, answer: Any) -> Any:
        """Send what a handler has returned.

        :return: what the server's own way to send has returned, where it has another one.
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
            data = {"message": "Invalid namespace"}  # as with Node; python-socketio sends no object
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
            # python-socketio would leave the client neither refused nor connected.
            await self._refuse(eio_sid, namespace)
            if not isinstance(error, TypeError) or not _never_began(error):
                raise
            self._eio.count_of(self._sessions[eio_sid], WRONG_ARGUMENTS, str(error))

    async def _leave(self, eio_sid: str, namespace: Optional[str], reason: Any = None) -> None:
        """The session of a client has ended, which leaves a namespace, or may come back to it."""
        namespace = namespace or "/"
        if self.recovery is None or not self.recovery.loses(eio_sid, namespace, reason):
            await self.end_client(eio_sid, namespace, reason)

    async def end_client(self, eio_sid: str, namespace: str, reason: Any = None) -> None:
        """A client leaves a namespace for good.

        When a handler of ``disconnect`` failed, python-socketio would keep the client's rooms and
        its environment, and not call the handlers of its other namespaces.
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
        """``Server.disconnect``; when the handler fails, its caller gets the error as well.

        python-socketio would keep the client's rooms.
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
        """Whether nobody else disconnects that client now: its handler is called once.

        python-socketio looks whether it is connected, and notes later that it is not any more: two
        threads could both go on.
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
        """Whether the application has handlers in a namespace, or allows it."""
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
            kind = sio_packet.DISCONNECT  # it was told before that it is connected
        elif not server.manager.is_pre_connected(sid, namespace):
            return
        await self._forget_client(sid, namespace)
        reason = sio_exceptions.ConnectionRefusedError().error_args
        refused = server.packet_class(kind, data=reason, namespace=namespace)
        await settle(compat.send_packet(server, eio_sid, refused))


def _is_event(data: Any) -> bool:
    """Whether a client may emit this; what Node's servers refuse as well.

    python-socketio would call the application's own ``connect`` and ``disconnect`` handlers.
    """
    if not isinstance(data, list) or not data:
        return False
    name = data[0]
    return isinstance(name, (str, int)) and name not in RESERVED_EVENTS


def _never_began(error: TypeError) -> bool:
    """Whether a handler does not take what the client has sent: nobody else was called.

    Handlers are called by python-socketio, or by Flask-SocketIO.
    """
    trace = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in ("supervisor_sio", "socketio", "flask_socketio"):
            return False
        trace = trace.tb_next
    return True


def _of_call(error: sio_exceptions.TimeoutError) -> bool:
    """Whether it is a client that has not answered ``call()``; an application may call others."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") in _CALLERS
