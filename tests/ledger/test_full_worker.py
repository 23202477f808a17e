"""A worker without descriptors for more clients says so, to them and to the operator."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from cluster.conftest import ClusterFactory
from cluster.descriptors import limit_descriptors
from cluster.harness import wait_until

GET = b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"


def test_who_finds_no_descriptor_gets_a_503_and_is_counted(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1).start()
    (worker,) = cluster.workers()
    limit_descriptors(worker["pid"], 110)
    with ExitStack() as stack:
        answers = []
        for _ in range(100):
            sock = socket.create_connection(("127.0.0.1", cluster.port), timeout=20)
            stack.enter_context(sock).sendall(GET)
            answers.append(sock.recv(4096))
    served = [answer for answer in answers if answer.startswith(b"HTTP/1.1 200 ")]
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
    assert len(served) + len(refused) == 100 and len(refused) > 30
    assert all(b"\r\nRetry-After: " in answer for answer in refused)
    wait_until(
        lambda: cluster.status()["router"]["refused"] == {"no-descriptor": len(refused)},
        5,
        "they are counted",
    )
    assert f"no-descriptor {len(refused)}" in cluster.ctl("sio", "status").stdout
    # What a worker that has gone had counted stays.
    assert cluster.ctl("restart", "workers:*").returncode == 0
    cluster.wait_ready()
    assert cluster.status()["router"]["refused"]["no-descriptor"] == len(refused)
