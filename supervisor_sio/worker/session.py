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

import logging
import queue
import time
from typing import Any, Optional, Sequence

import socketio
from engineio import exceptions, packet, payload
from engineio.socket import Socket
from socketio import packet as sio_packet

from ..emission import RESERVED_EVENTS
from ..sessions import send_to_each, traffic
from . import greenlets
from .delay import Delay
from .frames import INTERNAL_ERROR, INVALID_DATA, Payload, ProtocolError, message_frame
from .http import LAST_REQUEST, ClientGone
from .printable import PRINTABLE
from .threads import HubThread
from .websocket import (
    PROTOCOL,
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
#: Socket.IO packets that a client may send, besides events.
_OF_CLIENTS = (
    sio_packet.CONNECT,
    sio_packet.DISCONNECT,
    sio_packet.ACK,
    sio_packet.BINARY_ACK,
)
_MESSAGE = str(packet.MESSAGE)
_WITH_ATTACHMENTS = (sio_packet.BINARY_EVENT, sio_packet.BINARY_ACK)
#: How a Socket.IO event begins, other than one with attachments.
_EVENT = f"{packet.MESSAGE}{sio_packet.EVENT}"


def install(server: Any) -> Transport:
    """Give the clients of a ``socketio.Server`` on eventlet this kind of session.

    Each becomes one when Engine.IO says that it has connected. An application
    that takes this event for itself, as ``sio.instrument()`` does, stays with
    engineio's own sessions, whose packets it counts.
    """
    transport = Transport(server)
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

    eio.on("connect", adopt)
    for of_clients in (server.logger, eio.logger):  # session ids, origins, names of events
        of_clients.addFilter(PRINTABLE)
    server._send_packet = transport.send_packet
    return transport


class Transport:
    """What the sessions of a server have in common."""

    def __init__(self, server: Any) -> None:
        self.server = server
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
        #: Whether events are python-socketio's own affair, and text that begins with its type.
        self._plain = (
            type(server)._handle_event is socketio.Server._handle_event
            and server.packet_class.encode is sio_packet.Packet.encode
        )

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

    def understands(self, eio_sid: str, data: Payload) -> bool:
        """Whether the data of a message are a Socket.IO packet that a client may send."""
        server = self.server
        if eio_sid in server._binary_packet:
            return isinstance(data, (bytes, bytearray))
        try:
            pkt = server.packet_class(encoded_packet=data)
            if pkt.packet_type in _WITH_ATTACHMENTS:
                pkt._reconstruct_binary_internal(pkt.data, [b""] * pkt.attachment_count)
        except Exception:
            return False
        if pkt.packet_type in _WITH_ATTACHMENTS and not server.manager.sid_from_eio_sid(
            eio_sid, pkt.namespace or "/"
        ):
            return False
        if pkt.packet_type in (sio_packet.EVENT, sio_packet.BINARY_EVENT):
            return _is_event(pkt.data)
        return pkt.packet_type in _OF_CLIENTS

    def start_handler(self, eio_sid: str, text: str) -> bool:
        """Start the handler of a plain event at once; false when it is not that simple.

        What ``Server._handle_eio_message`` does, in fewer steps. Nothing has
        happened when the answer is false: it may be handled that way.
        """
        server = self.server
        if not self._plain or not server.async_handlers or eio_sid in server._binary_packet:
            return False
        if server.logger.isEnabledFor(logging.INFO):
            return False  # it may write to where a greenlet has to wait
        try:
            pkt = server.packet_class(encoded_packet=text)
        except Exception:
            return False  # told where all are told
        data, namespace = pkt.data, pkt.namespace or "/"
        sid = server.manager.sid_from_eio_sid(eio_sid, namespace)
        if not _is_event(data):
            return False
        if not server.manager.is_connected(sid, namespace):
            return False
        traffic.received += 1
        greenlets.run(server._handle_event_internal, server, sid, eio_sid, data, namespace, pkt.id)
        return True


def _is_event(data: Any) -> bool:
    """Whether a client may emit this; what Node's servers refuse as well.

    python-socketio would call the application's own ``connect`` and ``disconnect`` handlers.
    """
    if not isinstance(data, list) or not data:
        return False
    name = data[0]
    return isinstance(name, (str, int)) and name not in RESERVED_EVENTS


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

    def join(self) -> None:
        """What was put is on its way."""

    def task_done(self) -> None:
        """A poll that had waited here has got what it waited for."""

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
    _timed_out = False

    # --- what engineio calls --------------------------------------------------

    def receive(self, pkt: Any) -> None:
        if pkt.packet_type == packet.MESSAGE:
            if not self.transport.understands(self.sid, pkt.data):
                # python-socketio shows a traceback, and goes on with the session as well.
                self._count_as_malformed()
                return
            traffic.received += 1
        super().receive(pkt)

    def _count_as_malformed(self) -> None:
        environ = self.transport.server.environ.get(self.sid, {})
        refusals.count(PROTOCOL, environ.get("REMOTE_ADDR", "a client"))

    def close(self, wait: bool = True, abort: bool = False, reason: Any = None) -> None:
        """As engineio's, but it never waits until the client has fetched what is queued.

        A client that is cut off polls no more: who closes would wait for good.
        """
        super().close(wait=False, abort=abort, reason=reason)

    def handle_get_request(self, environ: dict[str, Any], start_response: Any) -> Any:
        answer = super().handle_get_request(environ, start_response)
        # The last poll: kept, its connection would cost more than the websocket.
        if (self.upgrading or self.upgraded) and LAST_REQUEST in environ:
            environ[LAST_REQUEST]()
        return answer

    def handle_post_request(self, environ: dict[str, Any]) -> None:
        """As engineio's, but what cannot be read is the client's mistake and ends the session."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > self.server.max_http_buffer_size:
            raise exceptions.ContentTooLongError()
        try:
            body = environ["wsgi.input"].read(length).decode()
            packets = payload.Payload(encoded_payload=body).packets
        except ClientGone:
            return  # nobody is there to be told
        except Exception:
            self._count_as_malformed()
            raise exceptions.EngineIOError("no payload of packets") from None
        for pkt in packets:
            self.receive(pkt)

    def _upgrade_websocket(self, environ: dict[str, Any], start_response: Any) -> Any:
        if TAKE_CONNECTION not in environ:  # some other WSGI server
            return super()._upgrade_websocket(environ, start_response)
        if self.upgrading or self.upgraded:
            return self.server._bad_request("Already upgraded")
        try:
            websocket = accept(environ, self, int(self.server.max_http_buffer_size))
        except HandshakeError as error:
            if not self.connected:
                self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_ERROR)
            return self.server._bad_request(f"Invalid websocket handshake: {error}")
        self.websocket = websocket
        if self.connected:
            self.upgrading = True  # from here on polls get nothing
            self.transport.upgrades.add((self, websocket))
        else:
            self.connected = True
            self._go_live()
        return ()

    def send(self, pkt: Any) -> None:
        if pkt.packet_type == packet.MESSAGE:
            traffic.sent += 1
        live = self.transport.live.get(self.sid)
        if live is None:
            if self._is_overdue:
                # To find that out calls the application's disconnect handler: not in here.
                if not self._timed_out:
                    self._timed_out = True
                    self.server.start_background_task(self._time_out)
                return
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
    def _is_overdue(self) -> bool:
        return bool(self.last_ping and time.time() - self.last_ping > self.server.ping_timeout)

    def _time_out(self) -> None:
        if not self.closed:
            self.check_ping_timeout()

    def schedule_ping(self) -> None:
        if self.last_ping:
            self.last_ping = None
            self.transport.pings.add(self)

    def ping(self) -> None:
        """It is time for a ping."""
        if self.closing or self.closed:
            return
        self.last_ping = time.time()
        self.send(packet.Packet(packet.PING))

    # --- what the websocket calls, in the hub ---------------------------------

    def on_message(self, data: Payload) -> bool:
        if not self.upgraded:
            self._upgrade(data)
            return True
        if data == _PONG:
            self.schedule_ping()
            return True
        if data[:2] == _EVENT and self.transport.start_handler(self.sid, data[1:]):  # type: ignore[arg-type]
            return True
        try:
            pkt = packet.Packet(encoded_packet=data)
        except Exception:
            raise ProtocolError(INVALID_DATA, "a message that is no packet") from None
        self._busy = True
        greenlets.run(self._handle, pkt)
        self._awaited = self._busy
        return not self._busy

    def on_close(self, websocket: WebSocket) -> None:
        if websocket is not self.websocket:
            return  # it was given up before
        self._ended = True
        if not self._busy:
            self._close_in_background()

    # --- messages -------------------------------------------------------------

    def _handle(self, pkt: Any) -> None:
        """A message of any kind, in a greenlet of its own."""
        try:
            self.receive(pkt)
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
        while not queued.empty():
            self.queue.put(queued.get(block=False))
        for _ in range(queued.getting()):
            queued.put(packet.Packet(packet.NOOP))  # a poll that waits all the same
        self.server.logger.info("%s: Upgrade to websocket successful", self.sid)
