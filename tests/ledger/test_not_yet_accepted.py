"""Who is still being checked hears nothing but what is for that client alone, and later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.raw import Poller

from ledger.stranger import Stranger


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Iterator[Cluster]:
    """Two workers: broadcasts come from the other one as well."""
    command = "supervisor-sio worker session_app:app"
    yield make_module_cluster(here=Path(__file__).parent, workers=2, command=command).start()


def one_at_each_worker(cluster: Cluster) -> dict[str, Poller]:
    found: dict[str, Poller] = {}
    while len(found) < 2:
        poller = Poller(cluster.port)
        poller.open()
        poller.join()
        found.setdefault(poller.sid.partition(".")[0], poller)
    return found


def worker_with(pollers: dict[str, Poller], token: str) -> tuple[Poller, Poller]:
    """Who is at the worker whose connect handler checks this token, and who is not."""

    def found() -> list[str]:
        return [tag for tag, poller in pollers.items() if poller.call("checking", token)]

    (here,) = wait_until(found, 5, "the connect handler")
    (there,) = set(pollers) - {here}
    return pollers[here], pollers[there]


def broadcast_secret(here: Poller, there: Poller) -> None:
    """Both workers emit to all who are accepted, and the one that checks has heard the other."""
    for poller in (here, there):
        poller.call("broadcast_checked", "secret")
    there.must("POST", '42["emit","mark",1]')  # to all as well, and so behind it
    here.poll_for('42["mark"')


@pytest.mark.parametrize("accepted", [True, False])
def test_with_a_websocket(cluster: Cluster, accepted: bool) -> None:
    pollers = one_at_each_worker(cluster)
    token = f"websocket {accepted}"
    with Stranger(cluster.port, connect=False) as stranger:
        stranger.text(f'40/checked,{{"token":"{token}"}}')
        here, there = worker_with(pollers, token)
        broadcast_secret(here, there)
        here.call("decide", token, accepted)
        if accepted:
            before = stranger.until(b'40/checked,{"sid":"')
            own = stranger.until(b'42/checked,["news","from the handler"]')
            assert b'42/checked,["yours","from the handler"]' in own
            assert b"news" not in before and b"yours" not in before and b"secret" not in own
            here.call("broadcast_checked", "now")
            assert b"secret" not in stranger.until(b'42/checked,["news","now"]')
        else:
            before = stranger.until(b"44/checked,{")
            assert b"news" not in before and b"yours" not in before
            here.call("broadcast_checked", "now")
            stranger.text("2")
            stranger.sock.settimeout(0.3)
            try:
                assert b"news" not in stranger.sock.recv(65536)
            except TimeoutError:
                pass


def test_with_polling(cluster: Cluster) -> None:
    pollers = one_at_each_worker(cluster)
    poller = Poller(cluster.port)
    poller.open()
    post = threading.Thread(target=poller.must, args=("POST", '40/checked,{"token":"polling"}'))
    post.start()
    here, there = worker_with(pollers, "polling")
    broadcast_secret(here, there)
    here.call("decide", "polling", True)
    post.join(30)
    packets = poller.must("GET").split("\x1e")
    assert packets[0].startswith('40/checked,{"sid":"')
    assert packets[1:] == [
        '42/checked,["yours","from the handler"]',
        '42/checked,["news","from the handler"]',
    ]
