"""Which processes run another version of supervisor-sio, and what to restart: pure, from the
answer of ``sio.getStatus``."""

from __future__ import annotations

import re
from typing import Any, Iterable

from ..common.clusters import USUAL, ctl_command


def format_versions(status: dict[str, Any]) -> Iterable[str]:
    """A line for each kind of process that is older than another one; none while all are equal.

    A process that has yet to connect, or of before there was this, says no version.
    """
    of_supervisord = status["supervisord"].get("version", "")
    of_router = status["router"].get("version", "")
    of_workers: dict[str, list[str]] = {}
    for worker in status["workers"]:
        if worker.get("version"):
            of_workers.setdefault(worker["version"], []).append(worker["name"])
    known = {of_supervisord, of_router, *of_workers} - {""}
    if len(known) < 2:
        return
    newest = max(known, key=_order)
    if of_supervisord not in ("", newest):
        yield (
            f"version  supervisord runs {of_supervisord}, others {newest}: restart supervisord if "
            "the changelog says so"
        )
    if of_router not in ("", newest):
        restart = f"supervisorctl restart {status['router']['process']}"
        yield f"version  the router runs {of_router}, others {newest}: {restart}"
    reload = f"{ctl_command(status.get('cluster', USUAL))} reload"
    for version, names in sorted(of_workers.items()):
        if version == newest:
            continue
        if len(of_workers) == 1:
            yield f"version  all workers run {version}, others {newest}: {reload}"
        else:
            yield (
                f"version  {', '.join(names)} {'runs' if len(names) == 1 else 'run'} {version}, "
                f"others {newest}: {reload} {' '.join(names)}"
            )


def _order(version: str) -> tuple[list[int], bool, str]:
    """A release is newer than what comes before it, as 1.0rc1 does before 1.0."""
    release = re.match(r"[0-9.]*", version)
    assert release is not None
    numbers = [int(number) for number in release[0].split(".") if number]
    return numbers, release[0] == version, version
