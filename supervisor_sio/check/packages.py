"""Rules about Python packages: those that a program's ``supervisor-sio`` and supervisord need, each
in its own Python."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shlex
import subprocess
import sys
import sysconfig
from importlib.machinery import all_suffixes
from typing import Any, Iterator, NamedTuple, Optional

from ..common.clusters import FACTORY_OPTION
from ..common.commands import PROGRAM
from ..common.limits import PROBE_TIMEOUT
from ..common.modes import AsyncMode
from ..common.worker_options import WorkerOptions
from .configuration import Configuration, Finding, Program
from .daemon import daemon_of
from .host import ENTER, Host, find_command, obstacle, user
from .modes import options_of
from .roles import Role
from .shebang import python_of

#: Script that prints the version of the Python, which of the given modules are missing (without
#: importing them), and whether its packages belong to the distribution (PEP 668).
_PROBE = (
    "import importlib.util, os, sys, sysconfig\n"
    "print(*sys.version_info[:2])\n"
    "print(*[m for m in sys.argv[1:] if importlib.util.find_spec(m) is None])\n"
    "mark = os.path.join(sysconfig.get_path('stdlib'), 'EXTERNALLY-MANAGED')\n"
    "print(int(sys.prefix == sys.base_prefix and os.path.exists(mark)))"
)

_PAGE = "see docs/howto/debian.md"


class _Seen(NamedTuple):
    """What the script found out about a Python."""

    version: tuple[int, ...]
    missing: list[str]
    #: Whether it belongs to the distribution, so that pip refuses to install packages there.
    managed: bool


class Need(NamedTuple):
    """An option that needs a package in the router's Python."""

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


#: The mode of the router, and of workers whose arguments cannot be seen.
_NO_MODE = AsyncMode("", (3, 9), ())


def plugin(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Is the plugin installed in supervisord's Python, which may be another than the check's?"""
    if not conf.clusters:
        return  # another rule reports it
    python, _, uid = daemon_of(conf, host)
    try:
        seen = _look(python, ["supervisor_sio"], uid, {})
    except (OSError, ValueError, subprocess.SubprocessError):
        return  # no supervisord can run on such a Python
    if seen.missing:
        install = f"{python} -m pip install supervisor-sio"
        if seen.managed:
            install = (
                f"{sys.executable} -m pip --python {python} install --break-system-packages "
                f"--no-deps supervisor-sio; {_PAGE}"
            )
        yield conf.error(
            f"rpcinterface:{next(iter(conf.clusters))}",
            FACTORY_OPTION,
            f"supervisord does not start, because its Python, {python}, has no supervisor_sio: "
            f"{install}",
        )


def packages(conf: Configuration, host: Host) -> Iterator[Finding]:
    for program in conf.of_role(Role.ROUTER, Role.WORKER):
        for process in program.processes[:1]:
            yield from _missing(conf, host, program, process)


def _missing(conf: Configuration, host: Host, program: Program, process: Any) -> Iterator[Finding]:
    python = _python(conf, host, process)
    if python is None:
        return  # another rule reports that the command cannot be found
    optional = []
    if program.role is Role.ROUTER and conf.settings:
        optional = [need for need in OPTIONAL if getattr(conf.settings, need.option)]
    told = options_of(program) if program.role is Role.WORKER else None
    mode = told.mode if told else _NO_MODE
    needed = [*_NEEDED[program.role], *mode.modules]
    modules = [*needed, *mode.faster, *(need.module for need in optional)]
    absent = _not_in_directory(conf, process, told) if told else ""
    modules += [absent] * bool(absent)
    uid = conf.uid if process.uid is None else process.uid
    # Behind a wrapper it may be another user, or see other directories.
    direct = os.path.basename(_split(process.command)[0]) == PROGRAM
    if direct and (hindrance := _closed(python, uid)):
        yield conf.error(program.section, "command", hindrance)
        return
    try:
        version, missing, managed = _look(python, modules, uid, process.environment)
    # ValueError: the environment is invalid.
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
        advice = f"{install} {package}"
        if managed:
            advice = (
                "write the full path of the supervisor-sio in the virtual environment of your "
                f"application; {_PAGE}"
            )
        yield conf.error(
            program.section,
            "command",
            f"its Python, {python}, has no {', '.join(lacking)}: {advice}",
        )
    if slower := [module for module in mode.faster if module in missing]:
        yield conf.warning(
            program.section,
            "command",
            f"its Python, {python}, has no {', '.join(slower)}, with which --async-mode "
            f"{mode.name} takes less CPU: {install} {package}",
        )
    if absent in missing and direct:
        yield conf.warning(
            program.section,
            "directory" if process.directory else "command",
            f"there is no module {absent!r} in {conf.directory_of(process)}, or in its Python, "
            f"{python}; write directory = the directory that has {absent}.py",
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
    """The interpreter of the ``supervisor-sio`` that a command starts, if it can be determined."""
    words = [
        inner
        for word in _split(process.command)
        for inner in (_split(word) if " " in word else [word])
    ]
    name = next((word for word in words if os.path.basename(word) == PROGRAM), None)
    if name is None:
        return None
    own_path = process.environment.get("PATH")
    path = daemon_of(conf, host).searches(True) if own_path is None else own_path.split(os.pathsep)
    start = getattr(conf.supervisord, "directory", None) or os.getcwd()
    found = find_command(name, path, start)
    return python_of(found) if found else None


def _not_in_directory(conf: Configuration, process: Any, told: WorkerOptions) -> str:
    """The package or module of a worker's application, unless its directory has it, or its own
    PYTHONPATH, which is often relative to that."""
    name = told.application.partition(":")[0].partition(".")[0]
    directory = conf.directory_of(process)
    more = process.environment.get("PYTHONPATH", "").split(os.pathsep)
    paths = [os.path.join(directory, path, name) for path in ("", *more)]
    files = (path + suffix for path in paths for suffix in all_suffixes())
    # Another rule reports a directory that does not exist, and the empty name.
    there = any(map(os.path.isdir, paths)) or any(map(os.path.exists, files))
    return "" if there or not os.access(directory, os.X_OK) else name


def _closed(python: str, uid: Optional[int]) -> Optional[str]:
    """Why a user cannot run an interpreter: homes are closed to others on many systems."""
    if uid is None:
        return None
    who = user(uid)
    # The directory of the virtual environment, and the Python that its link leads to.
    for path in (os.path.dirname(python), python):
        if os.path.exists(path) and (hindrance := obstacle(path, who, ENTER)):
            return (
                f"{who.name} may not enter {hindrance}, and cannot run {python}; create the "
                f"virtual environment in a directory, and with a Python, that {who.name} may use"
            )
    return None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _look(
    python: str, modules: list[str], uid: Optional[int], environment: dict[str, str]
) -> _Seen:
    """:raises OSError: when that Python does not run.
    :raises subprocess.SubprocessError: when it fails, or takes too long.
    """
    if _is_this(python) and "PYTHONPATH" not in environment:
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        mark = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
        managed = sys.prefix == sys.base_prefix and os.path.exists(mark)
        return _Seen(sys.version_info[:2], missing, managed)
    identity: dict[str, Any] = {}
    if uid and os.getuid() == 0:
        # Files of a user must not be run as root.
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
    version, names, mark = done.stdout.splitlines()
    return _Seen(tuple(map(int, version.split())), names.split(), mark == "1")


def _is_this(python: str) -> bool:
    """Whether it is the running Python, of the same virtual environment."""
    return os.path.dirname(python) == os.path.dirname(sys.executable) and os.path.realpath(
        python
    ) == os.path.realpath(sys.executable)
