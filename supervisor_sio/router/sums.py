"""Rows and sums of the workers' figures, for supervisord. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterable, Mapping

from ..common import figures
from ..common.figures import Section
from .pool import Member


def rows(members: Iterable[Member]) -> list[dict[str, Any]]:
    """A row for each worker, with the figures that a status shows."""
    shown = [figure for figure in figures.WORKER if figure.key]
    return [
        {
            "tag": member.tag,
            "name": member.name,
            "pid": member.pid,
            "state": member.state,
            "version": member.release,
            "takes": member.takes,
            "recovers": member.recovers,
            **{figure.name: member.count(figure) for figure in shown if figure.counted},
        }
        for member in members
    ]


def totals(section: Section, members: Iterable[Member], gone: Mapping[str, int]) -> dict[str, int]:
    """The sums of a section, by their keys.

    :param gone: sums over workers that have left, by the names of the figures.
    """
    members = list(members)
    return {
        total.key: gone.get(figure.name, 0) + sum(member.count(figure) for member in members)
        for figure, total in figures.totals(section)
    }


def add_gone(gone: Counter[str], member: Member) -> None:
    """Add the figures of a worker that has left."""
    for figure in figures.WORKER:
        if figure.lasts:
            gone[figure.name] += member.count(figure)
