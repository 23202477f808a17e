"""Open the listening sockets of the shared port in supervisord."""

from __future__ import annotations

import errno
import os
import socket
import stat

from ..common.addresses import Address, resolve
from ..common.rundir import user_name
from ..settings import SettingsError

#: The kernel reports a new connection when it has sent data, or after this many seconds
#: (tcp(7), TCP_DEFER_ACCEPT).
_DEFER_ACCEPT = 5


def bind(
    address: Address, backlog: int, option: str = "listen", dropped: bool = False
) -> socket.socket:
    """Open a non-blocking listening socket.

    :param option: the option that has the address.
    :param dropped: whether this process ran as root before it switched to ``user``.
    :raises SettingsError: when the address cannot be used, with the reason.
    """
    try:
        return _bind_unix(address, backlog) if address.path else _bind_tcp(address, backlog)
    except UnicodeError:  # of the codec for host names
        raise SettingsError(option, f"{address}: not a host name") from None
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "address already in use; stop the program that listens there"
        elif error.errno == errno.EACCES and address.port:
            reason = _low_port(dropped)
        raise SettingsError(option, f"{address}: {reason}") from None


def _low_port(dropped: bool) -> str:
    user = user_name(os.geteuid())
    if dropped:
        return (
            f"permission denied: only root may open a port this low, and user = {user} in "
            "[supervisord] drops root's rights before ports are opened; move user to the sections "
            "of the programs, or use a higher port"
        )
    return (
        f"permission denied: only root may open a port this low, and {user} started supervisord; "
        "start it as root, or use a higher port"
    )


def _bind_tcp(address: Address, backlog: int) -> socket.socket:
    family, sockaddr = resolve(address)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # So that a process can listen at 0.0.0.0 and at [::].
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted connections inherit TCP_NODELAY and SO_KEEPALIVE.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_ACCEPT)
        sock.bind(sockaddr)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_unix(address: Address, backlog: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(address.path)
        # All users who can reach the directory may connect. The umask sets the mode, because a
        # user who may write to the directory could put a link in the socket's place before a
        # chmod().
        umask = os.umask(0o111)
        try:
            sock.bind(address.path)
        finally:
            os.umask(umask)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket file on which no process listens; keep any other file."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # with a full backlog, a process does listen
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            pass


def close(sock: socket.socket, address: Address) -> None:
    """Stop listening, and remove the file of a Unix socket."""
    sock.close()
    if address.path:
        try:
            os.unlink(address.path)
        except OSError:
            pass
