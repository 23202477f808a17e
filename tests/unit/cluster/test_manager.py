from __future__ import annotations

import pytest

from supervisor_sio import ZmqManager
from supervisor_sio.cluster import core
from supervisor_sio.common.rundir import OwnedRunDir
from unit.polling import PollingClient, make_server


@pytest.mark.parametrize(
    "url", ["zmq+tcp://127.0.0.1:5555", "zmq+ipc://run/app", "/run/app", "", "zmq+ipc:/run/app"]
)
def test_another_url(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        ZmqManager(url)
    assert str(caught.value) == (
        f"url {url!r} is not supported: leave url out in a worker, or write "
        "zmq+ipc:///run/myapp-sio (the run_dir)"
    )


def test_write_only_needs_to_know_where() -> None:
    with pytest.raises(ValueError, match="set SUPERVISOR_SIO_RUN_DIR or pass url='zmq"):
        ZmqManager(write_only=True)


def test_the_child_of_a_fork_has_nothing_of_its_parent(
    run_dir: OwnedRunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = ZmqManager(f"zmq+ipc://{run_dir.path}")
    server = make_server(client_manager=manager)
    client = PollingClient(server)
    server.enter_room(client.sid, "room")
    manager._joining.acquire()
    ack_id = next(manager._ack_ids)
    monkeypatch.setattr(core, "_managers", [manager])
    core._forget_parent()  # as os.fork() does
    assert manager.rooms == {} and list(manager.get_participants("/", None)) == []
    assert manager._publisher is manager._subscriber is manager.hears is None
    assert manager._joining.acquire(blocking=False)
    # What a client answers to one of several children is for no other.
    assert abs(next(manager._ack_ids) - ack_id) > 1
    with pytest.raises(RuntimeError, match="this process serves no clients"):
        manager.emit("n", 1, to=client.sid, callback=print)
