from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from unit.router.harness import Harness, Scenario


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Scenario], None]]:
    def run(scenario: Scenario) -> None:
        async def main() -> None:
            harness = Harness(tmp_path / "s")
            try:
                await scenario(harness)
            finally:
                harness.close()

        asyncio.run(main())

    yield run
