"""An application with 10,000 clients, as far as `sio sockets` is told."""

from __future__ import annotations

from typing import Any

from cluster_app import app

from supervisor_sio.worker import queries

__all__ = ["app"]

COUNT = 10_000
ROOMS = ["news", "a room of böse <people> & others", "x" * 40]


def _many(server: Any, question: Any) -> tuple[list[Any], int]:
    rows: list[Any] = [
        [f"0a1b2c3d.{number:016d}", ROOMS, "websocket", "203.0.113.7"] for number in range(COUNT)
    ]
    return rows[: question["limit"]], COUNT


queries._ANSWERS["sockets"] = _many
