"""Clients of different workers."""

from __future__ import annotations

from cluster.conftest import Clients
from cluster.harness import Cluster
from cluster.recorder import TestClient


def connect_pair(
    clients: Clients, cluster: Cluster, *transports: str
) -> tuple[TestClient, TestClient]:
    """Two clients of these transports, each at another worker.

    Clients of tests before may still be leaving, so that both come to the same at first.
    """
    first_transport, second_transport = transports or ("websocket", "websocket")
    first = clients.connect(cluster, transports=[first_transport])
    for _ in range(10):
        second = clients.connect(cluster, transports=[second_transport])
        if first.whoami()["pid"] != second.whoami()["pid"]:
            return first, second
        second.close()
    raise AssertionError("ten clients, and all at the same worker")
