from __future__ import annotations

import ipaddress
import struct
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.proxy_protocol import ProxyHeader, parse_proxy_header
from supervisor_sio.request import BadRequest

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6, UDP4, UNIX = 0x11, 0x21, 0x12, 0x31

IPv4 = bytes([192, 0, 2, 7, 10, 0, 0, 1]) + struct.pack("!HH", 4711, 443)
FROM_IPv4 = ("192.0.2.7", 4711), ("10.0.0.1", 443)

ports = st.integers(0, 65535)
endpoints = st.sampled_from([4, 6]).flatmap(
    lambda version: st.tuples(
        st.tuples(st.ip_addresses(v=version), ports), st.tuples(st.ip_addresses(v=version), ports)
    )
)


def v2(payload: bytes, command: int = PROXY, family: int = TCP4) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(payload)) + payload


def extension(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def is_refused(data: bytes) -> bool:
    try:
        parse_proxy_header(data)
    except BadRequest as bad:
        assert (bad.status, bad.reason) == ("400 Bad Request", "proxy-header")
        return True
    return False


def check_any_split(header: bytes, expected: ProxyHeader) -> None:
    for length in range(len(header)):
        assert parse_proxy_header(header[:length]) is None
    assert parse_proxy_header(header) == expected
    assert parse_proxy_header(header + b"GET / HTTP/1.1\r\n\r\n") == expected
    assert expected.length == len(header)


@given(endpoints)
def test_version_1(ends: tuple[tuple[ipaddress.IPv4Address, int], ...]) -> None:
    (source, source_port), (destination, destination_port) = ends
    header = (
        f"PROXY TCP{source.version} {source} {destination} {source_port} {destination_port}\r\n"
    ).encode()
    expected = ProxyHeader(
        len(header), (str(source), source_port), (str(destination), destination_port)
    )
    check_any_split(header, expected)


@given(endpoints, st.binary(max_size=60).filter(lambda rest: 0x20 not in rest))
def test_version_2(
    ends: tuple[tuple[ipaddress.IPv4Address, int], ...], extensions: bytes
) -> None:
    (source, source_port), (destination, destination_port) = ends
    family = TCP4 if source.version == 4 else TCP6
    addresses = source.packed + destination.packed
    addresses += struct.pack("!HH", source_port, destination_port)
    header = v2(addresses + extensions, family=family)
    expected = ProxyHeader(
        len(header), (str(source), source_port), (str(destination), destination_port)
    )
    check_any_split(header, expected)


@pytest.mark.parametrize("rest", [b"", b" ffff::1 ffff::2 1 2", b" whatever"])
def test_version_1_unknown(rest: bytes) -> None:
    header = b"PROXY UNKNOWN" + rest + b"\r\n"
    check_any_split(header, ProxyHeader(len(header)))


@pytest.mark.parametrize(
    ("command", "family", "payload"),
    [
        (LOCAL, 0, b""),
        (LOCAL, TCP4, IPv4),
        (LOCAL, TCP4, b"short"),
        (PROXY, 0, b"whatever"),
        (PROXY, UDP4, IPv4),
        (PROXY, UNIX, bytes(216)),
    ],
)
def test_version_2_without_addresses_for_us(command: int, family: int, payload: bytes) -> None:
    header = v2(payload, command, family)
    check_any_split(header, ProxyHeader(len(header)))


@pytest.mark.parametrize(
    ("extensions", "tls"),
    [
        (b"", False),
        (extension(0x20, b"\x01\0\0\0\0"), True),
        (extension(0x20, b"\x07\0\0\0\0" + extension(0x21, b"TLSv1.3")), True),
        (extension(0x20, b"\x00\0\0\0\0"), False),
        (extension(0x20, b""), False),
        (extension(1, b"h2") + extension(4, b"") + extension(0x20, b"\x01\0\0\0\0"), True),
        (extension(5, extension(0x20, b"\x01")), False),
        (b"\x05\xff\xff", False),
        (b"\x20\x00", False),
    ],
)
def test_whether_the_client_used_tls(extensions: bytes, tls: bool) -> None:
    header = v2(IPv4 + extensions)
    assert parse_proxy_header(header) == ProxyHeader(len(header), *FROM_IPv4, tls)


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"\r\n\r\nG",
        b"proxy TCP4 ",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 host 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 ١ 2\r\n".encode(),
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY UNKNOWN" + b"x" * 93 + b"\r\n",  # 108 bytes
        b"PROXY TCP4 " + b"1" * 96,
        v2(IPv4, command=0x22),
        v2(IPv4, command=0x11),
        v2(IPv4[:-1]),
        v2(IPv4, family=TCP6),
        v2(bytes(4097)),
    ],
)
def test_what_is_no_header(data: bytes) -> None:
    assert is_refused(data)


def test_the_longest_headers() -> None:
    first = b"PROXY UNKNOWN" + b"x" * 92 + b"\r\n"
    assert len(first) == 107
    check_any_split(first, ProxyHeader(107))
    second = v2(bytes(4096), family=0)
    assert parse_proxy_header(second) == ProxyHeader(len(second))
    assert parse_proxy_header(second[:-1]) is None


@given(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x0c"]),
    st.binary(max_size=120),
    st.binary(max_size=20),
)
def test_no_bytes_raise_anything_else(start: bytes, rest: bytes, more: bytes) -> None:
    data = start + rest
    if is_refused(data):
        assert is_refused(data + more)
        return
    found: Optional[ProxyHeader] = parse_proxy_header(data)
    if found is not None:
        assert 0 < found.length <= len(data)
        assert (found.source is None) == (found.destination is None)
        assert parse_proxy_header(data + more) == found
