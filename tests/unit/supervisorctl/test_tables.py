from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.supervisorctl.tables import Column, fold, printable, shorten, table, text_width

COLUMNS = (
    Column("worker", gives="middle"),
    Column("sessions", right=True),
    Column("room", gives="end"),
)
ROWS = [["workers:workers_00", "7", "a long name of a room"], ["workers:workers_01", "1200", "x"]]


def test_a_pipe_gets_everything() -> None:
    assert table(COLUMNS, ROWS) == [
        "worker              sessions  room",
        "workers:workers_00         7  a long name of a room",
        "workers:workers_01      1200  x",
    ]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            48,  # the gaps first, from the right, then the widest column of those that may
            [
                "worker             sessions room",
                "workers:workers_00        7 a long name of a ro…",
                "workers:workers_01     1200 x",
            ],
        ),
        (
            30,  # workers are still told from each other, heads stay whole
            [
                "worker     sessions room",
                "worke…s_00        7 a long na…",
                "worke…s_01     1200 x",
            ],
        ),
        (
            20,  # what finds no room stands in another table
            [
                "worker      sessions",
                "worke…rs_00        7",
                "worke…rs_01     1200",
                "",
                "worker    room",
                "work…s_00 a long na…",
                "work…s_01 x",
            ],
        ),
        (
            14,
            [
                "worker   sess…",
                "work…_00     7",
                "work…_01  1200",
                "",
                "worker room",
                "wor…00 a long…",
                "wor…01 x",
            ],
        ),
    ],
)
def test_the_longest_gives_way(width: int, lines: list[str]) -> None:
    assert table(COLUMNS, ROWS, width) == lines


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(names, names, names), max_size=4), st.integers(1, 120))
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, str, str]], width: int) -> None:
    assert all(text_width(line) <= width for line in table(COLUMNS, rows, width))


@given(names, st.integers(0, 40), st.booleans())
def test_what_is_cut_is_marked(text: str, width: int, middle: bool) -> None:
    short = shorten(text, width, middle)
    assert text_width(short) <= width
    assert short == text or "…" in short or width == 0


@pytest.mark.parametrize(
    ("text", "width", "middle", "short"),
    [
        ("workers", 7, False, "workers"),
        ("workers", 6, False, "worke…"),
        ("workers:workers_00", 9, True, "work…s_00"),
        ("部屋部屋", 8, False, "部屋部屋"),
        ("部屋部屋", 6, False, "部屋…"),
        ("e\u0301e\u0301e\u0301", 3, False, "e\u0301e\u0301e\u0301"),
        ("abc", 1, True, "…"),
        ("abc", 0, False, ""),
    ],
)
def test_shorten(text: str, width: int, middle: bool, short: str) -> None:
    assert shorten(text, width, middle) == short


def test_fold_at_commas_with_indentation() -> None:
    line = "router   pid 10, uptime 1:01:01, waiting 5, refused 3 (garbage 1, reset 2)"
    assert fold(line, None, 9) == fold(line, 80, 9) == [line]
    assert fold(line, 45, 9) == [
        "router   pid 10, uptime 1:01:01, waiting 5,",
        "         refused 3 (garbage 1, reset 2)",
    ]


def test_fold_at_spaces_where_there_are_no_commas() -> None:
    assert fold("add a [program:x] with command = y", 20, 0) == [
        "add a [program:x]",
        "with command = y",
    ]
    assert fold("listen   unix:/a/very/long/path/of/a/socket", 20, 9) == [
        "listen",
        "         unix:/a/ve…",
    ]


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert printable("a\x1b[31m\n\x9b\u202e部屋 é") == "a\\x1b[31m\\n\\x9b\\u202e部屋 é"
    assert "\x1b" not in "".join(table((Column("room"),), [["\x1b]0;x\x07"]]))
