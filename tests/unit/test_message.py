from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.relay.message import (
    MessageError,
    RelayMessage,
    topic_for_all,
    topic_for_one,
)

TOPIC = topic_for_all("socketio")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
reserved = {"from", "seq", "parts", "method"}
messages = st.builds(
    RelayMessage,
    sender=st.text(),
    sequence=st.integers(),
    fields=st.builds(
        lambda fields, method: {**fields, "method": method},
        st.dictionaries(st.text().filter(lambda key: key not in reserved), json_values, max_size=4),
        st.text(),
    ),
    packets=st.lists(texts | st.binary(), max_size=4),
)


def frames_of(body: bytes = b"", **header: Any) -> list[bytes]:
    header = {"from": "a", "seq": 1, "parts": [], "method": "emit", **header}
    return [TOPIC, json.dumps(header).encode(), body]


@given(messages, st.binary())
def test_a_message_arrives_as_it_was_sent(message: RelayMessage, topic: bytes) -> None:
    frames = message.pack(topic)
    assert len(frames) == 3
    assert all(type(frame) is bytes for frame in frames)
    assert frames[0] == topic
    assert RelayMessage.unpack(frames) == message


def test_text_and_bytes_stay_what_they_are() -> None:
    packets = ['51-["ü",{"_placeholder":true,"num":0}]', b"\xff\0", b"", "", b"text"]
    frames = RelayMessage("a", 1, {"method": "emit"}, packets).pack(TOPIC)
    assert frames[2] == "".join(packets[:1]).encode() + b"\xff\0text"
    back = RelayMessage.unpack(frames).packets
    assert back == packets
    assert [type(packet) for packet in back] == [str, bytes, bytes, str, bytes]


def test_any_kind_of_bytes_goes_out() -> None:
    packets: Any = [bytearray(b"ab"), memoryview(b"cd")]
    frames = RelayMessage("a", 1, {"method": "emit"}, packets).pack(TOPIC)
    assert RelayMessage.unpack(frames).packets == [b"ab", b"cd"]


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_a_field_that_is_not_json(value: Any) -> None:
    with pytest.raises(TypeError):
        RelayMessage("a", 1, {"method": "emit", "room": value}).pack(TOPIC)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "not a relay message"),
        (frames_of()[:2], "not a relay message"),
        ([*frames_of(), b""], "not a relay message"),
        ([TOPIC, b"", b""], "not a relay message"),
        ([TOPIC, b"\xff", b""], "not a relay message"),
        ([TOPIC, b"[" * 100_000, b""], "not a relay message"),
        ([TOPIC, b"[]", b""], "not a relay message"),
        ([TOPIC, b'"x"', b""], "not a relay message"),
        ([TOPIC, b"{}", b""], "not a relay message: 'from'"),
        ([TOPIC, b'{"from":"a","seq":1,"method":"x"}', b""], "not a relay message: 'parts'"),
        (frames_of(**{"from": 1}), "a header without sender and number"),
        (frames_of(seq="1"), "a header without sender and number"),
        (frames_of(seq=True), "a header without sender and number"),
        (frames_of(seq=1.0), "a header without sender and number"),
        (frames_of(method=None), "a header without a method"),
        (frames_of(parts=None), "not a relay message"),
        (frames_of(parts=[1]), "not a relay message"),
        (frames_of(parts=[[1]], body=b"x"), "not a relay message"),
        (frames_of(parts=[["1", True]], body=b"x"), "a body shorter"),
        (frames_of(parts=[[True, True]], body=b"x"), "a body shorter"),
        (frames_of(parts=[[-1, True]], body=b"x"), "a body shorter"),
        (frames_of(parts=[[2, True]], body=b"x"), "a body shorter"),
        (frames_of(parts=[[1, True], [1, True]], body=b"x"), "a body shorter"),
        (frames_of(parts=[[10**30, True]], body=b"x"), "a body shorter"),
        (frames_of(parts=[[1, True]], body=b"xx"), "a body longer"),
        (frames_of(body=b"x"), "a body longer"),
        (frames_of(parts=[[1, True]], body=b"\xff"), "not a relay message"),
    ],
)
def test_what_is_no_message(frames: list[bytes], reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        RelayMessage.unpack(frames)


@given(
    json_values,
    st.sampled_from(["from", "seq", "parts", "method"]),
    st.binary(max_size=5),
)
def test_no_header_raises_anything_else(value: Any, key: str, body: bytes) -> None:
    with contextlib.suppress(MessageError):
        message = RelayMessage.unpack(frames_of(**{key: value}, body=body))
        assert isinstance(message.sender, str) and isinstance(message.fields["method"], str)


names = st.text("abc*\x01", min_size=1, max_size=4)


@given(names, names, names)
def test_topics_of_different_channels_do_not_meet(channel: str, more: str, tag: str) -> None:
    # A subscription is a prefix (zmq_setsockopt(3), ZMQ_SUBSCRIBE).
    longer = channel + more
    for topic in (topic_for_all(longer), topic_for_one(longer, tag)):
        assert not topic.startswith(topic_for_all(channel))
        assert not topic.startswith(topic_for_one(channel, tag))
    assert not topic_for_one(channel, "0a1b2c3d").startswith(topic_for_all(channel))
