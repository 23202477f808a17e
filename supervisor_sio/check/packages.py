"""Rules about Python packages: what the ``supervisor-sio`` of a program needs, in its Python."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shlex
import subprocess
import sys
from typing import Any, Iterator, NamedTuple, Optional

from ..common.commands import PROGRAM
from ..common.limits import PROBE_TIMEOUT
from ..common.modes import AsyncMode
from .configuration import Configuration, Finding, Program
from .host import Host, find_command, user
from .modes import options_of
from .roles import Role

#: Says which Python it is, and which of the modules it is given are not there, without importing
#: them.
_PROBE = (
    "import importlib.util, sys\n"
    "print(*sys.version_info[:2])\n"
    "print(*[m for m in sys.argv[1:] if importlib.util.find_spec(m) is None])"
)

#: What pip and setuptools write where a path is too long, or has spaces, for a first line.
_EXEC = re.compile(rb"""^'''exec' "?([^"\n]+?)"? "\$0" "\$@"$""", re.MULTILINE)


class Need(NamedTuple):
    """An option that takes a package in the Python of the router."""

    option: str
    module: str
    extra: str


OPTIONAL = (
    Need("metrics", "prometheus_client", "metrics"),
    Need("message_queue", "redis", "redis"),
)
_NEEDED = {
    Role.ROUTER: ("supervisor_sio", "zmq"),
    Role.WORKER: ("supervisor_sio", "zmq", "socketio"),
}


#: For the router, and for workers whose arguments cannot be seen.
_NO_MODE = AsyncMode("", (3, 9), ())


def packages(conf: Configuration, host: Host) -> Iterator[Finding]:
    for program in conf.of_role(Role.ROUTER, Role.WORKER):
        for process in program.processes[:1]:
            yield from _missing(conf, host, program, process)


def _missing(conf: Configuration, host: Host, program: Program, process: Any) -> Iterator[Finding]:
    python = _python(conf, host, process)
    if python is None:
        return  # another rule says that the command cannot be found
    optional = []
    if program.role is Role.ROUTER and conf.settings:
        optional = [need for need in OPTIONAL if getattr(conf.settings, need.option)]
    told = options_of(program) if program.role is Role.WORKER else None
    mode = told.mode if told else _NO_MODE
    needed = [*_NEEDED[program.role], *mode.modules]
    modules = [*needed, *mode.faster, *(need.module for need in optional)]
    uid = conf.uid if process.uid is None else process.uid
    try:
        version, missing = _look(python, modules, uid, process.environment)
    # ValueError: an environment that no process can have.
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        yield conf.error(
            program.section, "command", f"its Python, {python}, does not run: {reason}"
        )
        return
    install = f"{python} -m pip install"
    if version < mode.python:
        oldest, found = (".".join(map(str, each)) for each in (mode.python, version))
        yield conf.error(
            program.section,
            "command",
            f"--async-mode {mode.name} needs Python {oldest}, and {python} is {found}",
        )
        return
    package = f"'supervisor-sio[{mode.extra}]'" if mode.extra else "supervisor-sio"
    if lacking := [module for module in needed if module in missing]:
        yield conf.error(
            program.section,
            "command",
            f"its Python, {python}, has no {', '.join(lacking)}: {install} {package}",
        )
    if slower := [module for module in mode.faster if module in missing]:
        yield conf.warning(
            program.section,
            "command",
            f"its Python, {python}, has no {', '.join(slower)}, with which --async-mode "
            f"{mode.name} takes less CPU: {install} {package}",
        )
    for need in optional:
        if need.module in missing:
            yield conf.error(
                conf.plugin,
                need.option,
                f"needs the {need.module} package in the Python of [{program.section}]: "
                f"{install} 'supervisor-sio[{need.extra}]'",
            )


def _python(conf: Configuration, host: Host, process: Any) -> Optional[str]:
    """The interpreter of the ``supervisor-sio`` that a command starts, if it can be seen."""
    words = [
        inner
        for word in _split(process.command)
        for inner in (_split(word) if " " in word else [word])
    ]
    name = next((word for word in words if os.path.basename(word) == PROGRAM), None)
    if name is None:
        return None
    own_path = process.environment.get("PATH")
    path = own_path.split(os.pathsep) if own_path is not None else list(host.path)
    if own_path is None:
        path.append(os.path.dirname(sys.executable))
    start = getattr(conf.supervisord, "directory", None) or os.getcwd()
    found = find_command(name, path, start)
    return _shebang(found) if found else None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _shebang(path: str) -> Optional[str]:
    try:
        with open(path, "rb") as file:
            head = file.read(2048)
    except OSError:
        return None
    if match := _EXEC.search(head):
        return os.fsdecode(match.group(1))
    line = head.partition(b"\n")[0]
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    # Through `env` it depends on the PATH: not to be seen from here.
    return words[0] if words and "python" in os.path.basename(words[0]) else None


def _look(
    python: str, modules: list[str], uid: Optional[int], environment: dict[str, str]
) -> tuple[tuple[int, ...], list[str]]:
    """The version, and the modules that are missing there.

    :raises OSError: when that Python does not run.
    :raises subprocess.SubprocessError: when it fails, or takes too long.
    """
    if _is_this(python) and "PYTHONPATH" not in environment:
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        return sys.version_info[:2], missing
    identity: dict[str, Any] = {}
    if uid and os.getuid() == 0:
        # What belongs to a user is not run by root.
        who = user(uid)
        identity = {"user": uid, "extra_groups": sorted(who.gids)}
        if who.gids:
            identity["group"] = pwd.getpwuid(uid).pw_gid
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [python, "-c", _PROBE, *modules],
        check=True,
        cwd="/",
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=PROBE_TIMEOUT,
        **identity,
    )
    version, _, names = done.stdout.partition("\n")
    return tuple(map(int, version.split())), names.split()


def _is_this(python: str) -> bool:
    """Whether it is the Python that runs here, of the same virtual environment."""
    return os.path.dirname(python) == os.path.dirname(sys.executable) and os.path.realpath(
        python
    ) == os.path.realpath(sys.executable)
