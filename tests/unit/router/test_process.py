"""What a router takes from what supervisord tells it first."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor_sio.common.limits import RUN_ONCE_LEASE
from supervisor_sio.router import process


@pytest.mark.parametrize(
    ("settings", "sure_at"),
    [
        ({"router_ended": None}, 0),  # it is the first one
        ({"router_ended": 90.0}, 90 + RUN_ONCE_LEASE),
        ({}, 100 + RUN_ONCE_LEASE),  # supervisord runs an older version
    ],
)
def test_until_when_a_task_of_another_router_may_run(
    settings: dict[str, Any], sure_at: float
) -> None:
    assert process._sure_at(settings, 100.0) == sure_at
