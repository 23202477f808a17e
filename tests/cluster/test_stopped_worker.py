"""As test_exactly_once.py, while a worker is stopped."""

from __future__ import annotations

import os
import signal
import time

import pytest

from .conftest import Clients, ClusterFactory
from .harness import Cluster, wait_until
from .test_exactly_once import (
    APP,
    NUMBERS,
    by_worker,
    connect,
    count_while_stopped,
    expect_all_numbers,
    here_and_there,
    relay,
    start_counting,
    three_workers,
    wait_for_the_last,
)

__all__ = ["three_workers"]  # a fixture

#: Many clients for a long time: not for every run of the tests.
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def test_while_a_worker_is_stopped_for_ten_seconds(
    three_workers: Cluster, clients: Clients
) -> None:
    made = connect(three_workers, clients, 60)
    workers = by_worker(made)
    emitters = [members[0] for members in workers.values()]
    stopped, *others = workers
    events = start_counting(emitters)
    wait_until(lambda: len(made[0].received(events[0])) > NUMBERS / 10, 30, "a tenth")
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    try:
        # The others are not held up.
        served = [client for pid in others for client in workers[pid]]
        wait_for_the_last(served, events[1:])
        for client in served:
            assert [len(client.received(event)) for event in events[1:]] == [NUMBERS] * len(others)
        wait_until(lambda: time.monotonic() > began + 10, 11, "ten seconds")
    finally:
        os.kill(stopped, signal.SIGCONT)
    expect_all_numbers(made, events)
    assert relay(three_workers)["dropped"] == 0


def test_long_messages_for_a_stopped_worker_do_not_pile_up_in_the_relay(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(command=APP, buffer_maxbytes="256MB").start()
    here, there, pid = here_and_there(cluster, clients)
    numbers, size = 1000, 200_000
    growth = count_while_stopped(cluster, here, pid, numbers, size)
    print(f"{numbers * size / 1e6:.0f} MB emitted, the router grew by {growth / 1e6:.1f} MB")
    assert growth < numbers * size / 4
    got = there.wait_for("count", numbers, timeout=60)
    assert [(args[0], len(args[1])) for args in got] == [(n, size) for n in range(numbers)]
    assert relay(cluster)["dropped"] == 0
