"""Rules about ``takeover``: the time that a worker has to pass its sessions on."""

from __future__ import annotations

from typing import Iterator

from .configuration import Configuration, Finding, Program
from .host import Host
from .modes import application_of, options_of
from .roles import Role

#: Seconds of ``drain_timeout`` reserved to close sessions that cannot be moved, at most half.
_KEPT = 1

#: Least ``drain_timeout`` in seconds: handlers have to end before sessions can be passed on.
_LEAST_DRAIN = 3

#: Seconds for a worker to end after ``drain_timeout``: its application shuts down, the other
#: processes fetch its last messages, and the router releases it.
_END = 5

#: Least ``hold_timeout`` in seconds: while the sessions wait, the worker has to end, and its
#: successor to import the application.
_LEAST_HOLD = 10


def times(conf: Configuration, host: Host) -> Iterator[Finding]:
    moving = [program for program in conf.of_role(Role.WORKER) if _takes_over(conf, program)]
    if not moving or conf.settings is None:
        return
    drain, hold = conf.settings.drain_timeout, conf.settings.hold_timeout
    usable = drain - min(_KEPT, drain / 2)
    names = ", ".join(f"[{program.section}]" for program in moving)
    if drain < _LEAST_DRAIN:
        yield conf.warning(
            conf.plugin,
            "drain_timeout",
            f"{drain:g}: the workers of {names} have takeover=True, and {usable:g} s to end their "
            "handlers and pass their sessions on; later sessions are closed; write 10",
        )
    if hold < _LEAST_HOLD:
        yield conf.warning(
            conf.plugin,
            "hold_timeout",
            f"{hold:g}: the sessions of a worker of {names} wait so long for its successor, which "
            "has to import its application meanwhile; write 30",
        )
    for program in moving:
        for process in program.processes[:1]:
            if drain < process.stopwaitsecs < drain + _END:
                yield conf.warning(
                    program.section,
                    "stopwaitsecs",
                    f"{process.stopwaitsecs} leaves a worker with takeover=True less than "
                    f"{_END} s after drain_timeout ({drain:g}): supervisord kills it before the "
                    f"others have its last messages; write stopwaitsecs = {int(drain) + _END}",
                )


def _takes_over(conf: Configuration, program: Program) -> bool:
    told = options_of(program)
    for process in program.processes[:1] if told else []:
        assert told is not None
        found = application_of(conf, process, told)
        if found is not None and found.takeover:
            return True
    return False
