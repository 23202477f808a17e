"""Random and mutated input for everything that reads what strangers send.

For each reader 10,000 inputs, and 30,000 more with ``pytest -m long``: at most the error it is
documented to raise, no second spent on any, and no descriptor more than before. pytest prints
the seed; FUZZ_SEED=… gives one.
"""

from __future__ import annotations

import array
import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import socketio

from supervisor_sio.bridge.format import FormatError, Translator, origin_of, parse, seen
from supervisor_sio.cluster.packets import Partial
from supervisor_sio.common import channel
from supervisor_sio.common.request import BadRequest, parse_head
from supervisor_sio.engine.frames import FrameReader, ProtocolError
from supervisor_sio.engine.http import ChunkedBody, HttpError, read_head
from supervisor_sio.engine.payload import PayloadError, decode
from supervisor_sio.relay.inbox import Impossible, Inbox
from supervisor_sio.relay.message import MessageError, RelayMessage
from supervisor_sio.relay.methods import MalformedFields, check_fields
from supervisor_sio.router.events import EventReader
from supervisor_sio.router.proxy_protocol import parse_proxy_header
from supervisor_sio.worker import clients
from supervisor_sio.worker.dispatchers import SyncDispatcher
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from unit.client_frames import masked
from unit.examples import examples

#: So many for each reader, in a run of each kind.
INPUTS = [examples(10_000), pytest.param(30_000, marks=pytest.mark.long)]

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
HEADS = [
    b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nCookie: a=b; c\r\n\r\n",
    b"POST http://h:80/x?y#z HTTP/1.1\r\nHost: h:80\r\nContent-Length: 17\r\nA: close\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nExpect: x\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
]
CHUNKS = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"0005;name=value\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
    b"ffffffffffffffff\r\n",
]
FRAMES = [
    masked(1, b'42["echo","\xc3\xbc"]'),
    masked(1, b"42[", final=False) + masked(9, b"ping") + masked(0, b'"x"]'),
    masked(2, bytes(300)) + masked(8, b"\x03\xe8bye"),
]
SOCKETIO_PACKETS = [
    b'2["echo",{"n":[1,null,1e9]},"\xc3\xbc"]',
    b'2/room,17["echo",1]',
    b'52-["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
    b'61-/room,3[{"_placeholder":true,"num":0}]',
    b'0/room,{"token":"x"}',
    b'31["ack"]',
    b"1/room,",
    b"2[" + b"[" * 3000,
    b'2["e",' + b"9" * 5000 + b"]",
]
PAYLOADS = [
    b'42["echo",1]\x1e3\x1e2probe\x1e1',
    b'451-["echo",{"_placeholder":true,"num":0}]\x1ebAAEC\x1e5\x1e6',
    b"40\x1e" * 20,
]
QUEUE = [
    b'{"method":"emit","event":"e","data":["x",{"n":1}],"namespace":"/","room":null,'
    b'"skip_sid":null,"callback":["r","s",1],"host_id":"0a1b"}',
    b'{"method":"emit","event":"e","data":[{"_placeholder":true,"num":0}],"binary":["AAEC"],'
    b'"namespace":"/x","room":["a","b"],"via":"0a1b","seq":7,"from":"w","number":3}',
    b'{"method":"callback","host_id":"0a1b","sid":"x.y","namespace":"/","id":1,"args":[1]}',
    b'{"method":"members","via":"0a1b","seq":8,"members":[["0a1b2c3d","workers:workers_00"]]}',
    b'{"method":"enter_room","sid":"x.y","namespace":"/","room":"r","host_id":"0a1b"}',
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
            inbox.receive(received, "ear" if len(data) % 2 else None)
            check_fields(received.fields)
        except (MessageError, Impossible, MalformedFields):
            pass

    return read


def request_head(data: bytes) -> None:
    try:
        read_head(data)
    except HttpError:
        pass


def chunked_body(data: bytes) -> None:
    body = ChunkedBody()
    try:
        for start in range(0, len(data), 7):
            if body.ended:
                break
            body.feed(data[start : start + 7])
    except HttpError:
        pass


def websocket_frames(data: bytes) -> None:
    reader = FrameReader(1000)
    try:
        for start in range(0, len(data), 11):
            reader.feed(data[start : start + 11])
            while reader.next() is not None:
                pass
    except ProtocolError:
        pass


def socketio_packet() -> Callable[[bytes], None]:
    server = socketio.Server(async_mode="eventlet")
    clients.install(server, HubRuntime.of_this_process(), 10)
    dispatcher = SyncDispatcher(server, server.eio, None, max_attachments=10)

    session: Any = SimpleNamespace(connected=True)

    def read(data: bytes) -> None:
        for message in (data.decode(errors="replace"), data):
            try:
                packet = dispatcher._parse(session, message)
            except Exception:
                continue
            if packet.attachment_count:
                try:
                    partial = Partial(packet, message, 10_000 - len(message))
                except ValueError:
                    continue
                wholes = [partial.add(b"x") for _ in range(packet.attachment_count)]
                assert wholes.index(True) == len(wholes) - 1 < 10

    return read


def payload(data: bytes) -> None:
    with contextlib.suppress(PayloadError):
        for _ in decode(data):
            pass


def queue_message() -> Callable[[bytes], None]:
    translator = Translator("a bridge")

    def read(data: bytes) -> None:
        try:
            message = parse(data)
            if seen(message) is not None:
                origin_of(message)
            translator.from_queue(message)
        except FormatError:
            pass

    return read


READERS: list[tuple[str, Callable[[], Callable[[bytes], None]], list[bytes]]] = [
    ("request line", lambda: head, REQUESTS),
    ("PROXY header", lambda: proxy_header, HEADERS),
    ("control channel", packet, PACKETS),
    ("event listener", lambda: event, EVENTS),
    ("relay message", message, MESSAGES),
    ("request head", lambda: request_head, HEADS),
    ("chunked body", lambda: chunked_body, CHUNKS),
    ("websocket frames", lambda: websocket_frames, FRAMES),
    ("Socket.IO packet", socketio_packet, SOCKETIO_PACKETS),
    ("polling payload", lambda: payload, PAYLOADS),
    ("queue message", queue_message, QUEUE),
]


@pytest.mark.parametrize("count", INPUTS)
@pytest.mark.parametrize(("name", "make", "seeds"), READERS, ids=[name for name, *_ in READERS])
def test_survives(
    name: str, make: Callable[[], Callable[[bytes], None]], seeds: list[bytes], count: int
) -> None:
    seed = int(os.environ["FUZZ_SEED"])
    read = make()

    def run() -> tuple[int, float]:
        """The number of descriptors that are open since, and the seconds of the slowest input."""
        before = len(os.listdir("/proc/self/fd"))
        slowest = 0.0
        for data in inputs(seeds, count, random.Random(f"{seed} {count} {name}")):
            start = time.thread_time()  # whatever else the machine does
            try:
                read(data)
            except Exception as error:
                raise AssertionError(f"{error!r} from {data!r} (FUZZ_SEED={seed})") from error
            slowest = max(slowest, time.thread_time() - start)
        return len(os.listdir("/proc/self/fd")) - before, slowest

    opened, slowest = run()  # a negative number when garbage is collected
    if opened > 0:
        # A thread of another test may have opened one; the same inputs leak the same again.
        opened, slowest = run()
    assert opened <= 0
    assert slowest < 1
    print(f"{name}: {count} inputs, slowest {slowest * 1000:.1f} ms, no descriptor leaked")
