"""The messages in which a worker describes its journals to routers."""

from __future__ import annotations

import os
from typing import Any, Callable, Sequence

from supervisor_sio.common import recovery
from supervisor_sio.common.channel import Message
from supervisor_sio.common.recovery import Segment, Source
from supervisor_sio.worker.journals import Journals

OWN = Source("11111111", "socketio")
OTHER = Source("22222222", "socketio")


class Router:
    def __init__(self) -> None:
        self.posted: list[tuple[Message, Sequence[int]]] = []

    def post(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        self.posted.append((message, descriptors))

    def withdraw(self, descriptors: Sequence[int]) -> None:
        self.posted = [one for one in self.posted if one[1] is not descriptors]

    def taken(self) -> list[Message]:
        posted, self.posted = self.posted, []
        return [message for message, _ in posted]


def segment(number: int, source: Source = OWN, died: Any = None) -> Segment:
    return Segment(source, "events", number, recovery.FORMAT, 120.0, died)


def descriptor() -> int:
    return os.memfd_create("segment")


def test_each_router_is_told_of_each_segment(no_leak: Callable[[], Any]) -> None:
    with no_leak():
        router = Router()
        journals = Journals(router)
        for number in (1, 2):
            journals.add(segment(number), descriptor())
        told = [recovery.segment(segment(number)) for number in (1, 2)]
        assert router.taken() == told
        journals.tell()
        assert all(len(descriptors) == 1 for _, descriptors in router.posted)
        assert router.taken() == told
        journals.drop(OWN, "events", 1)
        journals.drop(OWN, "events", 1)
        journals.drop(OTHER, "events", 2)
        assert router.taken() == [recovery.dropped(OWN, "events", 1)]
        journals.tell()
        assert router.taken() == told[1:]
        journals.close()


def test_what_was_not_sent_is_withdrawn(no_leak: Callable[[], Any]) -> None:
    with no_leak():
        router = Router()
        journals = Journals(router)
        journals.add(segment(1), descriptor())
        journals.drop(OWN, "events", 1)
        assert router.taken() == [recovery.dropped(OWN, "events", 1)]


def test_an_inherited_journal_is_told_until_its_time_is_over(no_leak: Callable[[], Any]) -> None:
    with no_leak():
        router = Router()
        journals = Journals(router)
        journals.add(segment(1), descriptor())
        journals.add(segment(5, OTHER, died=1000.0), descriptor())
        journals.drop_old(1119.0)
        assert len(router.taken()) == 2
        journals.drop_old(1121.0)
        assert router.taken() == [recovery.dropped(OTHER, "events", 5)]
        journals.close()
