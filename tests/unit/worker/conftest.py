from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from supervisor_sio.worker.tracebacks import FEW_TRACEBACKS


@pytest.fixture(autouse=True)
def all_tracebacks() -> Iterator[None]:
    """Reset the traceback limits after a test that has installed a server or raised errors."""
    yield
    logging.getLogger("supervisor_sio.worker").removeFilter(FEW_TRACEBACKS)
    FEW_TRACEBACKS.__init__()  # type: ignore[misc]
