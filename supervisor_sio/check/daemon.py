"""The supervisord that a configuration is for: its Python, and where it looks for commands.

It need not be the one beside this package. Debian's runs on ``/usr/bin/python3``, and is started by
systemd, while the check is in the virtual environment of an application.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple, Optional

from .configuration import Configuration
from .host import Host
from .shebang import python_of

#: Where Debian's package has its configuration, and the supervisord that it starts with it.
_DEBIAN = "/etc/supervisor", "/usr/bin/supervisord"

#: That of a service (systemd.exec(5)).
_SERVICE_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Daemon(NamedTuple):
    """A supervisord that runs, or will."""

    python: str
    path: tuple[str, ...]
    #: Whose it is, where that is known: what belongs to a user is not run by root.
    uid: Optional[int] = None

    def searches(self, is_ours: bool) -> list[str]:
        """Directories, in which it looks for a command; for ours the plugin adds one."""
        return [*self.path, *[os.path.dirname(self.python)] * is_ours]


def daemon_of(conf: Configuration, host: Host) -> Daemon:
    """The one that runs, if its pidfile tells; else Debian's, if the file is where that looks for
    it; else one in this environment."""
    running = _running(getattr(conf.supervisord, "pidfile", None) or "")
    if running is not None:
        return running if running.path else running._replace(path=host.path)
    directory, program = _DEBIAN
    python = python_of(program) if os.path.realpath(conf.here) == directory else None
    return Daemon(python, _SERVICE_PATH) if python else Daemon(sys.executable, host.path)


def _running(pidfile: str) -> Optional[Daemon]:
    """Without a PATH, if that may not be read."""
    try:
        with open(pidfile, encoding="ascii") as file:
            pid = int(file.read())
        python, script = _words(pid, "cmdline")[:2]
        uid = os.stat(f"/proc/{pid}").st_uid
    except (OSError, ValueError):
        return None
    # Another process may have the number by now.
    if os.path.basename(script) != "supervisord" or "python" not in os.path.basename(python):
        return None
    if not os.path.isabs(python):
        return None
    try:
        variables = dict(word.partition("=")[::2] for word in _words(pid, "environ"))
    except OSError:  # of another user
        variables = {}
    return Daemon(python, tuple(filter(None, variables.get("PATH", "").split(os.pathsep))), uid)


def _words(pid: int, name: str) -> list[str]:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return os.fsdecode(file.read()).split("\0")
