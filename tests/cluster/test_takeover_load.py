"""Deploys under load, as tests/bench/takeover.py has them, for a short time."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from .harness import HERE
from .modes import OWN_MODES

sys.path.insert(0, str(HERE.parent / "bench"))

from takeover import SHORT, report, running  # noqa: E402

pytestmark = [pytest.mark.long, OWN_MODES]


@pytest.mark.parametrize("mode", ["eventlet", "asyncio", "threading"])
def test_nobody_notices_deploys(tmp_path: Path, mode: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with running(tmp_path, SHORT, mode, seed) as run:
        run.deploy()
        verdict = run.judge()
        status = run.cluster.status()
    said = report(verdict, status)
    print(said)
    assert verdict.right, said
    # What a thread emits when its worker has left is lost, and each other worker counts it.
    assert status["relay"]["dropped"] <= verdict.late * (SHORT.workers - 1)
    assert verdict.takeovers >= SHORT.js + SHORT.python
