"""What docs/design.md says is so: files, tests, and the differences from python-engineio."""

from __future__ import annotations

import re
from pathlib import Path

import supervisor_sio
from unit.engine.test_conformance import DIFFERENCES

PACKAGE = Path(supervisor_sio.__file__).parent
TESTS = Path(__file__).parents[1]
DOCUMENT = PACKAGE.parent / "docs" / "design.md"


def rows_behind(text: str) -> list[list[str]]:
    """The cells of the first table behind a text, without its head."""
    table = re.search(r"\n\n((?:\|.*\n)+)", DOCUMENT.read_text().partition(text)[2])
    assert table is not None
    lines = table[1].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_differences_are_those_that_the_conformance_test_allows() -> None:
    rows = rows_behind("## Differences from python-engineio")
    assert [(row[0], row[-1]) for row in rows] == [(one.what, one.why) for one in DIFFERENCES]


def test_each_promise_has_its_modules_and_its_tests() -> None:
    rows = rows_behind("## Promises")
    assert [row[0].partition(".")[0] for row in rows] == [str(n) for n in range(1, 17)]
    for _, _, modules, tests in rows:
        for module in re.findall("`(.*?)`", modules):
            assert (PACKAGE / module).exists(), module
        for test in re.findall("`(.*?)`", tests):
            path, _, name = test.partition("::")
            source = (TESTS / path).read_text()
            assert not name or re.search(rf"^(?:async )?def {name}\(", source, re.MULTILINE), test


def test_formats_have_the_versions_that_the_code_has() -> None:
    rows = rows_behind("## Wire formats, and their versions")
    assert len(rows) >= 8
    for _, _, version, module, _ in rows:
        source = (PACKAGE / module.strip("`")).read_text()
        found = re.search(r"^_?(?:VERSION|FORMAT) = (\d+)$", source, re.MULTILINE)
        assert version == (found[1] if found else "none"), module


def test_states_are_those_of_the_code() -> None:
    for _, names, modules in rows_behind("## States"):
        source = "".join((PACKAGE / module).read_text() for module in code(modules))
        if "`" not in names:  # strings of supervisord's are in backquotes, members of enums are not
            members = re.findall(r"^    ([A-Z]+) = (?:auto|\")", source, re.MULTILINE)
            assert set(names.split(", ")) <= {member.lower() for member in members}, names


def test_each_change_has_its_file() -> None:
    files = [name for _, cell in rows_behind("## Where to change what") for name in code(cell)]
    assert len(files) >= 10
    for name in files:
        assert (PACKAGE / name).exists(), name


def test_each_module_of_the_engine_is_described() -> None:
    described = {name for row in rows_behind("## The engine") for name in code(row[0])}
    modules = {path.name for path in (PACKAGE / "engine").glob("*.py")}
    assert described == modules - {"__init__.py"}


def code(cell: str) -> list[str]:
    """Paths in it."""
    return re.findall(r"`([a-z_/]+(?:\.py|/))`", cell)
