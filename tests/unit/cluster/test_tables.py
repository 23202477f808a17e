from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import List

import pytest

from supervisor_sio.cluster.tables import Tables
from supervisor_sio.relay.message import RelayMessage


def event(number: int, room: str) -> RelayMessage:
    fields = {"method": "emit", "namespace": "/", "room": room}
    message = RelayMessage("w", number, fields, [f"2[{number}]"])
    message.packed = message.pack()
    return message


def test_whoever_takes_the_lock_finds_all_events_written() -> None:
    written: List[int] = []

    def write() -> None:
        written.extend(message.sequence for message, _ in tables.take())

    tables = Tables()
    tables.write = write
    tables.acquire()
    tables.collected.append((event(1, "red"), 1))
    assert not written
    with tables:
        assert written == [1]
    tables.collected.append((event(2, "red"), 2))
    tables.release()
    assert written == [1]
    with tables, tables:
        assert written == [1, 2]


def test_consecutive_events_for_the_same_clients_are_one_message() -> None:
    tables = Tables()
    events = [event(n, room) for n, room in enumerate(["red", "red", "blue", "red", "red", "red"])]
    tables.collected = [(message, 10 + n) for n, message in enumerate(events)]
    packed = [message.packed for message in events]
    taken = tables.take()
    assert not tables.collected
    assert [(message.sequence, message.last, number) for message, number in taken][1:] == [
        (2, 2, 12),
        (3, 5, 13),
    ]
    assert [message.run for message, _ in taken] == [packed[:2], None, packed[3:]]
    assert [list(message.packets) for message, _ in taken] == [
        ["2[0]", "2[1]"],
        ["2[2]"],
        ["2[3]", "2[4]", "2[5]"],
    ]


def test_an_exception_does_not_keep_it_locked() -> None:
    def fail() -> None:
        tables.take()
        raise OSError("no memory")

    tables = Tables()
    tables.write = fail
    tables.collected.append((event(1, "red"), 1))
    with pytest.raises(OSError), tables:
        pass
    with ThreadPoolExecutor() as executor:
        assert executor.submit(tables.acquire, blocking=False).result()
