"""The relay ends when told to, and queues little for a process that takes nothing."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import zmq

from supervisor_sio.relay import proxy as module
from supervisor_sio.relay.proxy import WELCOME, Relay


def start(directory: Path, number: int = 0) -> tuple[Relay, str, str]:
    """Start a relay; return it with the paths of its sockets."""
    paths, descriptors = [], []
    for name in ("xsub", "xpub"):
        path = str(directory / f"{name}{number}")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        paths.append(path)
        descriptors.append(listener.detach())
    return Relay(paths[0], descriptors[0], paths[1], descriptors[1]), paths[0], paths[1]


@pytest.mark.parametrize("first", [0.0, 0.0005, 0.002])
def test_a_relay_that_is_closed_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: float
) -> None:
    monkeypatch.setattr(module, "_SUBSCRIBERS_FIRST", first)
    for number in range(20):
        relay, _, _ = start(tmp_path, number)
        time.sleep(number / 10_000)
        assert relay.received() == 0
        relay.close()  # it waits for its thread, for two seconds
        assert not relay.alive


def test_so_many_messages_wait_for_a_process_that_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Besides what the kernel's buffers take: some hundred thousand bytes."""
    monkeypatch.setattr(module, "RELAY_WAITING", 50)
    sent, size = 1000, 16 * 1024
    relay, xsub, xpub = start(tmp_path)
    with zmq.Context() as context:
        stopped, publisher = context.socket(zmq.SUB), context.socket(zmq.PUB)
        for sock in (stopped, publisher):
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.SNDHWM, 0)
        stopped.setsockopt(zmq.RCVHWM, 1)
        stopped.setsockopt(zmq.RCVTIMEO, 10_000)
        for topic in (b"x", WELCOME):
            stopped.setsockopt(zmq.SUBSCRIBE, topic)
        stopped.connect(f"ipc://{xpub}")
        publisher.connect(f"ipc://{xsub}")
        assert stopped.recv().startswith(WELCOME)
        while True:  # the publisher has to hear who listens
            publisher.send(b"x first")
            if stopped.poll(20):
                break
        for _ in range(sent):
            publisher.send(b"x" + bytes(size))
        until = time.monotonic() + 20
        while relay.received() < sent:
            assert time.monotonic() < until
            time.sleep(0.01)
        stopped.setsockopt(zmq.RCVTIMEO, 500)
        got = 0
        try:
            while True:
                got += len(stopped.recv()) > size
        except zmq.Again:
            pass
        stopped.close()
        publisher.close()
    relay.close()
    assert 10 < got < 250
