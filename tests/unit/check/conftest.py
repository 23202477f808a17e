from __future__ import annotations

from pathlib import Path

import pytest

from unit.check.deployment import Deployment


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    tmp_path.chmod(0o755)
    return Deployment(tmp_path)
