"""Rules about the processes of a deployment: how they start and stop."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import signal
from typing import Any, Iterator, Optional

from ..common.clusters import NoCluster, choose
from ..common.commands import PROGRAM, lacks_exec, subcommand_of
from ..common.modes import AsyncMode
from .configuration import Configuration, Finding, Program
from .daemon import daemon_of
from .host import Host, command_fault, terminal_owner, user
from .modes import options_of
from .roles import Role, head_of, split_command

_SUBCOMMANDS = ("router", "worker")

#: Paths of the streams that supervisord itself has open.
_STREAM = re.compile(r"/dev/(fd/\d+|stdout|stderr|tty)|/proc/self/fd/\d+")


def commands(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Can supervisord start them?"""
    for program in conf.programs:
        for process in program.processes[:1]:
            yield from _startable(conf, host, program, process)


def _startable(
    conf: Configuration, host: Host, program: Program, process: Any
) -> Iterator[Finding]:
    # Mistakes of programs outside the cluster are only warnings.
    report = conf.warning if program.role is Role.OTHER else conf.error
    try:
        words = shlex.split(process.command)
    except ValueError as error:
        yield report(
            program.section, "command", f"{str(error).lower()} in {process.command}; correct it"
        )
        return
    own_path = process.environment.get("PATH")
    path = daemon_of(conf, host).searches(words[0] == PROGRAM)
    if own_path is not None:
        path = own_path.split(os.pathsep)
    start = getattr(conf.supervisord, "directory", None) or os.getcwd()
    fault = command_fault(words[0], path, start)
    if fault:
        yield report(program.section, "command", f"{fault}; install it, or write its full path")
    elif f"/{PROGRAM}" not in program.command and words[0] != PROGRAM:
        # A shell or env looks it up on the PATH only.
        hidden = subcommand_of(program.command) is not None and command_fault(PROGRAM, path, start)
        if hidden:
            yield report(program.section, "command", f"{hidden}; write its full path")
    if process.directory and not os.path.isdir(os.path.join(start, process.directory)):
        yield report(
            program.section, "directory", f"{process.directory} is not a directory; create it"
        )


def clusters(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Do routers and workers belong to a cluster? Other programs need not."""
    for program in conf.programs:
        wants = program.cluster or program.role in (Role.ROUTER, Role.WORKER)
        if program.processes and wants and conf.clusters:
            try:
                choose(program.cluster, [*conf.clusters])
            except NoCluster as reason:
                yield conf.error(program.section, "environment", str(reason))


def arguments(conf: Configuration, host: Host) -> Iterator[Finding]:
    for program in conf.programs:
        subcommand = subcommand_of(program.command)
        try:
            words = shlex.split(program.command)
        except ValueError:
            continue
        if subcommand is None or os.path.basename(words[0]) != "supervisor-sio":
            continue  # the words after a shell or a wrapper can be anything
        if subcommand not in _SUBCOMMANDS:
            close = difflib.get_close_matches(subcommand, _SUBCOMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "write router, or worker module:app"
            yield conf.error(program.section, "command", f"supervisor-sio {subcommand}: {hint}")


def wrappers(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Does a shell stand between supervisord and the process that it stops?"""
    for program in conf.of_role(Role.ROUTER, Role.WORKER):
        words = split_command(program.command)
        shell = next((word for word in words if " " in word and subcommand_of(word)), "")
        text = head_of(program.script) if program.script else shell
        if program.script and program.role is Role.ROUTER:
            yield conf.error(
                program.section,
                "command",
                f"{program.script} starts the router, but supervisord passes the listening sockets "
                "only to a command that names it; write command = supervisor-sio router, with its "
                "full path if necessary",
            )
        elif lacks_exec(text):
            where = program.script or "the shell"
            yield conf.warning(
                program.section,
                "command",
                f"{where} starts supervisor-sio without exec and stays its parent: supervisord "
                f"stops only the shell, and the old {program.role.value} keeps running; write exec "
                "before the command",
            )


def applications(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Do all workers of a cluster run the same application? A client may get any of them.

    Programs of different modes are not compared: a move from one mode to another needs both.
    """
    first: Optional[tuple[Program, Any, AsyncMode]] = None
    for program in conf.of_role(Role.WORKER):
        told = options_of(program)
        for process in program.processes[:1] if told else []:
            assert told is not None
            application = told.application, process.directory
            if first is None:
                first = program, application, told.mode
            elif application != first[1] and told.mode is first[2]:
                yield conf.warning(
                    program.section,
                    "command",
                    f"{_named(application)} is another application than {_named(first[1])} of "
                    f"[{first[0].section}], and both serve the same port: a client may get either; "
                    "give each application its own cluster",
                )


def _named(application: Any) -> str:
    name, directory = application
    return f"{name} in {directory}" if directory else str(name)


def root(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Do router or workers run as root without an explicit ``user = root``?"""
    supervisord = host.uid if conf.uid is None else conf.uid
    for program in conf.of_role(Role.ROUTER, Role.WORKER):
        for process in program.processes[:1]:
            uid = supervisord if process.uid is None else process.uid
            if uid == 0 and "user" not in conf.sections[program.section]:
                yield conf.warning(
                    program.section,
                    "user",
                    f"the {program.role.value} runs as root and reads input from the internet; "
                    "write user = www-data, or another user, here, and chown = root:GROUP with a "
                    f"group of that user, chmod = 0710 in [{conf.plugin}]; or user = root if it "
                    "must",
                )


def logs(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Can supervisord reopen ``/dev/fd/1`` and its like, as the user that it switches to?"""
    who = user(host.uid if conf.uid is None else conf.uid)
    for program in conf.programs:
        for process in program.processes[:1]:
            for option in ("stdout_logfile", "stderr_logfile"):
                path = str(getattr(process, option) or "")
                if not _STREAM.fullmatch(path):
                    continue
                if who.uid not in (0, host.uid):
                    owner: Optional[str] = user(host.uid).name
                else:
                    owner = terminal_owner(path, who)
                if owner is not None:
                    yield conf.warning(
                        program.section,
                        option,
                        f"supervisord reopens {path} as user {who.name}, which fails if that is a "
                        f"terminal or pipe of {owner}: the program does not start; write a file",
                    )


def stopping(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Does a stopped worker have the time to finish its requests?"""
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
                yield conf.warning(
                    program.section, "stopsignal", f"{_effect(process.stopsignal)}; write TERM"
                )


def _effect(stopsignal: int) -> str:
    """The effect of a signal that neither the router nor a worker handles."""
    try:
        name = signal.Signals(stopsignal).name[len("SIG") :]
    except ValueError:  # supervisord takes any number
        return f"{stopsignal} is not a signal that stops it gracefully"
    return f"{name} ends it at once, without finishing its requests"


def starting(conf: Configuration, host: Host) -> Iterator[Finding]:
    for program in conf.of_role(Role.ROUTER) + conf.workers:
        for process in program.processes[:1]:
            if process.startsecs <= 0:
                yield conf.warning(
                    program.section,
                    "startsecs",
                    "with 0, supervisord restarts a process that fails at once in a loop without "
                    "pauses; write 1 or more",
                )
            if process.autorestart is False:
                yield conf.warning(
                    program.section,
                    "autorestart",
                    "supervisord does not restart it after a crash; remove this option",
                )
            if not process.autostart:
                yield conf.warning(
                    program.section,
                    "autostart",
                    "it does not start with supervisord; remove this option, or start it each time",
                )
