"""Many sessions over few kept connections: directly, and through real reverse proxies."""

from __future__ import annotations

import http.client
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .harness import Cluster, wait_until
from .modes import NO_HANDLER
from .proxies import PROXIES, find, proxied
from .raw import Poller

pytestmark = NO_HANDLER

SESSIONS = 50
CONNECTIONS = 8

#: On each connection, each of a POST and a poll at least.
CALLS = 50


NGINX_FIRST = [
    pytest.param(name, marks=[] if name == "nginx" else [pytest.mark.long]) for name in PROXIES
]


class Traffic:
    """Polling sessions whose requests go over shared connections, chosen at random."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests = 0
        self.errors: list[str] = []
        self._sessions: list[tuple[Poller, int, threading.Lock]] = []

    def open_sessions(self) -> None:
        for _ in range(SESSIONS):
            session = Poller(self.port)
            session.open()
            session.join()
            self._sessions.append((session, session.call("whoami")["pid"], threading.Lock()))

    @property
    def pids(self) -> set[int]:
        return {pid for _, pid, _ in self._sessions}

    def run(self) -> None:
        threads = [threading.Thread(target=self._use_a_connection) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _use_a_connection(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.connect()
        # Without this, http.client would hide that a connection was closed.
        connection.auto_open = 0
        try:
            for _ in range(CALLS):
                session, pid, lock = random.choice(self._sessions)
                with lock:
                    answered = session.call("whoami", connection=connection)["pid"]
                self.requests += 2
                if answered != pid:
                    self.errors.append(f"a session of {pid} was answered by {answered}")
        except (AssertionError, OSError, http.client.HTTPException) as error:
            self.errors.append(repr(error))
        finally:
            connection.close()


def check(cluster: Cluster, port: int) -> None:
    traffic = Traffic(port)
    traffic.open_sessions()
    assert len(traffic.pids) == 4
    before = cluster.status()["router"]
    traffic.run()
    assert not traffic.errors, traffic.errors[:5]
    assert cluster.status()["router"]["pid"] == before["pid"]
    wait_until(
        lambda: cluster.status()["router"]["handed_back"] > before["handed_back"], 5, "hand-backs"
    )


def test_sessions_share_kept_connections(shared_cluster: Cluster) -> None:
    check(shared_cluster, shared_cluster.port)


def program(name: str) -> str:
    path = find(name)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no {name}: install Debian's")
        raise AssertionError
    return path


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts a reverse proxy in front of a port; gives the proxy's own port."""
    with ExitStack() as stack:

        def start(name: str, upstream: int, options: str = "") -> int:
            return stack.enter_context(proxied(program(name), name, tmp_path, upstream, options))

        yield start


@pytest.mark.parametrize("name", NGINX_FIRST)
def test_a_proxy_shares_its_connections(
    shared_cluster: Cluster, proxy: Callable[..., int], name: str
) -> None:
    check(shared_cluster, proxy(name, shared_cluster.port))
