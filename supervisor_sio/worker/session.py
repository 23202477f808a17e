"""Engine.IO sessions that have our websocket.

engineio has, for each client, a greenlet that reads, one that writes, one that
waits for the time of the next ping, and a queue between them. A
:class:`Session` means the same to the application, and to engineio, without any
of these: messages come in the hub's callbacks, and what is sent goes straight
to the websocket. Until a session has a websocket, and for good where it stays
with long polling, everything but the pings is engineio's own.

A greenlet is there only while there is something to handle. Nearly always that
is one event for a handler of the application, which runs at once.
Whatever else comes is handled in a greenlet of its own, in order, and nothing
more is read from that client meanwhile.
"""

from __future__ import annotations

import codecs
import logging
import queue
import sys
import time
from typing import Any, Callable, Iterator, Optional, Sequence
from urllib.parse import unquote_to_bytes

import socketio
from engineio import exceptions, packet
from engineio.socket import Socket
from eventlet import hubs
from socketio import exceptions as sio_exceptions
from socketio import packet as sio_packet

from ..cluster.packets import Partial
from ..cluster.sessions import Outlet, PlainOutlet, send_to_each, traffic
from ..common.emission import RESERVED_EVENTS
from ..common.limits import (
    EVENT_SIZES,
    MALFORMED_PACKETS,
    MESSAGES_AT_ONCE,
    OUTPUT_CEILING,
    OUTPUT_OBJECT,
    POLL_BYTES,
    POLL_PACKETS,
    READING_STOPS,
    SLOW_OUTPUT,
    SLOW_OUTPUT_PATIENCE,
    UNQUOTED_AT_ONCE,
)
from ..common.reasons import NO_ANSWER, PROTOCOL, TOO_SLOW, WRONG_ARGUMENTS
from ..engine.frames import INTERNAL_ERROR, INVALID_DATA, Payload, ProtocolError, message_frame
from . import greenlets
from .delay import Delay
from .http import LAST_REQUEST, ClientGone
from .printable import PRINTABLE
from .threads import HubThread
from .tracebacks import FEW_TRACEBACKS
from .websocket import (
    TAKE_CONNECTION,
    Handler,
    HandshakeError,
    WebSocket,
    accept,
    refusals,
    send_to_all,
)

_PROBE_ANSWER = message_frame(f"{packet.PONG}probe")
_PONG = str(packet.PONG)
_MESSAGE = str(packet.MESSAGE)
_EVENTS = (sio_packet.EVENT, sio_packet.BINARY_EVENT)
_ACKS = (sio_packet.ACK, sio_packet.BINARY_ACK)
_WITH_ATTACHMENTS = (sio_packet.BINARY_EVENT, sio_packet.BINARY_ACK)
#: Between the packets of a payload.
_SEPARATOR = "\x1e"
#: Seconds between looks whether a client has polled.
_LOOK = 0.05
#: How a Socket.IO event begins, other than one with attachments.
_EVENT = f"{packet.MESSAGE}{sio_packet.EVENT}"


def install(server: Any, max_attachments: int) -> Outlet:
    """Give the clients of a ``socketio.Server`` on eventlet this kind of session.

    Each becomes one when Engine.IO says that it has connected. An application
    that takes this event for itself, as ``sio.instrument()`` does, stays with
    engineio's own sessions, whose packets it counts.

    :param max_attachments: most of an event of a client.
    """
    if server.eio.async_mode != "eventlet":
        return PlainOutlet(server)  # the worker refuses it
    transport = Transport(server, max_attachments)
    eio = server.eio
    connected = eio.handlers["connect"]

    def adopt(eio_sid: str, environ: dict[str, Any]) -> Any:
        session = eio.sockets[eio_sid]
        session.__class__ = Session
        session.transport = transport
        if transport.threads is None:
            transport.threads = HubThread()
        traffic.opened += 1
        return connected(eio_sid, environ)

    if connected == server._handle_eio_connect:
        eio.on("connect", adopt)
    for logger in (server.logger, eio.logger):
        if logger.name.startswith(("socketio.", "engineio.")):  # else the application's own
            logger.addFilter(PRINTABLE)
            logger.addFilter(FEW_TRACEBACKS)
    greenlets.logger.addFilter(FEW_TRACEBACKS)
    server._send_packet = transport.send_packet
    return transport


class Transport:
    """What the sessions of a server have in common."""

    def __init__(self, server: Any, max_attachments: int) -> None:
        self.server = server
        self.max_attachments = max_attachments
        #: The thread of the sessions, from the first one on.
        self.threads: Optional[HubThread] = None
        eio = server.eio
        #: By Engine.IO sid, the websockets of sessions that send everything through it.
        self.live: dict[str, WebSocket] = {}
        #: Sessions that are to be pinged, and those that have yet to upgrade.
        self.pings: Delay[Session] = Delay(eio.ping_interval, Session.ping)
        self.upgrades: Delay[tuple[Session, WebSocket]] = Delay(
            eio.ping_interval + eio.ping_timeout, lambda item: item[0].give_up_upgrade(item[1])
        )
        #: Whether an event is handled as python-socketio does it.
        self._plain = all(
            getattr(type(server), name) is getattr(socketio.Server, name)
            for name in ("_handle_event", "_handle_event_internal")
        )
        #: Whether its handler may start in the hub, and its text begins with its type.
        self.direct = self._plain and server.packet_class.encode is sio_packet.Packet.encode

    def send_packet(self, eio_sid: str, pkt: Any) -> None:
        """``Server._send_packet``, without an Engine.IO packet for each part."""
        encoded = pkt.encode()
        websocket = self.live.get(eio_sid)
        if (
            websocket is not None
            and isinstance(encoded, str)
            and not self.server.eio.logger.isEnabledFor(logging.INFO)
        ):
            websocket.send(message_frame(_MESSAGE + encoded))
            traffic.sent += 1
            return
        self.fan_out((eio_sid,), encoded if isinstance(encoded, list) else (encoded,))

    def is_behind(self) -> bool:
        """Whether more than ``SLOW_OUTPUT`` waits for a client."""
        return any(
            isinstance(session, Session) and session.waiting > SLOW_OUTPUT
            for session in self.server.eio.sockets.values()
        )

    def fan_out(self, eio_sids: Sequence[str], packets: Sequence[Payload]) -> None:
        """Send an encoded Socket.IO packet to clients.

        It is framed once, and goes straight to each websocket.
        """
        if self.server.eio.logger.isEnabledFor(logging.INFO):
            send_to_each(self.server, eio_sids, packets)  # which tells of each
            return
        frames = [message_frame(_MESSAGE + p if isinstance(p, str) else p) for p in packets]
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        live = self.live
        websockets = [live[eio_sid] for eio_sid in eio_sids if eio_sid in live]
        send_to_all(websockets, data)
        traffic.sent += len(frames) * len(websockets)
        if len(websockets) < len(eio_sids):
            others = [eio_sid for eio_sid in eio_sids if eio_sid not in live]
            send_to_each(self.server, others, packets)

    def parse(self, eio_sid: str, data: Payload) -> Any:
        """The Socket.IO packet in a message, if a client may send it.

        :raises Exception: of any kind, when it may not.
        """
        pkt = self.server.packet_class(encoded_packet=data)
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

    def partial(self, pkt: Any, size: int) -> Partial:
        """What gathers the attachments of a packet.

        :param size: of the packet itself.
        :raises ValueError: see :class:`Partial`.
        """
        return Partial(pkt, EVENT_SIZES * int(self.server.eio.max_http_buffer_size) - size)

    def start_handler(self, eio_sid: str, text: str) -> bool:
        """Start the handler of a plain event at once; false when it is not that simple.

        Nothing has happened when the answer is false: it may be handled in a greenlet.
        """
        try:
            pkt = self.server.packet_class(encoded_packet=text)
        except Exception:
            return False  # told where all are told
        return not pkt.attachment_count and _is_event(pkt.data) and self.start(eio_sid, pkt)

    def start(self, eio_sid: str, pkt: Any) -> bool:
        """Start the handler of an event in the hub, at once; false when it is not that simple."""
        server, namespace = self.server, pkt.namespace or "/"
        if not self.direct or not server.async_handlers:
            return False
        if server.logger.isEnabledFor(logging.INFO):
            return False  # it may write to where a greenlet has to wait
        sid = server.manager.sid_from_eio_sid(eio_sid, namespace)
        if not server.manager.is_connected(sid, namespace):
            return False
        traffic.received += 1
        greenlets.run(self._run_handler, sid, eio_sid, namespace, pkt)
        return True

    def dispatch(self, eio_sid: str, pkt: Any) -> None:
        """What ``Server._handle_eio_message`` does, with a packet that is whole."""
        server, kind = self.server, pkt.packet_type
        if kind in _EVENTS:
            self._start_in_turn(eio_sid, pkt)
        elif kind in _ACKS:
            server._handle_ack(eio_sid, pkt.namespace, pkt.id, pkt.data)
        elif kind == sio_packet.CONNECT:
            self._connect(eio_sid, pkt)
        else:
            reason = server.eio.reason.CLIENT_DISCONNECT
            server._handle_disconnect(eio_sid, pkt.namespace, reason)

    def _start_in_turn(self, eio_sid: str, pkt: Any) -> None:
        """Handlers start in the order of their events, each in a greenlet of its own."""
        server, namespace = self.server, pkt.namespace or "/"
        if not self._plain:
            server._handle_event(eio_sid, namespace, pkt.id, pkt.data)
            return
        sid = server.manager.sid_from_eio_sid(eio_sid, namespace)
        server.logger.info('received event "%s" from %s [%s]', pkt.data[0], sid, namespace)
        if not server.manager.is_connected(sid, namespace):
            server.logger.info("%s is not connected to namespace %s", sid, namespace)
        elif server.async_handlers:
            hub = hubs.get_hub()
            hub.schedule_call_global(
                0, greenlets.run, self._run_handler, sid, eio_sid, namespace, pkt
            )
        else:
            self._run_handler(sid, eio_sid, namespace, pkt)

    def _run_handler(self, sid: str, eio_sid: str, namespace: str, pkt: Any) -> None:
        server = self.server
        try:
            answer = server._trigger_event(pkt.data[0], namespace, sid, *pkt.data[1:])
        except TypeError as error:
            if not _never_began(error):
                raise
            self.count(eio_sid, WRONG_ARGUMENTS, str(error))
            return
        except sio_exceptions.TimeoutError as error:
            if not _of_call(error):
                raise
            self.count(eio_sid, NO_ANSWER)
            return
        if pkt.id is None or answer is server.not_handled:
            return
        if answer is None:
            data = []
        else:
            data = list(answer) if isinstance(answer, tuple) else [answer]
        ack = server.packet_class(sio_packet.ACK, namespace=namespace, id=pkt.id, data=data)
        server._send_packet(eio_sid, ack)

    def _connect(self, eio_sid: str, pkt: Any) -> None:
        server, namespace = self.server, pkt.namespace or "/"
        try:
            server._handle_connect(eio_sid, namespace, pkt.data)
        except BaseException as error:
            # python-socketio would leave the client neither refused nor connected.
            sid = server.manager.sid_from_eio_sid(eio_sid, namespace)
            if server.manager.is_pre_connected(sid, namespace):
                server.manager.disconnect(sid, namespace, ignore_queue=True)
                refused = sio_exceptions.ConnectionRefusedError().error_args
                server._send_packet(
                    eio_sid,
                    server.packet_class(
                        sio_packet.CONNECT_ERROR, data=refused, namespace=namespace
                    ),
                )
            if not isinstance(error, TypeError) or not _never_began(error):
                raise
            self.count(eio_sid, WRONG_ARGUMENTS, str(error))

    def _is_connected(self, eio_sid: str, namespace: str) -> bool:
        manager = self.server.manager
        return bool(manager.is_connected(manager.sid_from_eio_sid(eio_sid, namespace), namespace))

    def count(self, eio_sid: str, reason: str, detail: str = "") -> None:
        """A client did something that is counted; not in the hub, since it may wait."""
        address = self.server.environ.get(eio_sid, {}).get("REMOTE_ADDR", "a client")
        refusals.count(reason, f"{address}: {detail}" if detail else address)


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


class _Outlet:
    """What a session's queue is from the upgrade on: straight to the websocket."""

    __slots__ = ("_websocket",)

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    def put(self, pkt: Any) -> None:
        if pkt is None:  # engineio's word for the end
            self._websocket.close()
        else:
            self._websocket.send(message_frame(pkt.encode()))

    def empty(self) -> bool:
        """A poll that had waited here has got what it waited for."""
        return True

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        """That poll asks whether there is more."""
        raise queue.Empty


class Session(Socket, Handler):  # type: ignore[misc]
    """The Engine.IO session of one client."""

    # engineio's attributes
    connected: bool
    upgrading: bool
    upgraded: bool
    last_ping: Optional[float]
    queue: Any

    transport: Transport
    #: The websocket, once there is one.
    websocket: Optional[WebSocket] = None
    _probed = False
    #: Whether a greenlet handles a message, and whether the websocket waits for its end.
    _busy = False
    _awaited = False
    _ended = False
    #: The session is about to be closed by a task of its own, and takes nothing more.
    _cut_off = False
    #: A packet whose attachments have yet to come.
    _partial: Optional[Partial] = None
    #: Messages that meant nothing, of the payload that was begun last.
    _malformed = 0
    #: With long polling: what the queue is counted for, when a poll has last taken something
    #: out of it, and whether the ping was in what polls have taken, or is to be the first.
    _queued = 0
    _polled_at = 0.0
    _ping_fetched = False
    _ping_first = False

    # --- what engineio calls --------------------------------------------------

    def receive(self, pkt: Any) -> None:
        if pkt.packet_type == packet.MESSAGE:
            try:
                whole = self._read(pkt.data)
            except Exception:
                # python-socketio shows a traceback, and goes on with the session as well.
                self._count_malformed()
            else:
                self._dispatch(whole)
        elif pkt.packet_type == packet.PONG and not self.upgraded and not self._ping_fetched:
            pass  # whoever does not poll is not there
        else:
            super().receive(pkt)

    def _read(self, data: Any) -> Any:
        """The Socket.IO packet that a message is or completes; ``None``: more has to come.

        :raises Exception: of any kind, when the client may not send it.
        """
        partial = self._partial
        if partial is None:
            pkt = self.transport.parse(self.sid, data)
            if pkt.attachment_count:
                self._partial = self.transport.partial(pkt, len(data))
                return None
            return pkt
        self._partial = None
        if not isinstance(data, bytes):
            self._count_malformed()  # what was begun does not end
            return self._read(data)
        if partial.add(data):
            return partial.packet
        self._partial = partial
        return None

    def _count_malformed(self) -> None:
        self._malformed += 1
        self.transport.count(self.sid, PROTOCOL)

    def _dispatch(self, pkt: Any) -> None:
        traffic.received += 1
        if pkt is None:
            return
        try:
            self.transport.dispatch(self.sid, pkt)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # an application's eventlet.Timeout is no Exception
            self.server.logger.exception("message handler error")

    def close(self, wait: bool = True, abort: bool = False, reason: Any = None) -> None:
        """As engineio's, but it never waits until the client has fetched what is queued.

        A client that is cut off polls no more: who closes would wait for good.
        """
        super().close(wait=False, abort=abort, reason=reason)
        if self.closed:
            # engineio fails with a POST that finds it here.
            self.server.sockets.pop(self.sid, None)

    def check_ping_timeout(self) -> bool:
        """As engineio's, but who takes what waits for it is there: the ping may be behind that."""
        websocket = self.websocket
        if websocket is not None and not self.closed:
            if websocket.took_output_within(self.server.ping_timeout):
                return True
        return bool(super().check_ping_timeout())

    def poll(self) -> list[Any]:
        """As engineio's, but no more than a client takes, or than is good to have in one piece."""
        try:
            pkt = self.queue.get(timeout=self.server.ping_interval + self.server.ping_timeout)
        except queue.Empty:
            raise exceptions.QueueEmpty() from None
        packets: list[Any] = []
        size = 0
        if self._ping_first and pkt is not None:
            self._ping_first, self._ping_fetched = False, True
            packets.append(packet.Packet(packet.PING))
        while pkt is not None:
            packets.append(pkt)
            size += _cost(pkt)
            self._ping_fetched |= pkt.packet_type == packet.PING
            if len(packets) == POLL_PACKETS or size >= POLL_BYTES:
                break
            try:
                pkt = self.queue.get(block=False)
            except queue.Empty:
                break
        if pkt is None and packets:
            self.queue.put(None)  # the end of the session is for the next poll
        self._queued = 0 if self.queue.empty() else max(0, self._queued - size)
        self._polled_at = time.monotonic()
        return packets

    def handle_get_request(self, environ: dict[str, Any], start_response: Any) -> Any:
        if not self.connected and "upgrade" not in _tokens(environ.get("HTTP_CONNECTION", "")):
            # python-engineio looks for this after it has let the handshake pass.
            return self._refuse_websocket("no Connection: Upgrade")
        answer = super().handle_get_request(environ, start_response)
        # The last poll: kept, its connection would cost more than the websocket.
        if (self.upgrading or self.upgraded) and LAST_REQUEST in environ:
            environ[LAST_REQUEST]()
        return answer

    def handle_post_request(self, environ: dict[str, Any]) -> None:
        """As engineio's, but what cannot be read is the client's mistake and ends the session.

        Messages that mean nothing are ignored, but not any number of them.

        There may be any number of packets in it: other clients have their turn in between.
        """
        most = int(self.server.max_http_buffer_size)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > most:
            raise exceptions.ContentTooLongError()
        if "wsgi.input_terminated" in environ:  # in chunks: how long it is shows at its end
            length = most + 1
        self._wait_for_polls()
        if self._cut_off:
            raise exceptions.EngineIOError("the client does not poll")
        try:
            body = environ["wsgi.input"].read(length)
            if len(body) > most:
                raise exceptions.ContentTooLongError()
            self._malformed = 0
            for number, text in enumerate(_split(self._payload(body)), 1):
                if number % MESSAGES_AT_ONCE == 0:
                    self.server.sleep(0)
                    self._wait_for_polls()
                if self.closed or self._cut_off:
                    return
                self.receive(packet.Packet(encoded_packet=text))
                if self._malformed >= MALFORMED_PACKETS:
                    raise ValueError("hardly anything in it is a packet")
        except ClientGone:
            return  # nobody is there to be told
        except Exception:
            if self.closed:
                return
            self.transport.count(self.sid, PROTOCOL)
            raise exceptions.EngineIOError("no payload of packets") from None

    def _payload(self, body: bytes) -> str:
        text = body.decode()
        if not text.startswith("d="):
            return text
        unquoted = []  # of JSONP
        for part in _unquote(text[2:].partition("&")[0]):
            unquoted.append(part)
            self.server.sleep(0)
        return "".join(unquoted)

    def _wait_for_polls(self) -> None:
        """A client that does not take the answers asks no more; it is cut off in the end."""
        until = time.monotonic() + SLOW_OUTPUT_PATIENCE
        while self._queued > READING_STOPS and not self.closed and not self._cut_off:
            if time.monotonic() > until:
                self._cut()
            self.server.sleep(_LOOK)

    def _cut(self) -> None:
        """End the session of a client that does not take what waits for it."""
        if not self._cut_off:
            self._cut_off = True
            # It calls the application's disconnect handler: not in here.
            self.server.start_background_task(self._close_slow)

    def _close_slow(self) -> None:
        self.transport.count(self.sid, TOO_SLOW)
        self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_ERROR)

    def _upgrade_websocket(self, environ: dict[str, Any], start_response: Any) -> Any:
        if TAKE_CONNECTION not in environ:  # some other WSGI server
            return super()._upgrade_websocket(environ, start_response)
        if self.upgrading or self.upgraded:
            return self.server._bad_request("Already upgraded")
        try:
            websocket = accept(environ, self, int(self.server.max_http_buffer_size))
        except HandshakeError as error:
            return self._refuse_websocket(str(error))
        self.websocket = websocket
        if self.connected:
            self.upgrading = True  # from here on polls get nothing
            self.transport.upgrades.add((self, websocket))
        else:
            self.connected = True
            self._go_live()
        return ()

    def _refuse_websocket(self, why: str) -> Any:
        if not self.connected:
            self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_ERROR)
        return self.server._bad_request(f"Invalid websocket handshake: {why}")

    def send(self, pkt: Any) -> None:
        if pkt.packet_type == packet.MESSAGE:
            traffic.sent += 1
        live = self.transport.live.get(self.sid)
        if live is None:
            if self._cut_off:
                return
            if self._is_overdue:
                # To find that out calls the application's disconnect handler: not in here.
                self._cut_off = True
                self.server.start_background_task(self._time_out)
                return
            if self._takes(pkt):
                super().send(pkt)
            return
        if self.closed:
            raise exceptions.SocketIsClosedError()
        live.send(message_frame(pkt.encode()))
        if self.server.logger.isEnabledFor(logging.INFO):
            self.server.logger.info(
                "%s: Sending packet %s data %s",
                self.sid,
                packet.packet_names[pkt.packet_type],
                "<binary>" if isinstance(pkt.data, bytes) else pkt.data,
            )

    @property
    def waiting(self) -> int:
        """Bytes of output that the client has yet to take."""
        return self._queued if self.websocket is None else self.websocket.waiting

    @property
    def _is_overdue(self) -> bool:
        return bool(self.last_ping and time.time() - self.last_ping > self.server.ping_timeout)

    def _takes(self, pkt: Any) -> bool:
        """Count what a poll has to take; false when the client has let too much wait."""
        if not self._queued:
            self._polled_at = time.monotonic()  # nothing has waited until now
        self._queued += _cost(pkt)
        if self._queued > OUTPUT_CEILING or (
            self._queued > SLOW_OUTPUT and time.monotonic() - self._polled_at > SLOW_OUTPUT_PATIENCE
        ):
            self._cut()
            return False
        return True

    def _time_out(self) -> None:
        # Even if a pong has come meanwhile: of what was sent since nothing is there.
        self.close(wait=False, abort=True, reason=self.server.reason.PING_TIMEOUT)

    def schedule_ping(self) -> None:
        if self.last_ping:
            self.last_ping = None
            self.transport.pings.add(self)

    def ping(self) -> None:
        """It is time for a ping."""
        if self.closing or self.closed:
            return
        self.last_ping = time.time()
        self._ping_fetched = False
        if self.queue.empty():
            self.send(packet.Packet(packet.PING))
        else:
            # Behind what waits, it could reach a client too late that polls all the time.
            self._ping_first = True

    # --- what the websocket calls, in the hub ---------------------------------

    def on_message(self, data: Payload) -> bool:
        if not self.upgraded:
            self._upgrade(data)
            return True
        if data == _PONG:
            self.schedule_ping()
            return True
        if (
            data[:2] == _EVENT
            and self._partial is None
            and self.transport.start_handler(self.sid, data[1:])  # type: ignore[arg-type]
        ):
            return True
        if self._partial is not None and isinstance(data, bytes):
            return self._take_attachment(data)
        try:
            pkt = packet.Packet(encoded_packet=data)
        except Exception:
            raise ProtocolError(INVALID_DATA, "a message that is no packet") from None
        return self._in_greenlet(self.receive, pkt)

    def _take_attachment(self, data: bytes) -> bool:
        try:
            pkt = self._read(data)
        except ValueError:
            assert self.websocket is not None
            self.websocket.count(PROTOCOL)
            return True
        if pkt is None:
            traffic.received += 1
        elif pkt.packet_type in _ACKS or not self.transport.start(self.sid, pkt):
            return self._in_greenlet(self._dispatch, pkt)
        return True

    def _in_greenlet(self, task: Callable[[Any], None], pkt: Any) -> bool:
        """Handle a packet; whether it is done. Nothing more is read until then."""
        self._busy = True
        greenlets.run(self._handle, task, pkt)
        self._awaited = self._busy
        return not self._busy

    def on_close(self, websocket: WebSocket) -> None:
        if websocket is not self.websocket:
            return  # it was given up before
        self._ended = True
        if not self._busy:
            self._close_in_background()

    # --- messages -------------------------------------------------------------

    def _handle(self, task: Callable[[Any], None], pkt: Any) -> None:
        """A packet of any kind, in a greenlet of its own."""
        try:
            task(pkt)
        except exceptions.UnknownPacketError:
            pass
        except (KeyboardInterrupt, SystemExit):
            raise
        except exceptions.SocketIsClosedError:
            self._drop()
        except BaseException:
            self.server.logger.exception("Unknown receive error")
            self._drop()
        finally:
            self._busy = False
            if self._ended:
                self._close_in_background()
            elif self._awaited:
                self._awaited = False
                if self.websocket is not None:
                    self.websocket.resume()

    def _drop(self) -> None:
        if self.websocket is not None:
            self.websocket.close(INTERNAL_ERROR)
        self._ended = True

    def _close_in_background(self) -> None:
        """Disconnect handlers of the application may take their time."""
        self.transport.live.pop(self.sid, None)
        websocket, self.websocket = self.websocket, None
        if websocket is not None:
            websocket.close()
        if not self.upgraded:
            self.upgrading = self._probed = False  # it goes on with long polling
            self._ended = False
        elif not self.closed and not self.closing:
            self.server.start_background_task(self._close)
        else:
            self._forget()

    def _close(self) -> None:
        self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_CLOSE)
        self._forget()

    def _forget(self) -> None:
        if self.server.sockets.get(self.sid) is self:
            del self.server.sockets[self.sid]

    # --- the upgrade from long polling ----------------------------------------

    def _upgrade(self, data: Payload) -> None:
        """Engine.IO's handshake: ``2probe``, ``3probe``, ``5``."""
        assert self.websocket is not None
        if not self._probed and data == f"{packet.PING}probe":
            self._probed = True
            self.websocket.send(_PROBE_ANSWER)
            self.queue.put(packet.Packet(packet.NOOP))  # ends a poll that waits
        elif self._probed and data == str(packet.UPGRADE):
            self._go_live()
        else:
            self.server.logger.info("%s: Failed websocket upgrade, received %s", self.sid, data)
            self.give_up_upgrade(self.websocket)

    def give_up_upgrade(self, websocket: WebSocket) -> None:
        """It did not become the session's websocket: that goes on with long polling."""
        if self.websocket is websocket and not self.upgraded:
            self.on_close(websocket)

    def _go_live(self) -> None:
        """From here on everything goes through the websocket."""
        assert self.websocket is not None
        self.upgraded, self.upgrading = True, False
        queued, self.queue = self.queue, _Outlet(self.websocket)
        self.transport.live[self.sid] = self.websocket
        if self._ping_first:
            self._ping_first = False
            self.queue.put(packet.Packet(packet.PING))
        while not queued.empty():
            self.queue.put(queued.get(block=False))
        self._queued = 0
        for _ in range(queued.getting()):
            queued.put(packet.Packet(packet.NOOP))  # a poll that waits all the same
        self.server.logger.info("%s: Upgrade to websocket successful", self.sid)


def _cost(pkt: Any) -> int:
    """What an Engine.IO packet in a queue costs, in bytes."""
    return sys.getsizeof(pkt.data) + OUTPUT_OBJECT


def _split(body: str) -> Iterator[str]:
    """The packets of a payload, one at a time."""
    begin = 0 if body else -1
    while begin >= 0:
        end = body.find(_SEPARATOR, begin)
        yield body[begin:end] if end >= 0 else body[begin:]
        begin = end + 1 if end >= 0 else -1


def _unquote(text: str, size: int = UNQUOTED_AT_ONCE) -> Iterator[str]:
    """``urllib.parse.unquote_plus``, part by part: a character may be of several ``%XX``.

    :param size: characters for each part, 3 at least.
    """
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    begin = 0
    while begin < len(text):
        end = begin + size
        cut = text.rfind("%", end - 2, end) if end < len(text) else -1
        if cut >= 0:
            end = cut
        yield decode(unquote_to_bytes(text[begin:end].replace("+", " ")))
        begin = end
    yield decode(b"", True)


def _tokens(header: str) -> list[str]:
    return [token.strip() for token in header.lower().split(",")]
