from __future__ import annotations

from typing import Any

import pytest

from supervisor_sio.common import reasons, recovery
from supervisor_sio.common.channel import ChannelError
from supervisor_sio.common.limits import MAX_CHANNELS, MAX_DESCRIPTORS
from supervisor_sio.common.recovery import Part, Segment, Source

SOURCE = Source("t1", "socketio")
SEGMENT = Segment(SOURCE, "events", 3, recovery.FORMAT, 120.0, None)
PART = Part(SOURCE, "states", [7, 8], recovery.FORMAT, 120.0, 55.5)


def test_what_is_said_is_read() -> None:
    for segment in (SEGMENT, SEGMENT._replace(log="states", died=12.5)):
        assert recovery.read_segment(recovery.segment(segment)) == segment
    assert recovery.read_dropped(recovery.dropped(SOURCE, "events", 3)) == (SOURCE, "events", 3)
    assert recovery.read_part(recovery.part(1, PART)) == PART
    assert recovery.read_claim(recovery.claim(9, "t1", {"do": "it"})) == (9, "t1", {"do": "it"})
    assert recovery.read_claimed(recovery.claimed(9, {"sid": "s"})) == (9, {"sid": "s"})
    refused = recovery.not_claimed(9, reasons.NO_OWNER)
    assert recovery.read_claimed(refused) == (9, {"reason": reasons.NO_OWNER})
    assert recovery.read_recovers({"type": "ready"}) == 0
    assert recovery.read_recovers({"type": "ready", "recovers": 1}) == 1


@pytest.mark.parametrize("value", [None, "1", True, -1, 1.5, 2**53])
def test_what_is_no_count(value: Any) -> None:
    for name in ("number", "format"):
        with pytest.raises(ChannelError, match=f"journal: '{name}' is not a count"):
            recovery.read_segment({**recovery.segment(SEGMENT), name: value})
    with pytest.raises(ChannelError, match="claimed: 'id' is not a count"):
        recovery.read_claimed({**recovery.claimed(1, {}), "id": value})
    with pytest.raises(ChannelError, match="ready: 'recovers' is not a count"):
        recovery.read_recovers({"type": "ready", "recovers": value})


@pytest.mark.parametrize("value", ["1", True, -1, float("nan"), float("inf"), 10**400, []])
def test_what_are_no_seconds(value: Any) -> None:
    for name in ("recovery", "died"):
        with pytest.raises(ChannelError, match=f"'{name}' is not a number of seconds"):
            recovery.read_segment({**recovery.segment(SEGMENT), name: value})
        with pytest.raises(ChannelError, match=f"'{name}' is not a number of seconds"):
            recovery.read_part({**recovery.part(1, PART), name: value})


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"tag": None}, "without a tag"),
        ({"tag": "a.b"}, "without a tag"),
        ({"channel": 1}, "without a channel"),
        ({"channel": "x" * MAX_CHANNELS}, "without a channel"),
        ({"log": "others"}, "has no such log"),
        ({"log": ["events"]}, "has no such log"),
        ({"log": "x" * 5000}, "^.{,100}$"),
    ],
)
def test_what_is_no_journal(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ChannelError, match=text):
        recovery.read_segment({**recovery.segment(SEGMENT), **wrong})
    with pytest.raises(ChannelError, match=text):
        recovery.read_dropped({**recovery.dropped(SOURCE, "events", 3), **wrong})
    with pytest.raises(ChannelError, match=text):
        recovery.read_part({**recovery.part(1, PART), **wrong})


@pytest.mark.parametrize(
    "numbers", [None, [], 1, ["1"], [1, 1], [-1], [[]], list(range(MAX_DESCRIPTORS + 1))]
)
def test_what_are_no_numbers_of_segments(numbers: Any) -> None:
    with pytest.raises(ChannelError, match="without the numbers"):
        recovery.read_part({**recovery.part(1, PART), "numbers": numbers})


@pytest.mark.parametrize("value", [None, "text", [], 1])
def test_what_is_no_claim(value: Any) -> None:
    with pytest.raises(ChannelError, match="claim: 'question' is not an object"):
        recovery.read_claim({**recovery.claim(1, "t", {}), "question": value})
    with pytest.raises(ChannelError, match="claimed: 'answer' is not an object"):
        recovery.read_claimed({**recovery.claimed(1, {}), "answer": value})
    with pytest.raises(ChannelError, match="a claim without a tag"):
        recovery.read_claim({**recovery.claim(1, "t", {}), "tag": [value]})
