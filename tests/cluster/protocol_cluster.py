"""The cluster of ``protocol_app``, for tests of the protocols."""

from __future__ import annotations

import json

from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .wire import PATH, Request

#: The path of a server with these for ``ping_interval`` and ``ping_timeout``.
QUICK, PING_INTERVAL, PING_TIMEOUT = "/quick.io/", 0.3, 1.0
#: The same ``ping_interval``, and time to answer.
PATIENT = "/patient.io/"
#: One that has no websocket; one that has it for new sessions alone, which have to connect within
#: a second.
POLLING, STIFF = "/polling.io/", "/stiff.io/"


def start(make: ClusterFactory) -> Cluster:
    """One worker; the server at the usual path has pings as usual."""
    command = "supervisor-sio worker protocol_app:app"
    return make(
        workers=1, command=command, path=", ".join((PATH, QUICK, PATIENT, POLLING, STIFF))
    ).start()


def wait_for_reason(cluster: Cluster, sid: str) -> str:
    """With which the application's ``disconnect`` has been called."""

    def reason() -> str:
        told: dict[str, str] = json.loads(Request(cluster.port, "GET", "/reasons").answer().body)
        return told.get(sid, "")

    return wait_until(reason, 10, "its reason")
