from __future__ import annotations

import pytest

from supervisor_sio.check import judge
from supervisor_sio.check.host import Host
from supervisor_sio.check.reading import read
from unit.check.deployment import Deployment, host_with

LIMITS = {"max_memory": "500MB", "max_lifetime": "3600", "hung_timeout": "20"}


def test_limits_that_fit(deployment: Deployment) -> None:
    assert deployment.set("rpcinterface:sio", **LIMITS).lines() == []


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("hung_timeout", "5", "'5' is not a number of seconds from 6 up"),
        ("max_memory", "500", "'500' is not a size from 16MB to 1024GB, such as 500MB"),
        ("max_lifetime", "20", "'20' is not a number of seconds from 60 up"),
    ],
)
def test_limits_that_no_cluster_starts_with(
    deployment: Deployment, option: str, value: str, text: str
) -> None:
    (line,) = deployment.set("rpcinterface:sio", **{**LIMITS, option: value}).lines()
    assert line.startswith("error: ") and "[rpcinterface:sio] " in line and text in line


def test_lifetimes_that_end_sooner_than_all_have_had_their_turn(deployment: Deployment) -> None:
    deployment.set("rpcinterface:sio", max_lifetime="60", drain_timeout="10")
    assert deployment.set("program:workers", numprocs="3").lines() == []
    (line,) = deployment.set("program:workers", numprocs="4").lines()
    assert line.endswith(
        "[rpcinterface:sio] max_lifetime: 60: recycling 4 workers one after the other may take "
        "60 s, so one of them always restarts; write 86400"
    )


def test_less_memory_than_a_worker_begins_with(deployment: Deployment) -> None:
    assert deployment.set("rpcinterface:sio", max_memory="50MB").lines() == []
    (line,) = deployment.set("rpcinterface:sio", max_memory="49MB").lines()
    assert line.startswith("warning: ") and line.endswith(
        "[rpcinterface:sio] max_memory: 49 MB: a worker has about 50 MB when it is ready, and more "
        "with its application; it is not recycled for its memory if it begins above the limit; "
        "write 500MB"
    )


def test_more_memory_than_there_is(deployment: Deployment) -> None:
    deployment.set("rpcinterface:sio", max_memory="1GB")

    def texts(memory: int) -> list[str]:
        deployment.lines()  # writes the file
        found = judge(read(deployment.path), host_with(memory=memory))
        return [finding.text for finding in found if finding.option == "max_memory"]

    assert texts(2 * 2**30) == []
    assert texts(2 * 2**30 - 1) == [
        "2 workers with 1024 MB each are more than the 2047 MB of this host: they may use all "
        "of it before one is recycled"
    ]


def test_this_host_has_memory() -> None:
    assert 2**26 < Host.here().memory < 2**60
