"""Rules about the limits above which workers are recycled."""

from __future__ import annotations

from typing import Iterator

from ..common.limits import DRAIN_TIME, RECYCLE_JITTER, RECYCLE_NOTICE, RECYCLE_QUIET
from .configuration import Configuration, Finding
from .host import Host

#: What a worker has when it is ready, in any mode, besides its application.
_WORKER_MEMORY = 50 * 2**20


def limits(conf: Configuration, host: Host) -> Iterator[Finding]:
    workers = sum(len(program.processes) for program in conf.workers)
    if conf.settings is None or not workers:
        return
    lifetime, memory = conf.settings.max_lifetime, conf.settings.max_memory
    # Seconds to recycle a worker that takes all of its drain_timeout.
    each = RECYCLE_QUIET + RECYCLE_NOTICE + DRAIN_TIME + conf.settings.drain_timeout
    if lifetime and workers * each > lifetime * (1 - RECYCLE_JITTER):
        yield conf.warning(
            conf.plugin,
            "max_lifetime",
            f"{lifetime:g}: recycling {workers} workers one after the other may take "
            f"{workers * each:g} s, so one of them always restarts; write 86400",
        )
    if memory and memory < _WORKER_MEMORY:
        yield conf.warning(
            conf.plugin,
            "max_memory",
            f"{memory // 2**20} MB: a worker has about {_WORKER_MEMORY // 2**20} MB when it is "
            "ready, and more with its application; it is not recycled for its memory if it begins "
            "above the limit; write 500MB",
        )
    if memory and workers * memory > host.memory:
        yield conf.warning(
            conf.plugin,
            "max_memory",
            f"{workers} workers with {memory // 2**20} MB each are more than the "
            f"{host.memory // 2**20} MB of this host: they may use all of it before one is "
            "recycled",
        )
