"""The relay ends when it is told to, at whatever moment."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from supervisor_sio.relay import proxy as module
from supervisor_sio.relay.proxy import Relay


@pytest.mark.parametrize("first", [0.0, 0.0005, 0.002])
def test_a_relay_that_is_closed_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: float
) -> None:
    monkeypatch.setattr(module, "_SUBSCRIBERS_FIRST", first)
    for number in range(20):
        paths, descriptors = [], []
        for name in ("xsub", "xpub"):
            path = str(tmp_path / f"{name}{number}")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen()
            paths.append(path)
            descriptors.append(listener.detach())
        relay = Relay(paths[0], descriptors[0], paths[1], descriptors[1])
        time.sleep(number / 10_000)
        assert relay.received() == 0
        relay.close()  # it waits for its thread, for two seconds
        assert not relay.alive
