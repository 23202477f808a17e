"""One stranger who does all that strangers can do, one after the other, for some seconds.

    python attackers.py PORT SEED SECONDS

Each attack has a connection of its own, and lasts a second or so. It ends with 1 when one of them
did nothing at all: then nothing was tested. The seed decides the order.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable

#: Of one attack, if nobody ends it before.
SECONDS = 1.0

HOST = b"Host: 127.0.0.1\r\n"
PATH = b"/socket.io/?EIO=4&transport="
TEXT, BINARY, PING = 1, 2, 9

MB = 1024 * 1024


class Stranger:
    """A connection; what is sent is counted, and that the other side ends it is no error."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=2)
        self.sent = 0
        self.ends = time.monotonic() + SECONDS

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.ends

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)
        self.sent += len(data)

    def read(self, size: int = 65536) -> bytes:
        return self.sock.recv(size)

    def flood(self, data: bytes, reads: bool = False) -> None:
        """Send this again and again."""
        self.sock.setblocking(False)
        rest = memoryview(data)
        while self.goes_on:
            try:
                sent = self.sock.send(rest)
                self.sent += sent
                rest = rest[sent:] or memoryview(data)
            except BlockingIOError:
                time.sleep(0.005)
            if reads:
                try:
                    if not self.sock.recv(65536):
                        return
                except BlockingIOError:
                    pass

    def websocket(self) -> None:
        """An Engine.IO session over a websocket; not connected to any namespace."""
        self.send(
            b"GET " + PATH + b"websocket HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        data = b""
        while b'"sid"' not in data:
            more = self.read()
            if not more:
                raise ConnectionError
            data += more

    def connect(self) -> None:
        """Over a websocket, and to the namespace "/"."""
        self.websocket()
        self.send(frame(TEXT, b"40"))
        while b"40{" not in self.read():
            pass

    def request(self, target: bytes, body: bytes = b"", method: bytes = b"POST") -> bytes:
        """A request of a polling session; the answer's body as far as it has come."""
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        self.send(method + b" " + target + b" HTTP/1.1\r\n" + HOST + length + b"\r\n" + body)
        answer = self.read()
        if not answer:
            raise ConnectionError
        return answer

    def poll(self) -> bytes:
        """Open a polling session and connect it; the target of its further requests."""
        answer = self.request(PATH + b"polling", method=b"GET")
        sid = json.loads(answer[answer.index(b"0{") + 1 :].decode())["sid"]
        target = PATH + b"polling&sid=" + sid.encode()
        self.request(target, b"40")
        return target


def frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    """As a client sends it; masked with zeros."""
    length = len(payload)
    if length < 126:
        head = bytes([0x80 | length])
    elif length < 65536:
        head = bytes([0x80 | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([0x80 | 127]) + length.to_bytes(8, "big")
    return bytes([opcode | (0x80 if final else 0)]) + head + bytes(4) + payload


# --- 1 to 10 --------------------------------------------------------------------


def attachments_before_a_connect(stranger: Stranger) -> None:
    stranger.websocket()
    stranger.flood(frame(TEXT, b'4550000000-["x"]'), reads=True)


def attachments_without_end(stranger: Stranger) -> None:
    stranger.connect()
    stranger.send(frame(TEXT, b'45999999-["x"]'))
    stranger.flood(frame(BINARY, bytes(900_000)), reads=True)


def one_attachment_named_many_times(stranger: Stranger) -> None:
    stranger.connect()
    names = b",".join([b'{"_placeholder":true,"num":0}'] * 400)
    event = frame(TEXT, b'451-7["echo",' + names + b"]") + frame(BINARY, bytes(900_000))
    stranger.flood(event)


def chunks_without_end(stranger: Stranger) -> None:
    stranger.send(b"POST /nowhere HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
    stranger.flood(b"1\r\nx\r\n" * 1000)


def a_chunk_size_without_end(stranger: Stranger) -> None:
    stranger.send(b"POST /nowhere HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
    stranger.flood(b"0" * 65536)


def trailers_without_end(stranger: Stranger) -> None:
    stranger.send(b"POST /nowhere HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
    stranger.send(b"0\r\n")
    stranger.flood(b"X: " + b"x" * 65536)


def pipelined_requests(stranger: Stranger) -> None:
    stranger.flood((b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 500, reads=True)


def slow_heads(stranger: Stranger) -> None:
    made = []
    try:
        while stranger.goes_on:
            if len(made) < 30:
                made.append(socket.create_connection(("127.0.0.1", stranger.port), timeout=2))
                made[-1].sendall(b"GET /pid HTTP/1.1\r\nX-Slow: ")
            for sock in made:
                sock.sendall(b"x")
                stranger.sent += 1
            time.sleep(0.02)
    finally:
        for sock in made:
            sock.close()


def a_slow_body(stranger: Stranger) -> None:
    stranger.send(b"POST /upload HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n")
    while stranger.goes_on:
        stranger.send(b"x")
        time.sleep(0.1)


def pings_whose_answers_nobody_reads(stranger: Stranger) -> None:
    stranger.websocket()
    stranger.flood(frame(PING, b"") * 1000)


def echoes_that_nobody_reads(stranger: Stranger) -> None:
    stranger.connect()
    stranger.flood(frame(TEXT, b'421["echo","' + b"x" * 900_000 + b'"]'))


def fragments_of_two_bytes(stranger: Stranger) -> None:
    stranger.connect()
    stranger.send(frame(TEXT, b'42["echo","', final=False))
    stranger.flood(frame(0, b"xx", final=False) * 1000)


def polling_without_a_get(stranger: Stranger) -> None:
    target = stranger.poll()
    while stranger.goes_on:
        stranger.request(target, b'421["echo","' + b"x" * 500_000 + b'"]\x1e3')


def many_events_in_one_post(stranger: Stranger) -> None:
    target = stranger.poll()
    while stranger.goes_on:
        stranger.request(target, b"\x1e".join([b'421["echo",1]'] * 2000))
        stranger.request(target, method=b"GET")


def no_numbers(stranger: Stranger) -> None:
    stranger.connect()
    words = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"[[[{}]]]", b"1" * 5000]
    packets = [frame(TEXT, b'42["echo",' + word + b"]") for word in words]
    stranger.flood(b"".join(packets), reads=True)


FRAMING = [
    b"Transfer-Encoding: gzip\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxxx",
    b"Content-Length: +5\r\n\r\nxxxxx",
    b"Content-Length: 1_0\r\n\r\nxxxxxxxxxx",
    b"Content-Length: 0x5\r\n\r\nxxxxx",
    b"no colon\r\nX: y\r\n\r\n",
    b"X: a\rb\r\n\r\n",
    b"X: a\r\n folded\r\n\r\n",
    b"X : space\r\n\r\n",
    b"X: \x00\r\n\r\n",
]
TRACEBACKS = [
    b"GET http://[ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
    b"GET /socket.io/?EIO=9&transport=pigeon&sid=\x1b[2J HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n\r\n",
]


def requests(stranger: Stranger, made: list[bytes]) -> None:
    """Each on a connection of its own."""
    while stranger.goes_on:
        for data in made:
            with socket.create_connection(("127.0.0.1", stranger.port), timeout=2) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                stranger.sent += len(data)
                try:
                    while sock.recv(65536):
                        pass
                except OSError:
                    pass


def framing(stranger: Stranger) -> None:
    requests(stranger, [b"POST /upload HTTP/1.1\r\n" + HOST + rest for rest in FRAMING])


def what_gave_tracebacks(stranger: Stranger) -> None:
    requests(stranger, TRACEBACKS)


def packets_that_gave_tracebacks(stranger: Stranger) -> None:
    stranger.connect()
    packets = [b"46", b'461-["x"]', b"430[]", b'431{"a":1}', b'42["whoami",1,2,3]', b"42[]"]
    packets += [b'42["join"]', b"42[1]", b"42{}", b"44", b"49", b"", b"9", b"40/no,", b"42[null]"]
    stranger.flood(b"".join(frame(TEXT, packet) for packet in packets), reads=True)


def a_post_after_a_posted_close(stranger: Stranger) -> None:
    target = stranger.poll()
    stranger.request(target, b"1")
    while stranger.goes_on:
        stranger.request(target, b"40")


ATTACKS: list[Callable[[Stranger], None]] = [
    attachments_before_a_connect,
    attachments_without_end,
    one_attachment_named_many_times,
    chunks_without_end,
    a_chunk_size_without_end,
    trailers_without_end,
    pipelined_requests,
    slow_heads,
    a_slow_body,
    pings_whose_answers_nobody_reads,
    echoes_that_nobody_reads,
    fragments_of_two_bytes,
    polling_without_a_get,
    many_events_in_one_post,
    no_numbers,
    framing,
    what_gave_tracebacks,
    packets_that_gave_tracebacks,
    a_post_after_a_posted_close,
]


def attack(port: int, seed: int, seconds: float) -> Counter[str]:
    """Bytes sent in each attack."""
    dice = random.Random(seed)
    ends = time.monotonic() + seconds
    sent: Counter[str] = Counter()
    while time.monotonic() < ends:
        for one in dice.sample(ATTACKS, len(ATTACKS)):
            if time.monotonic() > ends:
                break
            try:
                with Stranger(port) as stranger:
                    try:
                        one(stranger)
                    except (OSError, ValueError):
                        pass  # refused, as it should be
                    sent[one.__name__] += stranger.sent
            except OSError:
                time.sleep(0.05)
    return sent


if __name__ == "__main__":
    # From another host it would take no CPU of the victim's.
    os.nice(10)
    print(json.dumps(attack(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
