"""The packet with a connection that router and worker hand to each other: a binary struct.

Each client costs one, so it is not JSON as other packets are. It begins with a byte that no JSON
text begins with. Router and worker have the same version (:func:`.channel.check_version`) and run
on the same host, so the struct has the host's byte order.

======  ===============================================
bytes
======  ===============================================
1       ``MARK``
1       flags
2, 2    ports of the client and of the listener
2, 2    lengths of their names, which follow
        name of the client, name of the listener: UTF-8
rest    the bytes already read from the connection
======  ===============================================
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple, Optional, Union

from . import channel
from .channel import ChannelError, Message
from .limits import MAX_PACKET

MARK = 1

_HEAD = struct.Struct("=BBHHHH")

_PLACED, _HANDSHAKE, _HTTPS, _PEER_HAS_PORT, _LOCAL_HAS_PORT = 1, 2, 4, 8, 16

#: The name of a Unix socket, or host and port.
Address = Union[str, tuple[str, int]]


class Handover(NamedTuple):
    peer: Address
    local: Address
    scheme: str
    #: Whether its first request is for this worker; that of an idle connection may not be.
    placed: bool
    #: Whether that request opens a session.
    handshake: bool
    prefix: bytes


def encode(
    peer: Address, local: Address, scheme: str, placed: bool, handshake: bool, prefix: bytes
) -> bytes:
    """Encode the fields of :class:`Handover`.

    :raises ChannelError: when they are too long for a packet.
    """
    flags = placed * _PLACED | handshake * _HANDSHAKE
    if scheme == "https":
        flags |= _HTTPS
    if isinstance(peer, str):
        peer_name, peer_port = peer.encode(), 0
    else:
        peer_name, peer_port = peer[0].encode(), peer[1]
        flags |= _PEER_HAS_PORT
    if isinstance(local, str):
        local_name, local_port = local.encode(), 0
    else:
        local_name, local_port = local[0].encode(), local[1]
        flags |= _LOCAL_HAS_PORT
    head = _HEAD.pack(MARK, flags, peer_port, local_port, len(peer_name), len(local_name))
    data = head + peer_name + local_name + prefix
    if len(data) > MAX_PACKET:
        raise ChannelError(f"a connection of {len(data)} bytes is over the limit of {MAX_PACKET}")
    return data


def decode(data: bytes) -> Union[Handover, Message]:
    """Decode a packet between router and worker.

    :raises ChannelError: when it is neither a connection nor another message.
    """
    if data[:1] != b"\1":
        return channel.decode(data)
    try:
        _, flags, peer_port, local_port, peer_length, local_length = _HEAD.unpack_from(data)
        local_at = _HEAD.size + peer_length
        prefix_at = local_at + local_length
        peer = data[_HEAD.size : local_at].decode()
        local = data[local_at:prefix_at].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise ChannelError(f"a connection is not understood: {error}") from None
    if prefix_at > len(data):
        raise ChannelError("a connection is cut short")
    return Handover(
        (peer, peer_port) if flags & _PEER_HAS_PORT else peer,
        (local, local_port) if flags & _LOCAL_HAS_PORT else local,
        "https" if flags & _HTTPS else "http",
        bool(flags & _PLACED),
        bool(flags & _HANDSHAKE),
        data[prefix_at:],
    )


def receive(
    sock: socket.socket, most_descriptors: int = 1
) -> Optional[tuple[Union[Handover, Message], list[int]]]:
    """As :func:`.channel.receive`."""
    return channel.receive_as(decode, sock, most_descriptors)
