"""What depends on the Python that runs the tests."""

from __future__ import annotations

import sys

import pytest

#: For tests of asyncio and threading workers.
NEW_PYTHON = pytest.mark.skipif(sys.version_info < (3, 10), reason="these modes need Python 3.10")
