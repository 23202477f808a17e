"""``supervisorctl sio …``: see and steer the cluster."""

from __future__ import annotations

import errno
import socket
from typing import Any, Iterable, Optional, Sequence

from supervisor import xmlrpc
from supervisor.compat import xmlrpclib
from supervisor.supervisorctl import (
    ControllerPluginBase,
    LSBInitExitStatuses,
    LSBStatusExitStatuses,
)

_HELP = """\
sio\t\t\tShow the shared port, the router, the relay and the workers
sio status\t\tThe same"""

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
        words = argument.split()
        command = words[0] if words else "status"
        if command != "status" or len(words) > 1:
            self.ctl.output(f"Error: unknown command: sio {argument}")
            self.ctl.exitstatus = LSBInitExitStatuses.GENERIC
            self.help_sio()
            return
        self._status()

    def help_sio(self) -> None:
        self.ctl.output(_HELP)

    def _status(self) -> None:
        try:
            if not self.ctl.upcheck():
                self.ctl.exitstatus = LSBStatusExitStatuses.UNKNOWN
                return
            status = self.ctl.get_server_proxy("sio").getStatus()
        except xmlrpclib.Fault as fault:
            if fault.faultCode != xmlrpc.Faults.UNKNOWN_METHOD:
                raise
            self.ctl.output(_NO_RPCINTERFACE)
            self.ctl.exitstatus = LSBStatusExitStatuses.UNKNOWN
            return
        except OSError as error:
            # upcheck answers for what it knows: refused, and no such file.
            self.ctl.output(f"{self.ctl.options.serverurl} {_reason(error)}")
            self.ctl.exitstatus = LSBStatusExitStatuses.UNKNOWN
            return
        for line in format_status(status):
            self.ctl.output(line)
        if not is_well(status):
            self.ctl.exitstatus = LSBStatusExitStatuses.NOT_RUNNING


def _reason(error: OSError) -> str:
    if isinstance(error, socket.timeout) or error.errno == errno.ETIMEDOUT:
        return "does not answer"
    return (error.strerror or str(error)).lower()


def is_well(status: dict[str, Any]) -> bool:
    """Whether everything that is configured to serve does."""
    stopped = {"stopped", "exited", "fatal", "backoff", "unknown"}
    return status["router"]["state"] == "running" and not any(
        worker["state"] in stopped for worker in status["workers"]
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
            f"delivered {relay['delivered']:.0f}, dropped {relay['dropped']:.0f}"
        )
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
