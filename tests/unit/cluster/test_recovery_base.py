from __future__ import annotations

from threading import RLock
from typing import Any

import pytest

from supervisor_sio.cluster.recovery_base import RecoveryBase
from supervisor_sio.common.blocking import run_blocking


class Looking(RecoveryBase):
    """Of whom another thread waits for something as soon as there is nothing to look for.

    :param flag: says whether somebody looks.
    """

    _outlet = None

    def __init__(self, flag: str) -> None:
        super().__init__()
        self._tables = Tables(self)
        self.flag = flag
        self.looks = self.others = 0
        setattr(self, flag, True)

    async def _sleep(self, seconds: float) -> None:
        self.looks += 1

    def released(self) -> None:
        if not getattr(self, self.flag) and not self.others:
            self.others += 1
            setattr(self, self.flag, True)  # and it has another one look


class Tables:
    def __init__(self, of: Looking) -> None:
        self._of = of
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: Any) -> None:
        self._lock.release()
        self._of.released()


@pytest.mark.parametrize(
    "look, flag", [("_look_for_all", "_looks"), ("_look_at_output", "_looks_at_output")]
)
def test_one_looks_at_a_time(look: str, flag: str) -> None:
    looking = Looking(flag)
    run_blocking(getattr(looking, look)())
    assert (looking.looks, looking.others) == (1, 1)
    assert getattr(looking, flag)
