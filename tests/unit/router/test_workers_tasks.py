"""Tasks and the channels of the workers that run them, with sockets of the kernel."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any, Callable, Optional

import pytest

from supervisor_sio.common import channel, run_once
from supervisor_sio.common.run_once import End, Word
from supervisor_sio.router import run_once as module
from unit.router.harness import FIGURES, Harness, Scenario, Worker, wait_for


def offer_of(worker: Worker) -> Optional[int]:
    numbers = [m["number"] for m in worker.hear() if m["type"] == "task-offer"]
    return numbers[-1] if numbers else None


async def take(worker: Worker) -> int:
    offers: list[Optional[int]] = []
    await wait_for(lambda: offers.append(offer_of(worker)) or offers[-1])  # type: ignore[func-returns-value]
    number = offers[-1]
    assert number is not None
    worker.say(**run_once.holds("ticker", number, 0))
    return number


def want(*workers: Worker) -> None:
    for worker in workers:
        worker.say(**run_once.task("ticker", Word.WANTS))


def state(harness: Harness) -> Any:
    return [row[:3] for row in harness.workers.run_once.rows()]


def test_a_worker_takes_it_and_gives_it_back(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        first, second = harness.start("a", "b")
        want(first)
        number = await take(first)
        want(second)
        await wait_for(lambda: state(harness) == [("ticker", "running", "a")])
        first.say(**run_once.ends("ticker", number, End.GIVEN_BACK))
        assert await take(second) > number

    run(scenario)


def test_one_that_drains_is_not_asked(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        first, second = harness.start("a", "b")
        want(first)
        number = await take(first)
        want(second)
        first.say(type="draining")
        first.say(**run_once.ends("ticker", number, End.GIVEN_BACK))
        await take(second)

    run(scenario)


def test_one_that_was_not_ready_is_asked_when_it_is(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a", ready=False)
        want(worker)
        await wait_for(lambda: state(harness) == [("ticker", "waiting", "")])
        assert offer_of(worker) is None
        worker.say_ready()
        await take(worker)

    run(scenario)


def test_a_channel_that_ends_is_not_the_end_of_the_process(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers here are sockets of the test's process, which lives on."""
    monkeypatch.setattr(module, "RUN_ONCE_LEASE", 0.3)

    async def scenario(harness: Harness) -> None:
        first, second = harness.start("a", "b")
        want(first)
        await take(first)
        want(second)
        await wait_for(lambda: state(harness) == [("ticker", "running", "a")])
        began = time.monotonic()
        first.sock.close()
        await take(second)
        assert time.monotonic() - began > 0.25

    run(scenario)


#: What a worker says that has got the task of another router.
SAID: list[channel.Message] = [
    {"type": "hello", "version": channel.VERSION, "tag": "a", "name": "workers:a"},
    {"type": "load", **FIGURES},
    {"type": "ready", "channels": ["x"], "takes": 0, "recovers": 0},
    run_once.holds("ticker", 7, 0),
]

CHILD = """
import socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(sys.argv[1])
for line in sys.stdin:
    if line.strip() == "close":
        sock.close()
        print("closed", flush=True)
    else:
        sock.send(line.encode())
"""


@pytest.mark.parametrize("closes", [False, True])
def test_it_is_free_when_the_process_has_ended(
    run: Callable[[Scenario], None], closes: bool
) -> None:
    """At once, also if its channel had ended before, or if it had said that it leaves."""

    async def scenario(harness: Harness) -> None:
        (second,) = harness.start("b")
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, harness.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert child.stdin is not None and child.stdout is not None
            for message in SAID:
                child.stdin.write(json.dumps(message) + "\n")
            child.stdin.flush()
            await wait_for(
                lambda: harness.workers._accept() and state(harness) == [("ticker", "running", "a")]
            )
            want(second)
            if closes:
                child.stdin.write('{"type":"leaving"}\nclose\n')
                child.stdin.flush()
                assert child.stdout.readline() == "closed\n"
                await wait_for(lambda: len(harness.workers) == 1)
            assert offer_of(second) is None
            began = time.monotonic()
            child.kill()
            child.wait()
            await take(second)
            assert time.monotonic() - began < module.RUN_ONCE_LEASE - 1
        finally:
            child.kill()
            child.wait()
            child.stdin.close()
            child.stdout.close()

    run(scenario)
