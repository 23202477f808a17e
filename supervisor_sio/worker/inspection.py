"""``supervisor-sio check --app``: an application is imported, and not served.

A worker says "ready" as soon as it can pass requests on. What keeps the clients of the application
from being served all the same is said here.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from ..cluster import sessions
from ..common.limits import IMPORT_TIMEOUT
from ..common.modes import AsyncMode
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
    """What is wrong, what will hurt, and what the application is: lines for a person."""

    errors: list[str]
    warnings: list[str]
    facts: list[str]
    #: The traceback where its own code failed.
    detail: str = ""


class _TimeUp(BaseException):
    """No ``except Exception`` of the application may catch it."""


def inspect_application(spec: str, mode: AsyncMode, paths: Sequence[str]) -> Report:
    """Import an application as a worker does.

    :param paths: of ``[rpcinterface:sio]``.
    """
    # Whatever it emits while it is imported stays here.
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
        return Report([f"{text}: does its module start a server of its own?"], [], [])
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
    warnings = [] if errors else list(_warnings(spec, found, servers, paths))
    facts = [f"{spec}: {type(app).__name__}, imported in {seconds:.1f} s, mode {mode.name}"]
    return Report(errors, warnings, facts + [_describe(server) for server in servers])


def _warnings(
    spec: str, found: list[Any], servers: list[Any], paths: Sequence[str]
) -> Iterator[str]:
    if not found:
        fault = "does not contain its" if servers else "has no"
        yield (
            f"{spec} {fault} Socket.IO server, as far as that can be seen: clients get what it "
            f"answers to {paths[0]}; wrap it, as in app = socketio.WSGIApp(sio, app)"
        )
    for server in servers:
        name = type(server).__name__
        if server not in sessions.servers():
            yield (
                f"a {name} of {spec} has a {type(server.manager).__name__} beside one that has "
                "ours: its sessions are not sticky, and its emits stay in one worker"
            )
        elif getattr(server.manager, "write_only", False):
            yield (
                f"the manager of a {name} of {spec} has write_only=True: it emits to the cluster, "
                "and emits of others do not reach its clients; take that out"
            )
        if not _events(server):
            yield (f"a {name} of {spec} has no handlers: is the module that has them imported?")


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
    """The namespaces and names of its handlers; a class of them counts as one."""
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
