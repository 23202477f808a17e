"""Listening sockets of the shared port, as supervisord opens them."""

from __future__ import annotations

import errno
import os
import socket
import stat

from ..common.addresses import Address, resolve
from ..common.rundir import user_name
from ..settings import SettingsError

#: The kernel wakes the router only when a new connection has sent something;
#: after this many seconds also when it has not (tcp(7), TCP_DEFER_ACCEPT).
_DEFER_ACCEPT = 5


def bind(
    address: Address, backlog: int, option: str = "listen", dropped: bool = False
) -> socket.socket:
    """A non-blocking listening socket.

    :param option: where the address comes from.
    :param dropped: this process was root's, until ``user`` in ``[supervisord]`` was obeyed.
    :raises SettingsError: when the address cannot be had, with the reason.
    """
    try:
        return _bind_unix(address, backlog) if address.path else _bind_tcp(address, backlog)
    except UnicodeError:  # of the codec that host names go through
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
            f"permission denied: user = {user} in [supervisord] gives root's rights up before a "
            "port is opened, and one this low is for root; take user out there and write it in "
            "the sections of the programs, or take a higher port"
        )
    return (
        f"permission denied: a port this low is for root, and supervisord was started by {user}; "
        "start it as root, or take a higher port"
    )


def _bind_tcp(address: Address, backlog: int) -> socket.socket:
    family, sockaddr = resolve(address)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # So that 0.0.0.0 and [::] can stand side by side.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted connections inherit both.
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
        # A shared port is for everybody who can reach its directory. The socket is made with
        # its mode: whoever may write to the directory could put a link in its place before
        # a chmod().
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
    """Remove a socket file that nobody listens on any more; leave anything else."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is a sign of life, too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            pass


def close(sock: socket.socket, address: Address) -> None:
    """Stop listening; a Unix socket's file goes with it."""
    sock.close()
    if address.path:
        try:
            os.unlink(address.path)
        except OSError:
            pass
