"""The JSON format of moving sessions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor_sio.common.limits import MAX_DESCRIPTORS, TAKEOVER_BATCH
from supervisor_sio.worker import batches
from supervisor_sio.worker.batches import Batch, Moved
from unit.examples import examples

ONE = Moved("1234abcd.x", 0, ["/socket.io/"], {"a": 1}, {"b": [None]}, ['2["e"]', b"\0\xff"], 3)

_messages = st.lists(st.one_of(st.text(), st.binary()))


@settings(max_examples=examples(50))
@given(held=_messages, sid=st.text(), client=st.none() | st.just({"x": 1.5}))
def test_what_is_written_is_read(held: list[Any], sid: str, client: Any) -> None:
    one = ONE._replace(held=held, sid=sid, client=client)
    batch = Batch()
    batch.add(one.as_text(), [])
    batch.add(ONE.as_text(), [])
    assert [batches.restore(value) for value in batches.read(batch.as_bytes())] == [one, ONE]


@pytest.mark.parametrize(
    "field, value, error",
    [
        ("sid", 5, "session: sid is not a text"),
        ("server", "0", "session: server is not an integer"),
        ("paths", [1], "session: paths[0] is not a text"),
        ("engine", None, "session: engine is not an object"),
        ("client", 7, "session: client is not an object"),
        ("held", ["b1"], "session: held[0] is not base64"),
        ("held", ["9"], "session: held[0] is not a packet"),
        ("descriptors", -1, "session: descriptors is not a number of descriptors"),
        ("descriptors", MAX_DESCRIPTORS, "session: descriptors is not a number of descriptors"),
    ],
)
def test_a_field_that_is_wrong_is_named(field: str, value: Any, error: str) -> None:
    state = {**json.loads(ONE.as_text()), field: value}
    with pytest.raises(ValueError) as caught:
        batches.restore(state)
    assert str(caught.value) == error
    del state[field]
    with pytest.raises(ValueError, match=f"^session: {field} is missing"):
        batches.restore(state)


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b"[" * 100_000, b"5"])
def test_what_is_no_list_of_sessions(data: bytes) -> None:
    with pytest.raises(ValueError, match="^sessions are not "):
        batches.read(data)


def test_a_batch_is_bounded_by_bytes_and_by_descriptors() -> None:
    batch = Batch()
    assert not batch and batch.has_room("x" * 10 * TAKEOVER_BATCH, 3)
    batch.add("x" * (TAKEOVER_BATCH - 1), [1, 2, 3])
    assert len(batch) == 1
    assert batch.has_room("x", 3) and not batch.has_room("xx", 0)
    # One more is the file of memory.
    most = MAX_DESCRIPTORS - 1 - len(batch.descriptors)
    assert batch.has_room("", most) and not batch.has_room("", most + 1)
