from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.engine.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameReader,
    ProtocolError,
    close_frame,
    frame,
    message_frame,
    unmask,
)
from unit.client_frames import masked

LIMIT = 100_000


def read(*chunks: bytes, limit: int = LIMIT) -> list[Any]:
    reader = FrameReader(limit)
    found = []
    for chunk in chunks:
        reader.feed(chunk)
        while (message := reader.next()) is not None:
            if message[0] != CONTINUATION:
                found.append(message)
    return found


def failure(*chunks: bytes, limit: int = LIMIT) -> int:
    with pytest.raises(ProtocolError) as caught:
        read(*chunks, limit=limit)
    return caught.value.code


def chop(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [chunk for chunk in (*chunks, data) if chunk]


messages = st.one_of(
    st.tuples(st.just(TEXT), st.text(max_size=300)),
    st.tuples(st.just(BINARY), st.binary(max_size=300)),
    st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)),
)


def encode(message: tuple[int, Any]) -> bytes:
    opcode, payload = message
    return masked(opcode, payload.encode() if isinstance(payload, str) else payload)


@given(st.lists(messages, max_size=8), st.lists(st.integers(1, 40), max_size=80))
def test_however_it_is_chopped(sent: list[Any], sizes: list[int]) -> None:
    assert read(*chop(b"".join(map(encode, sent)), sizes)) == sent


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, LIMIT])
def test_lengths(length: int) -> None:
    text = "x" * length
    assert read(masked(TEXT, text.encode())) == [(TEXT, text)]
    # What a server sends differs by the mask alone.
    of_client = masked(BINARY, text.encode(), mask=bytes(4))
    head = len(of_client) - length - 4
    assert frame(BINARY, text.encode()) == (
        bytes([of_client[0], of_client[1] & 0x7F]) + of_client[2:head] + text.encode()
    )


@given(st.text(max_size=100), st.lists(st.integers(0, 30), max_size=6), st.booleans())
def test_fragments(text: str, sizes: list[int], with_ping: bool) -> None:
    parts = chop(text.encode(), sizes) or [b""]
    frames = [
        masked(CONTINUATION if number else TEXT, part, final=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]
    between = masked(PING, b"?") if with_ping else b""
    found = read(between.join(frames))
    assert [message for message in found if message[0] == TEXT] == [(TEXT, text)]
    assert len(found) == 1 + with_ping * (len(parts) - 1)


def test_octet_by_octet() -> None:
    data = masked(BINARY, bytes(range(256)) * 2) + masked(TEXT, "ä€𝄞".encode())
    assert read(*(data[i : i + 1] for i in range(len(data)))) == [
        (BINARY, bytes(range(256)) * 2),
        (TEXT, "ä€𝄞"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"without a mask"),
        b"\xc1\x80",  # RSV1
        b"\xa1\x80",
        b"\x91\x80",
        b"\x83\x80",  # reserved opcodes
        b"\x8b\x80",
        b"\x09\x80",  # a ping in fragments
        b"\x89\xfe",  # a ping of more than 125 bytes
        b"\x80\x80",  # nothing to continue
        masked(TEXT, b"a", final=False) + b"\x81\x80",  # a message inside another
        b"\x82\xfe\x00\x7d" + bytes(4),  # 125 in two bytes
        b"\x82\xff" + (65535).to_bytes(8, "big"),  # 65535 in eight bytes
        b"\x82\xff" + (2**63).to_bytes(8, "big"),
        masked(CLOSE, b"\x03"),
        masked(CLOSE, (1005).to_bytes(2, "big")),
        masked(CLOSE, (999).to_bytes(2, "big")),
        masked(CLOSE, (5000).to_bytes(2, "big")),
    ],
)
def test_what_breaks_the_protocol(data: bytes) -> None:
    assert failure(data) == 1002
    assert failure(*chop(data, [1] * 20)) == 1002


@pytest.mark.parametrize(
    "chunks",
    [
        [masked(TEXT, b"\xff")],
        [masked(TEXT, b"\xed\xa0\x80")],  # a surrogate
        [masked(TEXT, b"\xc3", final=False) + masked(CONTINUATION, b"")],
        [masked(TEXT, b"\xce\xba\xe1\xbd\xb9\xf4\x90", final=False)],  # at once, not at the end
        [masked(CLOSE, b"\x03\xe8\xff")],
    ],
)
def test_text_that_is_not_utf8(chunks: list[bytes]) -> None:
    assert failure(*chunks) == 1007


def test_too_long() -> None:
    # Known from the head alone.
    assert failure(masked(BINARY, bytes(101))[:6], limit=100) == 1009
    half = masked(BINARY, bytes(60), final=False)
    assert failure(half, masked(CONTINUATION, bytes(60)), limit=100) == 1009
    assert read(half, masked(CONTINUATION, bytes(40)), limit=100) == [(BINARY, bytes(100))]


def test_empty_fragments_take_no_memory() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(masked(TEXT, b"", final=False) + masked(CONTINUATION, b"", final=False) * 1000)
    assert [reader.next() for _ in range(1002)] == [(CONTINUATION, b"")] * 1001 + [None]
    assert reader._parts == b""


def test_messages_and_close() -> None:
    assert message_frame("ä") == frame(TEXT, "ä".encode())
    assert message_frame(b"\x00") == frame(BINARY, b"\x00")
    assert close_frame(1001) == b"\x88\x02\x03\xe9"
    assert read(masked(CLOSE, b"\x03\xe8bye")) == [(CLOSE, b"\x03\xe8bye")]
    assert read(masked(CLOSE, b"")) == [(CLOSE, b"")]


@given(st.binary(max_size=3 * 8192), st.binary(min_size=4, max_size=4))
def test_a_mask_of_any_length(data: bytes, key: bytes) -> None:
    expected = bytes(byte ^ key[place % 4] for place, byte in enumerate(data))
    assert unmask(data, key) == expected


@pytest.mark.parametrize("length", [8191, 8192, 8195, 100_001])
def test_a_mask_of_long_data(length: int) -> None:
    data = random.randbytes(length)
    expected = bytes(byte ^ b"\x01\xfe\x00\xaa"[place % 4] for place, byte in enumerate(data))
    assert unmask(data, b"\x01\xfe\x00\xaa") == expected
