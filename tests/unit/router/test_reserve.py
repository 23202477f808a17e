from __future__ import annotations

import pytest

from supervisor_sio.router.reserve import RESERVE, affordable, reserve


@pytest.mark.parametrize(
    ("max_pending", "limit", "tls", "expected"),
    [
        (4096, 1024, False, 480),
        (4096, 1024, True, 192),
        (100, 1024, False, 100),
        (4096, 1_000_000, True, 4096),
        (4096, 32, False, 1),  # less than the router itself needs
    ],
)
def test_as_many_wait_as_there_are_descriptors_for(
    max_pending: int, limit: int, tls: bool, expected: int
) -> None:
    assert affordable(max_pending, limit, tls) == expected


def test_what_is_not_for_clients() -> None:
    assert reserve(workers=0, metrics=False, handshakes=0) == RESERVE
    assert reserve(workers=3, metrics=False, handshakes=0) == RESERVE + 15
    assert reserve(workers=0, metrics=True, handshakes=10) == RESERVE + 128 + 20
