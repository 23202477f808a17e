"""Workers are killed under load, as tests/bench/recovery.py has it, for a short time."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from .harness import HERE, async_mode

sys.path.insert(0, str(HERE.parent / "bench"))

from recovery import RECOVERY, SHARE, kill_and_judge, report  # noqa: E402
from takeover import SHORT, running  # noqa: E402


@pytest.mark.long
@pytest.mark.timeout(300)
def test_nobody_misses_anything(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    plan = replace(SHORT, workers=3)
    with running(tmp_path, plan, async_mode(), seed, RECOVERY) as run:
        verdict = kill_and_judge(run, plan, 20, random.Random(seed))
        said = report(verdict, run.cluster.status())
    print(said)
    assert verdict.right, said
    assert verdict.came_back > 0 and verdict.share >= SHARE
