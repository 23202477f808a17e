"""The framing that supervisord, router and workers share.

One JSON object a packet over a Unix ``SOCK_SEQPACKET`` socket, with file
descriptors beside it (``SCM_RIGHTS``, unix(7)); between router and workers also
connections, see :mod:`.handover`. The first packet of either side carries the version
of this protocol.

The functions work on any plain non-blocking socket; waiting is the caller's
business, because each part waits in its own way.
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

# Plain numbers: the flags are enums, and slow to combine for each packet.
_SEND = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_TRUNCATED = int(socket.MSG_TRUNC)
_DESCRIPTORS_TRUNCATED = int(socket.MSG_CTRUNC)
_RECEIVE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)

#: What sending says of descriptors that can be sent later: too many of this user's are on their
#: way between processes (unix(7)), or the kernel has no memory.
CROWDED = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})

#: What to do about it.
ON_THEIR_WAY = (
    "too many descriptors of this user are on their way between processes: raise the hard limit "
    "of open files"
)

Message = dict[str, Any]

_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode

Decoded = TypeVar("Decoded")


class ChannelError(Exception):
    """The peer sent something that is not of this protocol; the text says what."""


class DescriptorsLost(OSError):
    """This process has no descriptor free for what came with a packet.

    That is lost, but not the channel: the peer did nothing wrong.
    """

    def __init__(self, message: Any) -> None:
        super().__init__(errno.EMFILE, os.strerror(errno.EMFILE))
        self.message = message


class Peer(NamedTuple):
    """Who is at the other end, as the kernel knows it (``SO_PEERCRED``)."""

    pid: int
    uid: int
    gid: int


class Packet(NamedTuple):
    message: Message
    descriptors: list[int]


def encode(message: Message) -> bytes:
    """The bytes of a packet.

    :raises ChannelError: when the message is too long, or no JSON can say it.
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
    """Send one packet, whole or not at all.

    :raises BlockingIOError: when the peer must read first.
    :raises OSError: when the peer is gone.
    :raises ChannelError: as :func:`encode`.
    """
    send_encoded(sock, encode(message), descriptors)


def send_encoded(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """As :func:`send`, what :func:`encode` has made."""
    ancillary = []
    if descriptors:
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors)))
    sock.sendmsg([data], ancillary, _SEND)


def receive(sock: socket.socket, most_descriptors: int = 1) -> Optional[Packet]:
    """Read one packet; ``None`` when the peer has closed. See :func:`receive_as`."""
    received = receive_as(decode, sock, most_descriptors)
    return None if received is None else Packet(*received)


def receive_left(sock: socket.socket, lost: Callable[[Exception], None]) -> Iterator[Packet]:
    """All that is left in a socket.

    :param lost: gets why a packet is lost.
    """
    while True:
        try:
            packet = receive(sock, MAX_DESCRIPTORS)
        except (ChannelError, DescriptorsLost) as error:
            lost(error)
            continue
        except OSError:  # BlockingIOError: there is no more
            return
        if packet is None:
            return
        yield packet


def decode(data: bytes) -> Message:
    """:raises ChannelError: when it is not a message."""
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

    The caller owns the descriptors it gets. None leak when this raises.

    :raises BlockingIOError: when there is nothing to read.
    :raises DescriptorsLost: when there was no room for its descriptors.
    :raises ChannelError: when the packet is not of this protocol.
    """
    room = socket.CMSG_LEN(most_descriptors * 4)
    try:
        data, ancillary, flags, _ = sock.recvmsg(MAX_PACKET, room, _RECEIVE)
    except ConnectionResetError:
        # Said once, of a peer that has closed, or was killed, with something unread. What
        # it had sent before is there, with connections of clients among it.
        data, ancillary, flags, _ = sock.recvmsg(MAX_PACKET, room, _RECEIVE)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
            descriptors.extend(numbers)
    if not data and not descriptors:
        return None
    # The buffer has room for those that may come: with fewer in it than that,
    # it was the process that had none left.
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
    """Rows of JSON values, in parts of which each fits into a packet; at least one part.

    :param most: rows in one part.
    :raises ChannelError: for a row over ``MAX_ROW``: it might fit here, and not into the
        next channel, where more is said of it.
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

    The caller closes the socket then, and the peer can read the reason whatever it
    was sending meanwhile: the kernel gives ``ECONNRESET`` to who is closed with
    something unread, so nothing more gets in, and what did is thrown away.

    :raises OSError: when the peer is gone, or reads nothing.
    """
    send(sock, {"type": "refused", "reason": reason[:MAX_REASON]})
    sock.shutdown(socket.SHUT_RD)
    while sock.recv(1, socket.MSG_DONTWAIT):
        pass


def pack_bytes(data: bytes) -> str:
    """Bytes as a value in a message."""
    return b2a_base64(data, newline=False).decode()


def unpack_bytes(text: Any) -> bytes:
    """:raises ChannelError: for a value that is not of :func:`pack_bytes`."""
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
    """:raises ChannelError: when ``other`` speaks another version of this protocol."""
    version = message.get("version")
    if version != VERSION:
        raise ChannelError(
            f"{other} speaks version {version!r} of the channel, this process {VERSION}: "
            "after an upgrade of supervisor-sio, restart supervisord"
        )
