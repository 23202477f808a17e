"""Sessions at the router, between two workers that are simulated: nothing there is lost with a
router, nobody else pays for them, and what is over leaves nothing open."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import threading
import time
from typing import Iterator

import psutil
import pytest
from cluster.conftest import ClusterFactory
from cluster.harness import Cluster, wait_until
from cluster.modes import NO_WORKER
from cluster.raw import Poller

from supervisor_sio.common import channel, figures, handover, reasons, takeover
from supervisor_sio.common.handover import Handover
from supervisor_sio.common.limits import ADOPT_TIMEOUT, MAX_DESCRIPTORS
from supervisor_sio.relay.position import Part, Position

from .victim import Echoes, PeakMemory, descriptors

pytestmark = NO_WORKER

MB = 1024 * 1024
#: So many sessions that no client of these tests is placed on a simulated worker.
FIGURES = {"type": "load", **figures.report({"sessions": 1_000_000})}


class Simulated:
    """A worker that passes on, or adopts; it reports, and knows the next router."""

    def __init__(self, cluster: Cluster, tag: str, name: str = "simulated:w") -> None:
        self.path = str(cluster.run_dir / "router.sock")
        self.tag, self.name = tag, name
        self.clients: list[socket.socket] = []
        self.messages: list[channel.Message] = []
        self.descriptors: list[int] = []
        self.batches = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.sock = self.connect()
        self._thread = threading.Thread(target=self._report, daemon=True)
        self._thread.start()

    def connect(self) -> socket.socket:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        self.sock.connect(self.path)
        hello = {"version": channel.VERSION, "tag": self.tag, "name": self.name}
        self.say({"type": "hello", **hello})
        self.say(FIGURES)
        self.say({"type": "ready", "channels": ["socketio"], "takes": takeover.FORMAT})
        return self.sock

    def say(self, message: channel.Message, *descriptors: int) -> None:
        channel.send(self.sock, message, descriptors)
        channel.close_all(descriptors)

    def _report(self) -> None:
        while not self._ended.wait(1):
            with contextlib.suppress(OSError):
                channel.send(self.sock, FIGURES)

    def hear(self, kind: str, seconds: float = 20) -> channel.Message:
        """The next message of this type; what is to be adopted on the way is taken."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.sock], [], [], left)[0], f"no {kind}"
            packet = handover.receive(self.sock, MAX_DESCRIPTORS)
            assert packet is not None, f"the router is gone, and said no {kind}"
            message, received = packet
            if isinstance(message, Handover):
                channel.close_all(received)
                continue
            self.descriptors += received
            self.messages.append(message)
            if message["type"] == "sessions":
                self.say({"type": "took", "id": message["id"], "batch": message["batch"]})
            if message["type"] == "adopt-place":
                self.say({"type": "took", "id": message["id"]})
            if message["type"] == kind:
                return message

    def announce(self) -> channel.Message:
        part = Part((self.tag,), time.monotonic(), {}, {})
        self.say(takeover.passing([self.tag], "socketio"), Position("socketio", [part]).write())
        return self.answer()

    def answer(self) -> channel.Message:
        while True:
            packet = handover.receive(self.sock)
            assert packet is not None
            message, received = packet
            channel.close_all(received)
            if not isinstance(message, Handover) and message["type"] in ("pass", "no-pass"):
                return message

    def pass_on(self, sessions: int) -> Iterator[channel.Message]:
        """A batch after the other, up to so many sessions; the router's answers."""
        while len(self.clients) < sessions:
            count = min(MAX_DESCRIPTORS - 1, sessions - len(self.clients))
            ends = [socket.socketpair() for _ in range(count)]
            self.clients += [client for client, _ in ends]
            states = os.memfd_create("states")
            message = takeover.sessions(self.batches, self.tag, count)
            self.say(message, states, *(sock.detach() for _, sock in ends))
            self.batches += 1
            yield self.answer()

    def leave(self) -> None:
        self.say({"type": "passed"})
        self.say({"type": "leaving"})
        self.hear("left")
        self.sock.close()

    def lost(self) -> int:
        poll = select.poll()
        for client in self.clients:
            poll.register(client, select.POLLRDHUP)
        return len(poll.poll(0))

    def adopt(self) -> None:
        end = self.hear("adopt-end")
        said = {"id": end["id"], "tags": ["old"], "sessions": 1}
        self.say({"type": "adopted", **said})
        self.hear("adopt-go")

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self.sock.close()
        channel.close_all(self.descriptors)
        for client in self.clients:
            client.close()


@pytest.fixture
def made() -> Iterator[list[Simulated]]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # both ends are in this process
    simulated: list[Simulated] = []
    yield simulated
    for one in simulated:
        one.close()


def held(cluster: Cluster) -> int:
    return int(cluster.status()["takeover"]["held"])


def cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@pytest.mark.parametrize("how", ["kill", pytest.param("restart", marks=pytest.mark.long)])
def test_what_is_held_outlives_the_router(
    make_cluster: ClusterFactory, made: list[Simulated], how: str
) -> None:
    cluster = make_cluster(workers=1, hold_timeout="60").start()
    old = Simulated(cluster, "old")
    made.append(old)
    assert old.announce()["batch"] == 0
    assert [answer["batch"] for answer in old.pass_on(1000)] == [1, 2, 3, 4]
    old.leave()
    wait_until(lambda: held(cluster) == 1000, 5, "they are held")
    cluster.end_router(how)
    wait_until(lambda: held(cluster) == 1000, 10, "the next router has them")
    assert old.lost() == 0 and descriptors(cluster.router_pid) > 1000
    new = Simulated(cluster, "new")
    made.append(new)
    new.adopt()
    wait_until(lambda: held(cluster) == 0, 5, "they are adopted")
    wait_until(lambda: descriptors(cluster.router_pid) < 100, 10, "the router has none of them")
    for client in old.clients:
        client.sendall(b"x")
    assert old.lost() == 0
    # Nor has the next router.
    cluster.end_router(how)
    assert held(cluster) == 0 and descriptors(cluster.router_pid) < 100
    new.close()
    made.remove(new)
    wait_until(lambda: old.lost() == 1000, 5, "nobody else has them")


@pytest.mark.long
def test_a_router_that_dies_while_a_worker_passes_on(
    make_cluster: ClusterFactory, made: list[Simulated]
) -> None:
    cluster = make_cluster(workers=1).start()
    old = Simulated(cluster, "old")
    made.append(old)
    old.announce()
    list(old.pass_on(500))
    cluster.end_router("kill")
    old.connect()
    assert old.announce()["batch"] == 2  # it has those of the first
    list(old.pass_on(600))
    old.leave()
    new = Simulated(cluster, "new")
    made.append(new)
    new.adopt()
    assert old.lost() == 0


@pytest.mark.long
def test_an_adopter_that_hangs(make_cluster: ClusterFactory, made: list[Simulated]) -> None:
    """Others are served meanwhile, and the sessions go to the next."""
    cluster = make_cluster(workers=1).start()
    old, hung = Simulated(cluster, "old"), Simulated(cluster, "hung")
    made += [old, hung]
    old.announce()
    list(old.pass_on(2000))
    with Echoes(cluster.port) as echoes, PeakMemory(cluster.router_pid) as memory:
        began = time.monotonic()
        old.leave()
        wait_until(lambda: "adopt" in cluster.log("router") or held(cluster), 5, "it is asked")
        new = Simulated(cluster, "new", "simulated:other")
        made.append(new)
        new.hear("adopt-end", ADOPT_TIMEOUT + 20)
        took = time.monotonic() - began
    hung.hear("adopt-off")
    new.say({"type": "adopted", "id": new.messages[-1]["id"], "tags": ["old"], "sessions": 2000})
    new.hear("adopt-go")
    assert ADOPT_TIMEOUT - 1 < took
    worst = echoes.percentile(0.9)
    print(f"echoes: 90 % within {worst * 1000:.1f} ms; router grew by {memory.grown / MB:.1f} MB")
    assert worst < 0.5 and memory.grown < 20 * MB
    hung.close()
    made.remove(hung)
    assert old.lost() == 0
    line = "worker simulated:w does not adopt the sessions of worker simulated:w: it takes too long"
    cluster.wait_log("router", line)
    assert cluster.log("router").count(line) == 1


def test_a_router_without_descriptors_for_all(
    make_cluster: ClusterFactory, made: list[Simulated]
) -> None:
    cluster = make_cluster(workers=1, wrapper=("prlimit", "--nofile=1100:1100")).start()
    old = Simulated(cluster, "old")
    made.append(old)
    old.announce()
    count = 0
    for answer in old.pass_on(1000):
        if answer["type"] == "no-pass":
            break
        count = len(old.clients)
    assert answer.get("reason") == reasons.HELD_FULL and 252 <= count < 1000
    # The last batch was the test's only copy; those before are held.
    wait_until(lambda: old.lost() == len(old.clients) - count, 5, "the others are the worker's")
    for _ in range(50):  # new clients come in nevertheless
        poller = Poller(cluster.port)
        poller.open()
        poller.join()
        assert poller.call("echo", "there") == "there"
    old.leave()
    new = Simulated(cluster, "new")
    made.append(new)
    new.adopt()
    assert old.lost() == len(old.clients) - count


@pytest.mark.long
def test_nobody_adopts_them(make_cluster: ClusterFactory, made: list[Simulated]) -> None:
    cluster = make_cluster(workers=1, hold_timeout="1").start()
    before = descriptors(cluster.router_pid)
    old = Simulated(cluster, "old")
    made.append(old)
    old.announce()
    list(old.pass_on(2000))
    with Echoes(cluster.port) as echoes:
        old.leave()
        wait_until(lambda: old.lost() == 2000, 10, "they are closed")
    print(f"echoes: 99 % within {echoes.percentile(0.99) * 1000:.1f} ms")
    wait_until(lambda: held(cluster) == 0, 5, "nobody is held")
    not_moved = {reasons.OTHER_FORMAT: 2000}
    wait_until(
        lambda: cluster.status()["takeover"]["not_moved"] == not_moved, 5, "they are counted"
    )
    line = "not moved 2000 (other-format)"
    wait_until(lambda: line in cluster.log("router"), 5, line)
    assert cluster.log("router").count(line) == 1
    wait_until(lambda: descriptors(cluster.router_pid) <= before, 5, "nothing is left of them")


def test_what_it_costs_the_router(make_cluster: ClusterFactory, made: list[Simulated]) -> None:
    """Thousands of connections, there and away again."""
    count = min(8_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 4)
    cluster = make_cluster(workers=1).start()
    pid = cluster.router_pid
    old = Simulated(cluster, "old")
    made.append(old)
    began, used = time.monotonic(), cpu(pid)
    old.announce()
    list(old.pass_on(count))
    passed = time.monotonic()
    old.leave()
    new = Simulated(cluster, "new")
    made.append(new)
    new.adopt()
    adopted = time.monotonic()
    wait_until(lambda: descriptors(pid) < 100, 10, "the router has none of them")
    print(
        f"{count:,} connections: passed on in {passed - began:.2f} s, adopted in "
        f"{adopted - passed:.2f} s, {cpu(pid) - used:.2f} s of the router's CPU"
    )
    assert old.lost() == 0 and cpu(pid) - used < 5
