"""The recovery request in a client's CONNECT, and the offsets of events."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from supervisor_sio.cluster import offsets
from supervisor_sio.cluster.offsets import Asked, Offset, read_connect
from supervisor_sio.common.limits import OFFSET_LENGTH

JAVASCRIPT = {"QUERY_STRING": "EIO=4&transport=websocket"}
PYTHON = {"QUERY_STRING": "transport=polling&EIO=4&t=1"}
PID = "0123abcd.aB-_5678901234567890"


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        ({"pid": PID, "offset": "0123abcd.1f"}, Asked(True, PID, "0123abcd.1f", None)),
        ({"pid": PID, "token": "x"}, Asked(True, PID, None, {"token": "x"})),
        ({"pid": None, "token": "x"}, Asked(True, None, None, {"token": "x"})),
        ({"pid": True}, Asked(True, None, None, None)),
        ({"pid": "made up", "offset": 7}, Asked(True, "", "", None)),
        ({"pid": [PID]}, Asked(True, "", None, None)),
        (
            {"pid": None, "offset": "x" * OFFSET_LENGTH},
            Asked(True, None, "x" * OFFSET_LENGTH, None),
        ),
        ({"pid": None, "offset": "x" * (OFFSET_LENGTH + 1)}, Asked(True, None, "", None)),
    ],
)
@pytest.mark.parametrize("environ", [JAVASCRIPT, PYTHON])
def test_who_says_a_pid(environ: Any, data: Any, asked: Asked) -> None:
    assert read_connect(environ, data) == asked


@pytest.mark.parametrize("data", [None, {}, {"offset": 1, "token": "x"}, "text", ["pid"]])
def test_who_says_none(data: Any) -> None:
    assert read_connect(JAVASCRIPT, data) == Asked(True, None, None, data)
    assert read_connect(PYTHON, data) == Asked(False, None, None, data)
    assert read_connect({}, data) == Asked(False, None, None, data)


def test_offsets_are_read_as_they_are_written() -> None:
    assert offsets.read(offsets.write("0123abcd", 31)) == Offset("0123abcd", 31)


@pytest.mark.parametrize(
    "offset", [None, "", "1f", "0123abcd.", "0123abcd.G", "0123abcd.-1", "0123abcd." + "f" * 99]
)
def test_what_is_no_offset(offset: Optional[str]) -> None:
    assert offsets.read(offset) is None


def test_an_offset_is_the_last_argument() -> None:
    assert offsets.add(['2["n"]'], "a.1") == ['2["n","a.1"]']
    binary = ['51-/chat,["n",{"_placeholder":true,"num":0}]', b"x"]
    assert offsets.add(binary, "a.1") == [f'{binary[0][:-1]},"a.1"]', b"x"]
    with pytest.raises(ValueError):
        offsets.add([b"msgpack"], "a.1")


def test_each_of_several_events_has_its_own() -> None:
    binary = ['51-/chat,["n",{"_placeholder":true,"num":0}]', b"x"]
    numbered = offsets.add_each(['2["n"]', *binary, '2["m"]'], "a", range(31, 34))
    assert numbered == ['2["n","a.1f"]', f'{binary[0][:-1]},"a.20"]', b"x", '2["m","a.21"]']
    with pytest.raises(ValueError):
        offsets.add_each(['2["n"]', '3{"n":1}'], "a", range(2))
