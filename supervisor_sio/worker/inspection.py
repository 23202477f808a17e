"""``supervisor-sio check --app``: imports an application without serving it.

A worker is "ready" as soon as it can pass requests to the application. This check reports what may
still prevent the application from serving its clients.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

from ..cluster import sessions
from ..common.limits import IMPORT_TIMEOUT
from ..common.modes import ASYNCIO, AsyncMode
from ..common.processes import process_memory
from ..common.rundir import ENVIRONMENT_VARIABLE
from . import modes
from .application import (
    ApplicationError,
    check_manager,
    check_path,
    check_servers,
    layers,
    load,
    server_of,
)


class Report(NamedTuple):
    """Errors, warnings and facts about the application, as lines for the user."""

    errors: list[str]
    warnings: list[str]
    facts: list[str]
    #: The traceback, if the application's own code failed.
    detail: str = ""


class _TimeUp(BaseException):
    """Not an ``Exception``, so that the application does not catch it."""


def inspect_application(
    spec: str, mode: AsyncMode, paths: Sequence[str], max_memory: Optional[int] = None
) -> Report:
    """Import an application as a worker does.

    :param paths: the option of ``[rpcinterface:sio]``, as ``max_memory``.
    """
    # So that what it emits during the import does not reach the cluster.
    os.environ.pop(ENVIRONMENT_VARIABLE, None)
    began = time.monotonic()
    try:
        sessions.expect_clients()
        sessions.serve_by(modes.installer(mode))
        with _time_limit():
            app = load(spec, mode)
    except ApplicationError as error:
        return Report([str(error)], [], [], error.detail)
    except SystemExit as error:
        return Report([f"importing {spec} called sys.exit({error.code!r})"], [], [])
    except _TimeUp:
        text = f"importing {spec} takes more than {IMPORT_TIMEOUT:.0f} s"
        return Report([f"{text}: does its module start its own server?"], [], [])
    seconds = time.monotonic() - began
    errors: list[str] = []
    checks: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (check_servers, (mode,)),
        (check_manager, (app, spec)),
        (check_path, (app, paths)),
    ]
    for check, arguments in checks:
        try:
            check(*arguments)
        except ApplicationError as error:
            errors.append(str(error))
    found = list({id(one): one for one in map(server_of, layers(app)) if one is not None}.values())
    servers = [*found, *(server for server in sessions.servers() if server not in found)]
    warnings = [] if errors else list(_warnings(spec, mode, found, servers, paths))
    memory = process_memory(os.getpid()) // 1024
    if max_memory is not None and memory * 2**20 >= max_memory:
        warnings.append(
            f"a process has {memory} MB when it has imported {spec}, and max_memory is "
            f"{max_memory // 2**20} MB: a worker that begins above the limit is not recycled for "
            "its memory; set a larger limit"
        )
    kind = type(app).__name__
    facts = [f"{spec}: {kind}, imported in {seconds:.1f} s, {memory} MB, mode {mode.name}"]
    return Report(errors, warnings, facts + [_describe(server) for server in servers])


def _warnings(
    spec: str, mode: AsyncMode, found: list[Any], servers: list[Any], paths: Sequence[str]
) -> Iterator[str]:
    if not found:
        fault = "does not contain its" if servers else "has no"
        wrapper = "socketio.ASGIApp" if mode is ASYNCIO else "socketio.WSGIApp"
        name = spec.partition(":")[2]
        yield (
            f"{spec} {fault} Socket.IO server, as far as this check can see: clients get its "
            f"own answer to {paths[0]}; serve {wrapper}(sio, {name}) instead"
        )
    for server in servers:
        name = type(server).__name__
        if server not in sessions.servers():
            yield (
                f"a {name} of {spec} has a {type(server.manager).__name__}, while another server "
                "has a ZmqManager: its sessions are not sticky, and its emits stay in one worker"
            )
        elif getattr(server.manager, "write_only", False):
            yield (
                f"the manager of a {name} of {spec} has write_only=True: its clients do not "
                "receive emits of other processes; remove write_only"
            )
        if not _events(server):
            yield (f"a {name} of {spec} has no handlers: is the module with the handlers imported?")


def _describe(server: Any) -> str:
    manager, events = server.manager, _events(server)
    takeover, recovery = (getattr(manager, name, 0) for name in ("takeover", "recovery"))
    namespaces = ", ".join(sorted({namespace for namespace, _ in events})) or "none"
    return (
        f"{type(server).__name__} with {type(manager).__name__}, "
        f"takeover {'on' if takeover else 'off'}, "
        f"recovery {f'{recovery:g} s' if recovery else 'off'}, "
        f"namespaces {namespaces}, handlers {len(events)}"
    )


def _events(server: Any) -> list[tuple[str, str]]:
    """The namespace and name of each of its handlers; a namespace class counts as one."""
    functions = [
        (namespace, event) for namespace, names in server.handlers.items() for event in names
    ]
    return functions + [(namespace, "*") for namespace in server.namespace_handlers]


@contextmanager
def _time_limit() -> Iterator[None]:
    def expire(*_: object) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, IMPORT_TIMEOUT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
