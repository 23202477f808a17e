from __future__ import annotations

from pathlib import Path

from supervisor_sio.common import limits

DOCUMENT = Path(__file__).parents[3] / "docs" / "limits.md"


def test_the_document_shows_the_table_as_it_is() -> None:
    assert DOCUMENT.read_text().endswith("\n\n" + limits.render()), (
        "docs/limits.md is out of date: put what `python -m supervisor_sio.common.limits` "
        "prints at its end"
    )


def test_each_row_has_the_name_and_the_value_of_a_constant() -> None:
    for row in limits.TABLE:
        assert getattr(limits, row.name) == row.value, row.name
        assert row.unit and row.per and row.reason, row.name
    assert len({row.name for row in limits.TABLE}) == len(limits.TABLE)
