from __future__ import annotations

import resource

import pytest

from supervisor_sio.common import descriptors
from supervisor_sio.common.descriptors import raised_limit


def limits() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_NOFILE)


@pytest.mark.parametrize("failing", [False, True])
def test_the_limit_is_raised_for_a_while(failing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = limits()
    lower = (before[0] - 1, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, lower)
    if failing:  # the hard limit of a process may be above what the system allows by now
        monkeypatch.setattr(descriptors, "raise_limit", lambda: lower[0])
    try:
        with pytest.raises(ArithmeticError), raised_limit():
            assert limits() == (lower if failing else (before[1], before[1]))
            raise ArithmeticError
        assert limits() == lower
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
