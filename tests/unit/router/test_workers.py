from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any, Callable

import pytest

from supervisor_sio.common import channel, figures, reasons
from supervisor_sio.router import workers as module
from supervisor_sio.router.placement import REJOIN_TIME
from unit.router.harness import FIGURES, Harness, Scenario, Worker, connections, wait_for


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
    """It has already sent more than its hello."""

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


def test_one_that_connects_again_is_the_same_worker(run: Callable[[Scenario], None]) -> None:
    """When its old channel ends, the new one stays registered."""

    async def scenario(harness: Harness) -> None:
        (old,) = harness.start("a")
        (new,) = harness.start("a")
        assert len(harness.workers) == 1 and [member.tag for member in harness.pool] == ["a"]
        assert kinds(old)[-1] == "closed"
        harness.placement.place(harness.connection("a"))
        assert "connection" in kinds(new)

    run(scenario)


def test_nobody_takes_the_tag_of_another_process(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        peer = channel.Peer(os.getppid(), os.getuid(), os.getgid())
        monkeypatch.setattr(channel, "peer_of", lambda sock: peer)
        (stranger,) = harness.start("a")
        refused, closed = stranger.hear()
        assert refused["reason"] == f"tag a belongs to pid {os.getpid()}"
        assert closed["type"] == "closed" and len(harness.workers) == 1
        harness.placement.place(harness.connection("a"))
        assert "connection" in kinds(worker)

    run(scenario)


def test_one_that_hung_gets_sessions_when_it_reports_again(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        (member,) = harness.pool
        member.hangs(10.0)
        harness.placement.place(harness.connection())
        assert len(harness.placement) == 1
        worker.say(type="load", **FIGURES)
        await wait_for(lambda: not len(harness.placement))
        assert "connection" in kinds(worker) and not member.hung

    run(scenario)


def test_a_new_router_tells_of_nobody_until_all_may_be_back(
    run: Callable[[Scenario], None],
) -> None:
    """Otherwise workers that connect a moment later would count as ended."""

    async def scenario(harness: Harness) -> None:
        harness.workers._settled = False
        one, other = harness.start("one", "other")
        await asyncio.sleep(3 * module._GATHER)
        assert "members" not in kinds(one)
        harness.workers._settle()
        heard: list[channel.Message] = []
        await wait_for(lambda: heard.extend(other.hear()) or known(heard) == {"one", "other"})

    run(scenario)


def known(messages: list[channel.Message]) -> set[str]:
    return {row[0] for message in messages for row in message.get("members", ())}


def test_what_a_worker_has_counted_stays_in_the_sums(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        worker.say(type="load", **figures.report({"dropped": 5}))
        worker.sock.close()
        await wait_for(lambda: not len(harness.workers))
        assert harness.workers.gone["dropped"] == 5

    run(scenario)


def test_a_router_without_a_descriptor_lets_workers_in_later(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(harness: Harness) -> None:
        class Full:
            """The router's socket for workers, which first fails for lack of a descriptor."""

            def __getattr__(self, name: str) -> Any:
                return getattr(harness.listener, name)

            def accept(self) -> Any:
                harness.workers._listener = harness.listener
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        harness.workers.listen()
        harness.workers._listener = Full()  # type: ignore[assignment]
        (worker,) = harness.start("a")
        assert not len(harness.workers)
        assert harness.refusals.by_reason == {reasons.WORKER_ACCEPT_FAILED: 1}
        await wait_for(lambda: len(harness.workers) == 1)
        assert kinds(worker)[0] == "welcome"

    run(scenario)


def kinds(worker: Worker) -> list[str]:
    return [message["type"] for message in worker.hear()]


def test_who_waits_for_one_that_ends_goes_to_another_at_once(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(harness: Harness) -> None:
        harness.placement._started -= REJOIN_TIME  # it expects nobody to come back any more
        slow, other = harness.start("slow", "other")
        while not harness.pool.owner("slow").busy:  # type: ignore[union-attr]
            harness.placement.place(harness.connection("slow"))
        waiting = len(harness.placement)
        assert waiting and not connections(other.hear())
        slow.sock.close()
        await wait_for(lambda: not len(harness.placement))
        assert connections(other.hear()) == waiting and not harness.refused

    run(scenario)
