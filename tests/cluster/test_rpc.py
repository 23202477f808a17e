"""What ``sio.*`` answers over XML-RPC to those who call it wrongly: faults, not errors of HTTP."""

from __future__ import annotations

import xmlrpc.client
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from supervisor.xmlrpc import Faults

from .conftest import Clients, ClusterFactory
from .harness import Cluster
from .modes import NO_WORKER

pytestmark = NO_WORKER

#: What XML-RPC has, but no string.
NO_STRINGS: list[Any] = [5, 1.5, True, [], ["x"], {}, {"a": 1}, datetime(2025, 1, 1)]


def fault(cluster: Cluster, method: str, *arguments: Any) -> tuple[int, str]:
    with pytest.raises(xmlrpc.client.Fault) as caught:
        getattr(cluster.rpc.sio, method)(*arguments)
    return caught.value.faultCode, caught.value.faultString.partition(": ")[2]


@pytest.mark.parametrize(
    ("method", "before", "after"),
    [
        ("drainWorker", (), ()),
        ("undrainWorker", (), ()),
        ("removeProcess", (), ()),
        ("scaleGroup", (), (1,)),
        ("emit", (), ()),
        ("emit", ("news",), ()),
        ("emit", ("news", "[]"), ()),
        ("emit", ("news", "[]", ""), ()),
        ("getSockets", (), ()),
        ("getSockets", ("",), ()),
        ("getRooms", (), ()),
        ("kick", (), ()),
        ("kick", ("0a1b2c3d.x",), ()),
    ],
)
def test_no_string(
    shared_pair: Cluster, method: str, before: tuple[Any, ...], after: tuple[Any, ...]
) -> None:
    for wrong in NO_STRINGS:
        code, _ = fault(shared_pair, method, *before, wrong, *after)
        assert code == Faults.INCORRECT_PARAMETERS, wrong


@pytest.mark.parametrize("wrong", [[1], {}, True, 1.5])
def test_no_number(shared_pair: Cluster, wrong: Any) -> None:
    assert fault(shared_pair, "scaleGroup", "workers", wrong) == (
        Faults.INCORRECT_PARAMETERS,
        "numprocs is not a number or a string: N, +N, -N or max",
    )
    code, _ = fault(shared_pair, "getSockets", "", "/", wrong)
    assert code == Faults.INCORRECT_PARAMETERS


@pytest.mark.parametrize("data", [{"a": 1}, ["hello"], 1, True, '"hello"', "{}", "null"])
def test_no_array(shared_pair: Cluster, data: Any) -> None:
    assert fault(shared_pair, "emit", "wrong", data) == (
        Faults.INCORRECT_PARAMETERS,
        "data must be a string that holds a JSON array, such as '[\"hello\"]'",
    )


@pytest.mark.parametrize("data", ["[NaN]", '[{"a": [-Infinity]}]', "[1e400]"])
def test_no_json(shared_pair: Cluster, clients: Clients, data: str) -> None:
    client = clients.connect(shared_pair, "node")
    code, text = fault(shared_pair, "emit", "wrong", data)
    assert code == Faults.INCORRECT_PARAMETERS
    assert text == (
        "data cannot be sent: it has NaN, Infinity or a number that is too large, "
        "which are not JSON"
    )
    done = shared_pair.ctl("sio", "emit", "wrong", data)
    assert done.returncode == 2
    assert done.stdout.startswith("Error: the argument cannot be sent: it has NaN, Infinity or a")
    shared_pair.rpc.sio.emit("right", "[1e300]")
    client.wait_for("right")
    assert not client.received("wrong") and not client.disconnects


def test_nested_arrays(shared_pair: Cluster) -> None:
    """Each step of an emit has its own limit, none is an error of HTTP."""

    def emit(depth: int) -> None:
        try:
            shared_pair.rpc.sio.emit("deep", "[" * depth + "]" * depth)
        except xmlrpc.client.Fault as error:
            assert error.faultCode in (Faults.INCORRECT_PARAMETERS, Faults.FAILED)

    depths = [*range(300, 900, 100), *range(900, 1100, 20), 5000, 30000]
    with ThreadPoolExecutor(len(depths)) as pool:
        list(pool.map(emit, depths))
    assert shared_pair.ctl("sio", "status").returncode == 0
    shared_pair.rpc.sio.emit("flat", "[]")


def test_a_fault_has_all_of_a_name(make_cluster: ClusterFactory) -> None:
    """Also one that comes later."""
    extra = "[program:wörker]\ncommand = cat\nprocess_name = ö_%(process_num)d\nnumprocs = 2\n"
    cluster = make_cluster(workers=1, extra=extra).start()
    assert cluster.rpc.sio.scaleGroup("wörker", 1)["surplus"] == ["wörker:ö_1"]
    assert fault(cluster, "removeProcess", "wörker:ö_1") == (
        Faults.STILL_RUNNING,
        "wörker:ö_1 is still running",
    )
    assert fault(cluster, "removeProcess", "wörker:ö_0") == (
        Faults.FAILED,
        "wörker:ö_0 is not the next to leave its group",
    )
    assert fault(cluster, "removeProcess", "ö") == (Faults.BAD_NAME, "ö")
    assert fault(cluster, "drainWorker", "ö") == (
        Faults.FAILED,
        "no worker ö is connected to the router",
    )
    assert fault(cluster, "kick", "0a1b2c3d.ö", "/ö") == (
        Faults.FAILED,
        "no client 0a1b2c3d.ö in namespace /ö",
    )
    done = cluster.ctl("sio", "kick", "0a1b2c3d.ö")
    assert done.stdout == "0a1b2c3d.ö: ERROR (no client 0a1b2c3d.ö in namespace /)\n"
