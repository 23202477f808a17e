"""``supervisorctl sio scale``: add processes to a group, or remove some."""

from __future__ import annotations

import time
from typing import Any

from supervisor import xmlrpc
from supervisor.compat import xmlrpclib

from ..common.clusters import ctl_command
from .formatting import FAILED, readiness, split_by_readiness
from .progress import Progress
from .recycling import wait_for_recycling
from .session import LOOK, Session

#: Seconds to wait for a worker to become ready.
READY_TIMEOUT = 60.0

#: Seconds within which supervisord starts an added process.
_START = 2.0


def scale(
    session: Session, group: str, numprocs: str, drain_time: float, progress: Progress
) -> dict[str, Any]:
    """Scale a group; returns what was done, and which workers are ready.

    :param drain_time: seconds between the last new session of a worker and its stop.
    :raises xmlrpclib.Fault: supervisord's error; changes made before are kept.
    """
    answer = change(session, group, numprocs)
    for name in answer["added"]:
        progress.say(f"{name}: added")
    # Only workers can become ready, not processes of other programs.
    serves = any(_group_of(name) == group for name in _workers(session))
    if serves:
        _wait_ready(session, group, answer["kept"] + answer["added"], progress)
    removed = [row for row in _workers(session).values() if row["name"] in answer["surplus"]]
    remove(session, answer["surplus"], drain_time, progress)
    done = {key: answer[key] for key in ("group", "numprocs", "added", "configured")}
    done["removed"] = answer["surplus"]
    if serves:
        # The router may not know yet that removed workers are gone.
        rows = [
            row
            for row in reversed(_workers(session).values())
            if row["name"] not in answer["surplus"]
        ]
        members = [row for row in rows if _group_of(row["name"]) == group]
        progress.say(readiness(members))
        done.update(split_by_readiness(members))
        uneven = unevenness(rows, answer["added"], removed)
        if uneven:
            progress.say(f"{uneven}; {ctl_command(session.cluster)} rebalance spreads them evenly")
    progress.say(summary(answer))
    return done


def change(session: Session, group: str, numprocs: str) -> dict[str, Any]:
    """Add missing processes; returns the answer of ``sio.scaleGroup``, with the surplus ones.

    :raises xmlrpclib.Fault: supervisord's error.
    """
    answer: dict[str, Any] = session.sio.scaleGroup(group, numprocs)
    if answer["kept"]:
        _bring_back(session, answer["kept"])
    return answer


def remove(session: Session, names: list[str], drain_time: float, progress: Progress) -> None:
    """Stop the surplus of a group and remove it; see :func:`scale`.

    :raises CommandError: when another worker is recycled for too long.
    """
    if names:
        group = _group_of(names[0])
        progress.about(group)
        wait_for_recycling(session.sio.getStatus, group, progress)
        _stop(session, names, drain_time, progress)
    for number, name in enumerate(names, 1):
        progress.about(f"{name}: {number} of {len(names)}")
        with progress.waiting("waiting for its process to end"):
            session.sio.removeProcess(name)
        progress.say(f"{name}: removed")


def _wait_ready(session: Session, group: str, names: list[str], progress: Progress) -> None:
    """Wait until all added workers are ready or have failed."""
    if not names:
        return
    missing, ready, began = list(names), 0, time.monotonic()
    progress.about(group)

    def left() -> str:
        return f"{ready} of {len(names)} ready, waiting for {', '.join(missing)}"

    with progress.waiting(left):
        while missing and time.monotonic() - began < READY_TIMEOUT:
            rows = _workers(session)
            seconds = time.monotonic() - began
            for name in missing[:]:
                state = rows[name]["state"] if name in rows else ""
                # supervisord starts it in its next turn, unless ``autostart`` is off.
                if state == "ready":
                    missing.remove(name)
                    ready += 1
                    progress.say(f"{name}: ready ({ready} of {len(names)}, {seconds:.1f} s)")
                elif state in FAILED or (state == "stopped" and seconds > _START):
                    missing.remove(name)
                    progress.say(f"{name}: {state}")
            if missing:
                time.sleep(LOOK)


def unevenness(
    workers: list[dict[str, Any]], added: list[str], removed: list[dict[str, Any]]
) -> str:
    """Why the clients are not spread evenly; empty if they are.

    Without takeover the clients of removed workers reconnect, which spreads them.

    :param workers: those of the cluster now.
    :param added: names of workers; those that are not ready get no clients at all.
    :param removed: the workers that were removed, as they were before.
    """
    ready = [worker for worker in workers if worker["state"] == "ready"]
    if len(ready) < 2:
        return ""
    if any(worker.get("takeover") and worker["sessions"] for worker in removed):
        return "the clients of each removed worker have moved to one other worker"
    new = [worker for worker in ready if worker["name"] in added]
    if new and any(worker["sessions"] for worker in ready):
        return "the added workers get only new clients"
    return ""


def summary(answer: dict[str, Any]) -> str:
    """The last line of output, from the answer of ``scaleGroup``."""
    group, numprocs, configured = answer["group"], answer["numprocs"], answer["configured"]
    line = f"{group}: {numprocs} process{'es' if numprocs > 1 else ''}"
    if not answer["added"] and not answer["surplus"]:
        return f"{line} already"
    if numprocs == configured:
        return f"{line}, as in the configuration file"
    return (
        f"{line}; the configuration file still has numprocs = {configured}: change it there, or "
        f"update, reload and a restart of supervisord go back to {configured} (until then reread "
        f"shows {group} as changed)"
    )


def _workers(session: Session) -> dict[str, dict[str, Any]]:
    workers = session.sio.getStatus()["workers"]
    # The first row of a name is supervisord's own process.
    return {worker["name"]: worker for worker in reversed(workers)}


def _bring_back(session: Session, names: list[str]) -> None:
    """Bring back processes that an interrupted ``scale`` was about to remove."""
    workers = _workers(session)
    for name in names:
        state = workers[name]["state"] if name in workers else ""
        if state == "drained":
            session.sio.undrainWorker(name)
        elif state == "stopped":
            session.ctl.get_supervisor().startProcess(name, False)


def _group_of(name: str) -> str:
    return name.partition(":")[0]


def _stop(session: Session, names: list[str], drain_time: float, progress: Progress) -> None:
    """Drain processes, then stop them all at the same time.

    With takeover, there is no wait in between: sessions move even while clients are connecting.
    """
    workers = _workers(session).values()
    ready = [worker for worker in workers if worker["state"] == "ready"]
    if any(worker["name"] not in names for worker in ready):
        leaving = [worker for worker in ready if worker["name"] in names]
        for worker in sorted(leaving, key=lambda worker: names.index(worker["name"])):
            session.sio.drainWorker(worker["name"])
        if not all(worker.get("takeover") for worker in leaving):
            with progress.waiting(f"no new clients for {', '.join(names)}"):
                time.sleep(drain_time)
    for name in names:
        try:
            session.ctl.get_supervisor().stopProcess(name, False)
        except xmlrpclib.Fault as fault:
            if fault.faultCode != xmlrpc.Faults.NOT_RUNNING:
                raise
