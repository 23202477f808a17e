"""Sessions that leave and enter a worker; the test is the router."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Optional

import eventlet
import pytest

from supervisor_sio.common import channel, reasons, takeover
from supervisor_sio.worker import ancestors
from supervisor_sio.worker import link as link_module
from supervisor_sio.worker import passing as passing_module
from supervisor_sio.worker.arriving import Adoption
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from unit.worker.linked import Router, Worker, until
from unit.worker.turns import let_run


def memory(data: bytes = b"states") -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, data)
    return descriptor


class Adopter:
    """Records its calls."""

    def __init__(self) -> None:
        self.adoptions: list[Adoption] = []
        self.called: list[tuple[str, int]] = []
        self.places: list[tuple[int, str, bytes]] = []
        self.error: Optional[Exception] = None

    def on_adopt(self, adoption: Adoption) -> None:
        if self.error is not None:
            adoption.close()
            raise self.error
        self.adoptions.append(adoption)

    def on_place(self, number: int, name: str, descriptor: int) -> None:
        if self.error is not None:
            raise self.error
        self.places.append((number, name, os.pread(descriptor, 100, 0)))

    def on_go(self, number: int) -> None:
        self.called.append(("go", number))

    def on_discard(self, number: int) -> None:
        self.called.append(("discard", number))

    def close(self) -> None:
        for adoption in self.adoptions:
            adoption.close()
        self.adoptions = []


class Linked:
    """A worker with its router."""

    def __init__(self, path: Path) -> None:
        self.runtime = HubRuntime()
        self.router = Router(str(path / "router.sock"))
        self.worker = Worker(self.runtime, SimpleNamespace(router=str(path / "router.sock")))
        self.link = self.worker.link
        self.adopter = Adopter()
        self.link.adopt_by(self.adopter, takeover.FORMAT)
        self.clients: list[socket.socket] = []
        self.passed: list[bool] = []
        #: Of the batch that was asked for last.
        self.last: list[int] = []
        self.batches_closed = False

    def connect(self) -> None:
        self.router.accept()
        self.router.welcome()
        until(lambda: self.link.welcomed)

    def pass_on(self, batches: int = 2) -> None:
        self.last_position = memory(b"place")
        positions = [("socketio", ["own", "adopted"], self.last_position)]

        async def passing() -> None:
            self.passed.append(await self.link.pass_on(positions, self._batches(batches)))

        self.runtime.spawn(passing())

    def pass_first(self) -> None:
        """Pass sessions on, up to the first batch, which the router has yet to confirm."""
        self.pass_on()
        self.router.expect("passing")
        self.router.send({"type": "pass", "batch": 0})
        self.router.expect("sessions")

    async def _batches(self, count: int) -> AsyncIterator[tuple[str, int, list[int]]]:
        try:
            for number in range(count):
                self.last = [memory(), *(sock.detach() for sock in self.sockets())]
                yield "own" if number else "adopted", 2, self.last
        finally:
            self.batches_closed = True

    def sockets(self) -> list[socket.socket]:
        ends = [socket.socketpair() for _ in range(2)]
        self.clients += [client for client, _ in ends]
        return [sock for _, sock in ends]

    def offer(self, number: int = 7, batches: int = 2, end: bool = True, **about: Any) -> None:
        question = {**takeover.passing(["old"], "socketio"), "type": "adopt", "id": number}
        self.router.send({**question, **about}, memory(b"place"))
        for batch in range(batches):
            message = {**takeover.sessions(batch, "old", 2), "id": number}
            self.router.send(message, memory(), *(sock.detach() for sock in self.sockets()))
        if end:
            self.router.send({"type": "adopt-end", "id": number})

    def came(self, number: int, batches: int) -> None:
        """Wait until this part of an offer has arrived."""
        for _ in range(batches):
            assert self.router.expect("took")["id"] == number

    def lost(self) -> int:
        """How many of the clients see the end of their connection."""
        return sum(ended(client) for client in self.clients)

    def close(self) -> None:
        self.link.close()
        self.router.close()
        self.adopter.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def linked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_leak: Callable[[], AbstractContextManager[None]],
) -> Iterator[Linked]:
    monkeypatch.setattr(link_module, "_RETRY", 0.02)
    eventlet.sleep(0)  # the hub has its descriptors
    with no_leak():
        made = Linked(tmp_path)
        made.link.start()
        try:
            yield made
        finally:
            made.close()
            eventlet.sleep(0.05)


def ended(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


# --- leaving -------------------------------------------------------------------------------


def test_sessions_go_to_the_router_one_batch_at_a_time(linked: Linked) -> None:
    linked.connect()
    linked.pass_on()
    passing = linked.router.expect("passing")
    assert passing["tags"] == ["own", "adopted"] and passing["channel"] == "socketio"
    assert passing["format"] == takeover.FORMAT and passing["descriptors"] == 1
    let_run(0.02)
    assert not linked.clients  # nothing is touched before the router takes it
    linked.router.send({"type": "pass", "batch": 0})
    first = linked.router.expect("sessions")
    assert (first["batch"], first["tag"], first["count"]) == (0, "adopted", 2)
    assert first["descriptors"] == 3
    let_run(0.02)
    assert len(linked.clients) == 2 and linked.lost() == 0  # they are open here, too
    linked.router.send({"type": "pass", "batch": 1})
    assert linked.router.expect("sessions")["tag"] == "own"
    assert linked.lost() == 2  # the test's router has let go of them
    linked.router.send({"type": "pass", "batch": 2})
    linked.router.expect("passed")
    until(lambda: linked.passed == [True])
    assert linked.lost() == 4 and linked.batches_closed


@pytest.mark.parametrize("reason", [reasons.HELD_FULL, reasons.OTHER_FORMAT])
@pytest.mark.parametrize("when", ["first", "later"])
def test_what_the_router_refuses_stays_here(linked: Linked, reason: str, when: str) -> None:
    linked.connect()
    linked.pass_on()
    linked.router.expect("passing")
    if when == "later":
        linked.router.send({"type": "pass", "batch": 0})
        linked.router.expect("sessions")
    linked.router.send({"type": "no-pass", "reason": reason})
    until(lambda: linked.passed == [False])
    assert linked.link.not_passed == reason
    assert linked.lost() == 0 and linked.batches_closed is (when == "later")
    channel.close_all(linked.last)


def test_nothing_goes_when_all_of_supervisord_stops(linked: Linked) -> None:
    linked.connect()
    linked.pass_on()
    linked.router.expect("passing")
    linked.router.send({"type": "stopping", "all": True})
    until(lambda: linked.passed == [False])
    assert linked.link.all_stop and linked.link.not_passed == ""
    assert linked.worker.stopping == [True] and not linked.clients


def test_without_a_router_nothing_is_passed_on(linked: Linked) -> None:
    linked.pass_on()
    until(lambda: linked.passed == [False])
    assert linked.link.not_passed == reasons.NO_ROUTER and not linked.clients


@pytest.mark.parametrize("has_it", [False, True])
def test_the_next_router_gets_what_the_one_before_may_have_lost(
    linked: Linked, has_it: bool
) -> None:
    linked.connect()
    linked.link.draining()
    linked.pass_first()
    linked.router.die()
    until(lambda: not linked.link.up)
    assert linked.lost() == 0
    linked.connect()
    assert linked.router.expect("passing")["descriptors"] == 1
    linked.router.send({"type": "pass", "batch": 1 if has_it else 0})
    again = linked.router.expect("sessions")
    assert again["batch"] == (1 if has_it else 0)
    if not has_it:
        linked.router.send({"type": "pass", "batch": 1})
        assert linked.router.expect("sessions")["batch"] == 1
    linked.router.send({"type": "pass", "batch": 2})
    linked.router.expect("passed")
    until(lambda: linked.passed == [True])


@pytest.mark.parametrize("there", [False, True])
def test_a_router_that_does_not_answer(
    linked: Linked, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(passing_module, "PASS_TIMEOUT", 0.2)
    linked.connect()
    linked.pass_first()
    if not there:
        linked.router.die()
    until(lambda: linked.passed == [False])
    assert linked.link.not_passed == reasons.NO_ROUTER and linked.batches_closed
    assert linked.lost() == 0
    channel.close_all(linked.last)


def test_without_supervisord_it_does_not_wait_for_the_next_router(
    linked: Linked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing_module, "PASS_TIMEOUT", 60)
    linked.connect()
    linked.pass_first()
    monkeypatch.setattr(ancestors, "has_ended", lambda pid: True)
    assert not linked.link.alone  # the router is there
    linked.router.die()
    until(lambda: linked.passed == [False])
    assert linked.link.alone and linked.lost() == 0
    channel.close_all(linked.last)


def test_a_batch_that_the_router_never_read_is_not_sent_later(
    linked: Linked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of its descriptors belong to other files by then."""
    monkeypatch.setattr(passing_module, "PASS_TIMEOUT", 0.1)
    linked.connect()
    while not linked.link._blocked:
        linked.link.post({"type": "filler", "text": "x" * 10_000})
    linked.pass_on()
    until(lambda: linked.passed == [False])
    seen: list[str] = []

    def look() -> bool:
        packet = linked.router.read()
        while packet is not None:
            seen.append(packet[0]["type"])
            channel.close_all(packet[1])
            packet = linked.router.read()
        return not linked.link._blocked

    until(look)
    look()
    assert "filler" in seen and "passing" not in seen


# --- arriving ------------------------------------------------------------------------------


def test_sessions_come_whole_and_begin_when_the_router_says_so(linked: Linked) -> None:
    linked.connect()
    linked.link.ready({"socketio": None})
    assert linked.router.expect("ready")["takes"] == takeover.FORMAT
    linked.offer(end=False)
    assert [linked.router.expect("took")["batch"] for _ in range(2)] == [0, 1]
    assert not linked.adopter.adoptions
    linked.router.send({"type": "adopt-end", "id": 7})
    until(lambda: linked.adopter.adoptions)
    (adoption,) = linked.adopter.adoptions
    assert (adoption.id, adoption.tags, adoption.format) == (7, ["old"], takeover.FORMAT)
    ((name, position),) = adoption.positions
    assert name == "socketio" and os.pread(position, 100, 0) == b"place"
    assert [(tag, count, len(d)) for tag, count, d in adoption.batches] == [("old", 2, 3)] * 2
    linked.link.adopted(7, 4)
    said = linked.router.expect("adopted")
    assert (said["id"], said["tags"], said["sessions"]) == (7, ["old"], 4)
    assert not linked.adopter.called
    linked.router.send(takeover.place(7, "socketio"), memory(b"place and more"))
    assert linked.router.expect("took")["id"] == 7
    linked.router.send({"type": "adopt-go", "id": 7})
    until(lambda: linked.adopter.called == [("go", 7)])
    assert linked.adopter.places == [(7, "socketio", b"place and more")]
    linked.link.heard(7)
    assert linked.router.expect("adopt-heard")["id"] == 7
    linked.router.send(takeover.place(7, "socketio"), memory(b"too late"))
    linked.router.send({"type": "adopt-go", "id": 7})  # once is enough
    linked.link.tags(["old"])
    assert linked.router.expect("tags")["tags"] == ["old"]
    linked.router.die()
    until(lambda: not linked.link.up)
    linked.router.accept()
    # Before its first request is placed.
    assert linked.router.expect("tags")["tags"] == ["old"]
    linked.router.expect("ready")
    assert linked.adopter.called == [("go", 7)] and linked.lost() == 0
    assert len(linked.adopter.places) == 1


@pytest.mark.parametrize("how", ["no descriptor", "it cannot be read"])
def test_what_was_sent_meanwhile_does_not_come(
    linked: Linked, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Senders that have ended do not send it again: another worker is to adopt the sessions."""
    linked.connect()
    linked.offer()
    until(lambda: linked.adopter.adoptions)
    linked.link.adopted(7, 4)
    linked.router.expect("adopted")
    if how == "no descriptor":
        linked.link._lose_descriptors(takeover.place(7, "socketio"))
    else:
        linked.adopter.error = ValueError("as the test wants it")
        linked.router.send(takeover.place(7, "socketio"), memory(b"place and more"))
    reason = linked.router.expect("not-adopted")["reason"]
    assert reason.endswith("no descriptor is free" if how == "no descriptor" else "wants it")
    linked.router.send({"type": "adopt-go", "id": 7})
    linked.link.tags([])
    linked.router.expect("tags")
    assert linked.adopter.called == [("discard", 7)] and not linked.adopter.places


def test_what_is_in_place_is_said_to_the_next_router_too(linked: Linked) -> None:
    linked.connect()
    linked.link.ready({"socketio": None})
    linked.offer()
    until(lambda: linked.adopter.adoptions)
    linked.link.adopted(7, 4)
    linked.router.expect("adopted")
    linked.router.die()
    until(lambda: not linked.link.up)
    linked.router.accept()
    linked.router.expect("ready")
    assert linked.router.expect("adopted")["id"] == 7
    linked.router.welcome()
    linked.offer()  # it may ask before it has read that
    linked.router.send({"type": "adopt-go", "id": 7})
    until(lambda: linked.adopter.called == [("go", 7)])
    assert len(linked.adopter.adoptions) == 1 and linked.lost() == 4


def test_the_adopter_cannot(linked: Linked) -> None:
    linked.connect()
    linked.offer()
    until(lambda: linked.adopter.adoptions)
    linked.link.not_adopted(7, "one of them is odd")
    assert linked.router.expect("not-adopted")["reason"] == "one of them is odd"
    linked.adopter.close()
    linked.router.send({"type": "adopt-off", "id": 7})
    linked.adopter.error = ValueError("as the test wants it")
    linked.offer(8)
    said = linked.router.expect("not-adopted")
    assert (said["id"], said["reason"]) == (8, "ValueError('as the test wants it')")
    assert linked.link.up and not linked.adopter.called and linked.lost() == 8


@pytest.mark.parametrize("state", ["coming", "given", "said"])
@pytest.mark.parametrize("how", ["off", "close"])
def test_another_worker_has_them(linked: Linked, state: str, how: str) -> None:
    linked.connect()
    linked.offer(end=state != "coming")
    if state == "coming":
        linked.came(7, 2)
    else:
        until(lambda: linked.adopter.adoptions)
    if state == "said":
        linked.link.adopted(7, 4)
    if how == "off":
        linked.router.send({"type": "adopt-off", "id": 7})
        linked.router.send({"type": "query", "id": 1})
        until(lambda: linked.worker.questions)
    else:
        linked.link.close()
    assert linked.adopter.called == ([] if state == "coming" else [("discard", 7)])
    assert linked.lost() == (4 if state == "coming" else 0)
    linked.link.adopted(7, 4)  # too late
    linked.link.not_adopted(7, "too late")
    linked.link._arriving.repeat()
    if how == "off":
        linked.link.draining()
        while True:
            message, descriptors = linked.router.read()
            channel.close_all(descriptors)
            if message["type"] == "draining":
                break
            assert message["type"] in ("load", "took", "adopted")


def test_half_of_it_is_nothing(linked: Linked) -> None:
    linked.connect()
    linked.offer(end=False)
    linked.came(7, 2)
    linked.router.die()
    until(lambda: linked.lost() == 4)
    linked.connect()
    linked.router.send({"type": "adopt-end", "id": 7})
    linked.router.send({"type": "query", "id": 1})
    until(lambda: linked.worker.questions)
    assert not linked.adopter.adoptions


def test_a_format_that_is_not_taken(linked: Linked) -> None:
    linked.connect()
    linked.offer(format=takeover.FORMAT + 1)
    said = linked.router.expect("not-adopted")
    assert said["reason"] == f"sessions of format {takeover.FORMAT + 1} are not supported here"
    until(lambda: linked.lost() == 4)
    assert not linked.adopter.adoptions


def test_without_a_descriptor_for_all_none_is_taken(
    linked: Linked, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked.connect()
    linked.offer(end=False)
    linked.came(7, 2)
    monkeypatch.setattr(link_module, "ceiling", lambda reserve: 0)
    message = {**takeover.sessions(2, "old", 2), "id": 7}
    linked.router.send(message, memory(), *(sock.detach() for sock in linked.sockets()))
    assert linked.router.expect("not-adopted")["reason"] == "no descriptor is free"
    until(lambda: linked.lost() == 6)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "adopt"},
        {"type": "adopt", "id": 1, "tags": ["a"], "format": 1, "channel": 5},
        {"type": "sessions", "id": 7, "batch": 3},
        {"type": "adopt-go"},
        {"type": "adopt-place", "channel": "socketio"},
        {"type": "adopt-place", "id": 7},
        {"type": "pass", "batch": None},
    ],
)
def test_a_router_that_says_something_else(
    linked: Linked, message: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    linked.connect()
    linked.offer(end=False)
    linked.router.send(message, memory())
    until(lambda: not linked.link.up)
    assert "invalid message from the router" in caplog.text
    until(lambda: linked.lost() == 4)
