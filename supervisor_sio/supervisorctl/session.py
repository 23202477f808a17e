"""How a command of ``supervisorctl sio`` calls supervisord, and prints its output."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import socket
from typing import Any, Iterable, Iterator, Optional
from xml.parsers.expat import ExpatError

from supervisor import xmlrpc
from supervisor.compat import xmlrpclib
from supervisor.supervisorctl import LSBInitExitStatuses

from ..common.clusters import USUAL, ctl_command, listed
from .formatting import NO_RPCINTERFACE
from .progress import Progress

#: Seconds between two checks of what a command waits for.
LOOK = 0.1

_OLDER = "supervisord runs another version of supervisor-sio: restart it"


class CommandError(Exception):
    """An error that ends a command.

    :param error: the text in the JSON document, if it differs from ``line``.
    :param details: further content of the JSON document.
    """

    def __init__(
        self,
        line: str,
        exitstatus: int = LSBInitExitStatuses.GENERIC,
        error: str = "",
        details: Optional[dict[str, Any]] = None,
    ) -> None:
        super().__init__(line)
        self.exitstatus = exitstatus
        self.error = error or line
        self.details = details or {}

    def advise(self, advice: str) -> None:
        """Append what the user should type."""
        self.args = (f"{self}; {advice}",)
        self.error = f"{self.error}; {advice}"


class Unreachable(CommandError):
    """supervisord does not answer, or runs without this plugin."""


def refused(about: str, reason: str, **details: Any) -> CommandError:
    """An error as supervisorctl prints it: ``workers:workers_00: ERROR (no such worker)``."""
    prefix = f"{about}: " if about else ""
    return CommandError(f"{prefix}ERROR ({reason})", error=f"{prefix}{reason}", details=details)


class Session:
    """Calls supervisord for a command, and prints to its user."""

    def __init__(self, controller: Any, as_json: bool = False) -> None:
        self.ctl = controller
        self.as_json = as_json
        self.cluster = USUAL

    # --- supervisord -------------------------------------------------------------

    @property
    def sio(self) -> Any:
        """The XML-RPC methods of the cluster."""
        return self.ctl.get_server_proxy(self.cluster)

    def call(self, method: str, *arguments: Any, about: str = "") -> Any:
        """Call an XML-RPC method; the namespace ``sio`` stands for that of the cluster.

        :param about: the subject in the text of an error.
        :raises CommandError: when the call fails.
        """
        namespace, _, name = method.partition(".")
        try:
            proxy = self.sio if namespace == "sio" else self.ctl.get_server_proxy(namespace)
            return getattr(proxy, name)(*arguments)
        except (xmlrpclib.Error, OSError, http.client.HTTPException, ExpatError) as error:
            raise self.translate(error, about) from None

    @contextlib.contextmanager
    def translating(self, about: str) -> Iterator[None]:
        """Translate errors of calls that are not made by :meth:`call`.

        :raises CommandError: the error that :meth:`translate` returns.
        """
        try:
            yield
        except BrokenPipeError:
            raise
        except (xmlrpclib.Error, OSError, http.client.HTTPException) as error:
            raise self.translate(error, about) from None

    def translate(self, error: Exception, about: str = "") -> Exception:
        """The exception to raise for one that a call has raised."""
        url = self.ctl.options.serverurl
        if isinstance(error, xmlrpclib.Fault):
            if error.faultCode != xmlrpc.Faults.UNKNOWN_METHOD:
                return refused(about, fault_text(error))
            try:
                self.sio.getAPIVersion()
            except xmlrpclib.Fault:
                return self._no_cluster()
            return CommandError(_OLDER)
        if isinstance(error, xmlrpclib.ProtocolError):
            if error.errcode != 401:
                return Unreachable(f"{url} answers {error.errcode} {error.errmsg}")
            # In its shell, the controller asks for a password and retries.
            wrong = CommandError("Server requires authentication")
            return error if self.ctl.options.interactive else wrong
        if isinstance(error, OSError):
            return Unreachable(f"{url} {_reason(error)}")
        return Unreachable(f"{url} is not supervisord: its answer is not XML-RPC")

    def _no_cluster(self) -> CommandError:
        """The error for a cluster that supervisord does not have."""
        try:
            clusters = clusters_in(self.ctl.get_server_proxy("system").listMethods())
        except xmlrpclib.Fault:
            clusters = []
        if not clusters:
            return Unreachable(NO_RPCINTERFACE, error=NO_RPCINTERFACE.partition(":")[0])
        reason = (
            f"supervisord has no cluster {self.cluster}, only {listed(clusters)}; "
            f"write: {ctl_command(clusters[0])}"
        )
        return CommandError(f"Error: {reason}", LSBInitExitStatuses.INVALID_ARGS, reason)

    # --- output ---------------------------------------------------------------------

    @property
    def size(self) -> Optional[os.terminal_size]:
        """The size of the terminal; ``None`` if the output is not a terminal."""
        try:
            size = os.get_terminal_size(self.ctl.stdout.fileno())
        except (OSError, ValueError):
            return None
        return size if size.columns and size.lines else None

    @property
    def width(self) -> Optional[int]:
        return self.size.columns if self.size else None

    def say(self, line: str) -> None:
        """Print a line, unless the output is JSON."""
        if not self.as_json:
            self.ctl.output(self.encodable(line))

    def progress(self, total: int = 0) -> Progress:
        """The progress of a command with ``total`` steps."""

        def say(line: str) -> None:
            self.say(line)
            self.ctl.stdout.flush()

        return Progress(say, None if self.as_json else self.width, total)

    def encodable(self, text: str) -> str:
        """Replace characters that the output's encoding lacks by ``?``."""
        encoding = getattr(self.ctl.stdout, "encoding", None) or "utf-8"
        return text.encode(encoding, "replace").decode(encoding)

    def document(self, content: dict[str, Any]) -> None:
        """Print the command's JSON document, if the output is JSON."""
        if self.as_json:
            self.ctl.output(json.dumps(content))

    def fail(self, error: CommandError) -> None:
        self.say(str(error))
        self.document({"error": error.error, **error.details})
        self.ctl.exitstatus = error.exitstatus


def clusters_in(methods: Iterable[str]) -> list[str]:
    """The names of the clusters, from the list of supervisord's XML-RPC methods."""
    names = (method.partition(".") for method in methods)
    return [namespace for namespace, _, name in names if name == "undrainWorker"]


def fault_text(fault: xmlrpclib.Fault) -> str:
    """The text of a fault without Supervisor's word for its kind, if it has a text."""
    kind, _, text = str(fault.faultString).partition(": ")
    # Supervisor's own faults have only the name of the process there.
    return text if " " in text else kind.lower().replace("_", " ")


def _reason(error: OSError) -> str:
    # The words of supervisorctl, where it has some.
    if error.errno == errno.ECONNREFUSED:
        return "refused connection"
    if error.errno == errno.ENOENT:
        return "no such file"
    if isinstance(error, socket.timeout) or error.errno == errno.ETIMEDOUT:
        return "does not answer"
    return (error.strerror or str(error)).lower()
