from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor_sio.supervisorctl.commands import run
from supervisor_sio.supervisorctl.formatting import format_sockets
from supervisor_sio.supervisorctl.session import Session


def answer(shown: int, total: int) -> dict[str, Any]:
    """What ``getSockets`` answers."""
    socket = {"sid": "s", "worker": "w", "transport": "t", "address": "a", "rooms": []}
    return {"sockets": [socket] * shown, "total": total, "missing": 0}


@pytest.mark.parametrize(
    ("shown", "total", "line"),
    [
        (3, 4, "3 of 4 clients, --limit 4 shows all"),
        (1000, 10_000, "1000 of 10000 clients, --limit 10000 shows all"),
        (1000, 25_000, "1000 of 25000 clients, --limit 10000 is the most"),
        (10_000, 25_000, "10000 of 25000 clients"),
    ],
)
def test_not_all_clients(
    shown: int, total: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (last,) = list(format_sockets(answer(shown, total)))[shown + 1 :]
    assert last == line
    # What it advises is taken.
    monkeypatch.setattr(Session, "call", lambda *_, **__: answer(0, 0))
    controller = SimpleNamespace(output=lambda _: None, stdout=io.StringIO(), exitstatus=0)
    advice = line.partition(", ")[2].split()
    run(controller, " ".join(["sockets", *advice[:2]]))
    assert controller.exitstatus == 0


def test_all_clients() -> None:
    assert len(list(format_sockets(answer(3, 3)))) == 4
    assert list(format_sockets(answer(0, 0))) == ["no clients"]
