"""Socket.IO packets to the handlers of an application, and back.

python-socketio calls the handlers; what it does around that is shortened here. A plain event
starts its handler in the loop, at once; what is encoded once goes straight to each
client. Whatever else comes runs alone for its session: the next message waits for its end.

The names of python-socketio that this needs, and that are not public, are in :mod:`.compat`.
"""

from __future__ import annotations

import logging
from typing import Any, Optional, Sequence

from engineio import packet
from socketio import exceptions as sio_exceptions
from socketio import packet as sio_packet

from ..cluster.packets import Packet, Partial, ack_text, read_event
from ..cluster.sessions import send_to_each, traffic
from ..common.emission import RESERVED_EVENTS
from ..common.limits import EVENT_SIZES
from ..common.reasons import NO_ANSWER, WRONG_ARGUMENTS
from ..engine.frames import Payload, message_frame
from ..engine.session import Session
from . import compat
from .eio import EngineServer

_MESSAGE = str(packet.MESSAGE)
_EVENTS = (sio_packet.EVENT, sio_packet.BINARY_EVENT)
_ACKS = (sio_packet.ACK, sio_packet.BINARY_ACK)
_WITH_ATTACHMENTS = (sio_packet.BINARY_EVENT, sio_packet.BINARY_ACK)


class Dispatcher:
    """Between the engine and one ``socketio.Server``.

    :param threads: calls of other threads come here by it, see :class:`.runtime.Threads`.
    :param max_attachments: most of an event of a client.
    """

    concurrent = False

    def __init__(self, server: Any, eio: EngineServer, threads: Any, max_attachments: int) -> None:
        self.threads = threads
        self.max_attachments = max_attachments
        self._server = server
        self._eio = eio
        self._sessions = eio.engine.sessions
        #: Packets whose attachments have yet to come.
        self._partials: dict[Session, Partial] = {}
        #: Whether an event is handled as python-socketio does it.
        self._plain = compat.handles_events_as_usual(server)
        #: Whether packets are what :func:`.read_event` and :func:`.ack_text` know.
        self._default_packets = server.packet_class is Packet
        eio.on_message = self.on_message  # type: ignore[method-assign]
        eio.ended = self._forget
        self._send_packet = self.send_packet
        compat.replace_send_packet(server, self._send_packet)
        self._handle_disconnect = compat.replace_handle_disconnect(server, self._leave)

    # --- to clients -------------------------------------------------------------------

    def send_packet(self, eio_sid: str, pkt: Any) -> None:
        """``Server._send_packet``, without an Engine.IO packet for each part."""
        self._send(eio_sid, pkt.encode())

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
            send_to_each(self._server, eio_sids, packets)  # which tells of each
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

    def is_behind(self) -> bool:
        """Whether much waits for a client to take it."""
        return self._eio.is_behind()

    # --- from clients -----------------------------------------------------------------

    def on_message(self, session: Session, data: Payload) -> bool:
        """A message of a client; whether the next one may come."""
        traffic.received += 1
        if self._default_packets and data.__class__ is str and session not in self._partials:
            event = read_event(data)
            if event is not None and _is_event(event[2]) and self._start(session, *event):
                return True
        try:
            pkt = self._whole(session, data)
        except Exception:
            # python-socketio shows a traceback, and goes on with the session as well.
            session.count_malformed()
            return True
        if pkt is None:
            return True
        if pkt.packet_type in _EVENTS and self._start(
            session, pkt.namespace or "/", pkt.id, pkt.data
        ):
            return True
        return self._eio.run_alone(session, self._dispatch, session.sid, pkt)

    def _whole(self, session: Session, data: Payload) -> Any:
        """The packet that a message is or completes; ``None``: more has to come.

        :raises Exception: of any kind, when the client may not send it.
        """
        partial = self._partials.pop(session, None) if self._partials else None
        if partial is not None:
            if isinstance(data, bytes):
                if partial.add(data):
                    return partial.packet
                self._partials[session] = partial
                return None
            session.count_malformed()  # what was begun does not end
        pkt = self._parse(session.sid, data)
        if not pkt.attachment_count:
            return pkt
        most = EVENT_SIZES * int(self._eio.max_http_buffer_size)
        self._partials[session] = Partial(pkt, most - len(data))
        return None

    def _parse(self, eio_sid: str, data: Payload) -> Any:
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
                and self._is_connected(eio_sid, namespace)
            )
        elif pkt.attachment_count:
            valid = False
        if not valid:
            raise ValueError("not what a client may send")
        return pkt

    def _is_connected(self, eio_sid: str, namespace: str) -> bool:
        manager = self._server.manager
        return bool(manager.is_connected(manager.sid_from_eio_sid(eio_sid, namespace), namespace))

    def _forget(self, session: Session) -> None:
        self._partials.pop(session, None)

    # --- handlers ---------------------------------------------------------------------

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
            self._eio.runtime.run(self._run_handler, sid, session, namespace, number, data)
        return True

    def _dispatch(self, eio_sid: str, pkt: Any) -> None:
        """What ``Server._handle_eio_message`` does, with a packet that is whole."""
        server, kind = self._server, pkt.packet_type
        if kind in _EVENTS:
            self._start_in_turn(eio_sid, pkt)
        elif kind in _ACKS:
            compat.handle_ack(server, eio_sid, pkt)
        elif kind == sio_packet.CONNECT:
            self._connect(eio_sid, pkt)
        else:
            compat.handle_disconnect(server, eio_sid, pkt)

    def _start_in_turn(self, eio_sid: str, pkt: Any) -> None:
        """Handlers start in the order of their events, each in a greenlet of its own."""
        server, namespace = self._server, pkt.namespace or "/"
        if not self._plain:
            compat.handle_event(server, eio_sid, namespace, pkt)
            return
        sid = server.manager.sid_from_eio_sid(eio_sid, namespace)
        server.logger.info('received event "%s" from %s [%s]', pkt.data[0], sid, namespace)
        session = self._sessions.get(eio_sid)
        if session is None or not server.manager.is_connected(sid, namespace):
            server.logger.info("%s is not connected to namespace %s", sid, namespace)
        elif server.async_handlers:
            # Before the next message, which waits for the end of this call.
            self._eio.runtime.soon(self._run_handler, sid, session, namespace, pkt.id, pkt.data)
        else:
            self._run_handler(sid, session, namespace, pkt.id, pkt.data)

    def _run_handler(
        self, sid: str, session: Session, namespace: str, number: Optional[int], event: list[Any]
    ) -> None:
        server = self._server
        try:
            answer = compat.trigger_event(server, event[0], namespace, sid, event[1:])
        except TypeError as error:
            if not _never_began(error):
                raise
            self._eio.count_of(session, WRONG_ARGUMENTS, str(error))
            return
        except sio_exceptions.TimeoutError as error:
            if not _of_call(error):
                raise
            self._eio.count_of(session, NO_ANSWER)
            return
        if number is None or answer is server.not_handled:
            return
        if answer is None:
            data = []
        else:
            data = list(answer) if isinstance(answer, tuple) else [answer]
        if self._default_packets and compat.sends_by(server, self._send_packet):
            text = ack_text(namespace, number, data)
            if text is not None:
                self._send(session.sid, text)
                return
        ack = server.packet_class(sio_packet.ACK, namespace=namespace, id=number, data=data)
        compat.send_packet(server, session.sid, ack)

    def _connect(self, eio_sid: str, pkt: Any) -> None:
        server, namespace = self._server, pkt.namespace or "/"
        if not self._is_known(namespace):
            data = {"message": "Invalid namespace"}  # as with Node; python-socketio sends no object
            refused = server.packet_class(sio_packet.CONNECT_ERROR, data=data, namespace=namespace)
            compat.send_packet(server, eio_sid, refused)
            return
        try:
            compat.handle_connect(server, eio_sid, namespace, pkt)
        except BaseException as error:
            # python-socketio would leave the client neither refused nor connected.
            self._refuse(eio_sid, namespace)
            if not isinstance(error, TypeError) or not _never_began(error):
                raise
            self._eio.count_of(self._sessions[eio_sid], WRONG_ARGUMENTS, str(error))

    def _leave(self, eio_sid: str, namespace: Optional[str], reason: Any = None) -> None:
        """A client leaves a namespace.

        When a handler of ``disconnect`` failed, python-socketio would keep the client's rooms and
        its environment, and not call the handlers of its other namespaces.
        """
        try:
            self._handle_disconnect(eio_sid, namespace or "/", reason)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # an application's eventlet.Timeout is not an Exception
            self._eio.logger.exception("disconnect handler error")
            manager = self._server.manager
            sid = manager.sid_from_eio_sid(eio_sid, namespace or "/")
            manager.disconnect(sid, namespace or "/", ignore_queue=True)

    def _is_known(self, namespace: str) -> bool:
        """Whether the application has handlers in a namespace, or allows it."""
        server = self._server
        return (
            namespace in server.handlers
            or namespace in server.namespace_handlers
            or server.namespaces == "*"
            or namespace in server.namespaces
        )

    def _refuse(self, eio_sid: str, namespace: str) -> None:
        server = self._server
        sid = server.manager.sid_from_eio_sid(eio_sid, namespace)
        kind = sio_packet.CONNECT_ERROR
        if server.always_connect and server.manager.is_connected(sid, namespace):
            kind = sio_packet.DISCONNECT  # it was told before that it is connected
        elif not server.manager.is_pre_connected(sid, namespace):
            return
        server.manager.disconnect(sid, namespace, ignore_queue=True)
        reason = sio_exceptions.ConnectionRefusedError().error_args
        refused = server.packet_class(kind, data=reason, namespace=namespace)
        compat.send_packet(server, eio_sid, refused)


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
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == "socketio.server"
