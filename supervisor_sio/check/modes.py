"""Rules about ``--async-mode``: its value, its threads, and whether it suits the application."""

from __future__ import annotations

import os
import re
from typing import Any, Iterator, Optional

from ..common.commands import PROGRAM
from ..common.modes import ASYNCIO, EVENTLET, THREADING, AsyncMode
from ..common.worker_options import WorkerOptions, read_worker_options
from .configuration import Configuration, Finding, Program
from .host import Host
from .roles import Role, head_of, split_command
from .source import Application, Server, look

#: The arguments after the command, up to the next operator of a shell.
_WORKER = re.compile(r"""supervisor-sio["']?\s+worker((?:\s+(?!\d*[<>])[^\s"';&|<>]+)*)""")

#: Threads of a worker besides its pool: the loop, and those of ZeroMQ.
_OWN_THREADS = 4


def options_of(program: Program) -> Optional[WorkerOptions]:
    """The arguments of a program's workers, or ``None`` if they cannot be seen."""
    words = split_command(program.command)
    if words[1:2] == ["worker"] and os.path.basename(words[0]) == PROGRAM:
        words = words[2:]  # split by shlex, so they may have been quoted
    else:
        match = _WORKER.search(head_of(program.script) or program.command)
        if match is None:
            return None
        words = match.group(1).split()
    try:
        return read_worker_options(words)
    except ValueError:
        return None


def options(conf: Configuration, host: Host) -> Iterator[Finding]:
    for program in conf.of_role(Role.WORKER):
        words = split_command(program.command)
        if not words or os.path.basename(words[0]) != "supervisor-sio":
            continue  # the words after a shell or a wrapper can be anything
        try:
            application = read_worker_options(words[2:]).application
        except ValueError as error:
            if "application" not in str(error) and "MODULE:APP" not in str(error):
                yield conf.error(program.section, "command", f"supervisor-sio worker: {error}")
                continue
            application = ""
        module, _, name = application.partition(":")
        if not module or not name:
            yield conf.error(
                program.section,
                "command",
                "the application is missing; write supervisor-sio worker module:app",
            )


def threads(conf: Configuration, host: Host) -> Iterator[Finding]:
    for program in conf.of_role(Role.WORKER):
        told = options_of(program)
        if told is None or told.threads is None:
            continue
        if told.threads == 1:
            yield conf.warning(
                program.section,
                "command",
                "--threads 1: while a handler waits, no other handler of its worker runs; write a "
                "greater number, or remove the option",
            )
        wanted = len(program.processes) * (told.threads + _OWN_THREADS)
        if wanted > host.threads:
            yield conf.warning(
                program.section,
                "command",
                f"--threads {told.threads}: {len(program.processes)} workers have up to {wanted} "
                f"threads, but the limit here is {host.threads}; write fewer, or raise TasksMax= "
                "of supervisord's service or `ulimit -Hu`",
            )


def applications(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Does the mode suit the application, and has each of its tasks one function, as far as its
    module shows?"""
    for program in conf.of_role(Role.WORKER):
        told = options_of(program)
        for process in program.processes[:1] if told else []:
            assert told is not None
            found = application_of(conf, process, told)
            if found is None:
                continue
            fault = _fault(told, found)
            if fault:
                yield conf.error(program.section, "command", f"{told.application} {fault}")
            for name in found.repeated_tasks:
                yield conf.error(
                    program.section,
                    "command",
                    f"{told.application} has two functions for run_once({name!r}): give each task "
                    "a name of its own",
                )


def application_of(conf: Configuration, process: Any, told: WorkerOptions) -> Optional[Application]:
    """The application of a process as its module shows it, if the module can be read."""
    return look(conf.directory_of(process), told.application)


def _fault(told: WorkerOptions, found: Application) -> Optional[str]:
    mode = told.mode
    command = f"supervisor-sio worker --async-mode asyncio {told.application}"
    if found.interface == "ASGI" and mode is not ASYNCIO:
        return f"is an ASGI application ({found.maker}); write {command}"
    if found.interface == "WSGI" and mode is ASYNCIO:
        return (
            f"is a WSGI application ({found.maker}), and --async-mode asyncio serves ASGI: write "
            "--async-mode threading, or remove the option for eventlet"
        )
    # With several servers, the module does not show which one is used.
    fault = _fault_of_server(mode, found.servers[0], command) if len(found.servers) == 1 else None
    return fault and f"has {fault}"


def _fault_of_server(mode: AsyncMode, server: Server, command: str) -> Optional[str]:
    if server.is_async and mode is not ASYNCIO:
        return f"a socketio.AsyncServer; write {command}"
    if not server.is_async and mode is ASYNCIO:
        return (
            f"a {server.maker}, and --async-mode asyncio needs a socketio.AsyncServer: use that, "
            "or write --async-mode threading"
        )
    if mode is THREADING and server.async_mode == "":
        return (
            f"a {server.maker}() without async_mode, which defaults to eventlet if that is "
            f"installed: set async_mode={mode.name!r}"
        )
    if not server.is_async and server.async_mode and server.async_mode != mode.name:
        known = server.async_mode in (EVENTLET.name, THREADING.name)
        other = f", or write --async-mode {server.async_mode}" if known else ""
        return (
            f"a {server.maker}(async_mode={server.async_mode!r}), and its workers run in mode "
            f"{mode.name}: set async_mode={mode.name!r}{other}"
        )
    right, wrong = "ZmqManager", "AsyncZmqManager"
    if server.is_async:
        right, wrong = wrong, right
    if server.manager == "":
        return (
            f"a {server.maker}() without {right}: sessions are not sticky and emits stay in their "
            f"worker; write client_manager={right}()"
        )
    if server.manager == wrong:
        return f"a {server.maker}(client_manager={wrong}()): write {right}()"
    return None
