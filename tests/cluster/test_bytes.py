"""No byte is lost, repeated or reordered, however a request arrives."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import struct

from .harness import Cluster
from .raw import PATH, Poller


def connect(cluster: Cluster) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", cluster.port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def answer(sock: socket.socket) -> tuple[int, bytes]:
    """The next response on a raw connection, read to its last byte and no further."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, head
        head += byte
    status = int(head.split(b" ")[1])
    (length,) = (
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    body = b""
    while len(body) < length:
        body += sock.recv(length - len(body))
    return status, body


def sessions_of_all_workers(cluster: Cluster) -> dict[int, Poller]:
    found: dict[int, Poller] = {}
    while len(found) < cluster.numprocs:
        session = Poller(cluster.port)
        session.open()
        session.join()
        found.setdefault(session.call("whoami")["pid"], session)
    return found


def frame(text: str) -> bytes:
    """A masked text frame (RFC 6455, section 5.2)."""
    data, mask = text.encode(), os.urandom(4)
    assert len(data) < 126
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    return struct.pack("!BB", 0x81, 0x80 | len(data)) + mask + masked


def test_request_line_in_one_byte_segments(shared_pair: Cluster) -> None:
    with connect(shared_pair) as sock:
        for byte in b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n":
            sock.send(bytes([byte]))
        status, body = answer(sock)
        assert status == 200 and int(body) in {row["pid"] for row in shared_pair.workers()}
    session = next(iter(sessions_of_all_workers(shared_pair).values()))
    request = (
        f"POST {PATH}polling&sid={session.sid} HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n"
    )
    with connect(shared_pair) as sock:
        for byte in request.encode() + b'422["echo","ab"]':
            sock.send(bytes([byte]))
        assert answer(sock)[0] == 200
    assert json.loads(session.poll_for("432")[3:]) == ["ab"]


def test_pipelined_requests_for_different_workers(shared_pair: Cluster) -> None:
    sessions = sessions_of_all_workers(shared_pair)
    order = [*sessions.values()] * 3
    requests = b""
    for number, session in enumerate(order):
        packet = f'42{number}["whoami"]'
        requests += (
            f"POST {PATH}polling&sid={session.sid} HTTP/1.1\r\nHost: x\r\n"
            f"Content-Length: {len(packet)}\r\n\r\n{packet}"
        ).encode()
    requests += b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(shared_pair) as sock:
        sock.sendall(requests)
        for _ in order:
            assert answer(sock) == (200, b"ok")
        assert int(answer(sock)[1]) in sessions
    for pid, session in sessions.items():
        numbers = [number for number, other in enumerate(order) if other is session]
        got = ""
        while got.count("43") < len(numbers):
            got += "\x1e" + session.must("GET")
        for number in numbers:
            assert f'43{number}[{{"pid":{pid},' in got, got


def test_100_mb_over_a_connection_that_was_handed_back(shared_pair: Cluster) -> None:
    body = os.urandom(1 << 20) * 100
    connection = http.client.HTTPConnection("127.0.0.1", shared_pair.port, timeout=60)
    connection.connect()
    connection.auto_open = 0
    for session in sessions_of_all_workers(shared_pair).values():
        assert session.call("echo", 1, connection=connection) == 1
    connection.request("POST", "/upload", body)
    response = connection.getresponse()
    assert response.read().decode() == hashlib.sha256(body).hexdigest()
    connection.close()


def test_chunked_body_and_expect(shared_pair: Cluster) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared_pair.port, timeout=20)
    connection.connect()
    connection.auto_open = 0
    chunks = [os.urandom(size) for size in (1, 70_000, 3)]
    for session in sessions_of_all_workers(shared_pair).values():
        session.call("echo", 1, connection=connection)
        connection.request("POST", "/upload", iter(chunks), encode_chunked=True)
        expected = hashlib.sha256(b"".join(chunks)).hexdigest()
        assert connection.getresponse().read().decode() == expected
    connection.close()
    with connect(shared_pair) as sock:
        head = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        sock.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n")
        sock.sendall(b"hello")
        assert answer(sock)[1].decode() == hashlib.sha256(b"hello").hexdigest()


def test_frames_right_behind_the_upgrade_request(shared_pair: Cluster) -> None:
    with connect(shared_pair) as sock:
        sock.sendall(
            f"GET {PATH}websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            + frame("40")
            + b"".join(frame(f'42{number}["echo",{number}]') for number in range(10))
        )
        got = b""
        while not all(b"43%d[%d]" % (number, number) in got for number in range(10)):
            more = sock.recv(65536)
            assert more, got
            got += more


def test_half_closed_connection(shared_pair: Cluster) -> None:
    with connect(shared_pair) as sock:
        sock.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        sock.shutdown(socket.SHUT_WR)
        assert answer(sock)[1].decode() == hashlib.sha256(b"abc").hexdigest()


def test_bytes_that_json_would_blow_up(shared_pair: Cluster) -> None:
    """What was read ahead of a request that goes back to the router, at its worst."""
    text = "ß" * 20_000
    connection = http.client.HTTPConnection("127.0.0.1", shared_pair.port, timeout=20)
    connection.connect()
    connection.auto_open = 0
    for session in sessions_of_all_workers(shared_pair).values():
        packet = f'421["echo","{text}"]'
        target = f"{PATH}polling&sid={session.sid}&x={'y' * 7000}"
        connection.request("POST", target, packet.encode())
        assert connection.getresponse().read() == b"ok"
        assert json.loads(session.poll_for("431", connection)[3:]) == [text]
    connection.close()
