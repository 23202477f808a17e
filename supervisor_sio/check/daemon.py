"""The supervisord that a configuration is for: its Python, and its PATH.

It may run in another Python than this check: Debian's runs on ``/usr/bin/python3`` and is started
by systemd, while the check runs in the virtual environment of an application.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple, Optional

from .configuration import Configuration
from .host import Host
from .shebang import python_of

#: The directory of the configuration of Debian's package, and its supervisord.
_DEBIAN = "/etc/supervisor", "/usr/bin/supervisord"

#: The PATH of a service (systemd.exec(5)).
_SERVICE_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Daemon(NamedTuple):
    """A supervisord that runs, or will be started."""

    python: str
    path: tuple[str, ...]
    #: The uid of its process, if known; its Python is then run as this user, not as root.
    uid: Optional[int] = None

    def searches(self, is_ours: bool) -> list[str]:
        """The directories in which it looks for a command; the plugin adds one for our command."""
        return [*self.path, *[os.path.dirname(self.python)] * is_ours]


def daemon_of(conf: Configuration, host: Host) -> Daemon:
    """The running supervisord, if its pidfile names one; else Debian's, if the configuration is in
    its directory; else one in this environment."""
    running = _running(getattr(conf.supervisord, "pidfile", None) or "")
    if running is not None:
        return running if running.path else running._replace(path=host.path)
    directory, program = _DEBIAN
    python = python_of(program) if os.path.realpath(conf.here) == directory else None
    return Daemon(python, _SERVICE_PATH) if python else Daemon(sys.executable, host.path)


def _running(pidfile: str) -> Optional[Daemon]:
    """The supervisord of a pidfile, with an empty PATH if its environment is not readable."""
    try:
        with open(pidfile, encoding="ascii") as file:
            pid = int(file.read())
        python, script = _words(pid, "cmdline")[:2]
        uid = os.stat(f"/proc/{pid}").st_uid
    except (OSError, ValueError):
        return None
    # The pid may belong to another process by now.
    if os.path.basename(script) != "supervisord" or "python" not in os.path.basename(python):
        return None
    if not os.path.isabs(python):
        return None
    try:
        variables = dict(word.partition("=")[::2] for word in _words(pid, "environ"))
    except OSError:  # a process of another user
        variables = {}
    return Daemon(python, tuple(filter(None, variables.get("PATH", "").split(os.pathsep))), uid)


def _words(pid: int, name: str) -> list[str]:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return os.fsdecode(file.read()).split("\0")
