from __future__ import annotations

import contextlib
import json
import struct
from typing import Any, Sequence, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.relay import message as message_module
from supervisor_sio.relay.message import (
    MessageError,
    RelayMessage,
    topic_for_all,
    topic_for_one,
    topic_for_publishers,
)

VERSION = 2
FIELDS = b'{"method":"emit"}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
packets = st.lists(texts | st.binary(), max_size=4)
numbers = st.integers(0, 2**53)
messages = st.builds(
    RelayMessage,
    sender=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    sequence=numbers,
    fields=st.builds(
        lambda fields, method: {**fields, "method": method},
        st.dictionaries(st.text(), json_values, max_size=4),
        st.text(),
    ),
    packets=packets,
    after=numbers,
    time=st.floats(allow_nan=False),
)


def head_of(
    fields: bytes = FIELDS,
    version: int = VERSION,
    sequence: int = 1,
    after: int = 0,
    time: float = 0.0,
    sender: bytes = b"a",
    longer: int = 0,
) -> bytes:
    """A message without packets, whose fields are ``longer`` than what is there."""
    lengths = len(sender), len(fields) + longer
    return struct.pack("!BQQdBI", version, sequence, after, time, *lengths) + sender + fields


def packets_of(packets: Sequence[Union[str, bytes]]) -> bytes:
    """As they follow the header."""
    return RelayMessage("a", 1, {"method": "emit"}, packets).pack()[len(head_of()) :]


@given(messages, st.binary(max_size=20))
def test_a_message_arrives_as_it_was_sent(message: RelayMessage, topic: bytes) -> None:
    data = message.pack()
    assert type(data) is bytes
    assert RelayMessage.unpack(data) == message
    assert RelayMessage.unpack(topic + data, len(topic)) == message


def test_the_format_on_the_wire() -> None:
    message = RelayMessage("a", 1, {"method": "emit"}, ["ü", b"\xff"], 2, 3.5)
    packets = b"\0\0\0\x05\xc3\xbc" + b"\0\0\0\x02\xff"
    assert message.pack() == head_of(after=2, time=3.5) + packets


def test_text_and_bytes_stay_what_they_are() -> None:
    packets: list[Union[str, bytes]] = [
        '51-["ü",{"_placeholder":true,"num":0}]',
        b"\xff\0",
        b"",
        "",
        b"text",
    ]
    back = RelayMessage.unpack(head_of() + packets_of(packets)).packets
    assert back == packets
    assert [type(packet) for packet in back] == [str, bytes, bytes, str, bytes]


def test_any_kind_of_bytes_goes_out() -> None:
    packets: Any = [bytearray(b"ab"), memoryview(b"cd")]
    assert RelayMessage.unpack(head_of() + packets_of(packets)).packets == [b"ab", b"cd"]


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_a_field_that_is_not_json(value: Any) -> None:
    with pytest.raises(TypeError):
        RelayMessage("a", 1, {"method": "emit", "room": value}).pack()


fields_of_the_same_keys = st.fixed_dictionaries(
    {"method": st.just("emit")},
    optional={
        "room": st.sampled_from(["a", "", 1, 0, 1.0, True, False, None, ["a"], [1], "x" * 600]),
        "ack": st.integers(0, 2),
        "skip_sid": st.sampled_from([["a"], ["b"]]),
    },
)


@given(st.lists(st.tuples(fields_of_the_same_keys, st.sampled_from(["a", "b"])), max_size=20))
def test_what_is_remembered_makes_no_difference(said: list[tuple[dict[str, Any], str]]) -> None:
    for fields, sender in said:
        data = RelayMessage(sender, 1, fields).pack()
        message = RelayMessage.unpack(data)
        assert (message.sender, message.fields) == (sender, fields)
        assert RelayMessage.unpack(data) == message


def test_not_everything_is_remembered() -> None:
    for number in range(5000):
        fields = {"method": "emit", "room": number}
        assert RelayMessage.unpack(RelayMessage("a", 1, fields).pack()).fields == fields
    assert len(message_module._encoded) <= message_module.RELAY_MOST_REPEATED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a relay message"),
        (head_of()[:29], "not a relay message"),
        (head_of()[:30], "a header cut short"),
        (head_of(b""), "not a relay message"),
        (head_of(b"\xff"), "not a relay message"),
        (head_of(b"[" * 100_000), "not a relay message"),
        (head_of(b'{"a":' * 100_000), "not a relay message"),
        (head_of(b'{"method":"x"'), "not a relay message"),
        (head_of(b"[]"), "not a relay message: fields without a method"),
        (head_of(b'"method"'), "not a relay message: fields without a method"),
        (head_of(b"{}"), "not a relay message: fields without a method"),
        (head_of(b'{"method":null}'), "not a relay message: fields without a method"),
        (head_of(b'{"method":["emit"]}'), "not a relay message: fields without a method"),
        (head_of(sender=b"\xff"), "not a relay message"),
        (head_of(sender=b""), "a header cut short"),
        (head_of(longer=1), "a header cut short"),
        (head_of(longer=2**31), "a header cut short"),
        (head_of(longer=-1), "not a relay message"),
        (head_of(version=1), "version 1 of the format, not 2"),
        (head_of(version=3), "version 3 of the format, not 2"),
        (head_of(sequence=2**53 + 1), "a header with impossible numbers"),
        (head_of(after=2**64 - 1), "a header with impossible numbers"),
        (head_of(time=float("nan")), "a header with impossible numbers"),
        (head_of() + b"\0", "longer than its packets"),
        (head_of() + packets_of(["a"]) + b"xyz", "longer than its packets"),
        (head_of() + packets_of(["a"])[:-1], "shorter than its packets"),
        (head_of() + packets_of(["a", b"bc"])[:-1], "shorter than its packets"),
        (head_of() + b"\xff\xff\xff\xff", "shorter than its packets"),
        (head_of() + b"\0\0\0\x03\xff", "text that is not UTF-8"),
    ],
)
def test_what_is_no_message(data: bytes, reason: str) -> None:
    for topic in (b"", b"", b"topic"):
        with pytest.raises(MessageError, match=f"^{reason}"):
            RelayMessage.unpack(topic + data, len(topic))


def test_a_start_beyond_the_end() -> None:
    with pytest.raises(MessageError):
        RelayMessage.unpack(b"topic", 6)


@given(json_values | st.dictionaries(st.just("method"), json_values), st.binary(max_size=12))
def test_no_message_raises_anything_else(value: Any, end: bytes) -> None:
    with contextlib.suppress(MessageError):
        message = RelayMessage.unpack(head_of(json.dumps(value).encode()) + end)
        assert isinstance(message.fields["method"], str)
        assert packets_of(message.packets) == end


names = st.text("abc\x01", min_size=1, max_size=4)


@given(names, names, names, names)
def test_topics_do_not_meet(channel: str, more: str, tag: str, longer: str) -> None:
    # A subscription is a prefix (zmq_setsockopt(3), ZMQ_SUBSCRIBE).
    topics = [
        *(
            topic_for_one(name, to)
            for name in (channel, channel + more)
            for to in (tag, tag + longer)
        ),
        *(topic_for_all(name) for name in (channel, channel + more)),
        *(topic_for_publishers(name) for name in (channel, channel + more)),
    ]
    for topic in topics:
        assert [other for other in topics if other.startswith(topic)] == [topic]


def test_a_relay_repeats_the_topic_for_all_first() -> None:
    for tag in ("0a1b2c3d", "ffffffff", "bridge"):
        assert topic_for_all("socketio") < topic_for_one("socketio", tag)
