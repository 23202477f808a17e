from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from supervisor_sio.worker.tracebacks import FEW_TRACEBACKS


@pytest.fixture(autouse=True)
def all_tracebacks() -> Iterator[None]:
    """Where a test has installed a server, or raised errors, the next one sees all that it logs."""
    yield
    logging.getLogger("supervisor_sio.worker").removeFilter(FEW_TRACEBACKS)
    FEW_TRACEBACKS.__init__()  # type: ignore[misc]
