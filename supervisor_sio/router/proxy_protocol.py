"""Parse the PROXY protocol, versions 1 and 2, by which a proxy sends its client's address. Pure.

The first bytes of a connection in, a :class:`ProxyHeader` out. The rules are those of
https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple, Optional

from ..common import reasons
from ..common.request import BadRequest

#: Longest version 1 header, with its line end (section 2.1).
_LONGEST_V1 = 107
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Version 2 allows 64 KiB of extensions, but recommends much less.
_LONGEST_V2 = 16 + 4096

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSES = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}
_TLV_SSL = 0x20
_CLIENT_SSL = 0x01

Endpoint = tuple[str, int]


class ProxyHeader(NamedTuple):
    #: Bytes to skip before the request.
    length: int
    #: ``None`` for a connection of the proxy itself, such as a health check.
    source: Optional[Endpoint] = None
    destination: Optional[Endpoint] = None
    #: Whether the client connected to the proxy over TLS.
    tls: bool = False


def parse_proxy_header(data: bytes) -> Optional[ProxyHeader]:
    """Read the header at the start of a connection; ``None`` while it is incomplete.

    :raises BadRequest: when the connection does not start with a header.
    """
    if data.startswith(_SIGNATURE[: len(data)]):
        return _parse_v2(data)
    if data.startswith(b"PROXY "[: len(data)]):
        return _parse_v1(data)
    raise _bad()


def _bad() -> BadRequest:
    return BadRequest(reasons.PROXY_HEADER)


def _parse_v1(data: bytes) -> Optional[ProxyHeader]:
    end = data.find(b"\r\n", 0, _LONGEST_V1)
    if end < 0:
        if len(data) >= _LONGEST_V1:
            raise _bad()
        return None
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(end + 2)
    try:
        _, family, *addresses = (word.decode("ascii") for word in words)
        source, destination, source_port, destination_port = addresses
        version = {"TCP4": 4, "TCP6": 6}[family]
        for address in (source, destination):
            # A zone after % could be any text, and is meaningless on this host.
            if "%" in address or ipaddress.ip_address(address).version != version:
                raise ValueError
        return ProxyHeader(
            end + 2, (source, _port(source_port)), (destination, _port(destination_port))
        )
    except (ValueError, KeyError):
        raise _bad() from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise ValueError
    return int(text)


def _parse_v2(data: bytes) -> Optional[ProxyHeader]:
    if len(data) < 16:
        return None
    command, family, length = struct.unpack_from("!BBH", data, 12)
    if command not in (_LOCAL, _PROXY) or 16 + length > _LONGEST_V2:
        raise _bad()
    if len(data) < 16 + length:
        return None
    if command == _LOCAL or family not in _ADDRESSES:
        return ProxyHeader(16 + length)
    layout = _ADDRESSES[family]
    if length < layout.size:
        raise _bad()
    source, destination, source_port, destination_port = layout.unpack_from(data, 16)
    return ProxyHeader(
        16 + length,
        (str(ipaddress.ip_address(source)), source_port),
        (str(ipaddress.ip_address(destination)), destination_port),
        _says_tls(data[16 + layout.size : 16 + length]),
    )


def _says_tls(extensions: bytes) -> bool:
    while len(extensions) >= 3:
        kind, length = struct.unpack_from("!BH", extensions)
        value = extensions[3 : 3 + length]
        if kind == _TLV_SSL and value:
            return bool(value[0] & _CLIENT_SSL)
        extensions = extensions[3 + length :]
    return False
