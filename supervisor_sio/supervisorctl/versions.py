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
        if len(names) == len(status["workers"]):
            yield f"version  all workers run {version}, others {newest}: {reload}"
        else:
            yield (
                f"version  {', '.join(names)} {'runs' if len(names) == 1 else 'run'} {version}, "
                f"others {newest}: {reload} {' '.join(names)}"
            )


#: What may come after the numbers of a version, the oldest first; a release has nothing there.
_STAGES = ("dev", "a", "b", "rc", "", "post")


def _order(version: str) -> tuple[list[int], int, int, str]:
    """The key by which versions are sorted: as 1.0.dev1, 1.0rc1, 1.0, 1.0.post1, 1.0.1."""
    found = re.match(r"([0-9.]*)([a-z]*)([0-9]*)", version)
    assert found is not None
    release, stage, number = found.groups()
    numbers = [int(part) for part in release.split(".") if part]
    return numbers, _STAGES.index(stage if stage in _STAGES else ""), int(number or 0), version
