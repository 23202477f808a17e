from __future__ import annotations

import re
from pathlib import Path

import pytest

import supervisor_sio
from supervisor_sio.common import figures, reasons
from supervisor_sio.common.figures import Section
from supervisor_sio.common.reasons import Counted, Reason
from supervisor_sio.common.request import BadRequest

PACKAGE = Path(supervisor_sio.__file__).parent
DOCUMENT = PACKAGE.parent / "docs" / "metrics.md"


def test_the_document_shows_the_table_as_it_is() -> None:
    assert DOCUMENT.read_text().endswith(f"\n\n{reasons.render()}"), (
        "docs/metrics.md is out of date: put what `python -m supervisor_sio.common.reasons` "
        "prints at its end"
    )


def test_each_row_has_a_constant_that_is_used_and_nobody_spells_it() -> None:
    names = vars(reasons).items()
    constants = {text: n for n, text in names if n[0].isupper() and isinstance(text, str)}
    assert len(constants) == len(reasons.TABLE)
    source = {
        path: path.read_text()
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("reasons.py", "figures.py")
    }
    for row in reasons.TABLE.values():
        used = re.compile(rf"\b{constants[row.name]}\b")
        assert any(used.search(text) for text in source.values()), f"nobody counts {row.name}"
        if row.name not in ("idle", "reset", "not-adopted"):  # which are words of other things, too
            for path, text in source.items():
                assert f'"{row.name}"' not in text, f"{path} spells {row.name}"


def test_what_is_counted_for_a_figure_is_reported() -> None:
    added = {row.figure for row in reasons.TABLE.values() if row.figure}
    assert added <= set(figures.reported())
    for figure, total in figures.totals(Section.REFUSED):
        assert reasons.TABLE[total.key].figure == figure.name
        assert reasons.TABLE[total.key].counted is Counted.REFUSED


@pytest.mark.parametrize(
    ("counted", "section"),
    [
        (Counted.NOT_MOVED, Section.NOT_MOVED),
        (Counted.NOT_RECOVERED, Section.NOT_RECOVERED),
    ],
)
def test_what_becomes_of_sessions_is_counted_by_itself(counted: Counted, section: Section) -> None:
    rows = [row for row in reasons.TABLE.values() if row.counted is counted]
    shown = {figure.name: total.key for figure, total in figures.totals(section)}
    assert rows and shown == {row.figure: row.name for row in rows}
    for row in rows:
        assert reasons.by_figure({row.name: 3})[row.figure] == 3
        assert reasons.counted_as(row.name) is counted
        assert f"| `{row.name}` | {counted.value} |" in reasons.render()


def test_what_is_of_clients_and_connections() -> None:
    assert reasons.counted_as(reasons.GARBAGE) is Counted.REFUSED
    assert reasons.counted_as("emit failed") is Counted.REFUSED  # what count_failure() counts


def test_a_new_reason_needs_a_row_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Reason(
        "too loud", "it shouts", Counted.BY_WORKER, "429 Too Many Requests", "protocol_errors", True
    )
    monkeypatch.setitem(reasons.TABLE, row.name, row)
    counted = {reasons.PROTOCOL: 1, reasons.TOO_SLOW: 2, reasons.NO_ANSWER: 4, row.name: 8}
    figures = reasons.by_figure(counted)
    assert {name: n for name, n in figures.items() if not name.startswith("not_")} == {
        "protocol_errors": 9,
        "slow_clients": 2,
        "no_descriptor": 0,
    }
    assert BadRequest(row.name).status == "429 Too Many Requests"
    assert "| `too loud` | protocol errors | 429 | it shouts |" in reasons.render()
