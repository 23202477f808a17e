"""Random and mutated input for everything that reads what strangers send.

For each reader 100,000 inputs: at most the error it is documented to raise, and no
descriptor more than before.
"""

from __future__ import annotations

import array
import os
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from supervisor_sio import channel
from supervisor_sio.proxy_protocol import parse_proxy_header
from supervisor_sio.relay.inbox import Impossible, Inbox
from supervisor_sio.relay.message import MessageError, RelayMessage
from supervisor_sio.relay.methods import MalformedFields, check_fields
from supervisor_sio.request import BadRequest, parse_head
from supervisor_sio.router.events import EventReader

INPUTS = 100_000

REQUESTS = [
    b"GET /socket.io/?EIO=4&transport=polling&sid=0a1b2c3d.AbCdEfGhIjKlMnOpQrSt HTTP/1.1\r\n",
    b"POST http://host/socket.io/?sid=%41 HTTP/1.0\n",
    b"\r\nOPTIONS * HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]
HEADERS = [
    b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\nGET / HTTP/1.1\r\n",
    b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x13\xc0\x00\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb"
    b"\x20\x00\x04\x01\x00\x00\x00",
    b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
]
PACKETS = [
    b'{"type":"hello","version":1,"tag":"0a1b2c3d","name":"workers:workers_00"}',
    b'{"type":"load","sessions":1,"connections":2,"handshakes_seen":3,"received":4,"dropped":0}',
    b'{"type":"connection","peer":["127.0.0.1",1],"local":["127.0.0.1",2],"scheme":"http"}',
    b"[" * 3000,
]
EVENTS = [
    b"ver:3.0 server:supervisor serial:1 pool:sio poolserial:1 "
    b"eventname:PROCESS_STATE_STOPPING len:37\nprocessname:w groupname:w from_state:R",
]
MESSAGES = [
    RelayMessage(*arguments).pack()
    for arguments in (
        ("0a1b2c3d", 1, {"method": "emit", "namespace": "/", "packet": "p"}, ['2["hi",1]', b"x"]),
        ("x", 2, {"method": "emit", "room": ["a", 1], "after": {"ear": 1}}, [], 0, 1.5),
        ("x", 1, {"method": "disconnect", "sid": "a", "namespace": "/"}, [], 2**40),
    )
]


def inputs(seeds: list[bytes], count: int, dice: random.Random) -> Iterator[bytes]:
    """Seeds cut, spliced and sprinkled with noise, and noise alone."""
    for _ in range(count):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(5)):
            at = dice.randrange(len(data) + 1)
            change = dice.randrange(5)
            if change == 0:
                data[at:at] = dice.randbytes(dice.randrange(1, 9))
            elif change == 1:
                del data[at : at + dice.randrange(1, 9)]
            elif change == 2:
                data[at : at + 1] = dice.randbytes(1)
            elif change == 3:
                other = dice.choice(seeds)
                data[at:] = other[dice.randrange(len(other)) :]
            else:
                del data[at:]
        yield bytes(data) if dice.randrange(20) else dice.randbytes(dice.randrange(200))


def head(data: bytes) -> None:
    try:
        parse_head(data, (b"/socket.io/",))
    except BadRequest:
        pass


def proxy_header(data: bytes) -> None:
    try:
        parse_proxy_header(data)
    except BadRequest:
        pass


def packet() -> Callable[[bytes], None]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    spare = os.open(os.devnull, os.O_RDONLY)

    def read(data: bytes) -> None:
        rights = array.array("i", [spare] * (data[0] % 4 if data else 0))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        theirs.sendmsg([data or b" "], ancillary)
        try:
            received = channel.receive(ours)
        except channel.ChannelError:
            return
        if received is not None:
            channel.close_all(received.descriptors)

    return read


def event(data: bytes) -> None:
    try:
        list(EventReader().feed(data))
    except ValueError:
        pass


def message() -> Callable[[bytes], None]:
    inbox = Inbox("ear")

    def read(data: bytes) -> None:
        try:
            received = RelayMessage.unpack(data)
            inbox.receive(received, to_all=len(data) % 2 == 0)
            check_fields(received.fields)
        except (MessageError, Impossible, MalformedFields):
            pass

    return read


READERS: list[tuple[str, Callable[[], Callable[[bytes], None]], list[bytes]]] = [
    ("request line", lambda: head, REQUESTS),
    ("PROXY header", lambda: proxy_header, HEADERS),
    ("control channel", packet, PACKETS),
    ("event listener", lambda: event, EVENTS),
    ("relay message", message, MESSAGES),
]


@pytest.mark.parametrize(("name", "make", "seeds"), READERS, ids=[name for name, *_ in READERS])
def test_survives(
    name: str, make: Callable[[], Callable[[bytes], None]], seeds: list[bytes]
) -> None:
    seed = random.randrange(2**32)
    read = make()
    before = len(os.listdir("/proc/self/fd"))
    slowest = 0.0
    for data in inputs(seeds, INPUTS, random.Random(seed)):
        start = time.monotonic()
        try:
            read(data)
        except Exception as error:
            raise AssertionError(f"{error!r} from {data!r} (seed {seed})") from error
        slowest = max(slowest, time.monotonic() - start)
    assert len(os.listdir("/proc/self/fd")) == before
    assert slowest < 1
    print(f"{name}: {INPUTS} inputs, slowest {slowest * 1000:.1f} ms, no descriptor leaked")
