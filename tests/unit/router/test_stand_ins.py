"""Listening in the place of a worker, as memory files in and out; over a real relay."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from supervisor_sio.common.rundir import ClusterInfo
from supervisor_sio.relay.position import Part, Position
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.router import reserve
from supervisor_sio.router.stand_ins import StandIns
from unit.relays import relay_in


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", ["socketio", "another"])
def test_what_is_heard_in_its_place_goes_on(
    tmp_path: Path, no_leak: Callable[[], AbstractContextManager[None]], name: str
) -> None:
    cluster = ClusterInfo()
    with no_leak(), relay_in(tmp_path, cluster) as run_dir:
        stand_ins = StandIns(run_dir, cluster)
        stand_ins.set_members([["old", False, [name], True], ["other", False, [name], False]])
        before = open_files()
        place = Position(name, [Part(("old",), time.monotonic(), {}, {})]).write()
        listener = stand_ins.listen(place)
        assert open_files() - before <= reserve._FOR_LISTENER
        publisher = Publisher(run_dir, cluster._replace(channel=name), "other")
        deadline = time.monotonic() + 10
        while True:
            publisher.publish("old", {"method": "close_room", "room": "a", "namespace": "/"}, ())
            time.sleep(0.05)
            heard = listener.stop()
            position = Position.read(heard)
            assert position.channel == name and position.tags == ("old",)
            if position.parts[0].kept or position.parts[0].held:
                break
            assert time.monotonic() < deadline
            listener = stand_ins.listen(heard)
            os.close(heard)
        publisher.close()
        os.close(heard)
        os.close(place)
        assert stand_ins._lives("other") and not stand_ins._lives("old")


def test_a_place_that_is_not_understood(tmp_path: Path) -> None:
    with relay_in(tmp_path, ClusterInfo()) as run_dir:
        place = os.memfd_create("test")
        os.write(place, b"nonsense")
        before = open_files()
        with pytest.raises(ValueError):
            StandIns(run_dir, ClusterInfo()).listen(place)
        assert open_files() == before
        os.close(place)
