"""``supervisorctl sio …``: see and steer the cluster."""

from __future__ import annotations

import errno
import json
import socket
import time
from typing import Any, Callable, Iterable, Optional, Sequence

from supervisor import xmlrpc
from supervisor.compat import xmlrpclib
from supervisor.supervisorctl import (
    ControllerPluginBase,
    LSBInitExitStatuses,
    LSBStatusExitStatuses,
)

from .emission import EmissionError, parse_emission

_HELP = """\
sio\t\t\tShow the shared port, the router, the relay and the workers
sio status\t\tThe same
sio reload\t\tRestart every worker, one after the other
sio reload <name>\tRestart one worker
sio reload <gname>:*\tRestart the workers of a group, one after the other
sio drain <name>\t\tPlace no new sessions on a worker
sio undrain <name>\tPlace new sessions on it again
sio reload-tls\t\tRead the certificate and its key again
sio emit <event> [<json> ...] [--room <room>] [--namespace <ns>] [--to <sid>]
\t\t\tEmit an event to the clients of all workers"""

_STOPPED = {"stopped", "exited", "fatal", "backoff", "unknown"}

#: Seconds between the last new session of a worker and its stop, so that
#: clients in the middle of connecting (upgrading, say) get to the end of it.
_DRAIN_TIME = 2.0

#: Seconds that the successor of a worker has to become ready.
_READY_TIMEOUT = 60.0

_NO_RPCINTERFACE = """\
supervisord runs without the sio plugin: add to its configuration

[rpcinterface:sio]
supervisor.rpcinterface_factory = supervisor_sio.rpcinterface:make_rpcinterface

and reload"""

_NO_LISTENER = """\
no router: add to supervisord's configuration, and update

[eventlistener:sio]
command = supervisor-sio router
events = PROCESS_STATE"""


class SioControllerPlugin(ControllerPluginBase):  # type: ignore[misc]
    """Commands of the cluster, in supervisorctl's shell and on its command line."""

    name = "sio"

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        # `help sio` asks every plugin, and those that don't know it would say so.
        for plugin in controller.options.plugins:
            plugin.help_sio = lambda: None

    def do_help(self, argument: str) -> None:
        if not argument or argument == "sio":  # the rest is for the other plugins
            super().do_help(argument)

    def do_sio(self, argument: str) -> None:
        command, *names = argument.split() or ["status"]
        if command == "emit":
            self._emit(argument.partition("emit")[2])
            return
        if command == "status" and not names:
            self._status()
        elif command == "reload":
            self._change(self._reload, names)
        elif command == "drain" and names:
            self._change(self._drain, names)
        elif command == "undrain" and names:
            self._change(self._undrain, names)
        elif command == "reload-tls" and not names:
            self._change(self._reload_tls, names)
        else:
            self._fail(f"Error: unknown command: sio {argument}")
            self.help_sio()

    def help_sio(self) -> None:
        self.ctl.output(_HELP)

    def _get_status(self) -> Optional[dict[str, Any]]:
        """The status of the cluster, or ``None`` after saying why there is none."""
        try:
            if self.ctl.upcheck():
                status: dict[str, Any] = self.ctl.get_server_proxy("sio").getStatus()
                return status
        except xmlrpclib.Fault as fault:
            if fault.faultCode != xmlrpc.Faults.UNKNOWN_METHOD:
                raise
            self.ctl.output(_NO_RPCINTERFACE)
        except OSError as error:
            # upcheck answers for what it knows: refused, and no such file.
            self.ctl.output(f"{self.ctl.options.serverurl} {_reason(error)}")
        return None

    def _status(self) -> None:
        status = self._get_status()
        if status is None:
            self.ctl.exitstatus = LSBStatusExitStatuses.UNKNOWN
            return
        for line in format_status(status):
            self.ctl.output(line)
        if not is_well(status):
            self.ctl.exitstatus = LSBStatusExitStatuses.NOT_RUNNING

    def _fail(self, message: str) -> None:
        self.ctl.output(message)
        self.ctl.exitstatus = LSBInitExitStatuses.GENERIC

    def _change(self, act: Callable[[list[str]], None], names: list[str]) -> None:
        """Do something about the workers of these names; stop at the first that fails."""
        status = self._get_status()
        if status is None:
            self.ctl.exitstatus = LSBInitExitStatuses.GENERIC
            return
        try:
            act(_matching([worker["name"] for worker in status["workers"]], names))
        except _NoSuchWorker as error:
            self._fail(f"{error}: ERROR (no such worker)")
        except _ReloadFailed as error:
            self._fail(str(error))
        except xmlrpclib.Fault as fault:
            self._fail(f"ERROR ({_fault_text(fault)})")

    def _drain(self, names: list[str]) -> None:
        for name in names:
            self.ctl.get_server_proxy("sio").drainWorker(name)
            self.ctl.output(f"{name}: drained")

    def _undrain(self, names: list[str]) -> None:
        for name in names:
            self.ctl.get_server_proxy("sio").undrainWorker(name)
            self.ctl.output(f"{name}: undrained")

    def _reload_tls(self, names: list[str]) -> None:
        self.ctl.get_server_proxy("sio").reloadTLS()
        self.ctl.output("certificate: reloaded")

    def _emit(self, text: str) -> None:
        try:
            emission = parse_emission(text)
        except EmissionError as error:
            self._fail(f"Error: {error}")
            return
        if self._get_status() is None:
            self.ctl.exitstatus = LSBInitExitStatuses.GENERIC
            return
        try:
            self.ctl.get_server_proxy("sio").emit(
                emission.event,
                json.dumps(emission.arguments),
                emission.room,
                emission.namespace,
            )
            self.ctl.output(f"{emission.event}: emitted")
        except xmlrpclib.Fault as fault:
            self._fail(f"{emission.event}: ERROR ({_fault_text(fault)})")

    def _reload(self, names: list[str]) -> None:
        """Restart workers one by one, each when its predecessor in the list is ready."""
        if not names:
            self._fail("ERROR (no workers)")
        for name in names:
            before = self._worker(name)
            if before["state"] not in ("ready", "draining", "drained", "starting"):
                self.ctl.output(f"{name}: {before['state']}, left alone")
                continue
            started = time.monotonic()
            self._restart(before)
            while True:
                after = self._worker(name)
                if after["state"] == "ready" and after["pid"] != before["pid"]:
                    break
                if after["state"] in _STOPPED or time.monotonic() - started > _READY_TIMEOUT:
                    raise _ReloadFailed(_reload_failure(name, after["state"]))
                time.sleep(0.1)
            seconds = time.monotonic() - started
            self.ctl.output(
                f"{name}: reloaded (pid {before['pid']} -> {after['pid']}, {seconds:.1f} s)"
            )

    def _restart(self, worker: dict[str, Any]) -> None:
        name = worker["name"]
        others = [
            other
            for other in self.ctl.get_server_proxy("sio").getStatus()["workers"]
            if other["name"] != name and other["state"] == "ready"
        ]
        if others and worker["state"] == "ready":
            self.ctl.get_server_proxy("sio").drainWorker(name)
            time.sleep(_DRAIN_TIME)
        supervisor = self.ctl.get_supervisor()
        supervisor.stopProcess(name)
        try:
            supervisor.startProcess(name)
        except xmlrpclib.Fault as fault:
            raise _ReloadFailed(_reload_failure(name, fault.faultString.lower())) from None

    def _worker(self, name: str) -> dict[str, Any]:
        for worker in self.ctl.get_server_proxy("sio").getStatus()["workers"]:
            if worker["name"] == name:
                return dict(worker)
        raise _NoSuchWorker(name)


def _fault_text(fault: xmlrpclib.Fault) -> str:
    """Without Supervisor's word for the kind of fault before it."""
    return str(fault.faultString.partition(": ")[2] or fault.faultString)


class _NoSuchWorker(Exception):
    pass


class _ReloadFailed(Exception):
    pass


def _reload_failure(name: str, reason: str) -> str:
    return (
        f"{name}: ERROR (the new process is not ready: {reason}); "
        f"the other workers keep serving, see: supervisorctl tail {name}"
    )


def _matching(workers: list[str], names: list[str]) -> list[str]:
    """The workers that ``names`` mean: each a worker, a group, ``group:*`` or ``all``.

    No names mean all of them.
    """
    if not names or "all" in names:
        return workers
    chosen: list[str] = []
    for name in names:
        group = name[:-2] if name.endswith(":*") else name
        matches = [w for w in workers if w == name or w.startswith(f"{group}:") or w == group]
        if not matches:
            raise _NoSuchWorker(name)
        chosen.extend(worker for worker in matches if worker not in chosen)
    return chosen


def _reason(error: OSError) -> str:
    if isinstance(error, socket.timeout) or error.errno == errno.ETIMEDOUT:
        return "does not answer"
    return (error.strerror or str(error)).lower()


def is_well(status: dict[str, Any]) -> bool:
    """Whether everything that is configured to serve does."""
    return status["router"]["state"] == "running" and not any(
        worker["state"] in _STOPPED for worker in status["workers"]
    )


def format_status(status: dict[str, Any]) -> Iterable[str]:
    """The lines that ``sio status`` prints."""
    router, relay = status["router"], status["relay"]
    yield f"listen   {', '.join(status['listen'])}"
    if router["state"] == "running":
        yield (
            f"router   pid {router['pid']}, uptime {_duration(router['uptime'])}, "
            f"handed over {router['handed_over']:.0f}, handed back {router['handed_back']:.0f}, "
            f"waiting {router['waiting']}, refused {_refused(router['refused'])}"
        )
        yield (
            f"relay    {relay['state']}, messages {relay['messages']:.0f}, "
            f"delivered {relay['delivered']:.0f}, sent again {relay['sent_again']:.0f}, "
            f"dropped {relay['dropped']:.0f}, malformed {relay['malformed']:.0f}"
        )
        clients = status["clients"]
        yield (
            f"clients  protocol errors {clients['protocol_errors']:.0f}, "
            f"too slow {clients['slow_clients']:.0f}"
        )
        if status["queue"]["state"] != "none":
            yield _queue(status["queue"])
    elif router["process"]:
        yield f"router   down ({router['process']} is {router['statename']}), connections wait"
        yield "relay    down"
    else:
        yield from _NO_LISTENER.splitlines()
    yield ""
    if status["workers"]:
        yield from _table(
            ("worker", "tag", "pid", "state", "sessions", "connections", "uptime", "memory"),
            [_row(worker) for worker in status["workers"]],
        )
    else:
        yield "no workers: add a [program:x] with command = supervisor-sio worker module:app"


def _queue(queue: dict[str, Any]) -> str:
    return (
        f"queue    {queue['url']} {queue['state']}, other hosts {queue['hosts']}, "
        f"sent {queue['sent']:.0f}, received {queue['received']:.0f}, "
        f"waiting {queue['waiting']:.0f}, unsent {queue['unsent']:.0f}, "
        f"missed {queue['missed']:.0f}, malformed {queue['malformed']:.0f}"
    )


def _row(worker: dict[str, Any]) -> tuple[str, ...]:
    up = worker["pid"] != 0
    return (
        worker["name"],
        worker["tag"] or "-",
        str(worker["pid"]) if up else "-",
        worker["state"],
        str(worker["sessions"]) if up else "-",
        str(worker["connections"]) if up else "-",
        _duration(worker["uptime"]) if up else "-",
        f"{worker['memory'] / 1024:.0f} MiB" if up else "-",
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()


def _refused(reasons: dict[str, float]) -> str:
    if not reasons:
        return "0"
    detail = ", ".join(f"{reason} {count:.0f}" for reason, count in sorted(reasons.items()))
    return f"{sum(reasons.values()):.0f} ({detail})"


def _duration(seconds: int) -> str:
    """As ``supervisorctl status`` writes it: ``1 day, 2:03:04``."""
    days, rest = divmod(int(seconds), 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days} day{'s' if days > 1 else ''}, {clock}" if days else clock


def make_ctlplugin(controller: Any, **options: Optional[str]) -> SioControllerPlugin:
    """The factory that ``supervisor.ctl_factory`` names."""
    return SioControllerPlugin(controller)
