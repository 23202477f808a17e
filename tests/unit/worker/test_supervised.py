from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from supervisor_sio.cluster import sessions
from supervisor_sio.cluster.manager import ZmqManager
from supervisor_sio.common import figures
from supervisor_sio.worker.supervised import Worker


def test_each_figure_that_a_worker_reports_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    manager: Any = ZmqManager.__new__(ZmqManager)
    manager._subscriber = manager._journal = None
    manager._publisher = SimpleNamespace(sent_again=7)
    manager.recovered, manager._times = 8, ()
    two: list[Any] = [SimpleNamespace(manager=manager)] * 2
    monkeypatch.setattr(sessions, "servers", lambda: two)
    worker: Any = SimpleNamespace(
        server=SimpleNamespace(connections=3),
        _handshakes=4,
        _lag=SimpleNamespace(worst=0.005),
        _adopter=SimpleNamespace(taken_over=5),
        _departure=SimpleNamespace(passed_on=6),
    )
    worker._heard = lambda: Worker._heard(worker)
    counted = Worker._count(worker)
    assert sorted(counted) == sorted(figures.reported())
    assert (counted["connections"], counted["hub_lag_ms"], counted["sent_again"]) == (3, 5, 14)
