"""A relay as supervisord and the router make it."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from supervisor_sio.common.rundir import ClusterInfo, OwnedRunDir
from supervisor_sio.relay.proxy import Relay


@contextmanager
def relay_in(path: Path, cluster: ClusterInfo) -> Iterator[OwnedRunDir]:
    owned = OwnedRunDir(str(path))
    owned.write_cluster(cluster)
    listeners = [owned.bind(path, socket.SOCK_STREAM) for path in (owned.xsub, owned.xpub)]
    xsub, xpub = (listener.detach() for listener in listeners)
    relay = Relay(owned.xsub, xsub, owned.xpub, xpub)
    yield owned
    relay.close()
    assert not relay.alive
    owned.close()
