from __future__ import annotations

import contextlib
import json
import struct
from itertools import groupby
from typing import Any, Sequence, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common.limits import RELAY_MOST_ROOMS
from supervisor_sio.relay import message as message_module
from supervisor_sio.relay.message import (
    Look,
    MessageError,
    OtherVersion,
    RelayMessage,
    look,
    pack_bundle,
    runs,
    topic_for_all,
    topic_for_one,
    topic_for_publishers,
    unpack_bundle,
    unpack_run,
)
from supervisor_sio.relay.rooms import room_hash

VERSION = 3
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
    """A message without packets; its header claims ``longer`` more bytes than there are."""
    numbers = sequence, after, time, len(fields) + longer
    return struct.pack("!BBBBQQdI", version, 1, len(sender), 0, *numbers) + sender + fields


def packets_of(packets: Sequence[Union[str, bytes]]) -> bytes:
    """The packets after the header."""
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
        (head_of()[:31], "not a relay message"),
        (head_of()[:32], "a header cut short"),
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
        (head_of(version=2), "version 2 of the format, not 3"),
        (head_of(version=4), "version 4 of the format, not 3"),
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


# --- what is read first, and bundles ------------------------------------------------


def emit(sequence: int, room: Any, sender: str = "a", **more: Any) -> bytes:
    fields = {"method": "emit", "namespace": "/", "packet": "p", "room": room, **more}
    return RelayMessage(sender, sequence, fields, ["x"]).pack()


@given(messages, st.binary(max_size=20))
def test_the_beginning_of_a_message(message: RelayMessage, topic: bytes) -> None:
    beginning = look(topic + message.pack(), len(topic))
    assert beginning[:3] == (message.sender.encode(), message.sequence, 1)


def test_the_rooms_in_the_beginning() -> None:
    assert look(emit(7, "red"), 0) == Look(b"a", 7, 1, (room_hash("/", "red"),))
    many = list(range(RELAY_MOST_ROOMS))
    assert look(emit(7, many), 0).hashes == tuple(room_hash("/", room) for room in many)
    assert RelayMessage.unpack(emit(7, many)).fields["room"] == many


@given(st.lists(st.sampled_from(["red", "green", 1, None, ["red", 2]]), min_size=1, max_size=9))
def test_a_bundle_is_taken_apart_as_it_was_packed(rooms: list[Any]) -> None:
    packed = [emit(5 + number, room) for number, room in enumerate(rooms)]
    data = b"topic" + pack_bundle(packed)
    sender, first, count, hashes, _ = look(data, 5)
    assert (sender, first, count) == (b"a", 5, len(rooms))
    named = [room for one in rooms for room in (one if isinstance(one, list) else [one])]
    assert list(hashes) == list(dict.fromkeys(room_hash("/", room) for room in named))
    assert list(unpack_bundle(data, 5)) == packed


def test_a_bundle_is_for_everybody_when_one_message_is() -> None:
    everybody = RelayMessage("a", 2, {"method": "close_room", "room": "red"}).pack()
    assert look(pack_bundle([emit(1, "red"), everybody]), 0).hashes == ()
    half = RELAY_MOST_ROOMS // 2 + 1
    rooms = list(range(half)), list(range(half, 2 * half))
    assert look(pack_bundle([emit(1, rooms[0]), emit(2, rooms[1])]), 0).hashes == ()


def test_bytes_that_are_no_bundle() -> None:
    whole = pack_bundle([emit(1, "red"), emit(2, "red")])
    for data in (whole[:-1], whole + b"\0", whole[:40], whole[:13]):
        with pytest.raises(MessageError):
            list(unpack_bundle(data, 0))
    with pytest.raises(MessageError, match="kind 2"):
        RelayMessage.unpack(whole)


@given(messages, st.lists(packets, max_size=4))
def test_messages_that_differ_in_their_packets_only(
    message: RelayMessage, more: list[list[Union[str, bytes]]]
) -> None:
    others = [
        RelayMessage(message.sender, number, message.fields, others, message.after, number)
        for number, others in enumerate(more)
    ]
    (run,) = runs([message.pack(), *(other.pack() for other in others)])
    joined = unpack_run(run)
    assert joined.packets == [one for m in (message, *others) for one in m.packets]
    assert list(joined.each()) == [message, *others]
    assert [one.packed for one in joined.each()] == run
    message.packets = joined.packets
    assert joined == message


def test_the_number_of_the_last_of_several() -> None:
    alone = RelayMessage.unpack(emit(7, "red"))
    assert alone.last == 7 and not list(alone.each())
    assert unpack_run([emit(7, "red"), emit(8, "red")]).last == 8
    assert unpack_run([emit(0, "red"), emit(0, "red")]).last == 0  # volatile ones


@given(messages, messages)
def test_messages_that_differ_in_more(one: RelayMessage, other: RelayMessage) -> None:
    if (one.sender, one.fields) != (other.sender, other.fields):
        packed = one.pack(), other.pack()
        assert list(runs(packed)) == [[packed[0]], [packed[1]]]


@given(st.lists(st.sampled_from(["red", "green", 1, ["red", 2]]), max_size=9))
def test_those_that_follow_each_other(rooms: list[Any]) -> None:
    packed = [emit(5 + number, room) for number, room in enumerate(rooms)]
    grouped = list(runs(packed))
    assert [one for run in grouped for one in run] == packed
    assert [len(run) for run in grouped] == [len(list(each)) for _, each in groupby(rooms)]


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_have_runs(messages: list[bytes]) -> None:
    assert [one for run in runs(messages) for one in run] == messages


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\3",
        struct.pack("!BBBBQQdI", 3, 9, 1, 0, 1, 0, 0.0, 0) + b"a",
        struct.pack("!BBBBQQdI", 3, 1, 0, 0, 1, 0, 0.0, 0),
        struct.pack("!BBBBQQdI", 3, 1, 1, 9, 1, 0, 0.0, 0) + b"a",
        struct.pack("!BBBBQH", 3, 2, 1, 0, 1, 0) + b"a",
        struct.pack("!BBBBQH", 3, 2, 1, 0, 2**53, 2) + b"a",
    ],
)
def test_a_beginning_that_is_none(data: bytes) -> None:
    with pytest.raises(MessageError):
        look(data, 0)


@given(messages, st.text(st.characters(exclude_categories=["Cs"]), max_size=60), numbers)
def test_a_message_of_another_host(message: RelayMessage, bridge: str, number: int) -> None:
    message.fields = {**message.fields, "via": [bridge, number]}
    data = message.pack()
    assert RelayMessage.unpack(b"topic" + data, 5) == message
    assert look(data, 0).via == (bridge, number)
    assert list(runs([data, data])) == [[data], [data]]
    for end in range(len(data)):
        with contextlib.suppress(MessageError):
            look(data[:end], 0)
        with contextlib.suppress(MessageError):
            RelayMessage.unpack(data[:end])


def test_what_it_says_beside_where_it_comes_from_is_remembered() -> None:
    told = [emit(number, "red", via=["bridge", number]) for number in (1, 2)]
    assert [look(data, 0).hashes for data in told] == [(room_hash("/", "red"),)] * 2
    one, other = map(RelayMessage.unpack, told)
    assert one.fields is not other.fields and one.fields["via"] == ["bridge", 1]
    assert look(pack_bundle(told), 0).hashes == ()


@pytest.mark.parametrize(
    "via", [None, 1, "xy", [], ["b"], ["b", 1, 2], [1, 1], ["b", "1"], ["b", True], ["b", -1]]
)
def test_a_place_that_is_none_stays_a_field(via: Any) -> None:
    data = emit(1, "red", via=via)
    assert look(data, 0).via is None and not look(data, 0).hashes
    assert RelayMessage.unpack(data).fields["via"] == via


@given(st.binary(max_size=80))
def test_any_bytes_are_looked_at(data: bytes) -> None:
    for read in (lambda: look(data, 0), lambda: list(unpack_bundle(data, 0))):
        with contextlib.suppress(MessageError):
            read()


def test_the_sender_of_a_message_of_the_version_before() -> None:
    old = struct.pack("!BQQdBI", 2, 1, 0, 0.0, 8, len(FIELDS)) + b"1a2b3c4d" + FIELDS
    for read in (lambda: look(old, 0), lambda: RelayMessage.unpack(old)):
        with pytest.raises(OtherVersion, match="version 2 of the format, not 3") as caught:
            read()
        assert caught.value.sender == "1a2b3c4d"
    with pytest.raises(OtherVersion) as caught:
        look(b"\2" + bytes(12), 0)
    assert caught.value.sender == ""
