from __future__ import annotations

from typing import Any

import pytest

from supervisor_sio.common import channel
from supervisor_sio.common.channel import ChannelError
from supervisor_sio.common.limits import MAX_CHANNELS
from supervisor_sio.router.worker_messages import read_hello, read_ready

HELLO = {"type": "hello", "version": channel.VERSION, "tag": "0a1B-_", "name": "workers:w_00"}


def test_hello() -> None:
    assert read_hello(HELLO) == ("0a1B-_", "workers:w_00", "")
    assert read_hello({**HELLO, "release": "1.2.3rc1"}).release == "1.2.3rc1"
    for wrong in (7, "v" * 65, "1\x1b"):  # it is only shown
        assert read_hello({**HELLO, "release": wrong}).release == ""
    assert read_hello({**HELLO, "tag": "t" * 64, "name": "ü" * 256, "more": 1}).tag == "t" * 64


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"type": "ready"}, "expected hello, not 'ready'"),
        ({"version": channel.VERSION - 1}, "the worker speaks version"),
        ({"tag": None}, "without tag and name"),
        ({"tag": 7}, "without tag and name"),
        ({"tag": ""}, "without tag and name"),
        ({"tag": "a.b"}, "without tag and name"),
        ({"tag": "a\n"}, "without tag and name"),
        ({"tag": "t" * 65}, "without tag and name"),
        ({"name": None}, "without tag and name"),
        ({"name": ""}, "without tag and name"),
        ({"name": "a\x1b"}, "without tag and name"),
        ({"name": "n" * 257}, "without tag and name"),
    ],
)
def test_a_hello_that_is_not_acceptable(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ChannelError, match=reason):
        read_hello({**HELLO, **changed})


def test_ready() -> None:
    assert read_ready({"type": "ready", "channels": []}) == ([], 0, 0, {})
    told = {"channels": ["a", "ü"], "takes": 1, "recovers": 2, "origins": {"*": True}}
    assert read_ready({"type": "ready", **told}) == (["a", "ü"], 1, 2, {"*": True})


@pytest.mark.parametrize("origins", [None, ["*"], {"*": 1}])
def test_a_ready_with_origins_that_cannot_be(origins: Any) -> None:
    with pytest.raises(ChannelError, match="a ready with origins that are not a table"):
        read_ready({"type": "ready", "channels": [], "origins": origins})


@pytest.mark.parametrize("takes", [None, "1", True, -1, 1.0])
def test_a_ready_without_the_format_that_it_takes(takes: Any) -> None:
    with pytest.raises(ChannelError, match="without the format"):
        read_ready({"type": "ready", "channels": [], "takes": takes})


@pytest.mark.parametrize("channels", [None, "a", 1, {}, [1], ["a", None], [["a"]]])
def test_a_ready_without_its_channels(channels: Any) -> None:
    with pytest.raises(ChannelError, match="a ready without its channels"):
        read_ready({"type": "ready", "channels": channels})


def test_a_ready_with_too_many() -> None:
    with pytest.raises(ChannelError, match="too many"):
        read_ready({"type": "ready", "channels": ["x" * 100] * (MAX_CHANNELS // 100)})
