from __future__ import annotations

import socket
from typing import Callable

import pytest

from supervisor_sio.common import channel
from unit.router.harness import Harness, Scenario, Worker, wait_for


def test_workers_that_die_together(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        started = harness.start(*(f"w{number}" for number in range(400)))
        for worker in started:
            worker.sock.close()
        harness.placement.place(harness.connection())
        await wait_for(lambda: not len(harness.workers))
        assert not list(harness.pool)
        assert len(harness.placement) == 1 and not harness.refused
        harness.placement.waiting.remove(*harness.placement.waiting)

    run(scenario)


def test_hundreds_of_workers_are_told_of_each_other_with_few_messages(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(harness: Harness) -> None:
        started = []
        for number in range(300):
            started += harness.start(f"w{number}")
        told: list[list[channel.Message]] = [[] for _ in started]

        def known(messages: list[channel.Message]) -> set[str]:
            found: set[str] = set()
            for message in messages:
                found = set() if message["first"] else found
                found |= {row[0] for row in message["members"]}
            return found

        def all_know_all() -> bool:
            for worker, messages in zip(started, told):
                messages += [m for m in worker.hear() if m["type"] == "members"]
            return all(len(known(messages)) == 300 for messages in told)

        await wait_for(all_know_all)
        for messages in told:
            assert messages[0]["first"] and messages[-1]["last"] and len(messages) < 40

    run(scenario)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "hello", "version": ["x" * 60_000]},
        {"type": "\x00" * 10_000},
        {"type": "hello", "version": channel.VERSION, "tag": "t", "name": "n" * 300},
    ],
)
def test_a_stranger_gets_a_short_reason(
    run: Callable[[Scenario], None], message: channel.Message
) -> None:
    async def scenario(harness: Harness) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        harness.sockets.append(sock)
        sock.connect(harness.path)
        channel.send(sock, message)
        harness.workers._accept()
        packet = channel.receive(sock)
        assert packet is not None and packet.message["type"] == "refused"
        assert len(packet.message["reason"]) <= 1000
        assert not len(harness.workers)

    run(scenario)


def test_a_worker_of_another_version_reads_why_it_is_refused(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has sent more than its hello by then."""

    async def scenario(harness: Harness) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(channel, "VERSION", channel.VERSION + 1)
            worker = Worker(harness.path, "a")
            harness.sockets.append(worker.sock)
        harness.workers._accept()
        refused, closed = worker.hear()
        assert refused["type"] == "refused" and "speaks version" in refused["reason"]
        assert closed["type"] == "closed"

    run(scenario)
