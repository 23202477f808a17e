"""``[rpcinterface:sio]``: the name that stands in supervisord's configuration."""

from __future__ import annotations

import os
import socket
import sys
from typing import NoReturn, Optional

from .settings import SettingsError, parse_settings
from .supervisord.cluster import Cluster
from .supervisord.dispatchers import Supervisord
from .supervisord.rpc import SioRPCInterface

#: The cluster of the running supervisord: it calls the factory once for each of
#: its HTTP servers, and again with another ``supervisord`` after a reload.
_current: Optional[tuple[Supervisord, Cluster]] = None


def make_rpcinterface(supervisord: Supervisord, **options: str) -> SioRPCInterface:
    """The factory that ``supervisor.rpcinterface_factory`` names."""
    global _current
    if _current is None or _current[0] is not supervisord:
        try:
            _current = (supervisord, Cluster(supervisord, parse_settings(options)))
        except SettingsError as error:
            _exit_with(supervisord, str(error))
    return SioRPCInterface(_current[1])


def _exit_with(supervisord: Supervisord, message: str) -> NoReturn:
    """End supervisord as its own usage errors do: one line, exit status 2.

    An exception would not do: supervisord turns whatever a factory raises,
    SystemExit included, into a traceback and "Could not make sio rpc interface".
    """
    options = supervisord.options
    options.logger.critical(f"Error: {message}")
    if not options.nodaemon or options.silent:  # else the log has shown it
        sys.stderr.write(f"Error: {message}\n")
        sys.stderr.flush()
    options.logger.close()
    for config in options.server_configs[:1]:  # the one that is open already
        if config["family"] is socket.AF_UNIX:
            options._try_unlink(config["file"])
    os._exit(2)
