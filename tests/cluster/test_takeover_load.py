"""Deploys under load, as tests/bench/takeover.py has them, for a short time."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from .harness import HERE, async_mode

sys.path.insert(0, str(HERE.parent / "bench"))

from takeover import SHORT, report, running  # noqa: E402


@pytest.mark.long
def test_nobody_notices_deploys(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with running(tmp_path, SHORT, async_mode(), seed) as run:
        run.deploy()
        verdict = run.judge()
        status = run.cluster.status()
    said = report(verdict, status)
    print(said)
    assert verdict.right, said
    assert status["relay"]["dropped"] == 0
    assert verdict.takeovers >= SHORT.js + SHORT.python
