"""In which mode the workers of the tests run, and tests of times, which are tried again."""

from __future__ import annotations

import argparse
import gc
import inspect
import os
import signal
import sys
import time
from collections.abc import Generator
from typing import Any

import pytest

# What is started in the background (``pytest &``, ``nohup``) ignores Ctrl-C, and so would the
# processes that are started here, some of which are sent it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MODES = ("eventlet", "asyncio", "threading")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.hasplugin("xdist"):  # ``-p no:xdist``: setup.cfg has options of it
        for option in ("--numprocesses", "--dist"):
            parser.addoption(option, help=argparse.SUPPRESS)
        parser.addoption("--no-loadscope-reorder", action="store_true", help=argparse.SUPPRESS)
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
    config.addinivalue_line(
        "markers",
        "tries(most): measures what a busy machine may spoil; a fault fails each try",
    )
    os.environ["ASYNC_MODE"] = config.getoption("async_mode")
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        config.pluginmanager.register(_Shared(int(worker["workerid"][2:]), worker["workercount"]))


def pytest_report_header(config: pytest.Config) -> str:
    return f"--async-mode={config.getoption('async_mode')}"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are not garbage: the collector does not look for any among them, neither
    while they become more, nor each time that a test has it look."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


class _Shared:
    """Of the processes of pytest-xdist each begins with other files. What one has compiled the
    others read, and with its asserts rewritten a file takes three times as long as to read it.
    """

    def __init__(self, number: int, count: int) -> None:
        self._part = number / count
        sys.dont_write_bytecode = False

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        if isinstance(collector, pytest.Directory):
            turn = int(len(report.result) * self._part)
            report.result = report.result[turn:] + report.result[:turn]
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """All have them in the same order, which is that of the directories."""
        items.sort(key=lambda item: item.path.parts)


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


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Call a test that has the marker ``tries`` until it passes once.

    Its fixtures are those of the first try: it leaves them as it finds them.
    """
    marker = pyfuncitem.get_closest_marker("tries")
    try:
        return (yield)
    except Exception as error:
        if marker is None:
            raise
        print(f"try 1: {error!r}")
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    for number in range(2, marker.args[0]):
        time.sleep(number)  # what keeps the machine busy may be over then
        try:
            pyfuncitem.obj(**arguments)
            return True
        except Exception as error:
            print(f"try {number}: {error!r}")
    pyfuncitem.obj(**arguments)
    return True
