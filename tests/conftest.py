"""In which mode the workers of the tests run."""

from __future__ import annotations

import os

import pytest

MODES = ("eventlet", "asyncio", "threading")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--async-mode",
        choices=MODES,
        default="eventlet",
        help="how the workers of tests/cluster and tests/ledger run (default: eventlet)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "modes(*modes, reason): runs for these values of --async-mode; modes.py has the reasons",
    )
    os.environ["ASYNC_MODE"] = config.getoption("async_mode")


def pytest_report_header(config: pytest.Config) -> str:
    return f"--async-mode={config.getoption('async_mode')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not about this mode: each test runs at least once in the three runs."""
    mode = config.getoption("async_mode")

    def runs(item: pytest.Item) -> bool:
        marker = item.get_closest_marker("modes")
        return marker is None or mode in marker.args

    left = [item for item in items if not runs(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if runs(item)]
