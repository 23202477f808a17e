from __future__ import annotations

import array
import contextlib
import os
import socket
from typing import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor_sio.common import channel, handover
from supervisor_sio.common.channel import MAX_PACKET, ChannelError, DescriptorsLost
from supervisor_sio.common.handover import Address, Handover

Pair = tuple[socket.socket, socket.socket]

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)
addresses = st.one_of(names, st.tuples(names, st.integers(0, 65535)))
connections = st.builds(
    Handover,
    addresses,
    addresses,
    st.sampled_from(["http", "https"]),
    st.booleans(),
    st.booleans(),
    st.binary(max_size=1000),
)

#: Nothing lives longer than one example where this is used.
shares_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

CONNECTION = Handover(("192.0.2.1", 50000), ("::1", 80), "https", True, False, b"GET /")


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        yield a, b


@given(connections)
def test_a_connection_arrives_as_it_was_sent(connection: Handover) -> None:
    assert handover.decode(handover.encode(*connection)) == connection


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        (("2001:db8::1", 1, 0, 0), ("2001:db8::1", 1)),  # as accept() has it
        (["192.0.2.1", 65535], ("192.0.2.1", 65535)),  # as JSON has it
        ("@name", "@name"),
        ("", ""),
        ("/run/ü", "/run/ü"),
    ],
)
def test_addresses(given: Address, arrives: Address) -> None:
    connection = CONNECTION._replace(peer=given, local=given)
    assert handover.decode(handover.encode(*connection)) == CONNECTION._replace(
        peer=arrives, local=arrives
    )


def test_it_comes_with_its_descriptor_among_other_messages(pair: Pair) -> None:
    channel.send(pair[0], {"type": "load"})
    reader, writer = os.pipe()
    channel.send_encoded(pair[0], handover.encode(*CONNECTION), [writer])
    os.close(writer)
    assert handover.receive(pair[1]) == ({"type": "load"}, [])
    received = handover.receive(pair[1])
    assert received is not None
    connection, (descriptor,) = received
    assert connection == CONNECTION
    os.write(descriptor, b"through")
    os.close(descriptor)
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    pair[0].close()
    assert handover.receive(pair[1]) is None


def test_only_between_router_and_worker(pair: Pair) -> None:
    channel.send_encoded(pair[0], handover.encode(*CONNECTION))
    with pytest.raises(ChannelError, match="a packet is not JSON"):
        channel.receive(pair[1])


def test_one_that_no_descriptor_is_free_for(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted:
        """As recvmsg(2) answers a process that has none left."""

        def recvmsg(self, *arguments: int) -> object:
            return handover.encode(*CONNECTION), [], socket.MSG_CTRUNC, None

    with pytest.raises(DescriptorsLost) as caught:
        handover.receive(Exhausted())  # type: ignore[arg-type]
    assert caught.value.message == CONNECTION


def test_the_longest() -> None:
    room = MAX_PACKET - len(handover.encode(*CONNECTION._replace(prefix=b"")))
    longest = CONNECTION._replace(prefix=b"x" * room)
    assert handover.decode(handover.encode(*longest)) == longest
    with pytest.raises(ChannelError, match="a connection of 65537 bytes is over the limit"):
        handover.encode(*CONNECTION._replace(prefix=b"x" * (room + 1)))


@pytest.mark.parametrize("length", range(1, len(handover.encode(*CONNECTION)) - len(b"GET /")))
def test_one_that_is_cut_short(length: int) -> None:
    with pytest.raises(ChannelError, match="a connection is "):
        handover.decode(handover.encode(*CONNECTION)[:length])


def test_a_name_that_is_not_text() -> None:
    with pytest.raises(ChannelError, match="a connection is not understood"):
        handover.decode(handover.encode(*CONNECTION).replace(b"192", b"\xff92"))


@shares_fixture
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(pair: Pair, data: bytes) -> None:
    descriptor = array.array("i", [pair[0].fileno()])
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)
    pair[0].sendmsg([b"\1" + data], [rights])
    with contextlib.suppress(ChannelError):
        received = handover.receive(pair[1])
        assert received is not None and isinstance(received[0], Handover)
        channel.close_all(received[1])
