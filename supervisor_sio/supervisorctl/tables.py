"""Fold lines and lay out tables so that they fit a terminal's width. Pure.

With a width of ``None`` (no terminal), nothing is folded or shortened.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Iterable, Optional, Sequence

#: Marks text that was left out.
MARK = "…"

#: Spaces between two columns; reduced to one if there is no room.
_GAP = 2

#: Minimum widths: of a long text while others can be shortened, then of a name, then of a head.
_LONG_TEXT = 24
_SHORTEST_NAME = 8
_SHORTEST_HEAD = 4


@dataclass(frozen=True)
class Column:
    head: str
    #: Whether it is aligned to the right, as figures are.
    right: bool = False
    #: Where a cell is shortened if necessary: at its ``end``, or in the ``middle`` for names that
    #: differ at their end. Cells without it are shortened last.
    gives: str = ""


def printable(text: str) -> str:
    """Escape control characters in text that clients have sent."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def text_width(text: str) -> int:
    """The number of columns that the text takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shorten(text: str, width: int, middle: bool = False) -> str:
    """Shorten the text to a width, and mark where text was left out."""
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
    """Fold a line at commas, or else at spaces, and indent the continuation lines."""
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

    Columns that do not fit follow in another table below it, which repeats the first column.
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
    """The gap after each column but the last; if there is no room, the last gaps shrink first."""
    gaps = [_GAP] * (len(columns) - 1)
    if width is not None:
        excess = sum(_texts(columns, cells)) + sum(gaps) - width
        for i in range(len(gaps) - 1, max(-1, len(gaps) - 1 - excess), -1):
            gaps[i] = 1
    return gaps


def _natural(cells: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column without shortening."""
    return [max(map(text_width, column)) for column in zip(*cells)]


def _texts(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column with long texts shortened."""
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
    """The width of each column. The widest column shrinks first, in four passes: long texts,
    names, heads, then all.

    :param width: the total width.
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
