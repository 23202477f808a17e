"""``supervisorctl sio reload``: restart workers one after the other, while the others serve.

What happens to the clients of a worker that restarts:

=========================  =========================================================
without takeover           they reconnect to the other workers
with takeover              the worker's successor adopts them when it is ready; the worker
                           is not drained, or other workers would adopt them
with takeover, ``surge``   the worker is drained, so another worker adopts them at once; the
                           group has one more process meanwhile
=========================  =========================================================
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Iterator

from supervisor import xmlrpc
from supervisor.compat import xmlrpclib
from supervisor.states import STOPPED_STATES

from ..common.clusters import ctl_command
from ..common.commands import ENDED_BY_ITSELF
from ..common.limits import DRAIN_TIME
from .formatting import STOPPED, readiness, split_by_readiness
from .progress import Progress
from .recycling import wait_for_recycling
from .scale import READY_TIMEOUT, change, remove
from .session import LOOK, CommandError, Session, Unreachable, fault_text, refused

#: Seconds to wait for a router: longer than supervisord's pause between its restarts.
_ROUTER_TIMEOUT = 30.0

#: States in which a worker is restarted; a worker in another state is skipped.
_RESTARTED = ("ready", "hung", "draining", "drained", "starting", "failing", "backoff")

#: The last thing that a restart waits for.
_READY = "waiting for the new process to be ready"

#: Supervisor's words for a process that ended within its ``startsecs``.
_ENDED = {"spawn error", "abnormal termination"}


def reload(session: Session, names: list[str], surge: bool) -> dict[str, Any]:
    """Restart workers, each when the one before in the list is ready; returns the JSON document.

    :param names: the names of the workers.
    :param surge: add one process to each group while its workers restart.
    :raises CommandError: at the first worker that does not become ready.
    """
    done: list[dict[str, Any]] = []
    progress = session.progress(len(names))
    try:
        for group, members in (by_group(names) if surge else {"": names}).items():
            more = _one_more(session, group, members, progress)
            with more if surge else contextlib.nullcontext():
                for name in members:
                    progress.step(name)
                    done.append(_reload_one(session, name, surge, progress))
    except CommandError as error:
        error.details["workers"] = done
        raise
    status = session.call("sio.getStatus")
    workers = [_row(session, status, name) for name in names]
    progress.say(readiness(workers))
    return {"ok": True, "workers": done, **split_by_readiness(workers)}


def by_group(names: list[str]) -> dict[str, list[str]]:
    """The workers of each group, both in the order of ``names``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(":")[0], []).append(name)
    return groups


@contextlib.contextmanager
def _one_more(
    session: Session, group: str, members: list[str], progress: Progress
) -> Iterator[None]:
    """Add one process to a group while the block runs, if any of the members will restart.

    :raises CommandError: when it cannot be added, or cannot be removed afterwards; the text says
        how to remove it.
    """
    progress.about(group)
    if not any(_known(session, name, progress)["state"] in _RESTARTED for name in members):
        yield
        return
    with session.translating(group):
        answer = change(session, group, "+1")
    (name,) = answer["added"]
    usual = str(answer["numprocs"] - 1)
    advice = f"{ctl_command(session.cluster)} scale {group} {usual} removes {name} again"
    try:
        _start_added(session, name, progress)
        yield
        with session.translating(group):
            surplus = change(session, group, usual)["surplus"]
            if surplus != [name]:
                raise refused(group, "the group was scaled meanwhile")
            remove(session, surplus, DRAIN_TIME, progress)
    except KeyboardInterrupt:
        raise CommandError(f"interrupted; {advice}") from None
    except CommandError as error:
        error.advise(advice)
        raise


def _start_added(session: Session, name: str, progress: Progress) -> None:
    started = time.monotonic()
    progress.about(f"{name}: one more")
    with progress.waiting(_READY), session.translating(name):
        try:
            session.ctl.get_supervisor().startProcess(name, False)
        except xmlrpclib.Fault as fault:
            if fault.faultCode != xmlrpc.Faults.ALREADY_STARTED:
                raise _not_ready(session, _worker(session, name), fault_text(fault)) from None
        worker = _wait_ready(session, name)
    seconds = time.monotonic() - started
    progress.say(f"{name}: added (pid {worker['pid']}, {seconds:.1f} s)")


def _reload_one(session: Session, name: str, surge: bool, progress: Progress) -> dict[str, Any]:
    before = _known(session, name, progress)
    if wait_for_recycling(lambda: session.call("sio.getStatus"), name, progress):
        before = _known(session, name, progress)
    if before["state"] not in _RESTARTED:
        progress.say(f"{name}: {before['state']}, not restarted")
        return {"name": name, "reloaded": False, "state": before["state"]}
    started = time.monotonic()
    _stop(session, before, surge, progress)
    with progress.waiting(_READY):
        try:
            session.call("supervisor.startProcess", name)
        except Unreachable:
            raise
        except CommandError as error:
            raise _not_ready(session, before, error.error) from None
        after = _wait_ready(session, name, before["pid"])
    seconds = round(time.monotonic() - started, 1)
    progress.say(f"{name}: reloaded (pid {before['pid']} -> {after['pid']}, {seconds:.1f} s)")
    return {"name": name, "reloaded": True, "pid": after["pid"], "seconds": seconds}


def _stop(session: Session, worker: dict[str, Any], surge: bool, progress: Progress) -> None:
    name, moves = worker["name"], worker.get("takeover", False)
    others = [
        other
        for other in session.call("sio.getStatus")["workers"]
        if other["name"] != name and other["state"] == "ready"
    ]
    drains = bool(others) and worker["state"] == "ready" and (surge or not moves)
    try:
        if drains:
            _drain(session, name, progress)
            if not moves:
                with progress.waiting("drained, waiting for its clients to finish connecting"):
                    time.sleep(DRAIN_TIME)
        with progress.waiting("waiting for its process to end"):
            # Without waiting in supervisord, which would use a whole core for it.
            session.call("supervisor.stopProcess", name, False, about=name)
            while session.call("supervisor.getProcessInfo", name)["state"] not in STOPPED_STATES:
                time.sleep(LOOK)
    except BaseException:
        # Also after Ctrl-C: a worker that keeps running must get new sessions again.
        if drains:
            with contextlib.suppress(CommandError):
                session.call("sio.undrainWorker", name)
        raise


def _drain(session: Session, name: str, progress: Progress) -> None:
    try:
        session.call("sio.drainWorker", name)
    except CommandError:
        # The router may have died before it read this command; repeat it to the next one.
        _known(session, name, progress)
        session.call("sio.drainWorker", name)


def _wait_ready(session: Session, name: str, old_pid: int = 0) -> dict[str, Any]:
    """Wait until a worker is ready, and return it.

    :param old_pid: pid of its predecessor.
    :raises CommandError: when it does not become ready.
    """
    started = time.monotonic()
    while True:
        worker = _worker(session, name)
        if worker["state"] == "ready" and worker["pid"] != old_pid:
            return worker
        if worker["state"] in STOPPED | {"failing"} or time.monotonic() - started > READY_TIMEOUT:
            raise _not_ready(session, worker)
        time.sleep(LOOK)


def _known(session: Session, name: str, progress: Progress) -> dict[str, Any]:
    """Wait until a router knows the worker's state, and return it; supervisord knows only that
    the process runs.

    :raises CommandError: when no router runs for too long.
    """
    worker, fault = _look(session, name)
    if fault:
        started = time.monotonic()
        with progress.waiting("waiting for the router"):
            while fault:
                if time.monotonic() - started > _ROUTER_TIMEOUT:
                    raise refused(name, f"the router is down: {fault}")
                time.sleep(LOOK)
                worker, fault = _look(session, name)
    return worker


def _look(session: Session, name: str) -> tuple[dict[str, Any], str]:
    """The worker, and why no router knows its state, or ""."""
    status = session.call("sio.getStatus")
    worker, router = _row(session, status, name), status["router"]
    if worker["state"] != "running" or router["state"] == "running":
        return worker, ""  # the router knows it, or it does not run
    if router["process"]:
        return worker, f"{router['process']} is {router['statename']}"
    return worker, "no event listener runs a router"


def _worker(session: Session, name: str) -> dict[str, Any]:
    return _row(session, session.call("sio.getStatus"), name)


def _row(session: Session, status: dict[str, Any], name: str) -> dict[str, Any]:
    """The first row of that name, which is supervisord's own process."""
    for worker in status["workers"]:
        if worker["name"] == name:
            return dict(worker)
    # A program that calls serve() is not known to be a worker before it has called it.
    info = session.call("supervisor.getProcessInfo", name, about=name)
    return {"name": name, "state": info["statename"].lower(), "pid": info["pid"], "tail": name}


def _not_ready(session: Session, worker: dict[str, Any], fault: str = "") -> CommandError:
    """:param fault: supervisord's reason why the process did not start, if it gave one."""
    name = worker["name"]
    reason = f"the new process is not ready: {_fate(session, worker, fault)}"
    advice = f"the other workers keep serving, see: supervisorctl tail {worker['tail'] or name}"
    return CommandError(f"{name}: ERROR ({reason}); {advice}", error=f"{name}: {reason}; {advice}")


def _fate(session: Session, worker: dict[str, Any], fault: str) -> str:
    """What happened to a process that should have become ready."""
    if not fault and worker["state"] not in STOPPED | {"failing"}:
        return f"{worker['state']} after {READY_TIMEOUT:.0f} s"
    if not fault and worker["state"] == "stopped":
        return "it was stopped"
    if fault and fault not in _ENDED:
        return fault
    try:
        info = session.call("supervisor.getProcessInfo", worker["name"])
    except CommandError:
        return "it ended"
    if info["exitstatus"] > 0:  # 0 where Supervisor does not know it, -1 for a signal
        return f"it ended with exit status {info['exitstatus']}"
    if info["spawnerr"] and not info["spawnerr"].startswith(ENDED_BY_ITSELF):
        return str(info["spawnerr"])  # it could not be started
    return "it ended"
