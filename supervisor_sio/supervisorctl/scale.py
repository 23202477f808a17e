"""``supervisorctl sio scale``: more processes in a group, or fewer."""

from __future__ import annotations

import time
from typing import Any, Callable

from supervisor import xmlrpc
from supervisor.compat import xmlrpclib


def scale(
    controller: Any, group: str, numprocs: str, drain_time: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Scale a group: what was done.

    :param drain_time: seconds between the last new session of a worker and
        its stop.
    :param say: is called with a line for each step.
    :raises xmlrpclib.Fault: as supervisord says it; what is done stays done.
    """
    answer = change(controller, group, numprocs)
    for name in answer["added"]:
        say(f"{name}: added")
    remove(controller, answer["surplus"], drain_time, say)
    say(summary(answer))
    done = {key: answer[key] for key in ("group", "numprocs", "added", "configured")}
    return {**done, "removed": answer["surplus"]}


def change(controller: Any, group: str, numprocs: str) -> dict[str, Any]:
    """Add what is missing: the answer of ``sio.scaleGroup``, with what is too much.

    :raises xmlrpclib.Fault: as supervisord says it.
    """
    answer: dict[str, Any] = controller.get_server_proxy("sio").scaleGroup(group, numprocs)
    if answer["kept"]:
        _bring_back(controller, answer["kept"])
    return answer


def remove(
    controller: Any, names: list[str], drain_time: float, say: Callable[[str], None]
) -> None:
    """Stop the surplus of a group and remove it; see :func:`scale`."""
    if names:
        _stop(controller, names, drain_time)
    for name in names:
        controller.get_server_proxy("sio").removeProcess(name)
        say(f"{name}: removed")


def summary(answer: dict[str, Any]) -> str:
    """The last line, of what ``scaleGroup`` has answered and what followed."""
    group, numprocs, configured = answer["group"], answer["numprocs"], answer["configured"]
    line = f"{group}: {numprocs} process{'es' if numprocs > 1 else ''}"
    if not answer["added"] and not answer["surplus"]:
        return f"{line} already"
    if numprocs == configured:
        return f"{line}, as the configuration file says"
    return (
        f"{line}; the configuration file still says numprocs = {configured}, set it there to keep "
        f"them after a restart (until then reread shows {group} as changed; update and reload go "
        f"back to {configured})"
    )


def _workers(controller: Any) -> dict[str, dict[str, Any]]:
    workers = controller.get_server_proxy("sio").getStatus()["workers"]
    # The first row of a name is that of supervisord's own process.
    return {worker["name"]: worker for worker in reversed(workers)}


def _bring_back(controller: Any, names: list[str]) -> None:
    """What another ``scale``, which did not come to its end, was about to remove."""
    workers = _workers(controller)
    for name in names:
        state = workers[name]["state"] if name in workers else ""
        if state == "drained":
            controller.get_server_proxy("sio").undrainWorker(name)
        elif state == "stopped":
            controller.get_supervisor().startProcess(name, False)


def _stop(controller: Any, names: list[str], drain_time: float) -> None:
    """Stop processes, all at the same time; new sessions go elsewhere before that.

    With takeover, those that they have go there as well: nobody has to finish connecting first.
    """
    workers = _workers(controller).values()
    ready = [worker for worker in workers if worker["state"] == "ready"]
    if any(worker["name"] not in names for worker in ready):
        leaving = [worker for worker in ready if worker["name"] in names]
        for worker in sorted(leaving, key=lambda worker: names.index(worker["name"])):
            controller.get_server_proxy("sio").drainWorker(worker["name"])
        if not all(worker.get("takeover") for worker in leaving):
            time.sleep(drain_time)
    for name in names:
        try:
            controller.get_supervisor().stopProcess(name, False)
        except xmlrpclib.Fault as fault:
            if fault.faultCode != xmlrpc.Faults.NOT_RUNNING:
                raise
