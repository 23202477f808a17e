from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import resource
import socket
from contextlib import AbstractContextManager
from typing import Any, Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor_sio.common import channel
from supervisor_sio.common.channel import (
    MAX_DESCRIPTORS,
    MAX_PACKET,
    VERSION,
    ChannelError,
    DescriptorsLost,
)
from supervisor_sio.common.descriptors import lowest_free
from supervisor_sio.common.limits import MAX_REASON

NoLeak = Callable[[], AbstractContextManager[None]]
Pair = tuple[socket.socket, socket.socket]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)

#: Nothing lives longer than one example where this is used.
shares_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        yield a, b


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def send_raw(sock: socket.socket, data: bytes, *descriptors: int) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    sock.sendmsg([data], [rights] if descriptors else [])


def message_of(length: int) -> dict[str, Any]:
    """A message that is this many bytes as a packet."""
    return {"type": "x" * (length - len('{"type":""}'))}


@shares_fixture
@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4), st.text(max_size=8))
def test_a_message_arrives_as_it_was_sent(pair: Pair, fields: dict[str, Any], kind: str) -> None:
    message = {**fields, "type": kind}
    channel.send(pair[0], message)
    assert channel.receive(pair[1]) == (message, [])


def test_packets_keep_their_bounds_and_order_both_ways(pair: Pair) -> None:
    a, b = pair
    for number in range(20):
        channel.send(a, {"type": "a", "n": number})
        channel.send(b, {"type": "b", "n": number})
    for number in range(20):
        assert channel.receive(b) == ({"type": "a", "n": number}, [])
        assert channel.receive(a) == ({"type": "b", "n": number}, [])


def test_nothing_to_read_yet(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        channel.receive(pair[0])  # although the socket is a blocking one


def test_the_peer_must_read_first(pair: Pair) -> None:
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            channel.send(pair[0], {"type": "x", "n": sent})
            sent += 1
    for number in range(sent):
        assert channel.receive(pair[1]) == ({"type": "x", "n": number}, [])
    with pytest.raises(BlockingIOError):
        channel.receive(pair[1])


def test_the_peer_has_closed(pair: Pair) -> None:
    channel.send(pair[0], {"type": "last"})
    pair[0].close()
    assert channel.receive(pair[1]) == ({"type": "last"}, [])
    assert channel.receive(pair[1]) is None
    with pytest.raises(BrokenPipeError):
        channel.send(pair[1], {"type": "x"})


def test_the_longest_packet(pair: Pair) -> None:
    channel.send(pair[0], message_of(MAX_PACKET))
    assert channel.receive(pair[1]) == (message_of(MAX_PACKET), [])
    with pytest.raises(ChannelError, match="a message of 65537 bytes is over the limit of 65536"):
        channel.send(pair[0], message_of(MAX_PACKET + 1))
    with pytest.raises(BlockingIOError):
        channel.receive(pair[1])


def test_a_descriptor_is_passed(pair: Pair, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    channel.send(pair[0], {"type": "connection"}, [writer])
    packet = channel.receive(pair[1])
    assert packet is not None
    (passed,) = packet.descriptors
    assert passed != writer
    assert fcntl.fcntl(passed, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.write(passed, b"through")
    channel.close_all(packet.descriptors)
    assert os.read(reader, 100) == b"through"


def test_many_descriptors_in_their_order(pair: Pair, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sent = [reader, writer, writer] * (MAX_DESCRIPTORS // 3)
    channel.send(pair[0], {"type": "welcome"}, sent)
    packet = channel.receive(pair[1], MAX_DESCRIPTORS)
    assert packet is not None
    modes = [fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE for number in packet.descriptors]
    channel.close_all(packet.descriptors)
    assert modes == [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY] * (MAX_DESCRIPTORS // 3)


@pytest.mark.parametrize(
    ("sent", "most"),
    [
        (1, 0),
        (2, 1),
        (3, 1),
        (10, 3),
        (11, 10),
        (MAX_DESCRIPTORS, 1),
    ],
)
def test_too_many_descriptors(
    pair: Pair, pipe: tuple[int, int], no_leak: NoLeak, sent: int, most: int
) -> None:
    channel.send(pair[0], {"type": "x"}, [pipe[0]] * sent)
    with no_leak(), pytest.raises(ChannelError, match="cut short"):
        channel.receive(pair[1], most)


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Limit the descriptors that this process can open to this number, or slightly fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(0) + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("left", "sent"), [(0, 1), (0, 10), (2, 10)])
def test_no_descriptor_is_free_for_what_comes(
    pair: Pair, pipe: tuple[int, int], no_leak: NoLeak, left: int, sent: int
) -> None:
    message = {"type": "connection", "peer": ["127.0.0.1", 1]}
    channel.send(pair[0], message, [pipe[0]] * sent)
    channel.send(pair[0], {"type": "next"})
    with no_leak(), descriptors_left(left), pytest.raises(DescriptorsLost) as caught:
        channel.receive(pair[1], sent)
    assert caught.value.message == message and caught.value.strerror == "Too many open files"
    assert channel.receive(pair[1]) == ({"type": "next"}, [])


def test_a_truncated_packet(pair: Pair, pipe: tuple[int, int], no_leak: NoLeak) -> None:
    send_raw(pair[0], json.dumps(message_of(MAX_PACKET)).encode() + b" " * 10, pipe[0])
    with no_leak(), pytest.raises(ChannelError, match="cut short"):
        channel.receive(pair[1])
    channel.send(pair[0], {"type": "next"})
    assert channel.receive(pair[1]) == ({"type": "next"}, [])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1", "a packet is not JSON"),
        (b"{", "a packet is not JSON"),
        (b'{"type":"\xff"}', "a packet is not JSON"),
        (b'{"type":"x"}{"type":"x"}', "a packet is not JSON"),
        (b"[" * MAX_PACKET, "a packet is not JSON"),
        (b"[]", "a packet is not an object with a type"),
        (b"null", "a packet is not an object with a type"),
        (b"{}", "a packet is not an object with a type"),
        (b'{"type":1}', "a packet is not an object with a type"),
    ],
)
def test_garbage(
    pair: Pair, pipe: tuple[int, int], no_leak: NoLeak, data: bytes, reason: str
) -> None:
    for descriptors in ([], [pipe[1]]):
        send_raw(pair[0], data, *descriptors)
        with no_leak(), pytest.raises(ChannelError, match=reason):
            channel.receive(pair[1])


def test_descriptors_without_a_message(pair: Pair, pipe: tuple[int, int], no_leak: NoLeak) -> None:
    send_raw(pair[0], b"", pipe[0])
    with no_leak(), pytest.raises(ChannelError):
        channel.receive(pair[1])


@shares_fixture
@given(st.binary(min_size=1, max_size=200))
def test_no_bytes_raise_anything_else(pair: Pair, data: bytes) -> None:
    send_raw(pair[0], data)
    with contextlib.suppress(ChannelError):
        packet = channel.receive(pair[1])
        assert packet is not None and isinstance(packet.message["type"], str)


def test_the_peer_as_the_kernel_knows_it(pair: Pair) -> None:
    assert channel.peer_of(pair[0]) == (os.getpid(), os.getuid(), os.getgid())


@pytest.mark.parametrize("version", [None, 0, VERSION + 1, str(VERSION)])
def test_another_version(version: Any) -> None:
    with pytest.raises(ChannelError) as caught:
        channel.check_version({"type": "hello", "version": version}, "the worker")
    assert str(caught.value) == (
        f"the worker speaks version {version!r} of the channel, this process {VERSION}: "
        "after an upgrade of supervisor-sio, restart supervisord"
    )


def test_the_same_version() -> None:
    channel.check_version({"type": "hello", "version": VERSION}, "the worker")
    with pytest.raises(ChannelError, match="version None"):
        channel.check_version({"type": "hello"}, "the worker")


def test_what_a_peer_sent_before_it_was_killed_is_there(
    pair: Pair, pipe: tuple[int, int], no_leak: NoLeak
) -> None:
    """Also if it had unread data, when the kernel returns ``ECONNRESET`` first."""
    here, there = pair
    channel.send(here, {"type": "load"})
    for number in range(3):
        channel.send(there, {"type": "connection", "number": number}, [pipe[0]])
    there.close()
    for number in range(3):
        with no_leak():
            packet = channel.receive(here)
            assert packet is not None and packet.message["number"] == number
            assert len(packet.descriptors) == 1
            channel.close_all(packet.descriptors)
    assert channel.receive(here) is None


@pytest.mark.parametrize("sent_before", [0, 1, 50])
def test_who_is_refused_can_read_why_whatever_it_sent(pair: Pair, sent_before: int) -> None:
    here, there = pair
    for _ in range(sent_before):
        channel.send(there, {"type": "hello"}, [0])
    channel.refuse(here, "x" * 2 * MAX_REASON)
    with pytest.raises(BrokenPipeError):
        channel.send(there, {"type": "hello"})
    here.close()
    packet = channel.receive(there)
    assert packet is not None
    assert packet.message == {"type": "refused", "reason": "x" * MAX_REASON}
    assert channel.receive(there) is None


@given(st.binary(max_size=300))
def test_bytes_in_a_message(data: bytes) -> None:
    assert channel.unpack_bytes(json.loads(json.dumps(channel.pack_bytes(data)))) == data


def test_no_bytes_make_a_message_much_longer() -> None:
    for data in (b"\xff" * 3000, b"\0" * 3000, b'"' * 3000):
        assert len(json.dumps(channel.pack_bytes(data))) < 4010


@pytest.mark.parametrize("value", [None, 1, [], {}, "a", "ü", "\ud800"])
def test_what_is_no_bytes(value: Any) -> None:
    with pytest.raises(ChannelError, match="bytes are expected"):
        channel.unpack_bytes(value)
