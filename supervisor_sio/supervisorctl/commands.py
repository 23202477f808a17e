"""The commands of ``supervisorctl sio``."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Optional

from supervisor.supervisorctl import LSBInitExitStatuses, LSBStatusExitStatuses

from ..common.emission import EmissionError, parse_emission
from ..common.limits import DRAIN_TIME
from .formatting import (
    FAILED,
    MOST_SOCKETS,
    format_reached,
    format_rooms,
    format_sockets,
    format_status,
    format_workers,
    is_well,
    workers_are_well,
)
from .grammar import Line, UsageError, did_you_mean, format_help, parse_line
from .rebalance import rebalance
from .reload import reload
from .scale import scale
from .session import CommandError, Session, Unreachable, refused
from .top import top

#: Default of ``sio sockets --limit``.
_LIMIT = 1000

#: A command prints text for a person, and returns the JSON document for a program; ``None`` when it
#: has printed that itself.
Handler = Callable[[Session, Line], Optional[dict[str, Any]]]


def run(controller: Any, text: str) -> None:
    """Run the command after ``sio``, and set the controller's exit status."""
    # Errors of parsing are reported as JSON as well.
    session = Session(controller, as_json="--json" in text.split())
    try:
        _run(session, text)
    except UsageError as error:
        line = f"Error: {error}"
        session.fail(CommandError(line, LSBInitExitStatuses.INVALID_ARGS, str(error)))
    except CommandError as error:
        session.fail(error)
    except KeyboardInterrupt:
        session.fail(CommandError("interrupted; sio status shows what was done"))
    except BrokenPipeError:
        # The reader has ended, such as `head`. Flushing the buffer at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), controller.stdout.fileno())
        controller.exitstatus = LSBInitExitStatuses.GENERIC


def _run(session: Session, text: str) -> None:
    line = parse_line(text)
    session.cluster = line.cluster
    if line.command.name != "emit":  # emit parses its arguments itself
        session.as_json = line.json
    try:
        document = _HANDLERS[line.command.name](session, line)
    except Unreachable as error:
        if line.command.figures:
            error.exitstatus = LSBStatusExitStatuses.UNKNOWN
        raise
    if document is not None:
        session.document(document)
    session.ctl.stdout.flush()


def _help(session: Session, line: Line) -> None:
    for text in format_help(line.arguments):
        session.say(text)


# --- figures ---------------------------------------------------------------------


def _status(session: Session, line: Line) -> dict[str, Any]:
    status: dict[str, Any] = session.call("sio.getStatus")
    for text in format_status(status, session.width):
        session.say(text)
    if not is_well(status):
        session.ctl.exitstatus = LSBStatusExitStatuses.NOT_RUNNING
    return status


def _workers(session: Session, line: Line) -> dict[str, Any]:
    status = session.call("sio.getStatus")
    workers = status["workers"]
    for text in format_workers(status, session.width):
        session.say(text)
    if not workers_are_well(workers):
        session.ctl.exitstatus = LSBStatusExitStatuses.NOT_RUNNING
    return {"workers": workers}


def _sockets(session: Session, line: Line) -> dict[str, Any]:
    limit = line.options.get("--limit", str(_LIMIT))
    if not (limit.isdecimal() and 1 <= int(limit) <= MOST_SOCKETS):
        raise UsageError(f"--limit needs a number from 1 to {MOST_SOCKETS}, not {limit}")
    room = line.options.get("--room", "")
    answer: dict[str, Any] = session.call("sio.getSockets", room, line.namespace, int(limit))
    for text in format_sockets(answer, session.width):
        session.say(text)
    return _complete(session, answer)


def _rooms(session: Session, line: Line) -> dict[str, Any]:
    answer: dict[str, Any] = session.call("sio.getRooms", line.namespace)
    for text in format_rooms(answer, session.width):
        session.say(text)
    return _complete(session, answer)


def _complete(session: Session, answer: dict[str, Any]) -> dict[str, Any]:
    """Set exit status 1 if some workers did not answer, because the answer is incomplete."""
    if answer["missing"]:
        session.ctl.exitstatus = LSBInitExitStatuses.GENERIC
    return answer


# --- clients ---------------------------------------------------------------------


def _emit(session: Session, line: Line) -> dict[str, Any]:
    try:
        emission = parse_emission(line.rest)
    except EmissionError as error:
        raise UsageError(str(error)) from None
    session.as_json = emission.json
    session.call(
        "sio.emit",
        emission.event,
        json.dumps(emission.arguments),
        emission.room,
        emission.namespace,
        about=emission.event,
    )
    clients, missing = _count(session, emission.room, emission.namespace)
    session.say(f"{emission.event}: emitted{format_reached(clients, missing)}")
    return {"ok": True, "event": emission.event, "clients": clients, "missing": missing}


def _count(session: Session, room: str, namespace: str) -> tuple[Optional[int], int]:
    """The number of clients in a room (``None`` if unknown), and of workers that do not answer."""
    try:
        answer = session.call("sio.getSockets", room, namespace, 0)
    except CommandError:
        return None, 0  # the emit itself has succeeded
    return answer["total"], answer["missing"]


def _kick(session: Session, line: Line) -> dict[str, Any]:
    (sid,) = line.arguments
    session.call("sio.kick", sid, line.namespace, about=sid)
    session.say(f"{sid}: disconnected{format_reached(1, 0)}")
    return {"ok": True, "sid": sid, "namespace": line.namespace, "clients": 1}


# --- workers ---------------------------------------------------------------------


def matching(workers: list[str], names: list[str]) -> list[str]:
    """Resolve names, each a worker, a group, ``group:*`` or ``all``; no names mean all workers.

    :raises CommandError: when a name matches no worker.
    """
    if not names or "all" in names:
        return workers
    chosen: list[str] = []
    for name in names:
        group = name[:-2] if name.endswith(":*") else name
        matches = [w for w in workers if w == name or w.startswith(f"{group}:") or w == group]
        if not matches:
            raise refused(name, f"no such worker{did_you_mean(name, workers)}")
        chosen.extend(worker for worker in matches if worker not in chosen)
    return chosen


def _named(session: Session, line: Line) -> list[str]:
    status = session.call("sio.getStatus")
    workers, router = status["workers"], status["router"]["process"]
    if router and router in line.arguments:
        raise refused(router, f"it is the router; restart it with: supervisorctl restart {router}")
    # Two rows may have the same name while an old worker still runs.
    return matching(list(dict.fromkeys(worker["name"] for worker in workers)), line.arguments)


def _drain(session: Session, line: Line) -> dict[str, Any]:
    return _each(session, line, "sio.drainWorker", "drained")


def _undrain(session: Session, line: Line) -> dict[str, Any]:
    return _each(session, line, "sio.undrainWorker", "undrained")


def _each(session: Session, line: Line, method: str, done: str) -> dict[str, Any]:
    names = _named(session, line)
    for name in names:
        session.call(method, name)
        session.say(f"{name}: {done}")
    return {"ok": True, "workers": names}


def _reload(session: Session, line: Line) -> dict[str, Any]:
    names = _named(session, line)
    if not names:
        raise refused("", "no workers")
    return reload(session, names, surge="--surge" in line.options)


def _scale(session: Session, line: Line) -> dict[str, Any]:
    name, numprocs = line.arguments
    group = name[:-2] if name.endswith(":*") else name
    with session.translating(group):
        done = scale(session, group, numprocs, DRAIN_TIME, session.progress())
    failed = [row["name"] for row in done.get("not_ready", ()) if row["state"] in FAILED]
    well = not set(failed) & set(done["added"])
    if not well:
        session.ctl.exitstatus = LSBInitExitStatuses.GENERIC
    return {"ok": well, **done}


def _rebalance(session: Session, line: Line) -> dict[str, Any]:
    done = rebalance(session)
    if not done["ok"]:
        session.ctl.exitstatus = LSBInitExitStatuses.GENERIC
    return done


def _reload_tls(session: Session, line: Line) -> dict[str, Any]:
    session.call("sio.reloadTLS")
    session.say("certificate: reloaded")
    return {"ok": True}


_HANDLERS: dict[str, Handler] = {
    "status": _status,
    "workers": _workers,
    "top": top,
    "sockets": _sockets,
    "rooms": _rooms,
    "emit": _emit,
    "kick": _kick,
    "reload": _reload,
    "drain": _drain,
    "undrain": _undrain,
    "scale": _scale,
    "rebalance": _rebalance,
    "reload-tls": _reload_tls,
    "help": _help,
}
