from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
import socketio
import zmq

from supervisor_sio import ZmqManager
from supervisor_sio.cluster import relaying, sessions
from supervisor_sio.cluster.manager import MessageTooLong, RelayUnreachable
from supervisor_sio.common import identity
from supervisor_sio.common.blocking import run_blocking, settle
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE, ClusterInfo, OwnedRunDir
from supervisor_sio.relay.green import GreenSubscriber
from supervisor_sio.relay.message import RelayMessage, topic_for_all, topic_for_one
from unit.cluster.others import next_message
from unit.in_the_middle import Other
from unit.polling import make_server


def test_no_supervisord_is_there(tmp_path: Path) -> None:
    manager = ZmqManager(f"zmq+ipc://{tmp_path}", write_only=True)
    with pytest.raises(RelayUnreachable, match=f"{tmp_path} is not the run directory of a running"):
        manager.emit("news", 1)


def test_supervisord_is_there_but_no_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "_JOIN_TIMEOUT", 0.1)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    run_dir = OwnedRunDir(str(tmp_path))
    run_dir.write_cluster(ClusterInfo())
    with pytest.raises(RelayUnreachable) as caught:
        ZmqManager(write_only=True).emit("news", 1)
    run_dir.close()
    assert str(caught.value) == (
        f"no relay answers in {tmp_path}: is supervisord running, with [eventlistener:sio]?"
    )


def test_what_a_write_only_manager_sends(
    run_dir: OwnedRunDir,
    subscribe: Callable[[bytes], zmq.Socket[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, run_dir.path)
    everyone, one = (
        subscribe(topic_for_all("my app")),
        subscribe(topic_for_one("my app", "0a1b2c3d")),
    )
    manager = ZmqManager(write_only=True)
    for number in range(100):
        manager.emit("news", number)
    manager.emit("file", b"\xff", to="0a1b2c3d.abcdefghijklmnopqrst", skip_sid="x")
    with pytest.raises(TypeError):
        manager.emit("news", 1, room=object())  # type: ignore[arg-type]
    manager.emit("news", "last", namespace="/chat", room=["a", "b"])

    messages = [next_message(everyone) for _ in range(101)]
    assert [message.sequence for message in messages] == list(range(1, 102))
    assert {message.sender for message in messages} == {manager.host_id}
    assert [message.packets for message in messages[:3]] == [
        ['2["news",0]'],
        ['2["news",1]'],
        ['2["news",2]'],
    ]
    last = messages[-1]
    assert last.packets == ['2/chat,["news","last"]']
    assert (last.fields["namespace"], last.fields["room"]) == ("/chat", ["a", "b"])

    message = next_message(one)
    assert message.sequence == 1
    assert message.packets == ['51-["file",{"_placeholder":true,"num":0}]', b"\xff"]
    assert message.fields["skip_sid"] == ["x"]
    assert (message.after, last.fields["after"]) == (100, {"0a1b2c3d": 1})
    with pytest.raises(MessageTooLong, match="event 'news' has 20.. bytes, over the limit of 2000"):
        manager.emit("news", "x" * 2000)
    manager.close()


def test_who_emits_before_it_serves_goes_on_under_its_own_name(
    run_dir: OwnedRunDir,
    subscribe: Callable[[bytes], zmq.Socket[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also a manager without a server in a worker, where another manager has the worker's name."""
    monkeypatch.setattr(relaying, "channels_in_use", set())
    monkeypatch.setattr(GreenSubscriber, "run", lambda self, deliver: None)
    ear = subscribe(topic_for_all("my app"))
    own = subscribe(topic_for_one("my app", identity.tag()))
    url = f"zmq+ipc://{run_dir.path}"
    manager = ZmqManager(url)
    server = make_server(client_manager=manager)
    server.emit("early", 1)
    early = next_message(ear)
    assert early.packets == ['2["early",1]'] and early.sender == manager.host_id
    assert manager.hears is None
    manager.initialize()
    assert manager.host_id == identity.tag() != early.sender
    assert manager.hears == "my app"
    with pytest.raises(RuntimeError, match="two ZmqManagers on channel 'my app'"):
        make_server(client_manager=ZmqManager(url)).manager.initialize()
    assert manager._publisher is not None
    while not own.poll(10):  # nothing is published before the relay knows the publisher
        manager._publisher.probe()
    server.emit("served", 2)
    served = next_message(ear)
    assert (served.sender, served.sequence) == (identity.tag(), 1)

    monkeypatch.setattr(sessions, "_worker_pid", os.getpid())
    other = ZmqManager(url)
    other.emit("beside", 3)
    assert next_message(ear).sender == other.host_id != identity.tag()
    other.close()
    subscriber = manager._subscriber
    manager.close()
    assert subscriber is not None
    subscriber.release()


def test_threads_that_emit_first_at_the_same_time_share_a_publisher(
    run_dir: OwnedRunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = ZmqManager(f"zmq+ipc://{run_dir.path}", write_only=True)
    other = Other(manager, manager.emit, "news", 1, lock="_joining")
    other.interrupt(monkeypatch, manager, "_join_relay_once")
    manager.emit("news", 2)
    other.result()
    assert manager._publisher is not None and manager._publisher.sent == 2
    manager.close()


CHILD = """\
import multiprocessing, sys
from supervisor_sio import ZmqManager
from supervisor_sio.cluster import relaying

def finish(publisher, subscriber):
    print("finished:", publisher.sent, flush=True)
    publisher.close(0)

def work():
    manager = ZmqManager(sys.argv[1], write_only=True)
    manager.emit("news", 1)
    relaying.finish = finish

process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
"""


def test_a_child_of_multiprocessing_waits_until_others_have_what_it_has_emitted(
    run_dir: OwnedRunDir,
) -> None:
    """Such a child ends without running ``atexit``."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, f"zmq+ipc://{run_dir.path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "finished: 1\n", done.stderr


async def _never(seconds: float) -> None:
    pytest.fail("it sleeps")


def test_alone_there_is_nothing_to_wait_for_or_lose(server: socketio.Server) -> None:
    assert set(server.manager.figures().values()) == {0}
    run_blocking(settle(server.manager.wait_joined(lambda: pytest.fail("it waits"), _never)))
    server.manager.initialize()


def test_messages_that_fail_are_not_a_traceback_each(
    server: socketio.Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"method": "emit", "namespace": "/", "packet": server.manager._packet_format()}

    def fail(*args: Any) -> None:
        raise ArithmeticError("no")

    monkeypatch.setattr(server.manager, "_audience", fail)
    monkeypatch.setattr(server.manager, "_subscriber", object())
    for _ in range(1000):
        server.manager._receive(RelayMessage("0a1b2c3d", 1, fields, ['2["x"]']))
    lines = [r for r in caplog.records if "handling emit (ArithmeticError)" in r.getMessage()]
    assert 1 <= len(lines) <= 5  # not 1000, however slow this host is
    assert lines[0].exc_info
