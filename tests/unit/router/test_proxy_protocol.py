from __future__ import annotations

import ipaddress
import struct
from typing import Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisor_sio.common.request import BadRequest
from supervisor_sio.router.proxy_protocol import ProxyHeader, parse_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

PORTS = st.integers(0, 65535)


def v1(family: str, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    addresses = f"{source[0]} {destination[0]} {source[1]} {destination[1]}"
    return f"PROXY {family} {addresses}\r\n".encode()


def v2(
    source: tuple[str, int], destination: tuple[str, int], extensions: bytes = b"", command: int = 1
) -> bytes:
    addresses = [ipaddress.ip_address(source[0]), ipaddress.ip_address(destination[0])]
    family = 0x11 if addresses[0].version == 4 else 0x21
    body = b"".join(address.packed for address in addresses)
    body += struct.pack("!HH", source[1], destination[1]) + extensions
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def ssl_tlv(client: int) -> bytes:
    """PP2_TYPE_SSL: the client bits, the result of the verification, a version."""
    return tlv(0x20, struct.pack("!BL", client, 0) + tlv(0x21, b"TLSv1.3"))


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, ProxyHeader]:
    """A good header and what it says."""
    version = draw(st.sampled_from((4, 6)))
    addresses = st.ip_addresses(v=version).map(str)
    source, destination = draw(st.tuples(addresses, PORTS)), draw(st.tuples(addresses, PORTS))
    if draw(st.booleans()):
        data = v1(f"TCP{version}", source, destination)
        return data, ProxyHeader(len(data), source, destination)
    tls = draw(st.booleans())
    others = [tlv(draw(st.sampled_from((0x01, 0x04, 0xE0))), draw(st.binary(max_size=20)))]
    extensions = others + ([ssl_tlv(1)] if tls else [])
    data = v2(source, destination, b"".join(draw(st.permutations(extensions))))
    return data, ProxyHeader(len(data), source, destination, tls)


@given(headers(), st.data())
def test_any_split(header: tuple[bytes, ProxyHeader], data: st.DataObject) -> None:
    """Nothing until the header is whole, then the same whatever follows it."""
    text, expected = header
    assert parse_proxy_header(text[: data.draw(st.integers(0, len(text) - 1))]) is None
    assert parse_proxy_header(text) == expected
    assert parse_proxy_header(text + data.draw(st.binary(max_size=50))) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        v2(("10.0.0.1", 1), ("10.0.0.2", 2), command=0),  # LOCAL, with addresses to ignore
        SIGNATURE + b"\x20\x00\x00\x00",
        SIGNATURE + b"\x21\x00\x00\x00",  # PROXY of an unspecified family
        SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),  # of a Unix socket
        SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),  # of a datagram
    ],
    ids=["unknown", "unknown-long", "local", "local-empty", "unspecified", "unix", "datagram"],
)
def test_a_header_that_names_nobody(data: bytes) -> None:
    assert parse_proxy_header(data + REQUEST) == ProxyHeader(len(data))
    assert parse_proxy_header(data[:-1]) is None


@pytest.mark.parametrize(
    "extensions, tls",
    [
        (ssl_tlv(1), True),
        (ssl_tlv(7), True),
        (ssl_tlv(6), False),  # a certificate on an earlier connection, no TLS on this
        (tlv(0x20, b""), False),
        (tlv(0x02, b"example.org") + ssl_tlv(1), True),
        (b"\x20\xff\xff\x01", True),  # cut short: its first byte is all that matters
        (b"\x20\x00", False),
        (tlv(0x04, ssl_tlv(1)), False),  # inside of padding it means nothing
    ],
)
def test_tls_extension(extensions: bytes, tls: bool) -> None:
    header = parse_proxy_header(v2(("10.0.0.1", 1), ("10.0.0.2", 443), extensions))
    assert header is not None and header.tls is tls
    assert header.source == ("10.0.0.1", 1) and header.destination == ("10.0.0.2", 443)


@pytest.mark.parametrize(
    "data",
    [
        REQUEST,
        b"\x16\x03\x01\x02\x00",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"proxy TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY TCP5 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2 3\r\n",
        b"PROXY TCP4 10.0.0.1  10.0.0.2 1 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 -1 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 \xb2 2\r\n",
        b"PROXY TCP4 10.0.0.256 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%\x1b[31m ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%a\nb ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP6 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY TCP4 localhost localhost 1 2\r\n",
        b"PROXY UNKNOWN" + b" " * 100 + b"\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),  # version 1 in binary
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),  # no such command
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),  # too short for its family
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\xff\xff",  # more than anybody sends
        SIGNATURE[:-1] + b"X",
    ],
)
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(BadRequest) as info:
        parse_proxy_header(data)
    assert info.value.reason == "proxy-header" and info.value.status.startswith("400 ")


def parse(data: bytes) -> Optional[ProxyHeader]:
    try:
        return parse_proxy_header(data)
    except BadRequest as bad:
        assert bad.reason == "proxy-header"
        return None


@given(st.binary(max_size=200))
@example(b"PROXY ")
@example(b"PROXY TCP4 \r\n")
@example(b"PROXY UNKNOWN\n\r\n")
def test_garbage_is_nothing_worse_than_a_bad_request(data: bytes) -> None:
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"):
        header = parse(start + data)
        assert header is None or 0 < header.length <= len(start + data)


@given(headers(), st.data())
def test_one_changed_byte_is_nothing_worse_than_a_bad_request(
    header: tuple[bytes, ProxyHeader], data: st.DataObject
) -> None:
    text = bytearray(header[0])
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    found = parse(bytes(text))
    assert found is None or 0 < found.length <= len(text)


@given(st.binary(max_size=16))
def test_a_refusal_stays(data: bytes) -> None:
    """What is refused early would be refused with more bytes too."""
    try:
        parse_proxy_header(data)
    except BadRequest:
        with pytest.raises(BadRequest):
            parse_proxy_header(data + b"\r\n" + bytes(16))
