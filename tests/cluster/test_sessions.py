"""Every request of a session reaches its worker, on whatever connection it arrives."""

from __future__ import annotations

import hashlib
import http.client
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from .harness import Cluster
from .modes import NO_HANDLER
from .raw import Poller

pytestmark = NO_HANDLER


def test_no_session_is_unknown_to_its_next_request(shared_cluster: Cluster) -> None:
    def set_up(_: int) -> int:
        session = Poller(shared_cluster.port)
        session.open()
        session.join()
        return int(session.call("whoami")["pid"])

    with ThreadPoolExecutor(16) as pool:
        pids = Counter(pool.map(set_up, range(200)))
    assert len(pids) == 4 and min(pids.values()) > 20, pids


def test_two_sessions_of_different_workers_share_a_connection(shared_cluster: Cluster) -> None:
    shared = http.client.HTTPConnection("127.0.0.1", shared_cluster.port, timeout=20)
    shared.connect()
    # A closed connection shows: http.client would open another one by itself.
    shared.auto_open = 0
    sessions: list[Poller] = []
    pids: list[int] = []
    while len(set(pids)) < 2:  # handshakes on one connection are balanced, too
        assert len(pids) < 10, "all handshakes on one connection went to one worker"
        session = Poller(shared_cluster.port)
        session.open(shared)
        session.join(shared)
        sessions.append(session)
        pids.append(session.call("whoami", connection=shared)["pid"])
    for number in range(20):
        for session, pid in zip(sessions, pids):
            assert session.call("whoami", connection=shared)["pid"] == pid, number
    shared.close()


def test_a_post_keeps_its_body_on_the_way_to_another_worker(shared_cluster: Cluster) -> None:
    """The connection is at the worker of one session, the body is for another's."""
    shared = http.client.HTTPConnection("127.0.0.1", shared_cluster.port, timeout=20)
    shared.connect()
    shared.auto_open = 0
    sessions = [Poller(shared_cluster.port) for _ in range(4)]
    for session in sessions:
        session.open()
        session.join()
    for size in (10, 5000, 90000):
        for session in sessions:
            text = os.urandom(size).hex()
            assert session.call("echo", text, connection=shared) == text
    shared.close()


def test_other_paths_are_served_on_the_same_port(shared_cluster: Cluster) -> None:
    body = os.urandom(3_000_000)
    pids = set()
    for _ in range(8):
        connection = http.client.HTTPConnection("127.0.0.1", shared_cluster.port, timeout=20)
        connection.request("POST", "/upload", body)
        assert connection.getresponse().read() == hashlib.sha256(body).hexdigest().encode()
        connection.request("GET", "/pid")
        pids.add(int(connection.getresponse().read()))
        connection.close()
    assert len(pids) > 1
    assert pids <= {row["pid"] for row in shared_cluster.workers()}


def test_a_forged_sid_is_refused(shared_cluster: Cluster) -> None:
    session = Poller(shared_cluster.port)
    session.open()
    for forged in ("nobody", "no.body", f"{session.sid}x", "%00", "a" * 1000):
        stranger = Poller(shared_cluster.port)
        stranger.sid = forged
        assert stranger.request("GET")[0] == 400, forged
    session.join()
