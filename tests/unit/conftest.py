from __future__ import annotations

import gc
import logging
import os
import random
import resource
import time
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Callable, Iterator

import pytest
from hypothesis import settings

from supervisor_sio.relay.journal import Journal

from .examples import examples

# Machines of all speeds run these; what hangs is stopped by pytest-timeout.
settings.register_profile("unit", deadline=None, max_examples=examples(100))
settings.load_profile("unit")

# Some make hundreds of connections; the soft limit of a login is 1,024 open files.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(_soft, min(_hard, 4096)), _hard))

#: Of test_fuzz.py; the processes of pytest-xdist inherit it.
os.environ.setdefault("FUZZ_SEED", str(random.randrange(2**32)))


# What asyncio says when it collects what an earlier test has left: in the middle of any other.
logging.getLogger("asyncio").addFilter(
    lambda record: not record.getMessage().startswith("Task was destroyed but it is pending")
)


def pytest_report_header() -> str:
    return f"FUZZ_SEED={os.environ['FUZZ_SEED']}"


@contextmanager
def _no_leak() -> Iterator[None]:
    gc.collect()  # what an earlier test has left must not close in between
    before = _open_files()
    yield
    # Those of earlier tests may be collected meanwhile, and threads of libzmq close theirs later.
    deadline = time.monotonic() + 20
    while left := _open_files().keys() - before.keys():
        if time.monotonic() > deadline:
            now = _open_files()
            raise AssertionError(f"open: {[now.get(descriptor) for descriptor in left]}")
        time.sleep(0.01)


def _open_files() -> dict[str, str]:
    """What each descriptor is open for; not the one by which they are listed."""
    found = {}
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found[descriptor] = os.readlink(f"/proc/self/fd/{descriptor}")
    return found


@pytest.fixture(autouse=True)
def _close_journals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process has one journal, as long as it lives; tests make thousands in one process."""
    made: list[Journal] = []
    make = Journal.__init__

    def note(self: Journal, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(Journal, "__init__", note)
    yield
    for journal in made:
        journal.close()


@pytest.fixture
def no_leak() -> Callable[[], AbstractContextManager[None]]:
    """``with no_leak():`` fails when the block leaves a descriptor open."""
    return _no_leak
