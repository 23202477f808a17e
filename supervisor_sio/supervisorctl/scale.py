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
    sio = controller.get_server_proxy("sio")
    answer = sio.scaleGroup(group, numprocs)
    for name in answer["added"]:
        say(f"{name}: added")
    if answer["kept"]:
        _bring_back(controller, answer["kept"])
    if answer["surplus"]:
        _stop(controller, answer["surplus"], drain_time)
    for name in answer["surplus"]:
        sio.removeProcess(name)
        say(f"{name}: removed")
    say(summary(answer))
    done = {key: answer[key] for key in ("group", "numprocs", "added", "configured")}
    return {**done, "removed": answer["surplus"]}


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


def _states(controller: Any) -> dict[str, str]:
    workers = controller.get_server_proxy("sio").getStatus()["workers"]
    # The first row of a name is that of supervisord's own process.
    return {worker["name"]: worker["state"] for worker in reversed(workers)}


def _bring_back(controller: Any, names: list[str]) -> None:
    """What another ``scale``, which did not come to its end, was about to remove."""
    states = _states(controller)
    for name in names:
        if states.get(name) == "drained":
            controller.get_server_proxy("sio").undrainWorker(name)
        elif states.get(name) == "stopped":
            controller.get_supervisor().startProcess(name, False)


def _stop(controller: Any, names: list[str], drain_time: float) -> None:
    """Stop processes, all at the same time; new sessions go elsewhere before that."""
    states = _states(controller)
    if any(state == "ready" for name, state in states.items() if name not in names):
        ready = [name for name in names if states.get(name) == "ready"]
        for name in ready:
            controller.get_server_proxy("sio").drainWorker(name)
        if ready:
            time.sleep(drain_time)
    for name in names:
        try:
            controller.get_supervisor().stopProcess(name, False)
        except xmlrpclib.Fault as fault:
            if fault.faultCode != xmlrpc.Faults.NOT_RUNNING:
                raise
