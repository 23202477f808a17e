"""``[rpcinterface:sio]``: the factory that supervisord's configuration names.

A section with another name makes a cluster with that name.
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

#: The clusters of the running supervisord. supervisord calls the factory for each of its HTTP
#: servers and each section, and again with another ``supervisord`` object after a reload.
_current: Optional[tuple[Supervisord, dict[str, Cluster]]] = None


def make_rpcinterface(supervisord: Supervisord, **options: str) -> SioRPCInterface:
    """The factory that ``supervisor.rpcinterface_factory`` names."""
    global _current
    sections = {
        name: given
        for name, factory, given in supervisord.options.rpcinterface_factories
        if factory is make_rpcinterface
    } or {USUAL: options}  # another package's factory calls this one
    if _current is None or _current[0] is not supervisord:
        try:
            _current = (supervisord, make_clusters(supervisord, sections))
        except ClustersError as error:
            _exit_with(supervisord, str(error))
    # Supervisor does not pass the section's name. No two sections have the same options, because
    # they cannot have the same port.
    name = next(name for name, given in sections.items() if given == options)
    return SioRPCInterface(_current[1][name])


def _exit_with(supervisord: Supervisord, message: str) -> NoReturn:
    """End supervisord as for its own usage errors: one line, exit status 2.

    Not by an exception, because supervisord turns every exception of a factory, SystemExit
    included, into a traceback and "Could not make sio rpc interface".
    """
    options = supervisord.options
    options.logger.critical(f"Error: {message}")
    if not options.nodaemon or options.silent:  # else the log has printed it
        sys.stderr.write(f"Error: {message}\n")
        sys.stderr.flush()
    options.logger.close()
    for config in options.server_configs[:1]:  # the first server is already open
        if config["family"] is socket.AF_UNIX:
            options._try_unlink(config["file"])
    os._exit(2)
