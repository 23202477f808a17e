from __future__ import annotations

import asyncio
import os
import socket
from typing import Any, Callable

import pytest

from supervisor_sio.common import channel, handover
from unit.router.harness import Harness, Scenario, Worker, connections, wait_for

BACK = handover.encode(("192.0.2.1", 5), ("::1", 80), "https", False, False, b"GET")


def test_a_connection_that_cannot_be_said_is_dropped_and_counted(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        bad = [harness.connection() for _ in range(4)]
        bad[0].peer = b"\0bytes"
        bad[1].prefix = b"x" * 100_000
        bad[2].local = ("::1", 65536)
        bad[3].sock.close()
        for connection in [*bad, harness.connection()]:
            harness.placement.place(connection)
        assert connections(worker.hear()) == 1
        assert harness.refusals.by_reason == {"bad-connection": 4}
        assert not len(harness.placement) and len(harness.workers) == 1
        assert all(connection.sock.fileno() < 0 for connection in bad)

    run(scenario)


def test_what_a_worker_does_not_read_waits_counted(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        slow, quick = harness.start("slow", "quick")
        for _ in range(1000):
            harness.placement.place(harness.connection("slow"))
        # The kernel keeps some, the router a share of max_pending, the others are refused.
        assert len(harness.placement) == 100
        assert harness.refused.count("worker-share") == len(harness.refused) > 300
        assert harness.pool.owner("slow").busy  # type: ignore[union-attr]
        # Sessions that any worker may open do not wait for it.
        quick.hear()
        for _ in range(20):
            harness.placement.place(harness.connection())
        assert connections(quick.hear()) == 20 and len(harness.placement) == 100
        passed = connections(slow.hear())
        assert passed == 900 - len(harness.refused)
        await wait_for(lambda: not len(harness.placement))
        assert connections(slow.hear()) == 100

    run(scenario)


@pytest.mark.parametrize("number", sorted(channel.CROWDED))
def test_while_too_many_descriptors_are_on_their_way_all_wait(
    run: Callable[[Scenario], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    send, crowded = channel.send_encoded, True

    def send_unless_crowded(sock: socket.socket, data: bytes, descriptors: Any = ()) -> None:
        if crowded and descriptors:
            raise OSError(number, os.strerror(number))
        send(sock, data, descriptors)

    monkeypatch.setattr(channel, "send_encoded", send_unless_crowded)

    async def scenario(harness: Harness) -> None:
        nonlocal crowded
        workers = harness.start("a", "b")
        for tag in ("a", "b", "", ""):
            harness.placement.place(harness.connection(tag))
        await asyncio.sleep(0.2)
        assert len(harness.placement) == 4 and len(harness.workers) == 2
        assert not harness.refused and not harness.refusals.by_reason
        line, *_ = [message for message in caplog.messages if "later" in message]
        assert "raise the hard limit of open files (1 times)" in line
        crowded = False
        await wait_for(lambda: not len(harness.placement))
        assert sum(connections(worker.hear()) for worker in workers) == 4

    run(scenario)


def test_nothing_is_lost_or_late_at_a_worker_that_is_slow_to_read(
    run: Callable[[Scenario], None],
) -> None:
    """All messages wait until the worker reads, "left" is the last one."""

    async def scenario(harness: Harness) -> None:
        (slow,) = harness.start("slow")
        while not harness.pool.owner("slow").busy:  # type: ignore[union-attr]
            harness.placement.place(harness.connection("slow"))
        harness.start(*(f"w{number}" for number in range(50)))
        await asyncio.sleep(0.1)
        slow.say(type="leaving")
        heard: list[channel.Message] = []
        await wait_for(lambda: heard.extend(slow.hear()) or any(m["type"] == "left" for m in heard))
        await asyncio.sleep(0.05)
        heard += slow.hear()
        kinds = [message["type"] for message in heard]
        assert kinds[0] == "welcome" and kinds.count("left") == 1 and "closed" not in kinds
        assert "connection" not in kinds[kinds.index("left") :]
        (whole,) = [m for m in heard if m["type"] == "members" and len(m["members"]) > 1]
        assert len(whole["members"]) >= 50

    run(scenario)


def test_a_worker_that_drains_hears_first_whether_all_of_supervisord_stops(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(harness: Harness) -> None:
        one, other = harness.start("one", "other")

        async def heard(worker: Worker) -> list[channel.Message]:
            found: list[channel.Message] = []
            worker.say(type="draining")
            await wait_for(
                lambda: found.extend(worker.hear()) or "drains" in [m["type"] for m in found]
            )
            return [m for m in found if m["type"] in ("stopping", "drains")]

        assert await heard(one) == [{"type": "drains"}]

        def stops() -> None:
            harness.workers.all_stop = True

        harness.workers.hear_supervisord = stops
        assert await heard(other) == [{"type": "stopping", "all": True}, {"type": "drains"}]

    run(scenario)


def test_a_connection_comes_back(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        worker.hear()
        client, sock = socket.socketpair()
        harness.sockets += [client, sock]
        client.sendall(b" / HTTP/1.1\r\n")
        worker.hand_back(sock, BACK)
        await wait_for(lambda: harness.workers.handed_back)
        (message,) = worker.hear()  # the harness places it again at once
        known = {name: message[name] for name in ("peer", "local", "scheme", "prefix")}
        assert known == {
            "peer": ("192.0.2.1", 5),
            "local": ("::1", 80),
            "scheme": "https",
            "prefix": b"GET",
        }
        assert not (message["placed"] or message["handshake"])  # no request is known

    run(scenario)


@pytest.mark.parametrize(("data", "refused_by"), [(b"GET", "a"), (b"", "")])
def test_who_has_handed_back_a_request_is_noted(
    run: Callable[[Scenario], None], data: bytes, refused_by: str
) -> None:
    """Not of an idle connection: its next request may be for that worker."""

    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        placed: list[Any] = []
        harness.workers.place_again = placed.append
        client, sock = socket.socketpair()
        harness.sockets.append(client)
        known = handover.encode(("192.0.2.1", 5), ("::1", 80), "http", False, False, data)
        worker.hand_back(sock, known)
        await wait_for(lambda: placed)
        assert placed[0].refused_by == refused_by
        placed[0].sock.close()

    run(scenario)


def test_what_a_worker_gives_back_before_it_ends_is_not_lost(
    run: Callable[[Scenario], None],
) -> None:
    """The router fails to send, and then reads what the worker had sent before."""

    async def scenario(harness: Harness) -> None:
        worker, other = harness.start("a", "other")
        other.hear()
        for _ in range(100):  # more than is read in one turn
            client, sock = socket.socketpair()
            harness.sockets += [client, sock]
            worker.hand_back(sock, BACK)
        worker.sock.close()
        (channel,) = [c for c in harness.workers if c.member and c.member.tag == "a"]
        channel.tell({"type": "stopping", "all": False})
        assert channel.member is not None and channel.member.busy and len(harness.workers) == 2
        await wait_for(lambda: len(harness.workers) == 1)
        assert harness.workers.handed_back == 100
        assert connections(other.hear()) == 100

    run(scenario)


def test_what_a_worker_has_forked_does_not_keep_it(run: Callable[[Scenario], None]) -> None:
    """A child of the worker has the channel open, and serves no client."""

    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        (ended,) = harness.workers
        ended._process_ended()
        assert not len(harness.workers) and not list(harness.pool)
        assert worker.hear()[-1]["type"] == "closed"
        harness.placement.place(harness.connection())
        assert len(harness.placement) == 1

    run(scenario)


@pytest.mark.parametrize(
    "data", [BACK[:9], BACK[:20], BACK.replace(b"192", b"\xff92"), b'{"type":"connection"}']
)
def test_a_connection_comes_back_with_addresses_or_not_at_all(
    run: Callable[[Scenario], None], data: bytes
) -> None:
    async def scenario(harness: Harness) -> None:
        (worker,) = harness.start("a")
        worker.hear()
        client, sock = socket.socketpair()
        client.settimeout(20)
        harness.sockets += [client, sock]
        worker.hand_back(sock, data)
        await wait_for(lambda: not len(harness.workers))
        assert [message["type"] for message in worker.hear()] == ["refused", "closed"]
        assert client.recv(1) == b""

    run(scenario)


def test_a_stranger_hands_nothing_back(run: Callable[[Scenario], None]) -> None:
    async def scenario(harness: Harness) -> None:
        stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client, sock = socket.socketpair()
        client.settimeout(20)
        harness.sockets += [stranger, client, sock]
        stranger.connect(harness.path)
        channel.send_encoded(stranger, BACK, [sock.fileno()])
        sock.close()
        harness.workers._accept()
        assert harness.refusals.by_reason == {"bad-worker": 1}
        assert not harness.workers.handed_back and client.recv(1) == b""

    run(scenario)
