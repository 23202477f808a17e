from __future__ import annotations

from pathlib import Path

import pytest

from supervisor_sio.check import packages
from unit.check.deployment import Deployment, free_ports

__all__ = ["free_ports"]


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    tmp_path.chmod(0o755)
    return Deployment(tmp_path)


@pytest.fixture(autouse=True)
def open_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of these tests may be in a home that is closed to users whom they name."""
    monkeypatch.setattr(packages, "obstacle", lambda *_: None)
