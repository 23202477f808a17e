"""Rules about the processes of a deployment: how they are started, and how they end."""

from __future__ import annotations

import difflib
import os
import shlex
import signal
import sys
from typing import Any, Iterator

from ..commands import PROGRAM, subcommand_of
from .configuration import Configuration, Finding, Program, Role
from .host import Host, command_fault

_SUBCOMMANDS = ("router", "worker")


def commands(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Can supervisord start them?"""
    for program in conf.programs:
        for process in program.processes[:1]:
            yield from _startable(conf, host, program, process)


def _startable(
    conf: Configuration, host: Host, program: Program, process: Any
) -> Iterator[Finding]:
    # What the programs beside the cluster do is not what was asked.
    report = conf.warning if program.role is Role.OTHER else conf.error
    try:
        words = shlex.split(process.command)
    except ValueError as error:
        yield report(
            program.section, "command", f"{str(error).lower()} in {process.command}; correct it"
        )
        return
    own_path = process.environment.get("PATH")
    path = own_path.split(os.pathsep) if own_path is not None else list(host.path)
    start = getattr(conf.supervisord, "directory", None) or os.getcwd()
    if words[0] == PROGRAM and own_path is None:
        path.append(os.path.dirname(sys.executable))  # the plugin looks there, too
    fault = command_fault(words[0], path, start)
    if fault:
        yield report(program.section, "command", f"{fault}; install it, or write its full path")
    elif f"/{PROGRAM}" not in program.command and words[0] != PROGRAM:
        # Behind a shell or env, it is found on the PATH alone.
        hidden = subcommand_of(program.command) is not None and command_fault(PROGRAM, path, start)
        if hidden:
            yield report(program.section, "command", f"{hidden}; write its full path")
    if process.directory and not os.path.isdir(os.path.join(start, process.directory)):
        yield report(
            program.section, "directory", f"{process.directory} is no directory; create it"
        )


def arguments(conf: Configuration, host: Host) -> Iterator[Finding]:
    for program in conf.programs:
        subcommand = subcommand_of(program.command)
        try:
            words = shlex.split(program.command)
        except ValueError:
            continue
        if subcommand is None or os.path.basename(words[0]) != "supervisor-sio":
            continue  # behind a shell or a wrapper, words can be anything
        if subcommand not in _SUBCOMMANDS:
            close = difflib.get_close_matches(subcommand, _SUBCOMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "write router, or worker module:app"
            yield conf.error(program.section, "command", f"supervisor-sio {subcommand}: {hint}")
        elif subcommand == "worker":
            module, _, name = (words[2] if len(words) > 2 else "").partition(":")
            if not module or not name:
                yield conf.error(
                    program.section,
                    "command",
                    "the application is missing; write supervisor-sio worker module:app",
                )


def stopping(conf: Configuration, host: Host) -> Iterator[Finding]:
    """What cuts requests off that a worker is about to finish."""
    for program in conf.workers:
        for process in program.processes[:1]:
            drain = conf.settings.drain_timeout if conf.settings else 0
            if process.stopwaitsecs <= drain:
                yield conf.warning(
                    program.section,
                    "stopwaitsecs",
                    f"{process.stopwaitsecs} is not longer than drain_timeout ({drain:g}): "
                    "supervisord kills a worker that is still finishing its requests; write "
                    f"stopwaitsecs = {int(drain) + 5}",
                )
    for program in conf.of_role(Role.ROUTER) + conf.workers:
        for process in program.processes[:1]:
            if process.stopsignal not in (signal.SIGTERM, signal.SIGINT):
                name = signal.Signals(process.stopsignal).name[len("SIG") :]
                yield conf.warning(
                    program.section,
                    "stopsignal",
                    f"{name} ends it at once, with all that is under way; write TERM",
                )


def starting(conf: Configuration, host: Host) -> Iterator[Finding]:
    for program in conf.of_role(Role.ROUTER) + conf.workers:
        for process in program.processes[:1]:
            if process.startsecs <= 0:
                yield conf.warning(
                    program.section,
                    "startsecs",
                    "with 0 supervisord starts a process that fails at once again and again, "
                    "without a pause; write 1 or more",
                )
            if process.autorestart is False:
                yield conf.warning(
                    program.section,
                    "autorestart",
                    "once it has crashed it stays away; take this out",
                )
            if not process.autostart:
                yield conf.warning(
                    program.section,
                    "autostart",
                    "it does not start with supervisord; take this out, or start it each time",
                )
