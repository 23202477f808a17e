"""Rules about ``takeover``: the times that a worker has to pass its sessions on."""

from __future__ import annotations

from typing import Iterator

from .configuration import Configuration, Finding, Program
from .host import Host
from .modes import application_of, options_of
from .roles import Role

#: Seconds of ``drain_timeout`` that are for sessions which cannot be passed on, at most a half.
_KEPT = 1

#: Seconds of it that are enough for those which can: handlers have to end first.
_LEAST_DRAIN = 3

#: Seconds that a worker may take to end when ``drain_timeout`` is over: its application shuts
#: down, the others fetch what it has sent, and the router lets it go.
_END = 5

#: Seconds that the sessions of a worker wait for its successor: the one has to end, the other to
#: import its application.
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
            f"{drain:g}: the workers of {names} have takeover=True, and "
            f"{usable:g} s for their handlers to end and their sessions to be "
            "passed on; those that are late are closed; write 10",
        )
    if hold < _LEAST_HOLD:
        yield conf.warning(
            conf.plugin,
            "hold_timeout",
            f"{hold:g}: so long the sessions of a worker of {names} wait for its successor; it "
            "has to import its application meanwhile; write 30",
        )
    for program in moving:
        for process in program.processes[:1]:
            if drain < process.stopwaitsecs < drain + _END:
                yield conf.warning(
                    program.section,
                    "stopwaitsecs",
                    f"{process.stopwaitsecs} leaves a worker with takeover=True less than "
                    f"{_END} s behind drain_timeout ({drain:g}): supervisord kills it before the "
                    f"others have what it sent last; write stopwaitsecs = {int(drain) + _END}",
                )


def _takes_over(conf: Configuration, program: Program) -> bool:
    told = options_of(program)
    for process in program.processes[:1] if told else []:
        assert told is not None
        found = application_of(conf, process, told)
        if found is not None and found.takeover:
            return True
    return False
