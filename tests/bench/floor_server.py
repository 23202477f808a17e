"""The system calls of a router and its worker, and hardly more: `python floor_server.py PORT`.

For the clients of load.py and swarm.py, with answers as long as those of a worker. Which one
it is tells the length of what comes: nothing is parsed, checked, limited or timed. What is left
is what CPython needs to make the calls. One process accepts, reads, and passes the connection on
by a socket, as the router does; the other one answers, from one epoll, as a worker does.
"""

from __future__ import annotations

import array
import base64
import hashlib
import os
import select
import signal
import socket
import sys

from frames import server_frame
from raw_clients import ACCEPT, KEY
from servers import HOST

_NOW = int(socket.MSG_DONTWAIT)
_ROOM = socket.CMSG_LEN(4)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3

#: What a hand-over says of a connection, in front of what was read.
_HEAD = b"x" * 28

_OPEN = (
    b'0{"sid":"0123abcd.%020d","upgrades":["websocket"],"pingTimeout":20000,'
    b'"pingInterval":25000,"maxPayload":1000000}'
)
_CONNECTED = b'40{"sid":"0123abcd.ABCDEFGHIJKLMNOPQRST"}'
_PROBE, _ACK = server_frame(b"3probe"), server_frame(b'431["hello"]')
_CLOSE = b"\x88\x02\x03\xe8"

#: Lengths of masked frames: "40", "2probe", "5", and "41" with a close; and those of an echo of
#: load.py, with a "5" in front of it, and of swarm.py.
_CONNECT_SIZE, _PROBE_SIZE, _UPGRADE_SIZE, _LEAVE_SIZE = 8, 12, 7, 16
_ECHO_SIZES = (25, 32, 26)


def _answer(body: bytes, kind: bytes = b"text/plain; charset=UTF-8", more: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
        b"Date: Thu, 26 Nov 2026 04:00:00 GMT\r\nAccess-Control-Allow-Credentials: true\r\n%b\r\n%b"
        % (kind, len(body), more, body)
    )


_TAKEN, _JOINED = _answer(b"ok", b"text/html"), _answer(_CONNECTED)
_NOOP = _answer(b"6", more=b"Connection: close\r\n")
_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)


class Connection:
    """One connection in the worker."""

    __slots__ = ("polls", "sid", "sock", "upgrading", "websocket")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sid = b""
        self.polls = 0
        self.upgrading = self.websocket = False


class Worker:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._polling: dict[bytes, Connection] = {}
        self._count = 0

    def run(self) -> None:
        self._epoll.register(self._channel, select.EPOLLIN)
        channel = self._channel.fileno()
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == channel:
                    self._take_connections()
                    continue
                connection = self._connections.get(descriptor)
                if connection is None:
                    continue
                try:
                    data = connection.sock.recv(65536 if connection.websocket else 2048)
                except ConnectionError:
                    data = b""
                if not data:
                    self._end(descriptor)
                elif connection.websocket:
                    self._receive(connection, data)
                else:
                    self._request(connection, data)

    def _take_connections(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._channel.recvmsg(65536, _ROOM, _NOW)
            except BlockingIOError:
                return
            if not data:
                sys.exit()
            numbers = array.array("i")
            numbers.frombytes(ancillary[0][2])
            sock = socket.SocketType(-1, socket.SOCK_STREAM, 0, numbers[0])
            sock.setblocking(False)
            connection = self._connections[numbers[0]] = Connection(sock)
            self._epoll.register(numbers[0], select.EPOLLIN)
            self._request(connection, data[len(_HEAD) :])

    def _end(self, descriptor: int) -> None:
        connection = self._connections.pop(descriptor)
        self._epoll.unregister(descriptor)
        connection.sock.close()

    def _request(self, connection: Connection, data: bytes) -> None:
        send = connection.sock.send
        if not data.startswith((b"GET /socket.io/", b"POST /socket.io/")):
            send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._end(connection.sock.fileno())
        elif data.startswith(b"POST"):
            send(_TAKEN)
        elif b"transport=websocket" in data:
            connection.websocket = True
            if b"&sid=" in data:
                connection.sid = data[data.index(b"&sid=") + 5 :].partition(b" ")[0]
                send(_SWITCHING % _accept(data))
            else:
                send(_SWITCHING % _accept(data) + server_frame(self._open()))
        elif not connection.sid:
            body = self._open()
            connection.sid = body[9:38]
            self._polling[connection.sid] = connection
            send(_answer(body))
        else:
            connection.polls += 1
            if connection.polls == 1:
                send(_JOINED)
            elif connection.upgrading:
                self._end_polling(connection)

    def _end_polling(self, connection: Connection) -> None:
        connection.sock.send(_NOOP)
        connection.sock.shutdown(socket.SHUT_RDWR)
        self._end(connection.sock.fileno())

    def _open(self) -> bytes:
        self._count += 1
        return _OPEN % self._count

    def _receive(self, connection: Connection, data: bytes) -> None:
        send, size = connection.sock.send, len(data)
        if size in _ECHO_SIZES:
            send(_ACK)
        elif size == _CONNECT_SIZE:
            send(server_frame(_CONNECTED))
        elif size == _PROBE_SIZE:
            send(_PROBE)
            polling = self._polling.pop(connection.sid)
            polling.upgrading = True
            if polling.polls == 2:
                self._end_polling(polling)
        elif size == _LEAVE_SIZE:
            send(_CLOSE)
            self._end(connection.sock.fileno())
        elif size != _UPGRADE_SIZE:
            number = _unmask(data).partition(b"[")[0][2:]
            send(server_frame(b"43%b[1]" % number))


def _accept(request: bytes) -> bytes:
    key = request[request.index(b"Sec-WebSocket-Key: ") + 19 :].partition(b"\r\n")[0]
    if key == KEY:
        return ACCEPT
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


def _unmask(frame: bytes) -> bytes:
    return bytes(byte ^ frame[2 + place % 4] for place, byte in enumerate(frame[6:]))


def route(listener: socket.socket, channel: socket.socket) -> None:
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    late: dict[int, socket.socket] = {}

    def pass_on(sock: socket.socket) -> bool:
        try:
            data = sock.recv(2048, _NOW)
        except BlockingIOError:
            return False
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))]
        channel.sendmsg([_HEAD + data], ancillary)
        sock.close()
        return True

    while True:
        for descriptor, _ in epoll.poll():
            if descriptor != listener.fileno():
                epoll.unregister(descriptor)
                pass_on(late.pop(descriptor))
                continue
            while True:
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    break
                if not pass_on(sock):
                    late[sock.fileno()] = sock
                    epoll.register(sock, select.EPOLLIN)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    channel, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        channel.close()
        Worker(worker).run()
    worker.close()
    listener = socket.create_server((HOST, int(sys.argv[1])), backlog=4096)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    route(listener, channel)


if __name__ == "__main__":
    main()
