"""``[rpcinterface:sio]``: the name that stands in supervisord's configuration.

A section of any other name makes a cluster of that name.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import NoReturn, Optional

from .common.clusters import USUAL
from .supervisord.cluster import Cluster
from .supervisord.clusters import ClustersError, make_clusters
from .supervisord.dispatchers import Supervisord
from .supervisord.rpc import SioRPCInterface

#: The clusters of the running supervisord: it calls the factory once for each of
#: its HTTP servers and each section, and again with another ``supervisord`` after a reload.
_current: Optional[tuple[Supervisord, dict[str, Cluster]]] = None


def make_rpcinterface(supervisord: Supervisord, **options: str) -> SioRPCInterface:
    """The factory that ``supervisor.rpcinterface_factory`` names."""
    global _current
    sections = {
        name: given
        for name, factory, given in supervisord.options.rpcinterface_factories
        if factory is make_rpcinterface
    } or {USUAL: options}  # of a factory of somebody else's that calls this one
    if _current is None or _current[0] is not supervisord:
        try:
            _current = (supervisord, make_clusters(supervisord, sections))
        except ClustersError as error:
            _exit_with(supervisord, str(error))
    # Supervisor does not say which section it is about; no two can have the same port.
    name = next(name for name, given in sections.items() if given == options)
    return SioRPCInterface(_current[1][name])


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
