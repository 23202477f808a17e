from __future__ import annotations

import math
from typing import Optional, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor_sio.common.limits import RELAY_KEPT_OVERHEAD, RELAY_MOST_STREAMS
from supervisor_sio.relay import outbox as outbox_module
from supervisor_sio.relay.message import EncodedPacket, RelayMessage
from supervisor_sio.relay.outbox import Again, Outbox
from unit.examples import examples

PLENTY = 2**30
EMIT = {"method": "emit"}


def outbox_of(*tags: Optional[str], messages: int = PLENTY, most_bytes: int = PLENTY) -> Outbox:
    """An outbox with one message for each of these tags, sent at 1, 2, 3 …"""
    outbox = Outbox("s", messages, most_bytes)
    for number, tag in enumerate(tags, start=1):
        outbox.add(tag, EMIT, [f"text {number}"], float(number))
    return outbox


def add(
    outbox: Outbox, tag: Optional[str], packets: Sequence[EncodedPacket], now: float
) -> RelayMessage:
    number, data = outbox.add(tag, EMIT, packets, now)
    message = RelayMessage.unpack(data)
    assert message.sequence == number
    return message


def numbers(answer: Optional[Again]) -> list[int]:
    assert answer is not None
    return [RelayMessage.unpack(data).sequence for data in answer.messages]


def kept_of(outbox: Outbox) -> list[bytes]:
    streams = [outbox._to_all, *outbox._to_one.values()]
    return [data for stream in streams for data in stream.kept.values()]


def size_of(data: bytes) -> int:
    return len(data) + RELAY_KEPT_OVERHEAD


def test_each_stream_counts_for_itself() -> None:
    outbox = Outbox("s", PLENTY, PLENTY)
    sent = [add(outbox, tag, ["x"], 7.0) for tag in (None, "a", "a", "b", None, None, "a")]
    assert [message.sequence for message in sent] == [1, 1, 2, 1, 2, 3, 3]
    assert [message.after for message in sent] == [0, 1, 1, 1, 0, 0, 3]
    assert [message.fields.get("after") for message in sent] == [
        *[None] * 4,
        {"a": 2, "b": 1},
        *[None] * 2,
    ]
    assert {(message.sender, message.time) for message in sent} == {("s", 7.0)}
    assert outbox.position(0.0) == {"all": 3, "own": {"a": 3, "b": 1}}


def test_what_is_no_json_changes_nothing() -> None:
    outbox = outbox_of("a", None, "a")
    before = outbox.position(0.0), len(kept_of(outbox)), outbox._bytes
    for tag in (None, "a", "new"):
        with pytest.raises(TypeError):
            outbox.add(tag, {"method": "emit", "room": object()}, [], 9.0)
    assert (outbox.position(0.0), len(kept_of(outbox)), outbox._bytes) == before
    assert add(outbox, None, [], 9.0).fields["after"] == {"a": 2}


def test_the_fields_of_the_caller_stay_as_they_are() -> None:
    outbox, fields = outbox_of("a"), {"method": "emit"}
    outbox.add(None, fields, [], 2.0)
    assert fields == {"method": "emit"}


def test_empty() -> None:
    assert Outbox("s", 1, 1).empty
    assert not outbox_of(None).empty
    assert not outbox_of("a").empty


def test_again() -> None:
    outbox = outbox_of(None, "a", None, "a", None)
    answer = outbox.again(None, 2, 3)
    assert answer is not None and answer.first == 2
    assert [RelayMessage.unpack(data).packets for data in answer.messages] == [
        ["text 3"],
        ["text 5"],
    ]
    assert numbers(outbox.again("a", 1, 1)) == [1]


@pytest.mark.parametrize(
    ("tag", "first", "last"),
    [("b", 1, 1), (None, 1, 4), (None, 0, 1), (None, 3, 2), ("a", 2**60, 2**60), (None, -1, 1)],
)
def test_nothing_is_sent_again_that_never_was(tag: Optional[str], first: int, last: int) -> None:
    assert outbox_of(None, "a", None, None).again(tag, first, last) is None


@pytest.mark.parametrize(("last", "sent"), [(1, []), (6, []), (7, []), (8, [8]), (10, [8, 9, 10])])
def test_again_of_what_is_not_kept(last: int, sent: list[int]) -> None:
    answer = outbox_of(*[None] * 10, messages=3).again(None, 1, last)
    assert answer is not None and answer.first == 8
    assert numbers(answer) == sent


def test_again_of_a_stream_of_which_nothing_is_kept() -> None:
    answer = outbox_of("a", "a", None, messages=1).again("a", 1, 2)
    assert answer == Again(3, [])


def test_again_comes_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = outbox_of(*[None] * 10)
    monkeypatch.setattr(outbox_module, "RELAY_BATCH_MESSAGES", 3)
    assert numbers(outbox.again(None, 2, 10)) == [2, 3, 4]
    size = size_of(kept_of(outbox)[0])
    monkeypatch.setattr(outbox_module, "RELAY_BATCH_BYTES", 2 * size)
    assert numbers(outbox.again(None, 2, 9)) == [2, 3]
    monkeypatch.setattr(outbox_module, "RELAY_BATCH_BYTES", size - 1)
    assert numbers(outbox.again(None, 2, 9)) == [2]  # however long it is


def test_what_was_before_a_worker_listened() -> None:
    outbox = outbox_of(None, "a", "b", None, "a", None)
    expected = {"all": 3, "own": {"a": 2}}
    for since, before in (
        (0.0, (0, 0)),
        (1.0, (0, 0)),
        (2.5, (1, 1)),
        (5.0, (2, 1)),
        (9.0, (3, 2)),
    ):
        position = outbox.position_for(["a"], since)
        assert position == {**expected, "before": before[0], "own_before": {"a": before[1]}}
    assert outbox.position_for(["new"], 0.0)["own"] == {"new": 0}
    assert outbox.position(0.0)["own"] == {"a": 2, "b": 1}
    several = outbox.position_for(["b", "a", "new"], 5.0)
    assert several == {
        "all": 3,
        "own": {"b": 1, "a": 2, "new": 0},
        "before": 2,
        "own_before": {"b": 1, "a": 1, "new": 0},
    }
    assert outbox.last("a", "new") == {None: 3, "a": 2}


def test_what_is_not_kept_was_before_unless_all_was_later() -> None:
    outbox = outbox_of(*[None] * 10, messages=3)
    before = [outbox.position_for(["a"], since)["before"] for since in (0.0, 1.0, 1.5, 8.0, 8.5)]
    assert before == [0, 0, 7, 7, 8]


def test_everybody_is_told_of_what_was_in_use_lately() -> None:
    outbox = Outbox("s", 100, 100_000)
    for time, tag in ((1.0, "a"), (2.0, "b"), (50.0, None), (55.0, "a")):
        outbox.add(tag, EMIT, [], time)
    assert outbox.position(62.5) == {"all": 1, "own": {"a": 2}}
    assert outbox.position(200.0) == {"all": 1, "own": {}}
    assert outbox.position(200.0, math.inf) == {"all": 1, "own": {"a": 2, "b": 1}}
    # Who asks is told whatever the time.
    assert outbox.position_for(["b"], 0.0)["own"] == {"b": 1}


def test_tags_without_end_do_not_take_memory_without_end() -> None:
    outbox = Outbox("s", 100, 100_000)
    for number in range(5000):
        for tag in (f"tag{number}", "often"):
            assert outbox.addressee(tag) == tag
            outbox.add(tag, EMIT, [], float(number))
    assert len(outbox._to_one) == RELAY_MOST_STREAMS
    assert len(outbox._since) <= RELAY_MOST_STREAMS
    assert outbox.position_for(["often"], 0.0)["own"] == {"often": 5000}
    assert len(outbox.position(5000.0)["own"]) <= 62


def test_a_stream_of_which_something_is_kept_makes_no_room() -> None:
    outbox = Outbox("s", PLENTY, PLENTY)
    for number in range(RELAY_MOST_STREAMS):
        outbox.add(f"tag{number}", EMIT, [], 1.0)
    assert outbox.addressee("one more") is None
    assert outbox.addressee("tag0") == "tag0"


def test_no_number_is_given_twice() -> None:
    """A worker whose stream has made room gets later numbers above the old ones."""
    outbox = Outbox("s", 1, PLENTY)
    for _ in range(7):
        outbox.add("real", EMIT, [], 1.0)
    for number in range(RELAY_MOST_STREAMS):
        tag = outbox.addressee(f"made-up-{number}")
        outbox.add(tag, EMIT, [], 2.0)
    assert "real" not in outbox._to_one
    assert outbox.again("real", 7, 7) == Again(8, [])  # lost, and that is told
    assert outbox.addressee("real") == "real"
    assert add(outbox, "real", [], 3.0).sequence == 8
    answer = outbox.again("real", 1, 8)
    assert answer is not None and (answer.first, answer.start) == (8, 7)


@given(
    st.lists(
        st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(0, 300)),
        max_size=60,
    ),
    st.integers(1, 8),
    st.integers(1, 3000),
)
def test_it_never_exceeds_its_bounds(
    sends: list[tuple[Optional[str], int]], most_messages: int, most_bytes: int
) -> None:
    outbox = Outbox("s", most_messages, most_bytes)
    sent: list[bytes] = []
    for tag, length in sends:
        sent.append(outbox.add(tag, EMIT, [b"x" * length], float(len(sent)))[1])
        kept = kept_of(outbox)
        assert len(kept) == len(outbox._in_order) <= most_messages
        assert outbox._bytes == sum(map(size_of, kept)) <= most_bytes
        # The latest, of all streams together.
        latest = sent[len(sent) - len(kept) :]
        assert {id(one) for one in latest} == {id(one) for one in kept}


@settings(max_examples=examples(500))
@given(
    st.lists(st.sampled_from([None, "a"]), min_size=1, max_size=30),
    st.integers(1, 10),
    st.sampled_from([None, "a"]),
    st.integers(-1, 32),
    st.integers(-1, 32),
)
def test_any_question_is_answered_with_what_was_sent(
    sends: list[Optional[str]], most: int, tag: Optional[str], first: int, last: int
) -> None:
    outbox = outbox_of(*sends, messages=most)
    stream = [f"text {number}" for number, to in enumerate(sends, start=1) if to == tag]
    kept = sends[-most:].count(tag)
    answer = outbox.again(tag, first, last)
    assert (answer is not None) == (1 <= first <= last <= len(stream))
    if answer is not None:
        start = max(first, len(stream) - kept + 1)
        assert answer.first == start
        texts = [text for one in answer.messages for text in RelayMessage.unpack(one).packets]
        assert texts == stream[start - 1 : max(last, start - 1)]
