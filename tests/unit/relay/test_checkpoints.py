"""What may be confirmed because it is stored elsewhere; pure."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor_sio.relay import checkpoints as module
from supervisor_sio.relay.checkpoints import Checkpoints


class Rig:
    def __init__(self, at_once: bool = False) -> None:
        self.begun = 0
        self.at_once = at_once
        self.checkpoints = Checkpoints(self._begin)

    def _begin(self) -> None:
        self.begun += 1
        if self.at_once:
            self.checkpoints.end()

    def ask(self, sender: str, to_all: int, own: int, tag: str = "t") -> bool:
        asked: dict[str, Any] = {"all": to_all, "own": {tag: own}}
        return self.checkpoints.may_confirm(sender, asked)


def test_what_is_kept_may_be_confirmed() -> None:
    rig = Rig()
    assert not rig.ask("a", 3, 1) and rig.begun == 1
    assert not rig.ask("a", 3, 1) and rig.begun == 1  # it is under way
    rig.checkpoints.end()
    assert rig.ask("a", 3, 1) and rig.ask("a", 2, 1) and rig.begun == 1
    for numbers in ((4, 1), (3, 2)):
        assert not rig.ask("a", *numbers)
        rig.checkpoints.end()
        assert rig.ask("a", *numbers)
    assert not rig.ask("a", 1, 1, tag="other")


def test_all_tags_that_are_asked_for_have_to_be_kept() -> None:
    rig = Rig()
    assert not rig.ask("a", 1, 1) and not rig.ask("a", 1, 1, tag="other")
    both = {"all": 1, "own": {"t": 1, "other": 1}}
    rig.checkpoints.end()
    assert rig.ask("a", 1, 1) and not rig.checkpoints.may_confirm("a", both)
    rig.checkpoints.end()
    assert rig.checkpoints.may_confirm("a", both) and rig.ask("a", 1, 1) and rig.begun == 2


def test_who_asks_meanwhile_waits_for_the_next_one() -> None:
    rig = Rig()
    rig.ask("a", 1, 0)
    assert not rig.ask("b", 1, 0)
    rig.checkpoints.end()
    assert rig.ask("a", 1, 0) and not rig.ask("b", 1, 0) and rig.begun == 2
    rig.checkpoints.end()
    assert rig.ask("b", 1, 0)
    rig.checkpoints.end()  # said twice
    assert rig.begun == 2


def test_what_cannot_be_kept_anywhere_is_confirmed_all_the_same() -> None:
    assert Rig(at_once=True).ask("a", 1, 1)


def test_many_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELAY_MOST_SENDERS", 3)
    rig = Rig(at_once=True)
    for number in range(10):
        assert rig.ask(f"sender {number}", 1, 1)
        assert len(rig.checkpoints._safe) <= 3
