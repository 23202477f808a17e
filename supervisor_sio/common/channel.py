"""The packets that supervisord, router and workers exchange.

A packet is one JSON object on a Unix ``SOCK_SEQPACKET`` socket, with file descriptors attached
(``SCM_RIGHTS``, unix(7)). Router and workers also exchange connections, see :mod:`.handover`. The
first packet of either side carries the version of this protocol.

The functions work on any plain non-blocking socket. The caller waits until the socket is ready,
because each process waits in its own way.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import struct
import sys
from binascii import a2b_base64, b2a_base64
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Optional, Sequence, TypeVar

from .limits import MAX_DESCRIPTORS, MAX_PACKET, MAX_REASON, MAX_ROW

__all__ = ["MAX_DESCRIPTORS", "MAX_PACKET"]

VERSION = 6

# Plain numbers, because the flags are enums, which are slow to combine for each packet.
_SEND = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_TRUNCATED = int(socket.MSG_TRUNC)
_DESCRIPTORS_TRUNCATED = int(socket.MSG_CTRUNC)
_RECEIVE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)

#: Errors of sending descriptors that a retry may cure: too many descriptors of this user are in
#: transit between processes (unix(7)), or the kernel has no memory.
CROWDED = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})

#: What a log says about ``ETOOMANYREFS``.
ON_THEIR_WAY = (
    "too many descriptors of this user are in transit between processes: raise the hard limit "
    "of open files"
)

Message = dict[str, Any]

_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode

Decoded = TypeVar("Decoded")


class ChannelError(Exception):
    """The peer broke this protocol; the text says how."""


class DescriptorsLost(OSError):
    """This process had no free descriptor to receive those of a packet.

    The packet's descriptors are lost; the channel can be used on.
    """

    def __init__(self, message: Any) -> None:
        super().__init__(errno.EMFILE, os.strerror(errno.EMFILE))
        self.message = message


class Peer(NamedTuple):
    """The process at the other end, as reported by the kernel (``SO_PEERCRED``)."""

    pid: int
    uid: int
    gid: int


class Packet(NamedTuple):
    message: Message
    descriptors: list[int]


def encode(message: Message) -> bytes:
    """Encode a message as the bytes of a packet.

    :raises ChannelError: when the message is too long, or not JSON.
    """
    try:
        data = _encode(message).encode()
    except RecursionError:
        raise ChannelError("it is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ChannelError(f"a message is not JSON: {error}") from None
    if len(data) > MAX_PACKET:
        raise ChannelError(f"a message of {len(data)} bytes is over the limit of {MAX_PACKET}")
    return data


def send(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one packet, completely or not at all.

    :raises BlockingIOError: when the socket's buffer is full.
    :raises OSError: when the peer is gone.
    :raises ChannelError: as :func:`encode`.
    """
    send_encoded(sock, encode(message), descriptors)


def send_encoded(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """As :func:`send`, for a message that is already encoded."""
    ancillary = []
    if descriptors:
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors)))
    sock.sendmsg([data], ancillary, _SEND)


def receive(sock: socket.socket, most_descriptors: int = 1) -> Optional[Packet]:
    """Read one packet; ``None`` when the peer has closed. See :func:`receive_as`."""
    received = receive_as(decode, sock, most_descriptors)
    return None if received is None else Packet(*received)


def receive_left(sock: socket.socket, lost: Callable[[Exception], None]) -> Iterator[Packet]:
    """Yield all packets that can still be read from a socket.

    :param lost: called with the error of each packet that is lost.
    """
    while True:
        try:
            packet = receive(sock, MAX_DESCRIPTORS)
        except (ChannelError, DescriptorsLost) as error:
            lost(error)
            continue
        except OSError:  # BlockingIOError: nothing is left
            return
        if packet is None:
            return
        yield packet


def decode(data: bytes) -> Message:
    """:raises ChannelError: when the bytes are not a message."""
    try:
        message = _decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise ChannelError(f"a packet is not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ChannelError("a packet is not an object with a type")
    return message


def receive_as(
    decode: Callable[[bytes], Decoded], sock: socket.socket, most_descriptors: int = 1
) -> Optional[tuple[Decoded, list[int]]]:
    """Read one packet; ``None`` when the peer has closed.

    The caller owns the returned descriptors. When this raises, they are closed.

    :raises BlockingIOError: when there is nothing to read.
    :raises DescriptorsLost: when this process had no free descriptor for those of the packet.
    :raises ChannelError: when the packet breaks this protocol.
    """
    room = socket.CMSG_LEN(most_descriptors * 4)
    try:
        data, ancillary, flags, _ = sock.recvmsg(MAX_PACKET, room, _RECEIVE)
    except ConnectionResetError:
        # The kernel reports this once if the peer closed, or was killed, with unread data. The
        # packets that it sent before can still be read; they may hold clients' connections.
        data, ancillary, flags, _ = sock.recvmsg(MAX_PACKET, room, _RECEIVE)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
            descriptors.extend(numbers)
    if not data and not descriptors:
        return None
    # The buffer has room for ``most_descriptors``: with fewer in it, the process had no free one.
    lost = bool(flags & _DESCRIPTORS_TRUNCATED) and len(descriptors) < most_descriptors
    try:
        if flags & _TRUNCATED or (flags & _DESCRIPTORS_TRUNCATED and not lost):
            raise ChannelError("a packet was cut short")
        message = decode(data)
    except ChannelError:
        close_all(descriptors)
        raise
    if lost:
        close_all(descriptors)
        raise DescriptorsLost(message)
    return message, descriptors


def row_size(row: Any) -> int:
    """Bytes of a row in a message."""
    return len(_encode(row))


def in_parts(rows: Iterable[Any], most: int = sys.maxsize) -> Iterator[list[Any]]:
    """Split rows of JSON values into parts that fit into a packet each; yields at least one part.

    :param most: greatest number of rows in a part.
    :raises ChannelError: for a row over ``MAX_ROW``: with what the router adds to it, it might not
        fit into the next channel.
    """
    part: list[Any] = []
    size = 0
    for row in rows:
        length = row_size(row)
        if length > MAX_ROW:
            raise ChannelError(f"a row of {length} bytes is over the limit of {MAX_ROW}")
        if part and (size + length > MAX_PACKET // 2 or len(part) == most):
            yield part
            part, size = [], 0
        part.append(row)
        size += length
    yield part


def refuse(sock: socket.socket, reason: str) -> None:
    """Send the last message to a peer; the reason may quote what the peer has sent.

    The caller closes the socket afterwards. Closing a socket with unread data would give the peer
    ``ECONNRESET`` instead of the reason, so this stops receiving and discards what has arrived.

    :raises OSError: when the peer is gone, or does not read.
    """
    send(sock, {"type": "refused", "reason": reason[:MAX_REASON]})
    sock.shutdown(socket.SHUT_RD)
    while sock.recv(1, socket.MSG_DONTWAIT):
        pass


def pack_bytes(data: bytes) -> str:
    """Encode bytes as a value of a message."""
    return b2a_base64(data, newline=False).decode()


def unpack_bytes(text: Any) -> bytes:
    """:raises ChannelError: for a value that :func:`pack_bytes` did not make."""
    try:
        return a2b_base64(text)
    except (ValueError, TypeError) as error:
        raise ChannelError(f"bytes are expected: {error}") from None


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def peer_of(sock: socket.socket) -> Peer:
    """The peer's process and user, as the kernel recorded them at ``connect``."""
    size = struct.calcsize("3i")
    return Peer(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))


def check_version(message: Message, other: str) -> None:
    """:raises ChannelError: when ``other`` has another version of this protocol."""
    version = message.get("version")
    if version != VERSION:
        raise ChannelError(
            f"{other} speaks version {version!r} of the channel, this process {VERSION}: "
            "after an upgrade of supervisor-sio, restart supervisord"
        )
