"""Frames as a client sends them, written down apart from the code under test."""

from __future__ import annotations


def masked(
    opcode: int, payload: bytes, final: bool = True, mask: bytes = b"\x01\x80\xff\x7e"
) -> bytes:
    """One frame."""
    length = len(payload)
    if length < 126:
        head = bytes([length | 0x80])
    elif length < 65536:
        head = bytes([126 | 0x80]) + length.to_bytes(2, "big")
    else:
        head = bytes([127 | 0x80]) + length.to_bytes(8, "big")
    data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([opcode | (0x80 if final else 0)]) + head + mask + data
