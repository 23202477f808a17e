"""Lines that fit: pure, from cells and text to what a terminal of some width shows whole.

A width of ``None`` is no terminal: nothing is folded or shortened then.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Iterable, Optional, Sequence

#: Stands for what was left out.
MARK = "…"

#: Blanks between two columns; one is enough where there is no room.
_GAP = 2

#: Letters that a long text keeps while others can give way, then a name, then a head.
_LONG_TEXT = 24
_SHORTEST_NAME = 8
_SHORTEST_HEAD = 4


@dataclass(frozen=True)
class Column:
    head: str
    #: Figures stand to the right.
    right: bool = False
    #: Where a cell is shortened when it must be: at its ``end``, or in the ``middle``, for
    #: names that differ at their end. Other cells stay whole as long as possible.
    gives: str = ""


def printable(text: str) -> str:
    """Text of clients, without what a terminal would obey."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def text_width(text: str) -> int:
    """How many columns of a terminal it takes."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shorten(text: str, width: int, middle: bool = False) -> str:
    """At most so wide; what was left out is marked."""
    if text_width(text) <= width:
        return text
    if width <= 0:
        return ""
    tail = _head(text[::-1], (width - 1) // 2)[::-1] if middle else ""
    return _head(text, width - 1 - text_width(tail)) + MARK + tail


def _head(text: str, width: int) -> str:
    taken = 0
    for index, char in enumerate(text):
        taken += _char_width(char)
        if taken > width:
            return text[:index]
    return text


def fold(line: str, width: Optional[int], indent: int) -> list[str]:
    """Fold at commas, or at spaces where there are none; later lines are indented."""
    if width is None or text_width(line) <= width:
        return [line]
    lines = [""]
    for piece in _pieces(line, width - indent):
        if lines[-1].strip() and text_width(f"{lines[-1]}{piece}".rstrip()) > width:
            lines[-1] = lines[-1].rstrip()
            lines.append(" " * indent)
        lines[-1] += piece
    return [shorten(line.rstrip(), width) for line in lines]


def _pieces(line: str, width: int) -> Iterable[str]:
    *phrases, last = line.split(", ")
    for phrase in [f"{phrase}, " for phrase in phrases] + [last]:
        if text_width(phrase.rstrip()) <= width:
            yield phrase
        else:
            yield from (f"{word} " for word in phrase.rstrip(" ").split(" "))


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: Optional[int] = None
) -> list[str]:
    """The lines of a table, its head first.

    Columns that find no room stand in another table below it, behind the first column.
    """
    cells = [[column.head for column in columns], *([printable(c) for c in row] for row in rows)]
    lines: list[str] = []
    for part in _parts(columns, cells, width):
        if lines:
            lines.append("")
        lines += _lines(
            [columns[i] for i in part], [[row[i] for i in part] for row in cells], width
        )
    return lines


def _parts(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], width: Optional[int]
) -> list[list[int]]:
    """The columns of each table, by their numbers."""
    if width is None:
        return [list(range(len(columns)))]
    least = [
        min(text, max(_SHORTEST_NAME, text_width(column.head))) if column.gives else text
        for column, text in zip(columns, _natural(cells))
    ]
    parts = [[0]]
    for i in range(1, len(columns)):
        wanted = sum(least[j] + 1 for j in [*parts[-1], i]) - 1
        if len(parts[-1]) > 1 and wanted > width:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _lines(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], width: Optional[int]
) -> list[str]:
    gaps = _gaps(columns, cells, width)
    widths = _widths(columns, cells, None if width is None else width - sum(gaps))
    lines = []
    for row in cells:
        parts = [_cell(text, wide, column) for text, wide, column in zip(row, widths, columns)]
        line = "".join(part + " " * gap for part, gap in zip(parts, [*gaps, 0])).rstrip()
        lines.append(line if width is None else shorten(line, width))
    return lines


def _gaps(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], width: Optional[int]
) -> list[int]:
    """Behind each column but the last; where there is no room, the last give way first."""
    gaps = [_GAP] * (len(columns) - 1)
    if width is not None:
        excess = sum(_texts(columns, cells)) + sum(gaps) - width
        for i in range(len(gaps) - 1, max(-1, len(gaps) - 1 - excess), -1):
            gaps[i] = 1
    return gaps


def _natural(cells: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column with nothing cut."""
    return [max(map(text_width, column)) for column in zip(*cells)]


def _texts(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    """The same with long texts cut."""
    return [
        min(wide, _LONG_TEXT) if column.gives else wide
        for column, wide in zip(columns, _natural(cells))
    ]


def _cell(text: str, width: int, column: Column) -> str:
    text = shorten(text, width, column.gives == "middle")
    blank = " " * (width - text_width(text))
    return blank + text if column.right else text + blank


def _widths(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], width: Optional[int]
) -> list[int]:
    """Of each column. The widest gives way first: of long texts, names, heads, then of all.

    :param width: of all together.
    """
    widths = _natural(cells)
    if width is None:
        return widths
    excess = sum(widths) - width
    bodies = _natural(cells[1:]) if len(cells) > 1 else [0] * len(columns)
    texts = _texts(columns, cells)
    names = [
        min(text, _SHORTEST_NAME) if column.gives else text for column, text in zip(columns, texts)
    ]
    heads = [
        name if column.gives else min(name, max(body, _SHORTEST_HEAD))
        for column, name, body in zip(columns, names, bodies)
    ]
    for least in texts, names, heads, [1] * len(columns):
        while excess > 0:
            room = [wide if wide > low else 0 for wide, low in zip(widths, least)]
            widest = room.index(max(room))
            if not room[widest]:
                break
            widths[widest] -= 1
            excess -= 1
    return widths
