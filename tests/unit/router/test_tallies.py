from __future__ import annotations

import os
from typing import Any

import psutil
import pytest

from supervisor_sio.common.channel import ChannelError, Message
from supervisor_sio.common.limits import TALLIES
from supervisor_sio.relay.tally import Tally
from supervisor_sio.router.tallies import Tallies


def message(name: Any) -> Message:
    return {"type": "tally", "channel": name}


def counted(number: int) -> int:
    """The descriptor of a tally that says this number, as it comes from a worker."""
    tally = Tally()
    tally.note(None, number, 1.5)
    descriptor = os.dup(tally.descriptor)
    tally.close()
    return descriptor


def descriptors() -> int:
    return psutil.Process().num_fds()


def test_each_is_read_at_the_end_and_closed() -> None:
    before = descriptors()
    tallies = Tallies()
    tallies.take(message("a"), [counted(7)])
    tallies.take(message("b"), [counted(8)])
    tallies.take(message("a"), [counted(9)])  # of the worker's next router
    sent = {name: sent.to_all for name, sent in tallies.end()}
    assert sent == {"a": 9, "b": 8}
    assert list(tallies.end()) == [] and descriptors() == before


def test_what_is_not_a_tally_says_nothing() -> None:
    before = descriptors()
    tallies = Tallies()
    tallies.take(message("a"), [os.open("/dev/null", os.O_RDONLY)])
    reader, writer = os.pipe()
    tallies.take(message("b"), [reader])
    assert list(tallies.end()) == []
    os.close(writer)
    assert descriptors() == before


@pytest.mark.parametrize(("name", "count"), [(None, 1), (["a"], 1), ("a", 0), ("a", 2)], ids=str)
def test_a_message_that_is_not_acceptable(name: Any, count: int) -> None:
    before = descriptors()
    with pytest.raises(ChannelError, match="a tally without"):
        Tallies().take(message(name), [os.dup(0) for _ in range(count)])
    assert descriptors() == before


def test_one_too_many() -> None:
    before = descriptors()
    tallies = Tallies()
    for number in range(TALLIES):
        tallies.take(message(f"c{number}"), [counted(number)])
    with pytest.raises(ChannelError, match="too many"):
        tallies.take(message("another"), [counted(1)])
    tallies.take(message("c0"), [counted(99)])  # in place of one that is there
    assert dict(tallies.end())["c0"].to_all == 99
    assert descriptors() == before
