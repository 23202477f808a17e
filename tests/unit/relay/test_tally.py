"""A process with a tally's descriptor knows how much its worker has sent."""

from __future__ import annotations

import os
from typing import Optional

from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common.limits import RELAY_MOST_STREAMS
from supervisor_sio.relay import tally
from supervisor_sio.relay.tally import Sent, Tally


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b", "t" * 64]), st.integers(1, 2**53))))
def test_the_latest_number_of_each_is_read(notes: list[tuple[Optional[str], int]]) -> None:
    counted = Tally()
    expected: dict[Optional[str], int] = {}
    for now, (tag, number) in enumerate(notes, 12):
        counted.note(tag, number, now)
        expected[tag] = number
    to_all, began = expected.pop(None, 0), 12.0 if notes else 0.0
    assert tally.read(counted.descriptor) == Sent(began, to_all, expected)  # type: ignore[arg-type]
    counted.close()


def test_the_one_that_was_sent_nothing_for_longest_makes_room() -> None:
    counted = Tally()
    for number in range(RELAY_MOST_STREAMS):
        counted.note(f"tag{number}", 1, 1.0)
    counted.note("tag0", 2, 2.0)
    counted.note("one more", 7, 3.0)
    sent = tally.read(counted.descriptor)
    assert sent is not None and len(sent.to_one) == RELAY_MOST_STREAMS
    assert (sent.to_one["tag0"], sent.to_one["one more"]) == (2, 7)
    assert "tag1" not in sent.to_one
    counted.close()


def test_what_is_no_tally_is_none() -> None:
    reader, writer = os.pipe()
    short = os.memfd_create("short")
    os.write(short, b"abc")
    assert [tally.read(descriptor) for descriptor in (reader, writer, short)] == [None] * 3
    for descriptor in (reader, writer, short):
        os.close(descriptor)


def test_nothing_stays_open(no_leak) -> None:  # type: ignore[no-untyped-def]
    with no_leak():
        Tally().close()
