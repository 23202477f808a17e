"""What a client has missed is looked for in steps, and others have their turn between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from supervisor_sio.cluster import missed as module
from supervisor_sio.cluster.histories import Stay
from supervisor_sio.cluster.lost import Client
from supervisor_sio.cluster.missed import Missed
from supervisor_sio.common.limits import RECOVERY_SLICE
from supervisor_sio.relay.journal import Journal
from supervisor_sio.relay.message import RelayMessage

TAG = "aaaaaaaa"
SID = f"{TAG}.01234567890123456789"
EVENTS = 2000


@pytest.fixture
def journal() -> Iterator[Journal]:
    made = Journal(
        TAG,
        age=1e6,
        most_messages=100_000,
        most_bytes=2**24,
        on_segment=lambda *args: None,
        on_dropped=lambda *args: None,
    )
    for number in range(1, EVENTS + 1):
        fields = {"method": "emit", "namespace": "/", "room": f"room {number % 2}"}
        made.event(RelayMessage("s", number, fields, [f'2["n",{number}]']), None)
    yield made
    made.close()


def test_a_step_ends_in_time(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which each look takes a tenth of the time that a step has."""
    looks = itertools.count()
    client = Client(SID, "/", "pid", "", Stay(TAG, 0, ["room 1"], TAG))
    missed = Missed(client, f"{TAG}.0", lambda tag: journal, 0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(looks) * RECOVERY_SLICE / 10)
    steps = 0
    while not missed.read(RECOVERY_SLICE):
        steps += 1
        assert next(looks) <= 13 * steps
    assert steps > EVENTS / 2 / 13
    assert [one.offset for one in missed.events] == [f"{TAG}.{n:x}" for n in range(1, EVENTS, 2)]
