"""Both loops; with a Python that is too old for this mode these tests do not run."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import pytest

if sys.version_info < (3, 10):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    made: asyncio.AbstractEventLoop
    if request.param == "asyncio":
        made = asyncio.new_event_loop()
    else:
        if importlib.util.find_spec("uvloop") is None:
            pytest.skip("no uvloop")
        import uvloop

        made = uvloop.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def rig(loop: asyncio.AbstractEventLoop) -> Any:
    from .rig import Rig

    return Rig(loop)
