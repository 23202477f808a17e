"""Facts about the machine that the rules need; nothing here changes the machine."""

from __future__ import annotations

import os
import pwd
import resource
import socket
import stat
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Sequence

from ..common.addresses import Place

READ, WRITE, ENTER = os.R_OK, os.W_OK, os.X_OK


@dataclass(frozen=True)
class Host:
    """Figures of this host, and of the environment in which the check runs."""

    uid: int
    #: The hard limit of open descriptors.
    descriptors: int
    somaxconn: int
    #: Ports below this one need root.
    first_port: int
    path: tuple[str, ...]
    #: Limit of threads for a user or a container; root has no limit of its own.
    threads: int = sys.maxsize
    #: Bytes of memory of the host, or the limit of the container.
    memory: int = sys.maxsize

    @classmethod
    def here(cls) -> Host:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return cls(
            uid=os.getuid(),
            descriptors=sys.maxsize if hard == resource.RLIM_INFINITY else hard,
            somaxconn=_figure("/proc/sys/net/core/somaxconn", sys.maxsize),
            first_port=_figure("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024),
            threads=_most_threads(),
            memory=_memory(),
            path=tuple(os.environ.get("PATH", "/bin:/usr/bin:/usr/local/bin").split(os.pathsep)),
        )


def _figure(path: str, default: int) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return default


def _memory() -> int:
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(there, _figure("/sys/fs/cgroup/memory.max", sys.maxsize))


def _most_threads() -> int:
    # These limits also count threads of other programs, whose number is unknown.
    limits = [
        _figure("/proc/sys/kernel/threads-max", sys.maxsize),
        _figure("/sys/fs/cgroup/pids.max", sys.maxsize),
    ]
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if hard != resource.RLIM_INFINITY and os.getuid() != 0:  # setrlimit(2)
        limits.append(hard)
    return min(limits)


class User(NamedTuple):
    """A user whose access to files is checked."""

    uid: int
    gids: frozenset[int]
    name: str


def user(uid: int) -> User:
    """The user, with the groups that supervisord gives to its processes."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, frozenset(), f"with uid {uid}")
    return User(uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)), entry.pw_name)


def lets_in(mode: int, owner: int, group: int, who: User, want: int) -> bool:
    """Whether permission bits give ``want`` (``READ``, ``WRITE``, ``ENTER``) to a user."""
    if who.uid == 0:
        return True
    if who.uid == owner:
        mode >>= 6
    elif group in who.gids:
        mode >>= 3
    return mode & want == want


def obstacle(path: str, who: User, want: int) -> Optional[str]:
    """The directory or file whose mode denies a user access to a path, if this can be seen."""
    path = os.path.realpath(path)
    parents = [path]
    while parents[-1] != "/":
        parents.append(os.path.dirname(parents[-1]))
    for parent in reversed(parents):
        try:
            status = os.stat(parent)
        except OSError:
            return None
        wanted = want if parent is path else ENTER
        if not lets_in(status.st_mode, status.st_uid, status.st_gid, who, wanted):
            return None if _has_acl(parent) else parent
    return None


def _has_acl(path: str) -> bool:
    """Whether an ACL adds to the permission bits (acl(5))."""
    try:
        os.getxattr(path, "system.posix_acl_access")
        return True
    except OSError:
        return False


def existing(path: str) -> str:
    """The path, or its deepest directory that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def find_command(program: str, path: Sequence[str], directory: str) -> Optional[str]:
    """The file that supervisord would run: the first one of that name."""
    if "/" in program:
        candidates = [os.path.join(directory, program)]
    else:
        candidates = [os.path.join(part, program) for part in path]
    return next((candidate for candidate in candidates if os.path.exists(candidate)), None)


def command_fault(program: str, path: Sequence[str], directory: str) -> Optional[str]:
    """Why supervisord cannot start a program, or ``None``."""
    found = find_command(program, path, directory)
    if found is None:
        searched = os.pathsep.join(dict.fromkeys(path))
        where = "does not exist" if "/" in program else f"is not on the PATH {searched}"
        return f"{program} {where}"
    mode = os.stat(found).st_mode
    if stat.S_ISDIR(mode):
        return f"{found} is a directory"
    return None if mode & 0o111 else f"{found} is not executable"


def terminal_owner(path: str, who: User) -> Optional[str]:
    """The owner of this terminal, if the user may not write to it."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISCHR(status.st_mode):
        return None
    may = lets_in(status.st_mode, status.st_uid, status.st_gid, who, WRITE)
    return None if may else user(status.st_uid).name


def listen_fault(place: Place) -> Optional[OSError]:
    """The error of binding a TCP address, or ``None``; no client can connect meanwhile."""
    try:
        with socket.socket(place.family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if place.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(place.sockaddr)
    except OSError as error:
        return error
    return None


def overlap(one: Place, other: Place) -> bool:
    """Whether a process cannot listen at both places.

    Binding both would not show it: with SO_REUSEADDR, the kernel refuses only when one of them
    listens, and listening would let clients connect.
    """
    if one == other:
        return True
    hosts = {one.sockaddr[0], other.sockaddr[0]}
    return (
        one.family == other.family
        and one.sockaddr[1:2] == other.sockaddr[1:2]
        and not hosts.isdisjoint({"0.0.0.0", "::"})
    )


def may_be_running(servers: Sequence[Any]) -> bool:
    """Whether a supervisord may run already: one of its HTTP servers accepts connections."""
    for server in servers:
        target: Any = server.get("file") or (server["host"] or "127.0.0.1", server["port"])
        with socket.socket(server["family"], socket.SOCK_STREAM) as sock:
            sock.settimeout(1)
            try:
                sock.connect(target)
                return True
            except (ConnectionRefusedError, FileNotFoundError):
                pass
            except OSError:
                return True
    return False
