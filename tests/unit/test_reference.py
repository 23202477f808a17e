"""docs/reference.md lists the methods of both managers, with the parameters that they have."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import supervisor_sio
from supervisor_sio import AsyncZmqManager, ZmqManager

DOCUMENT = Path(supervisor_sio.__file__).parents[1] / "docs" / "reference.md"


def _rows() -> dict[str, list[str]]:
    """The parameters of each method."""
    found = re.findall(r"^\| `(\w+)\((.*?)\)` \|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: [word for word in parameters.split(", ") if word] for name, parameters in found}


def test_each_method_is_there_with_its_parameters() -> None:
    rows = _rows()
    assert len(rows) > 10
    for name, parameters in rows.items():
        for manager in (ZmqManager, AsyncZmqManager):
            signature = inspect.signature(getattr(manager, name))
            words = [str(one).partition(":")[0] for one in signature.parameters.values()]
            assert words[1:] == parameters, name


def test_coroutines_are_told_from_plain_methods() -> None:
    plain = re.search(r"Plain methods of both:\n\n((?:\|.*\n)+)", DOCUMENT.read_text())
    assert plain is not None
    for name in _rows():
        is_plain = f"| `{name}(" in plain[1]
        assert inspect.iscoroutinefunction(getattr(AsyncZmqManager, name)) is not is_plain, name
        assert not inspect.iscoroutinefunction(getattr(ZmqManager, name)), name


def test_all_that_is_exported_is_described() -> None:
    table = re.search(r"^\| name \| what it is \|\n\|.*\n((?:\|.*\n)+)", DOCUMENT.read_text(), re.M)
    assert table is not None
    names = [
        name
        for row in table[1].splitlines()
        for name in re.findall(r"`(\w+)`", row[: row.index("|", 1)])
    ]
    assert sorted(names) == sorted(supervisor_sio.__all__)


def test_the_docstrings_of_each_method_are_shown() -> None:
    pages = (DOCUMENT.parent / "api.rst").read_text()
    for manager in (ZmqManager, AsyncZmqManager):
        section = pages.partition(f"autoclass:: {manager.__name__}\n   :members: ")[2]
        assert set(re.split(r",\s+", section.partition("\n\n")[0])) == _rows().keys()
