"""A process that supervisord has started, but that belongs to none of its clusters."""

from __future__ import annotations

import pytest

from supervisor_sio import ZmqManager
from supervisor_sio.common.clusters import CLUSTER, CLUSTERS
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE
from supervisor_sio.router import process
from supervisor_sio.worker.application import ApplicationError
from supervisor_sio.worker.service import find_cluster


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        (None, "supervisord has the clusters chat and shop, and this program names none of them"),
        ("sohp", "SUPERVISOR_SIO_CLUSTER: there is no cluster 'sohp', only chat and shop"),
    ],
)
def test_in_no_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: str, reason: str
) -> None:
    for name in (ENVIRONMENT_VARIABLE, CLUSTER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUPERVISOR_ENABLED", "1")
    monkeypatch.setenv(CLUSTERS, "chat,shop")
    if named:
        monkeypatch.setenv(CLUSTER, named)
    with pytest.raises(ApplicationError, match=reason):
        find_cluster()
    assert process.run() == 2
    assert capsys.readouterr().err.startswith(f"supervisor-sio router: error: {reason}")
    with pytest.raises(ValueError, match=reason):
        ZmqManager(write_only=True)
