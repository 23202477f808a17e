"""Whom an emit reaches."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor_sio import ZmqManager
from unit.cluster.others import heard
from unit.polling import PollingClient


@pytest.mark.parametrize(
    ("room", "except_room", "expected"),
    [
        (None, "even", [1, 3]),
        (None, ["even", "low"], [3]),
        ("even", "low", [2]),
        (["even", "odd"], ["nobody"], [0, 1, 2, 3]),
        ([], None, []),
        ((), None, []),
        (["nobody"], None, []),
        (None, [], [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_whom_an_emit_reaches(
    manager: ZmqManager,
    clients: list[PollingClient],
    room: Any,
    except_room: Any,
    expected: list[int],
    local: bool,
) -> None:
    manager.emit("news", 1, room=room, except_room=except_room, local=local)
    reached = [number for number, yes in enumerate(heard(manager, clients)) if yes]
    assert reached == expected


def test_skipped_and_excepted(manager: ZmqManager, clients: list[PollingClient]) -> None:
    manager.emit("news", 1, except_room="low", skip_sid=clients[3].sid)
    assert heard(manager, clients) == [False, False, True, False]
