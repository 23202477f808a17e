"""What a websocket server must do, RFC 6455: a table of cases, and a client that checks one.

The server is one that echoes messages, and refuses those over a limit. The cases are what
Autobahn's test suite checks in its sections 1 to 7 and 10, and what it does not: masks,
forms of length, floods of fragments, the limit.
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Union

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, PROTOCOL, NO_CODE, NOT_UTF8, POLICY, TOO_BIG = 1000, 1002, 1005, 1007, 1008, 1009
LIMIT = 1_000_000
TIMEOUT = 25.0

#: Bytes to send, or how many messages must have come before more is sent.
Segment = Union[bytes, int]
#: Opcode and payload; a pong counts as a message, too.
Message = tuple[int, bytes]

_random = random.Random(6455)


@dataclass(frozen=True)
class Case:
    """``echo`` must come back, then a close frame with one of ``codes``.

    Where the server closes because of a size, nothing of ``echo`` comes back.
    """

    id: str
    segments: Sequence[Segment] = field(repr=False)
    echo: tuple[Message, ...] = field(repr=False)
    codes: tuple[int, ...]


def frame(opcode: int, data: bytes = b"", fin: bool = True, rsv: int = 0, width: int = 0) -> bytes:
    """One frame; ``width`` is the number of octets of the length, 0 for the shortest form."""
    size = len(data)
    if not width:
        width = 1 if size < 126 else 2 if size < 65536 else 8
    form = {1: size, 2: 126, 8: 127}[width]
    length = b"" if width == 1 else size.to_bytes(width, "big")
    head = bytes([fin << 7 | rsv << 4 | opcode, 0x80 | form]) + length
    key = _random.randbytes(4)
    pad = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return head + key + (int.from_bytes(data, "big") ^ pad).to_bytes(size, "big")


def fragments(opcode: int, *parts: bytes) -> list[bytes]:
    last = len(parts) - 1
    return [frame(CONT if i else opcode, part, fin=i == last) for i, part in enumerate(parts)]


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def chops(data: bytes, size: int = 1) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def echoed(name: str, segments: Iterable[Segment], *echo: Message) -> Case:
    """All is answered with ``echo``, then our close with a close."""
    return Case(name, [*segments, len(echo), close(NORMAL)], echo, (NORMAL,))


def refused(name: str, segments: Iterable[Segment], code: int = PROTOCOL) -> Case:
    """Nothing is answered but with a close."""
    return Case(name, [*segments], (), (code,))


def refused_later(name: str, bad: bytes) -> Case:
    """A message is answered, then ``bad`` refused; the ping behind it is not answered."""
    hello = (TEXT, b"Hello")
    return Case(name, [frame(*hello), 1, bad, frame(PING)], (hello,), (PROTOCOL,))


def framing() -> Iterator[Case]:
    """Sections 1 and 10."""
    for size in (0, 125, 126, 127, 128, 65535, 65536):
        digits = (b"0123456789abc" * (size // 13 + 1))[:size]
        for message in ((TEXT, digits), (BINARY, _random.randbytes(size))):
            name, whole = f"frame.{message[0]}.{size}", frame(*message)
            yield echoed(name, [whole], message)
            if size > 997:
                yield echoed(f"{name}.chops", chops(whole, 997), message)
                parts = fragments(message[0], *chops(message[1], 1300))
                yield echoed(f"{name}.fragments", parts, message)


def pings() -> Iterator[Case]:
    """Section 2."""
    for payload in (b"", b"Hello", bytes(range(250, 256)), b"\xfe" * 125):
        ping, pong = frame(PING, payload), (PONG, payload)
        yield echoed(f"ping.{len(payload)}", [ping], pong)
        yield echoed(f"ping.{len(payload)}.octets", chops(ping), pong)
        yield echoed(f"pong.{len(payload)}", [frame(PONG, payload), ping], pong)
    yield refused("ping.126", [frame(PING, bytes(126))])
    yield refused("pong.126", [frame(PONG, bytes(126))])
    pongs = [(PONG, b"payload-%d" % number) for number in range(10)]
    data = b"".join(frame(PING, payload) for _, payload in pongs)
    yield echoed("ping.ten", [data], *pongs)
    yield echoed("ping.ten.octets", chops(data), *pongs)


def reserved() -> Iterator[Case]:
    """Sections 3 and 4."""
    for rsv in range(1, 8):
        for opcode in (TEXT, BINARY, CLOSE, PING, PONG):
            yield refused_later(f"bits.{rsv}.{opcode}", frame(opcode, rsv=rsv))
        yield refused(f"bits.{rsv}.0", [frame(TEXT, fin=False), frame(CONT, rsv=rsv)])
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield refused_later(f"opcode.{opcode}.empty", frame(opcode))
        yield refused_later(f"opcode.{opcode}", frame(opcode, b"Hello"))


def fragmentation() -> Iterator[Case]:
    """Section 5."""
    first, more, last = frame(TEXT, b"a", False), frame(CONT, b"b", False), frame(CONT, b"c")
    text, ping, ping2 = frame(TEXT, b"t"), frame(PING, b"p"), frame(PING, b"q")
    ac, abc, pong, pong2 = (TEXT, b"ac"), (TEXT, b"abc"), (PONG, b"p"), (PONG, b"q")
    for size in (100, 7, 1):  # all at once, frame by frame, octet by octet
        yield echoed(f"fragments.by-{size}", chops(first + more + last, size), abc)
    yield echoed("fragments.two-messages", [first + last + first + more + last], ac, abc)
    yield echoed("fragments.binary", fragments(BINARY, b"\xff", b"", b"\0"), (BINARY, b"\xff\0"))
    # Control frames between fragments are answered at once.
    yield echoed("fragments.ping", [first, ping, 1, last], pong, ac)
    yield echoed("fragments.ping.one-segment", [first + ping + last], pong, ac)
    yield echoed("fragments.ping.octets", [*chops(first + ping), 1, *chops(last)], pong, ac)
    yield echoed("fragments.pings", [first, ping, 1, more, ping2, 2, last], pong, pong2, abc)
    yield echoed("fragments.pong", [first + frame(PONG) + last], ac)
    for opcode in (CLOSE, PING, PONG):
        yield refused(f"fragments.of.{opcode}", [frame(opcode, fin=False), frame(CONT)])
    for number, lone in enumerate([last, more, last + text, more + text, more + first + last]):
        yield refused(f"fragments.lone.{number}", [lone])
        yield refused_later(f"fragments.lone.later.{number}", lone)
    yield Case("fragments.ended", [first, last, 1, more, text], (ac,), (PROTOCOL,))
    for number, inside in enumerate([text, first, frame(BINARY), more + text]):
        yield refused(f"fragments.inside.{number}", [first, inside])


UTF8 = [
    *("\0", "\x7f", "$", "¢", "€", "𤭢", "κόσμε", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000"),
    *("\ufdd0", "\ufeff", "\ufffd", "\ufffe", "\uffff", "\U00010000", "\U0001fffe", "\U0010ffff"),
]
BAD_UTF8 = [
    *("80", "bf", "80bf80", "24bf", "fe", "ff"),  # nothing begins like this
    *("c080", "c0af", "c1bf", "e080af", "e09fbf", "f08080af", "f08fbfbf"),  # overlong
    *("eda080", "edadbf", "edb080", "edbfbf", "eda080edb080", "edafbfedbfbf"),  # surrogates
    *("f4908080", "f5808080", "f7bfbfbf", "f888808080", "fc8480808080"),  # over U+10FFFF
    *("c2", "df", "e282", "efbf", "f0a4ad", "f48fbf"),  # truncated
    *("c224", "e28224", "e282e282ac", "f0a4ad24"),
]


def utf8() -> Iterator[Case]:
    """Section 6."""

    def ways(data: bytes) -> list[tuple[str, list[bytes]]]:
        whole, parts = frame(TEXT, data), fragments(TEXT, *chops(data))  # within code points
        return [("whole", [whole]), ("fragments", parts), ("octets", chops(whole))]

    for data in (f"{text}κ{text}".encode() for text in UTF8):
        for way, segments in ways(data):
            yield echoed(f"utf8.{data.hex()}.{way}", segments, (TEXT, data))
    for bad in BAD_UTF8:
        for way, segments in ways("κ".encode() + bytes.fromhex(bad)):
            yield refused(f"utf8.bad.{bad}.{way}", segments, NOT_UTF8)
    yield echoed("utf8.binary", [frame(BINARY, b"\xff")], (BINARY, b"\xff"))
    yield echoed("utf8.empty", fragments(TEXT, b"", b"", b""), (TEXT, b""))
    yield echoed("utf8.empty-around", fragments(TEXT, b"", b"a", b""), (TEXT, b"a"))
    start, end = fragments(TEXT, b"\xe2\x82", b"\xac")
    yield echoed("utf8.ping", [start, frame(PING), 1, end], (PONG, b""), (TEXT, "€".encode()))
    # Refused before the message ends.
    for bad in ("20", "e2", "f4908080"):
        segments = [start, frame(CONT, bytes.fromhex(bad), fin=False)]
        yield refused(f"utf8.fast.{bad}", segments, NOT_UTF8)


CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
BAD_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)


def closing() -> Iterator[Case]:
    """Section 7."""
    yield Case("close.empty", [frame(CLOSE)], (), (NO_CODE, NORMAL))
    for code in CODES:
        yield Case(f"close.{code}", [close(code)], (), (code, NORMAL))
    for code in BAD_CODES:
        yield refused(f"close.{code}", [close(code)])
    for reason in ("Grüße".encode(), b"*" * 123):
        yield Case(f"close.reason.{len(reason)}", [close(NORMAL, reason)], (), (NORMAL,))
    yield refused("close.reason.124", [close(NORMAL, b"*" * 124)])
    yield refused("close.half-a-code", [frame(CLOSE, b"\x03")])
    for bad in BAD_UTF8:
        yield refused(f"close.reason.{bad}", [close(NORMAL, bytes.fromhex(bad))], NOT_UTF8)
    yield Case("close.octets", chops(close(NORMAL, b"bye")), (), (NORMAL,))
    # What comes behind it is not answered.
    bye, (first, last) = close(NORMAL), fragments(TEXT, b"a", b"b")
    for number, behind in enumerate([frame(TEXT, b"t"), frame(PING), close(1001), b"\xff" * 70]):
        yield Case(f"close.behind.{number}", [bye, behind], (), (NORMAL,))
        yield Case(f"close.behind.{number}.one-segment", [bye + behind], (), (NORMAL,))
    yield Case("close.between-fragments", [first, bye, last], (), (NORMAL,))


def lengths_and_limits(limit: int) -> Iterator[Case]:
    """What Autobahn's suite lacks."""
    text, parts = (TEXT, "Grüße".encode()), (b"x" * 70, b"", b"y" * 300)
    yield refused("mask.text", [b"\x81\x05Hello"])
    yield refused("mask.ping", [b"\x89\x00"])
    for size, width in ((5, 2), (125, 2), (5, 8), (126, 8), (65535, 8)):
        yield refused(f"length.{size}.{width}", [frame(BINARY, bytes(size), width=width)])
    yield refused("length.top-bit", [b"\x82\xff" + (1 << 63 | 5).to_bytes(8, "big") + bytes(4)])
    octets = chops(b"".join([frame(*text), frame(PING, b"p"), *fragments(BINARY, *parts)]))
    yield echoed("octets", octets, text, (PONG, b"p"), (BINARY, b"".join(parts)))
    flood = b"".join(fragments(TEXT, b"a", *[b""] * 40_000, b"b"))
    codes = (NORMAL, POLICY, TOO_BIG)
    yield Case("flood", [flood, 1, close(NORMAL)], ((TEXT, b"ab"),), codes)
    exact = _random.randbytes(limit)
    yield echoed("limit.frame", [frame(BINARY, exact)], (BINARY, exact))
    yield echoed("limit.sum", fragments(BINARY, exact[:1], exact[1:]), (BINARY, exact))
    yield refused("limit.frame.over", [frame(BINARY, exact + b"!")], TOO_BIG)
    yield refused("limit.sum.over", fragments(BINARY, *chops(exact, 2**18), b"!"), TOO_BIG)


def cases(limit: int = LIMIT) -> list[Case]:
    """All of them; ``limit`` is the longest message that the server takes, in bytes."""
    sections = (framing, pings, reserved, fragmentation, utf8, closing)
    return [*(case for section in sections for case in section()), *lengths_and_limits(limit)]


class Client:
    """A raw websocket; sends and receives at the same time, up to a deadline."""

    def __init__(self, port: int) -> None:
        self.deadline = time.monotonic() + TIMEOUT
        self.messages: list[Message] = []
        #: Of the server's close frame.
        self.code: int | None = None
        self._ended = False
        self._data = b""
        self._parts: list[bytes] = []
        self._opcode = 0
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def shake_hands(self) -> None:
        """With the key and the answer of the RFC's example, 1.3."""
        self.sock.sendall(
            b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            octet = self.sock.recv(1)
            assert octet, f"the handshake ended after {head!r}"
            head += octet
        lines = head.split(b"\r\n")
        assert lines[0].startswith(b"HTTP/1.1 101 "), head
        accepted = [line.split(b": ")[1] for line in lines if b"-accept: " in line.lower()]
        assert accepted == [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="], head

    def run(self, segments: Iterable[Segment], most: int) -> None:
        """Send, and read until the server ends the connection; ``most`` messages may come."""
        self.sock.setblocking(False)
        steps = deque(segments)
        while not self._ended:
            while steps and isinstance(steps[0], int) and len(self.messages) >= steps[0]:
                steps.popleft()
            out = steps[0] if steps and isinstance(steps[0], bytes) else b""
            left = self.deadline - time.monotonic()
            assert left > 0, f"hangs after {len(self.messages)} messages, close {self.code}"
            readable, writable, _ = select.select([self.sock], [self.sock] if out else [], [], left)
            if writable:
                steps.popleft()
                try:
                    rest = out[self.sock.send(out) :]
                    if rest:
                        steps.appendleft(rest)
                except (BrokenPipeError, ConnectionResetError):
                    steps.clear()  # what the server has said before may still be there to read
            if readable:
                self._receive()
                assert len(self.messages) <= most, f"a message too many: {self.messages[-1][:60]}"

    def _receive(self) -> None:
        try:
            more = self.sock.recv(1 << 18)
        except ConnectionResetError:
            more = b""
        self._ended = not more
        self._data += more
        while len(self._data) >= 2:
            first, size = self._data[0], self._data[1]
            assert not first & 0x70 and size < 128, f"a bad head {self._data[:2]!r}"
            start = 2 + {126: 2, 127: 8}.get(size, 0)
            if start > 2:
                size = int.from_bytes(self._data[2:start], "big")
            if len(self._data) < start + size:
                return
            payload, self._data = self._data[start : start + size], self._data[start + size :]
            self._handle(bool(first & 0x80), first & 0x0F, payload)

    def _handle(self, fin: bool, opcode: int, payload: bytes) -> None:
        assert self.code is None, "a frame behind the close frame"
        if opcode == CLOSE:
            self.code = int.from_bytes(payload[:2], "big") if payload else NO_CODE
        elif opcode == PONG:
            self.messages.append((opcode, payload))
        else:
            assert opcode <= BINARY, f"opcode {opcode}"
            assert bool(opcode) != bool(self._opcode), "fragments out of order"
            self._opcode = self._opcode or opcode
            self._parts.append(payload)
            if fin:
                self.messages.append((self._opcode, b"".join(self._parts)))
                self._opcode, self._parts = 0, []
        assert opcode <= BINARY or (fin and len(payload) < 126), "no valid control frame"


def check(case: Case, port: int) -> None:
    """:raises AssertionError: when the server at this port does anything else."""
    client = Client(port)
    with client.sock:
        client.shake_hands()
        client.run(case.segments, len(case.echo))
    expected = () if client.code in (POLICY, TOO_BIG) else case.echo
    count = f"{len(client.messages)} messages of {len(expected)}"
    assert client.code in case.codes, f"close {client.code}, not {case.codes}; {count}"
    # A pong may overtake the echo of a message that came before its ping.
    for pongs in (False, True):
        got, wanted = (
            [message for message in messages if (message[0] == PONG) is pongs]
            for messages in (client.messages, expected)
        )
        assert got == wanted, f"other messages than were sent: {count}"
