from __future__ import annotations

from typing import Any

import pytest

from supervisor_sio.common import takeover
from supervisor_sio.common.channel import ChannelError
from supervisor_sio.common.limits import MAX_CHANNELS, TAKEOVER_TAGS


def test_what_is_said_is_read() -> None:
    message = takeover.passing(["a", "b-_"], "socketio")
    assert takeover.read_passing(message) == (["a", "b-_"], "socketio", takeover.FORMAT)
    assert takeover.read_sessions(takeover.sessions(3, "a", 252)) == (3, "a", 252)
    assert takeover.read_tags({"type": "tags", "tags": []}) == []
    assert takeover.read_id({"type": "took", "id": 2**48 - 1}) == 2**48 - 1
    assert takeover.read_reason({"type": "not-adopted", "reason": "x" * 5000}) == "x" * 1000


@pytest.mark.parametrize(
    "tags", [None, "a", [1], ["a.b"], [""], ["a", "a"], [["a"]], ["x" * 65], {"a": 1}]
)
def test_what_are_no_tags(tags: Any) -> None:
    with pytest.raises(ChannelError, match="tags are expected"):
        takeover.read_tags({"type": "tags", "tags": tags})


def test_too_many_tags() -> None:
    tags = [str(number) for number in range(TAKEOVER_TAGS)]
    assert takeover.read_tags({"type": "tags", "tags": tags}) == tags
    with pytest.raises(ChannelError, match="are more than"):
        takeover.read_tags({"type": "tags", "tags": [*tags, "one more"[:3]]})


@pytest.mark.parametrize("name", [None, 1, "x" * MAX_CHANNELS])
def test_a_channel_that_is_none(name: Any) -> None:
    with pytest.raises(ChannelError, match="without a channel"):
        takeover.read_passing({**takeover.passing(["a"], "c"), "channel": name})


@pytest.mark.parametrize("value", [None, "1", True, -1, 1.5, 2**53])
@pytest.mark.parametrize("name", ["batch", "count"])
def test_what_is_no_count(name: str, value: Any) -> None:
    with pytest.raises(ChannelError, match=f"sessions: '{name}' is not a count"):
        takeover.read_sessions({**takeover.sessions(0, "a", 1), name: value})
