"""A client of a websocket that does not keep to any rule."""

from __future__ import annotations

import socket
import time

from cluster.raw import open_websocket

TEXT, BINARY, PING = 1, 2, 9

#: The server's close frame: it wants no more.
CLOSED = b"\x88\x02\x03\xe8"


def masked(opcode: int, payload: bytes, final: bool = True) -> bytes:
    """A client's frame; its mask changes nothing."""
    length = len(payload)
    head = bytes([opcode | (0x80 if final else 0)])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 65536:
        head += b"\xfe" + length.to_bytes(2, "big")
    else:
        head += b"\xff" + length.to_bytes(8, "big")
    return head + bytes(4) + payload


class Stranger:
    """One websocket, with a session if it wants one."""

    def __init__(self, port: int, connect: bool = True) -> None:
        self.sock = open_websocket(port)
        self._data = b""
        if connect:
            self.text("40")
            self.until(b'"}')

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def text(self, *texts: str) -> None:
        self.sock.sendall(b"".join(masked(TEXT, text.encode()) for text in texts))

    def binary(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.sock.sendall(masked(BINARY, payload))

    def until(self, part: bytes, timeout: float = 20) -> bytes:
        """What comes up to this; the next call looks behind it."""
        deadline = time.monotonic() + timeout
        while part not in self._data:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            more = self.sock.recv(1 << 20)
            assert more, f"ended without {part!r}: {self._data[-200:]!r}"
            self._data += more
        before, _, self._data = self._data.partition(part)
        return before

    def flood(self, data: bytes, seconds: float) -> int:
        """Send the same all the time, as far as it is taken, and read nothing; how many bytes."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sent, at, deadline = 0, 0, time.monotonic() + seconds
        self.sock.settimeout(0.05)
        while time.monotonic() < deadline:
            try:
                count = self.sock.send(data[at:])
            except TimeoutError:
                continue
            except OSError:
                break  # cut off
            sent, at = sent + count, (at + count) % len(data)
        return sent

    def ended(self, timeout: float = 20) -> bool:
        """Whether the server ends the connection in this time; what comes is not kept."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                if not self.sock.recv(1 << 20):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False
