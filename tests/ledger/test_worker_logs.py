"""What a worker's log has: tracebacks of handlers, and what was printed, at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cluster.conftest import Clients, ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import ASYNCIO
from cluster.raw import exchange

from ledger.stranger import Stranger
from ledger.victim import log_lines


@pytest.fixture(scope="module")
def shared(make_module_cluster: ClusterFactory) -> Cluster:
    """Its application has called dictConfig, which disables all loggers that there are."""
    here = Path(__file__).parent
    return make_module_cluster(
        here=here, command="supervisor-sio worker life_app:app", workers=1
    ).start()


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_dictconfig_does_not_hide_a_handlers_traceback(
    shared: Cluster, clients: Clients, transport: str
) -> None:
    client = clients.connect(shared, "python", [transport])
    client.emit("fail", f"over {transport}")
    wait_until(
        lambda: f"ArithmeticError: over {transport}" in shared.log("workers_00"), 5, "the traceback"
    )


def test_dictconfig_does_not_hide_the_traceback_of_a_request(shared: Cluster) -> None:
    answer = exchange(
        shared.port, b"GET /fail?here HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 500")
    wait_until(lambda: "ArithmeticError: here" in shared.log("workers_00"), 5, "the traceback")


@pytest.mark.parametrize(
    "event, told",
    [('42["fail","x"]', "more of ArithmeticError at "), ('42["ask"]', "(no answer to call())")],
)
def test_a_client_does_not_fill_the_log_with_tracebacks(
    shared: Cluster, event: str, told: str
) -> None:
    # A handler that waits for an answer has a thread meanwhile.
    waits = shared.mode == "threading" and "ask" in event
    with Stranger(shared.port) as client, log_lines(shared, "workers_00") as lines:
        client.text(*[event] * (50 if waits else 1000))
        wait_until(lambda: told in shared.log("workers_00"), 20, "the count")
        client.text('421["echo",1]')
        client.until(b"431[1]")
        assert lines() < 200


def test_requests_do_not_fill_the_log_with_tracebacks(shared: Cluster) -> None:
    with log_lines(shared, "workers_00") as lines:
        for _ in range(100):
            exchange(shared.port, b"GET /fail?x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_until(lambda: lines() > 0, 5, "a line")
        time.sleep(1.2)  # for those that are due by then
        assert lines() < 300


def test_dictconfig_does_not_hide_our_own_lines(shared: Cluster) -> None:
    shared.wait_log("workers_00", "ready (tag")


@pytest.mark.tries(4)
def test_print_shows_within_a_second(shared: Cluster, clients: Clients) -> None:
    client = clients.connect(shared, "python", ["websocket"])
    began = time.monotonic()
    text = f"as you can see at {began}"
    client.call("write", text)
    wait_until(lambda: text in shared.log("workers_00"), 5, "the line")
    assert time.monotonic() - began < 1
    assert text in shared.ctl("tail", "workers:workers_00").stdout


@ASYNCIO
def test_a_client_does_not_fill_the_log_with_lines_of_uvicorn(shared: Cluster) -> None:
    with log_lines(shared, "workers_00") as lines:
        began = time.monotonic()
        for _ in range(200):
            answer = exchange(
                shared.port, b"GET /no-answer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            assert answer.startswith(b"HTTP/1.1 500")
        wait_until(lambda: lines() > 0, 5, "a line")
        assert lines() <= 2 + time.monotonic() - began
    shared.wait_log("workers_00", "ASGI callable returned without starting response.")
