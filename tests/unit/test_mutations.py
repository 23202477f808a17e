"""The list of mutations fits the code: what it changes is there, and so are the tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from mutations import MUTATIONS, ROOT, Mutation, mutate


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_it_can_be_made(mutation: Mutation) -> None:
    changed = mutate(mutation, ROOT)
    assert changed != (ROOT / "supervisor_sio" / mutation.file).read_text()
    ast.parse(changed)
    for test in mutation.tests:
        name, _, function = test.partition("::")
        path = Path(ROOT, "tests", name)
        assert path.exists()
        assert not function or re.search(rf"^def {function}\(", path.read_text(), re.MULTILINE)


def test_each_is_another() -> None:
    assert len({(one.file, one.old, one.new) for one in MUTATIONS}) == len(MUTATIONS)
