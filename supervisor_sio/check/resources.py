"""Rules about resources of the host: descriptors, files, users, addresses."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
from typing import Iterator, Optional

from ..common.addresses import Address, Place, resolve
from ..common.certificates import describe, make_context
from ..common.redis_client import PackageMissing, QueueError, make_client
from ..common.rundir import ADVICE, RunDir, is_for_all
from ..settings import Settings, conflicts
from .configuration import Configuration, Finding
from .host import (
    ENTER,
    READ,
    WRITE,
    Host,
    User,
    existing,
    lets_in,
    listen_fault,
    may_be_running,
    obstacle,
    overlap,
    user,
)
from .roles import Role

#: Fewer descriptors than this are likely to be too few for a worker.
_DESCRIPTORS = 4096

#: sockaddr_un.sun_path without the closing NUL (unix(7)).
_LONGEST_SOCKET_PATH = 107


def _supervisord(conf: Configuration, host: Host) -> User:
    """The user that supervisord runs as, if the user of this check starts it."""
    return user(host.uid if conf.uid is None else conf.uid)


def descriptors(conf: Configuration, host: Host) -> Iterator[Finding]:
    minfds = getattr(conf.supervisord, "minfds", 1024)
    # supervisord raises its limits after it has switched to its user.
    root = _supervisord(conf, host).uid == 0
    if minfds > host.descriptors and not root:
        yield conf.warning(
            "supervisord",
            "minfds",
            f"{minfds} is more than the hard limit here, {host.descriptors}, and only root may "
            "raise that: supervisord does not start; raise LimitNOFILE= of its service or "
            "`ulimit -Hn`",
        )
    limit = max(host.descriptors, minfds) if root else host.descriptors
    if limit < _DESCRIPTORS:
        advice = "write minfds = 65536, or raise" if root else "raise"
        yield conf.warning(
            "supervisord",
            "minfds",
            f"each client is an open file of its worker, so with the limit here, {limit}, a worker "
            f"can serve fewer than {limit} clients; {advice} LimitNOFILE= of supervisord's service "
            "or `ulimit -Hn`",
        )


def backlog(conf: Configuration, host: Host) -> Iterator[Finding]:
    if conf.settings and conf.settings.backlog > host.somaxconn:
        yield conf.warning(
            conf.plugin,
            "backlog",
            f"the kernel reduces {conf.settings.backlog} to {host.somaxconn}; raise "
            "net.core.somaxconn (sysctl), or write less",
        )


# --- sockets ------------------------------------------------------------------------


def http_socket(conf: Configuration, host: Host) -> Iterator[Finding]:
    for server in conf.servers:
        if "file" in server:
            # supervisord creates the socket with its pid appended to the name, and links it.
            longest = _LONGEST_SOCKET_PATH - len(".4194304")
            fault = _bind_fault(server["file"], _supervisord(conf, host), longest)
            if fault:
                yield conf.error(server["section"], "file", fault)


def listen(conf: Configuration, host: Host) -> Iterator[Finding]:
    if conf.settings is None:
        return
    who = _supervisord(conf, host)
    taken = _http_places(conf)
    for name, settings in _earlier(conf):
        for option, address in _addresses(settings):
            with contextlib.suppress(OSError):  # reported for the other cluster's section
                taken.append((_places(address)[0], f"[rpcinterface:{name}] {option}"))
    for option, address in _addresses(conf.settings):
        try:
            places = _places(address)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            yield conf.error(
                conf.plugin, option, f"{address}: {reason}; write a name or address of this host"
            )
            continue
        place = places[0]
        # A client that resolves the same name may try another address, and is refused.
        found = list(dict.fromkeys(str(place.sockaddr[0]) for place in places))
        if len(found) > 1:
            yield conf.warning(
                conf.plugin,
                option,
                f"{address}: {address.host} is {' and '.join(found)} here, and supervisord listens "
                f"at {found[0]} only; write one of them, or each of them in listen",
            )
        holder = next((name for other, name in taken if overlap(place, other)), None)
        taken.append((place, f"{option} {address}"))
        if holder:
            what = "path" if address.path else "port"
            fault: Optional[str] = f"{holder} uses this {what} too; change one of them"
        else:
            fault = _unix_fault(address, who) if address.path else _tcp_fault(conf, place)
        if fault:
            yield conf.error(conf.plugin, option, f"{address}: {fault}")
        elif not address.path and address.port < host.first_port and who.uid != 0:
            advice = (
                f"move user = {who.name} from [supervisord] to the sections of the programs, or "
                "use a higher port"
                if conf.uid is not None
                else "start it as root, use a higher port, or give it CAP_NET_BIND_SERVICE"
            )
            yield conf.warning(
                conf.plugin,
                option,
                f"{address}: a port below {host.first_port} needs a supervisord that runs as root, "
                f"not as {who.name}; {advice}",
            )


def _earlier(conf: Configuration) -> Iterator[tuple[str, Settings]]:
    """The clusters before this one, so that each pair is compared once."""
    for name, settings in conf.clusters.items():
        if name == conf.cluster:
            return
        if settings is not None:
            yield name, settings


def _addresses(settings: Settings) -> list[tuple[str, Address]]:
    """The addresses at which a cluster listens, with their options."""
    addresses = [("listen", address) for address in settings.listen]
    if settings.metrics is not None:
        addresses.append(("metrics", settings.metrics))
    return addresses


def apart(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Do two clusters share what they must not? :func:`listen` is about addresses."""
    for name, settings in _earlier(conf):
        for error in conflicts(conf.settings, settings, name) if conf.settings else ():
            if error.option not in ("listen", "metrics"):
                yield conf.error(conf.plugin, error.option, error.reason)


def _places(address: Address) -> list[Place]:
    """The places of an address; a socket is bound to the first.

    :raises OSError: when the host has no such address.
    """
    if address.path:
        directory, name = os.path.split(address.path)
        return [Place(socket.AF_UNIX, (os.path.join(os.path.realpath(directory), name),))]
    try:
        return resolve(address)
    except UnicodeError:
        raise OSError(errno.EINVAL, "not a host name") from None


def _http_places(conf: Configuration) -> list[tuple[Place, str]]:
    """The places of supervisord's own servers, with their sections."""
    places = []
    for server in conf.servers:
        try:
            if "file" in server:
                place = _places(Address(path=server["file"]))[0]
            else:  # for IPv4 alone
                address = Address(server["host"] or "0.0.0.0", server["port"])
                place = resolve(address, socket.AF_INET)[0]
        except (OSError, UnicodeError):
            continue  # supervisord reports it
        places.append((place, f"[{server['section']}]"))
    return places


def _unix_fault(address: Address, who: User) -> Optional[str]:
    fault = _bind_fault(address.path, who, _LONGEST_SOCKET_PATH)
    if fault:
        return fault
    if os.path.exists(address.path) and not stat.S_ISSOCK(os.stat(address.path).st_mode):
        return "this file is not a socket; remove it, or use another path"
    return None


def _bind_fault(path: str, who: User, longest: int) -> Optional[str]:
    directory = os.path.dirname(path)
    if len(os.fsencode(path)) > longest:
        return f"the path of this Unix socket has more than {longest} bytes; shorten it"
    if not os.path.isdir(directory):
        return f"{directory} is not a directory; create it"
    hindrance = obstacle(directory, who, WRITE | ENTER)
    if hindrance:
        return (
            f"supervisord as {who.name} may not write to {hindrance}; change its owner, or the "
            "user of supervisord"
        )
    return None


def _tcp_fault(conf: Configuration, place: Place) -> Optional[str]:
    error = listen_fault(place)
    if error is None or error.errno == errno.EACCES:
        return None
    if error.errno == errno.EADDRNOTAVAIL:
        return "not an address of this host; write 0.0.0.0 for all its addresses"
    if error.errno != errno.EADDRINUSE:
        return (error.strerror or str(error)).lower()
    if may_be_running(conf.servers):
        return None
    return "address already in use; stop the program that listens there"


def tls(conf: Configuration, host: Host) -> Iterator[Finding]:
    settings = conf.settings
    if settings is None or not settings.tls_certfile:
        return
    files = [("tls_certfile", settings.tls_certfile)]
    if settings.tls_keyfile:
        files.append(("tls_keyfile", settings.tls_keyfile))
    readers = [_supervisord(conf, host)]
    for program in conf.of_role(Role.ROUTER):
        for process in program.processes[:1]:
            if process.uid not in (None, readers[0].uid):
                readers.append(user(process.uid))
    told = False
    for option, file in files:
        for who in readers:
            hindrance = obstacle(file, who, READ)
            if hindrance:
                told = True
                part = "supervisord" if who is readers[0] else "the router"
                yield conf.error(
                    conf.plugin,
                    option,
                    f"{part} as {who.name} may not read {hindrance}; let that user in "
                    "with chmod, chown or setfacl",
                )
    if told:
        return
    try:
        make_context(settings.tls_certfile, settings.tls_keyfile)
    except PermissionError:
        pass  # only this check may not read it; supervisord runs as another user
    except OSError as error:
        reason = describe(error, settings.tls_certfile, settings.tls_keyfile)
        yield conf.error(conf.plugin, "tls_certfile", f"{reason}; write the path of a PEM file")


def message_queue(conf: Configuration, host: Host) -> Iterator[Finding]:
    if conf.settings and conf.settings.message_queue:
        try:
            make_client(conf.settings.message_queue)
        except PackageMissing:
            pass  # missing in this Python; the router's may have it
        except QueueError as error:
            yield conf.error(conf.plugin, "message_queue", str(error))


# --- the run directory, and who may enter it -------------------------------------------


def run_dir(conf: Configuration, host: Host) -> Iterator[Finding]:
    settings = conf.settings
    if settings is None or settings.run_dir is None:
        return
    fault = _run_dir_fault(settings.run_dir, _supervisord(conf, host), settings.chown[0])
    if fault:
        yield conf.error(conf.plugin, "run_dir", fault)


def _run_dir_fault(path: str, who: User, owner: int) -> Optional[str]:
    if len(os.fsencode(RunDir(path).supervisord)) > _LONGEST_SOCKET_PATH:
        most = _LONGEST_SOCKET_PATH
        return f"{path} is too long: a Unix socket's path has {most} bytes at most"
    # supervisord creates missing directories.
    there = existing(path)
    if not os.path.isdir(there):
        return f"{there} is not a directory; {ADVICE}"
    if os.path.islink(path):
        return f"{path} is a symbolic link; name the directory itself"
    if there == path:
        status = os.stat(path)
        found = status.st_uid
        if found not in ((0, owner) if who.uid == 0 else (who.uid,)):
            return f"{path} belongs to {user(found).name}; {ADVICE}"
        if is_for_all(status.st_mode):
            return f"{path} is for the files of all users; {ADVICE}"
    hindrance = obstacle(there, who, WRITE | ENTER)
    if hindrance:
        return (
            f"supervisord as {who.name} may not write to {hindrance}; create {path} and "
            "give it to that user, or use another path"
        )
    return None


def mode(conf: Configuration, host: Host) -> Iterator[Finding]:
    if conf.settings and conf.settings.chmod & 0o022:
        enough = conf.settings.chmod & 0o711
        yield conf.warning(
            conf.plugin,
            "chmod",
            f"{conf.settings.chmod:04o} lets others replace the sockets in run_dir; workers and "
            f"emitters only need to enter it: write {enough:04o}",
        )


def owner(conf: Configuration, host: Host) -> Iterator[Finding]:
    who = _supervisord(conf, host)
    if conf.settings is None or who.uid == 0:
        return
    uid, gid = conf.settings.chown
    if uid not in (-1, who.uid) or (gid != -1 and gid not in who.gids):
        yield conf.error(
            conf.plugin,
            "chown",
            f"supervisord as {who.name} may not give files away; start it as root, "
            "or name a group that this user is in",
        )


def users(conf: Configuration, host: Host) -> Iterator[Finding]:
    """Can the users of all processes of the cluster enter the run directory?"""
    who = _supervisord(conf, host)
    for program in conf.of_role(Role.ROUTER) + conf.workers:
        for process in program.processes[:1]:
            if process.uid is None or process.uid == who.uid:
                continue
            other = user(process.uid)
            if who.uid != 0:
                yield conf.error(
                    program.section,
                    "user",
                    f"a supervisord that runs as {who.name} cannot start it as {other.name}; "
                    "start supervisord as root, without user in [supervisord]",
                )
            elif conf.settings:
                fault = _entry_fault(conf, conf.settings, who, other)
                if fault:
                    # Not every Python program needs the run directory.
                    report = conf.warning if program.role is Role.PYTHON else conf.error
                    yield report(program.section, "user", fault)


def _entry_fault(conf: Configuration, settings: Settings, who: User, other: User) -> Optional[str]:
    """Why a user cannot enter the run directory that supervisord will create."""
    there = existing(settings.run_dir or tempfile.gettempdir())
    uid, gid = settings.chown
    if there == settings.run_dir:
        gid = os.stat(there).st_gid if gid == -1 else gid
        there = os.path.dirname(there)
    uid = who.uid if uid == -1 else uid
    hindrance = obstacle(there, other, ENTER)
    if hindrance:
        return (
            f"{other.name} may not enter {hindrance}, which has the run directory; set run_dir in "
            f"[{conf.plugin}] to another directory"
        )
    if not lets_in(settings.chmod, uid, gid, other, ENTER):
        return (
            f"{other.name} may not enter the run directory, which is {user(uid).name}'s with "
            f"mode {settings.chmod:04o}; write chown = {who.name}:GROUP with a group of that user, "
            f"and chmod = 0710, in [{conf.plugin}]"
        )
    return None
