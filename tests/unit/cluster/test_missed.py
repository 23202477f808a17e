"""Missed events are read in slices, so that others get a turn in between."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from supervisor_sio.cluster import missed as module
from supervisor_sio.cluster.histories import Stay
from supervisor_sio.cluster.lost import FORGOTTEN, Client, decode
from supervisor_sio.cluster.missed import Missed, NotRecovered
from supervisor_sio.common.limits import CLIENT_STAYS, RECOVERY_SLICE
from supervisor_sio.common.reasons import UNKNOWN_OFFSET
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
    """The clock advances by a tenth of a slice at each look."""
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


def move(client: Client, times: int) -> None:
    """Move the client from worker to worker, with ten events in each journal."""
    for n in range(1, times + 1):
        client.stay.end, client.stay.ended = client.stay.begin + 10, float(n)
        client.moves_to(f"{n:08x}", 0)


def test_of_one_that_moves_on_and_on_the_last_stays_are_known(journal: Journal) -> None:
    """An offset from an earlier stay is unknown; and no offset at all is not accepted either."""
    client = Client(SID, "/", "pid", "", Stay(TAG, 0, ["room"], TAG))
    move(client, CLIENT_STAYS)
    assert client.base is None and len(client.before) == CLIENT_STAYS
    Missed(client, None, lambda tag: journal, 0.0)
    Missed(client, f"{TAG}.5", lambda tag: journal, 0.0)
    size = len(client.encode())
    move(client, 100)
    assert len(client.before) == CLIENT_STAYS and len(client.encode()) <= size + 50
    client = Client.restored(decode(client.encode()), "")
    oldest = client.before[0].tag
    Missed(client, f"{oldest}.5", lambda tag: journal, 0.0)
    for offset in (None, f"{TAG}.5", f"{1:08x}.5", FORGOTTEN):
        with pytest.raises(NotRecovered, match=UNKNOWN_OFFSET):
            Missed(client, offset, lambda tag: journal, 0.0)


def test_where_one_was_that_does_not_come_back_is_not_kept() -> None:
    client = Client(SID, "/", SID, "", Stay(TAG, 0, ["room"], TAG), capable=False)
    move(client, 3)
    assert client.before == () and list(client.stay.rooms) == ["room"]
