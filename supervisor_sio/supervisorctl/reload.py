"""``supervisorctl sio reload``: workers restart one after the other, and the cluster serves on.

What becomes of the clients of a worker meanwhile:

=========================  =========================================================
without takeover           they reconnect to the others
with takeover              its successor goes on with them when it is ready; it is not
                           drained before, or the others would take them
with takeover, ``surge``   it is drained, so another worker goes on with them at once; one
                           more process than usual makes up for who is restarting
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
from ..common.limits import DRAIN_TIME
from .formatting import STOPPED, readiness, split_by_readiness
from .progress import Progress
from .recycling import wait_for_recycling
from .scale import READY_TIMEOUT, change, remove
from .session import LOOK, CommandError, Session, Unreachable, fault_text, refused

#: Seconds that a router has to come back: longer than supervisord's pause between its tries.
_ROUTER_TIMEOUT = 30.0

#: States of a worker that is restarted; others are left alone.
_RESTARTED = ("ready", "hung", "draining", "drained", "starting", "failing", "backoff")

#: What is waited for last.
_READY = "waiting for the new process to be ready"

#: Supervisor's words for a process that ended within its ``startsecs``.
_ENDED = {"spawn error", "abnormal termination"}
_TOO_QUICKLY = "Exited too quickly"


def reload(session: Session, names: list[str], surge: bool) -> dict[str, Any]:
    """Restart workers, each when its predecessor in the list is ready: what was done.

    :param names: of workers.
    :param surge: with one more process in each group while its workers restart.
    :raises CommandError: at the first that does not come back.
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
    """Workers by their groups, both in the order in which they are named."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(":")[0], []).append(name)
    return groups


@contextlib.contextmanager
def _one_more(
    session: Session, group: str, members: list[str], progress: Progress
) -> Iterator[None]:
    """Have one more process in a group meanwhile; for nobody who restarts, none.

    :raises CommandError: when there cannot be one, or it is still there; the text says how
        to remove it then.
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
                raise refused(group, "it was scaled meanwhile")
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
        progress.say(f"{name}: {before['state']}, left alone")
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
                with progress.waiting("no new clients for it, others finish connecting"):
                    time.sleep(DRAIN_TIME)
        with progress.waiting("waiting for its process to end"):
            # While supervisord itself waits for that, it takes a whole core.
            session.call("supervisor.stopProcess", name, False, about=name)
            while session.call("supervisor.getProcessInfo", name)["state"] not in STOPPED_STATES:
                time.sleep(LOOK)
    except BaseException:
        # Also Ctrl-C: a worker that serves on would never get a session again.
        if drains:
            with contextlib.suppress(CommandError):
                session.call("sio.undrainWorker", name)
        raise


def _drain(session: Session, name: str, progress: Progress) -> None:
    try:
        session.call("sio.drainWorker", name)
    except CommandError:
        # Its router may have died with this command unread: then the next one gets it.
        _known(session, name, progress)
        session.call("sio.drainWorker", name)


def _wait_ready(session: Session, name: str, old_pid: int = 0) -> dict[str, Any]:
    """The worker, once it is ready.

    :param old_pid: of its predecessor.
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
    """The worker, once a router says how it is: supervisord knows only that it runs.

    :raises CommandError: when there is no router for too long.
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
    """The worker, and why no router says how it is, if so."""
    status = session.call("sio.getStatus")
    worker, router = _row(session, status, name), status["router"]
    if worker["state"] != "running" or router["state"] == "running":
        return worker, ""  # or it is not one of the router's
    if router["process"]:
        return worker, f"{router['process']} is {router['statename']}"
    return worker, "no event listener runs it"


def _worker(session: Session, name: str) -> dict[str, Any]:
    return _row(session, session.call("sio.getStatus"), name)


def _row(session: Session, status: dict[str, Any], name: str) -> dict[str, Any]:
    """The first row of that name: supervisord's own process."""
    for worker in status["workers"]:
        if worker["name"] == name:
            return dict(worker)
    # Of a program that calls serve() it does not show, until it has, that it is a worker.
    info = session.call("supervisor.getProcessInfo", name, about=name)
    return {"name": name, "state": info["statename"].lower(), "pid": info["pid"], "tail": name}


def _not_ready(session: Session, worker: dict[str, Any], fault: str = "") -> CommandError:
    """:param fault: why supervisord says that the process did not start, if it does."""
    name = worker["name"]
    reason = f"the new process is not ready: {_fate(session, worker, fault)}"
    advice = f"the other workers keep serving, see: supervisorctl tail {worker['tail'] or name}"
    return CommandError(f"{name}: ERROR ({reason}); {advice}", error=f"{name}: {reason}; {advice}")


def _fate(session: Session, worker: dict[str, Any], fault: str) -> str:
    """What became of a process that was to get ready."""
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
    if info["spawnerr"] and not info["spawnerr"].startswith(_TOO_QUICKLY):
        return str(info["spawnerr"])  # it could not even begin
    return "it ended"
