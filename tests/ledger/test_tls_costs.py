"""What a TLS client costs the router, which stays between it and its worker."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack
from pathlib import Path

from cluster.conftest import ClusterFactory
from cluster.harness import wait_until
from cluster.modes import NO_WORKER
from cluster.test_tls import make_certificate

from .victim import descriptors, memory

pytestmark = NO_WORKER

CLIENTS = 200
GET = b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"


def test_an_idle_client_costs_tens_of_kilobytes(
    make_cluster: ClusterFactory, tmp_path: Path
) -> None:
    cert, key = make_certificate(tmp_path)
    cluster = make_cluster(workers=1, tls_certfile=str(cert), tls_keyfile=str(key)).start()
    context = ssl.create_default_context(cafile=str(cert))

    def keep_alive(stack: ExitStack) -> None:
        raw = socket.create_connection(("127.0.0.1", cluster.port), timeout=20)
        client = stack.enter_context(context.wrap_socket(raw, server_hostname="localhost"))
        client.sendall(GET)
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")

    with ExitStack() as stack:
        for _ in range(20):  # what the first ones cost once and for all
            keep_alive(stack)
        before = memory(cluster.router_pid), descriptors(cluster.router_pid)
        for _ in range(CLIENTS):
            keep_alive(stack)
        each = (memory(cluster.router_pid) - before[0]) / CLIENTS
        print(f"{each / 1024:.0f} KiB of the router for an idle TLS client")
        assert each < 64 * 1024
        assert descriptors(cluster.router_pid) - before[1] <= 2 * CLIENTS
    wait_until(lambda: descriptors(cluster.router_pid) < before[1] - 20, 10, "they are gone")
