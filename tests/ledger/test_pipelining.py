"""Requests without pause on kept connections: others have a turn between any two."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import wait_until

from .victim import Echoes

CONNECTIONS = 20


@pytest.mark.tries(3)
def test_a_flood_of_requests_leaves_turns_to_others(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1).start()
    ended = threading.Event()
    requests = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 500

    def flood() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                with socket.create_connection(("127.0.0.1", cluster.port), timeout=1) as sock:
                    sock.setblocking(False)
                    while not ended.is_set():
                        with contextlib.suppress(BlockingIOError):
                            sock.sendall(requests)
                        with contextlib.suppress(BlockingIOError):
                            while sock.recv(65536):
                                pass
                        time.sleep(0.005)

    threads = [threading.Thread(target=flood, daemon=True) for _ in range(CONNECTIONS)]
    with Echoes(cluster.port) as others:
        wait_until(lambda: len(others.latencies) >= 50, 30, "some before the flood")
        calm = sorted(others.latencies)[len(others.latencies) // 2]
        for thread in threads:
            thread.start()
        time.sleep(1)
        began = len(others.latencies)
        time.sleep(3)
        ended.set()
        during = sorted(others.latencies[began:])
    for thread in threads:
        thread.join(10)
    assert during, "no echo in 3 s"
    half, most = during[len(during) // 2], during[len(during) * 9 // 10]
    print(f"before: half in {calm * 1000:.1f} ms; meanwhile {len(during)} echoes, ")
    print(f"half in {half * 1000:.0f} ms, nine of ten in {most * 1000:.0f}")
    # Each is a POST and a poll, on connections of their own. On a busy machine all take longer.
    busy = max(1.0, calm / 0.003)
    assert half < 0.03 * busy and most < 0.06 * busy, during[-5:]
    wait_until(cluster.workers, 5, "it is ready")
