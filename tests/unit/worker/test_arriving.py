"""The reception of journals that this worker is to inherit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Optional

import pytest

from supervisor_sio.common import recovery, takeover
from supervisor_sio.common.channel import ChannelError, Message
from supervisor_sio.common.recovery import FORMAT, Part, Source
from supervisor_sio.worker.arriving import Adoption, Arriving

SOURCE = Source("old", "socketio")


class World:
    """A worker that records what it sends and gets."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.adoption: Optional[Adoption] = None
        self.ceiling = 100_000  # tests before these may have left many open
        self.arriving = Arriving(self.said.append, lambda: self.ceiling)
        self.arriving.adopter = self
        self.arriving.takes, self.arriving.recovers = takeover.FORMAT, FORMAT

    def on_adopt(self, adoption: Adoption) -> None:
        self.adoption = adoption

    def on_place(self, number: int, name: str, descriptor: int) -> None:
        pass

    def on_go(self, number: int) -> None:
        pass

    def on_discard(self, number: int) -> None:
        pass

    def get(self, message: Message, descriptors: int) -> None:
        made = [os.memfd_create("test") for _ in range(descriptors)]
        kept = False
        try:
            kept = self.arriving.handle(message, made)
        finally:
            if not kept:
                for descriptor in made:
                    os.close(descriptor)

    def ask(self, format: int = 0, recovers: int = FORMAT) -> None:
        about = {**takeover.passing(["old"], "socketio"), "format": format, "recovers": recovers}
        self.get({**about, "type": "adopt", "id": 1}, 1)

    def part(
        self, log: str, *numbers: int, source: Source = SOURCE, beside: Optional[int] = None
    ) -> None:
        part = Part(source, log, list(numbers), FORMAT, 120.0, 5.0)
        self.get(recovery.part(1, part), len(numbers) if beside is None else beside)

    def end(self) -> None:
        self.arriving.handle({"type": "adopt-end", "id": 1}, [])

    def close(self) -> None:
        self.arriving.close()
        if self.adoption is not None:
            self.adoption.close()


@pytest.fixture
def world(no_leak: Callable[[], AbstractContextManager[None]]) -> Iterator[World]:
    with no_leak():
        made = World()
        yield made
        made.close()


def kinds(world: World) -> list[str]:
    return [message["type"] for message in world.said]


def test_journals_are_part_of_an_adoption(world: World) -> None:
    world.ask()
    world.part("events", 3, 4)
    world.part("events", 7)
    world.part("states", 0)
    world.part("events", 1, source=Source("older", "socketio"))
    world.end()
    assert kinds(world) == ["took"] * 4
    assert world.adoption is not None and not world.adoption.batches
    journals = world.adoption.journals
    assert list(journals) == [SOURCE, Source("older", "socketio")]
    journal = journals[SOURCE]
    assert (journal.seconds, journal.died) == (120.0, 5.0)
    assert {log: list(some) for log, some in journal.logs.items()} == {
        "events": [3, 4, 7],
        "states": [0],
    }
    assert len(journal.descriptors) == 4


@pytest.mark.parametrize(
    "takes, recovers, format, of_journals, good",
    [
        (takeover.FORMAT, FORMAT, takeover.FORMAT, FORMAT, True),
        (0, FORMAT, 0, FORMAT, True),
        (0, FORMAT, takeover.FORMAT, FORMAT, False),
        (takeover.FORMAT, 0, takeover.FORMAT, 0, True),
        (takeover.FORMAT, 0, takeover.FORMAT, FORMAT, False),
        (takeover.FORMAT, FORMAT, 0, FORMAT + 1, False),
    ],
)
def test_who_inherits_what(
    world: World, takes: int, recovers: int, format: int, of_journals: int, good: bool
) -> None:
    world.arriving.takes, world.arriving.recovers = takes, recovers
    world.ask(format, of_journals)
    if of_journals:
        world.part("events", 0)
    world.end()
    assert (world.adoption is not None) is good
    assert ("not-adopted" in kinds(world)) is not good


def test_no_descriptor_for_a_part(world: World) -> None:
    world.ask()
    world.part("events", 0)
    world.ceiling = 0
    world.part("events", 1)
    assert kinds(world) == ["took", "not-adopted"]
    world.part("states", 0)
    world.end()
    assert world.adoption is None


def test_a_part_that_is_lost_on_the_way(world: World) -> None:
    world.ask()
    world.part("events", 0)
    part = Part(SOURCE, "events", [1], FORMAT, 120.0, 5.0)
    world.arriving.lost_descriptors(recovery.part(1, part))
    world.end()
    assert kinds(world) == ["took", "not-adopted"] and world.adoption is None


def test_a_refusal_crosses_with_the_offer_of_the_next_router(world: World) -> None:
    world.ask()
    world.end()
    world.arriving.lost()  # the router has ended
    world.arriving.not_adopted(1, "it is odd")
    world.ask()
    world.part("events", 0)
    world.get({"type": "adopt-off", "id": 1}, 0)
    assert kinds(world) == ["not-adopted", "took"]
    assert not world.arriving._coming


@pytest.mark.parametrize("numbers, beside", [([0, 1], 1), ([0], 0), ([5], 1)])
def test_a_part_that_is_wrong(world: World, numbers: list[int], beside: int) -> None:
    world.ask()
    world.part("events", 5)
    with pytest.raises(ChannelError, match="journal"):
        world.part("events", *numbers, beside=beside)
