"""Websocket frames as clients and servers send them; all of a bench are short."""

from __future__ import annotations

import os

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Failure(Exception):
    """A client did not get what it should have; the text is the reason that is counted."""


def frame(opcode: int, payload: bytes) -> bytes:
    """A masked frame, as a client sends it."""
    assert len(payload) < 126
    mask = os.urandom(4)
    key = int.from_bytes((mask * 32)[: len(payload)], "big")
    masked = (int.from_bytes(payload, "big") ^ key).to_bytes(len(payload), "big")
    return bytes((0x80 | opcode, 0x80 | len(payload))) + mask + masked


def server_frame(payload: bytes) -> bytes:
    """A text frame as a server sends it."""
    size = len(payload)
    return (b"\x81%c" % size if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + payload


def first_frame(data: bytes) -> tuple[int, bytes, int] | None:
    """Opcode, payload and length of the frame that the data begin with, if it is whole."""
    if len(data) < 2:
        return None
    head, size = 2, data[1]
    if size > 125:
        head = 4 if size == 126 else 10
        size = int.from_bytes(data[2:head], "big")
    if len(data) < head + size:
        return None
    return data[0] & 0x0F, data[head : head + size], head + size
