"""Numbers that a process without clients emits while a test changes the workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from supervisor_sio import ZmqManager

from .harness import Cluster


@contextmanager
def numbers(cluster: Cluster, pause: float = 0.01) -> Iterator[list[int]]:
    """Emitted one by one to all clients, by a process that serves none.

    :param pause: seconds between two of them.
    """
    sent: list[int] = []
    stop = threading.Event()
    manager = ZmqManager(f"zmq+ipc://{cluster.run_dir}", write_only=True)

    def emit() -> None:
        while not stop.wait(pause):
            manager.emit("number", len(sent))
            sent.append(len(sent))

    thread = threading.Thread(target=emit)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()
        manager.close()
