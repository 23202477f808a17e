from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Iterator, Optional

import pytest
from supervisor.http import NOT_DONE_YET
from supervisor.xmlrpc import RPCError

from supervisor_sio.common import channel
from supervisor_sio.supervisord import dispatchers
from supervisor_sio.supervisord.dispatchers import RouterChannel, RouterListener
from supervisor_sio.supervisord.guard import Guard


class Daemon:
    """What a dispatcher uses of supervisord."""

    def __init__(self) -> None:
        self.map: dict[int, Any] = {}
        self.logged: list[str] = []
        logger = SimpleNamespace(
            info=self.logged.append, warn=self.logged.append, error=self.logged.append
        )
        self.options = SimpleNamespace(logger=logger, get_socket_map=lambda: self.map)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, to be changed."""
    times = [1000.0]
    monkeypatch.setattr(dispatchers.time, "monotonic", lambda: times[0])
    yield times


FIGURES: channel.Message = {"type": "figures", "first": True, "last": True, "workers": []}


class Door:
    """A listener, and who comes in."""

    def __init__(self, path: Path, refuse: Callable[[int], Optional[str]]) -> None:
        self.path = str(path)
        self.daemon = Daemon()
        self.accepted: list[socket.socket] = []
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.bind(self.path)
        sock.listen(8)
        sock.setblocking(False)
        self.guard = Guard(self.daemon.options.logger)
        self.listener = RouterListener(self.daemon, sock, self.guard, refuse, self.accepted.append)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(5)
        sock.connect(self.path)
        return sock

    def close(self) -> None:
        self.listener.close()
        for sock in self.accepted:
            sock.close()


@pytest.fixture
def make_door(tmp_path: Path) -> Iterator[Callable[..., Door]]:
    made: list[Door] = []

    def make(refuse: Callable[[int], Optional[str]] = lambda pid: None) -> Door:
        made.append(Door(tmp_path / "s", refuse))
        return made[-1]

    yield make
    for door in made:
        door.close()


def test_who_is_refused_is_told_and_closed(
    make_door: Callable[..., Door], now: list[float]
) -> None:
    door = make_door(lambda pid: f"not {pid}")
    for _ in range(20):
        with door.connect() as sock:
            channel.send(sock, {"type": "hello"})
            door.listener.handle_read_event()
            packet = channel.receive(sock)
            assert packet is not None
            assert packet.message == {"type": "refused", "reason": f"not {os.getpid()}"}
            assert channel.receive(sock) is None
        with door.connect() as silent:
            door.listener.handle_read_event()
            with pytest.raises(BrokenPipeError):
                channel.send(silent, {"type": "hello"})
            packet = channel.receive(silent)
            assert packet is not None and packet.message["type"] == "refused"
    assert not door.accepted and list(door.daemon.map.values()) == [door.listener]
    now[0] += 1
    with door.connect():
        door.listener.handle_read_event()
    me = os.getpid()
    assert door.daemon.logged == [
        f"sio: refused 1, last pid {me}: not {me}",
        f"sio: refused 40, last pid {me}: not {me}",
    ]


def test_supervisord_does_not_turn_round_without_descriptors(
    make_door: Callable[..., Door], now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    door = make_door()

    def exhausted() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with door.connect():
        with monkeypatch.context() as patch:
            patch.setattr(door.listener, "_sock", SimpleNamespace(accept=exhausted))
            door.listener.handle_read_event()
            assert not door.listener.readable()
            now[0] += 0.9
            assert not door.listener.readable()
        now[0] += 0.1
        assert door.listener.readable() and not door.accepted
        door.listener.handle_read_event()
        assert len(door.accepted) == 1
    door.listener.handle_read_event()  # nobody is there any more
    assert door.listener.readable()
    assert door.daemon.logged == ["sio: cannot accept a router: Too many open files"]


class Router:
    """The other end of a channel that has been admitted."""

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.daemon = Daemon()
        self.guard = Guard(self.daemon.options.logger)
        self.channel = RouterChannel(
            self.daemon, ours, self.guard, ({"type": "welcome"}, []), lambda _: None
        )
        self.send({"type": "hello", "version": channel.VERSION})
        assert channel.receive(self.sock) is not None

    def send(self, message: channel.Message) -> None:
        channel.send(self.sock, message)
        self.channel.handle_read_event()

    def ask(self) -> tuple[int, Callable[[], Any]]:
        result = self.channel.command(
            {"type": "query"}, lambda rows, answer: (rows, answer["total"])
        )
        command = channel.receive(self.sock)
        assert command is not None
        return command.message["id"], result

    def answer(self, number: int) -> None:
        self.send({"type": "rows", "id": number, "rows": [["w", number]]})
        self.send({"type": "result", "id": number, "total": 1})

    def close(self) -> None:
        self.channel.close()
        self.sock.close()


@pytest.fixture
def router() -> Iterator[Router]:
    made = Router()
    yield made
    made.close()


def test_a_router_that_can_get_no_descriptors_reads_why(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(sock: socket.socket, message: channel.Message, *descriptors: Any) -> None:
        if message["type"] == "welcome":
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        real(sock, message)

    real = channel.send
    monkeypatch.setattr(channel, "send", send)
    router.channel.admitted = False
    router.send({"type": "hello", "version": channel.VERSION})
    assert router.channel.closed and not router.channel.admitted and not router.guard.caught
    packet = channel.receive(router.sock)
    assert packet is not None
    assert packet.message == {"type": "refused", "reason": channel.ON_THEIR_WAY}
    assert channel.receive(router.sock) is None
    assert channel.ON_THEIR_WAY in router.daemon.logged[-1]


def test_a_router_of_another_version_reads_what_to_do(router: Router) -> None:
    router.channel.admitted = False
    router.send({"type": "hello", "version": channel.VERSION + 1})
    assert router.channel.closed and not router.channel.admitted
    packet = channel.receive(router.sock)
    assert packet is not None and packet.message["type"] == "refused"
    wanted = "after an upgrade of supervisor-sio, restart supervisord"
    assert packet.message["reason"].endswith(wanted)
    assert wanted in router.daemon.logged[-1]


def test_answers_come_in_any_order(router: Router) -> None:
    (one, first), (two, second), (_, third) = router.ask(), router.ask(), router.ask()
    router.answer(two)
    assert first() is NOT_DONE_YET and second() == ([["w", two]], 1)
    router.answer(one)
    assert first() == ([["w", one]], 1) and third() is NOT_DONE_YET
    router.channel.close()
    with pytest.raises(RPCError, match="the router is gone"):
        third()


def test_what_becomes_of_processes_is_told(router: Router) -> None:
    told: list[channel.Message] = [
        {"type": "starting", "name": "workers:workers_00"},
        {"type": "stopping", "pid": 7},
        {"type": "ended", "name": "workers:workers_00"},
    ]
    router.channel.tell_starting("workers:workers_00")
    router.channel.tell_stopping(7)
    router.channel.tell_ended("workers:workers_00")
    for message in told:
        packet = channel.receive(router.sock)
        assert packet is not None and packet.message == message
    router.sock.close()
    router.channel.tell_starting("workers:workers_00")  # nobody is there any more


def test_answers_that_nobody_asks_for_are_forgotten(router: Router, now: list[float]) -> None:
    lost = [router.ask()[0] for _ in range(20)]
    for number in lost:
        router.answer(number)
    now[0] += 4.9
    number, result = router.ask()
    router.send(FIGURES)
    assert len(router.channel._answers) == 21
    now[0] += 0.1
    router.send(FIGURES)
    for late in lost:
        router.answer(late)
    assert list(router.channel._answers) == [number]
    router.answer(number)
    assert result() == ([["w", number]], 1) and not router.channel._answers


def test_a_client_that_waits_is_told_when_no_answer_comes(router: Router, now: list[float]) -> None:
    _, result = router.ask()
    now[0] += 5
    router.send(FIGURES)
    with pytest.raises(RPCError, match="the router does not answer"):
        result()


def test_a_packet_that_cannot_be_handled_is_dropped(router: Router, now: list[float]) -> None:
    number, result = router.ask()
    router.send({"type": "rows", "id": number})  # without rows
    assert router.guard.caught == 1 and not router.channel.closed
    assert "RouterChannel" in router.daemon.logged[-1] and "KeyError" in router.daemon.logged[-1]
    assert not router.channel.readable()  # or it might go round and round
    now[0] += 1
    assert router.channel.readable()
    router.answer(number)
    assert result() == ([["w", number]], 1)


def test_an_answer_that_cannot_be_made_is_a_fault(router: Router) -> None:
    number, result = router.ask()
    router.send({"type": "result", "id": number})  # without a total
    with pytest.raises(RPCError, match="supervisor-sio failed to answer"):
        result()
    assert router.guard.caught == 1 and not router.channel._answers


def test_a_listener_that_fails_hears_the_next_router(
    make_door: Callable[..., Door], now: list[float]
) -> None:
    def refuse(pid: int) -> Optional[str]:
        if not door.guard.caught:
            raise ZeroDivisionError
        return None

    door = make_door(refuse)
    with door.connect() as sock:
        door.listener.handle_read_event()
        assert sock.recv(1) == b""  # closed, not forgotten
    assert door.guard.caught == 1 and not door.listener.readable()
    now[0] += 1
    with door.connect():
        door.listener.handle_read_event()
    assert len(door.accepted) == 1


def test_figures_in_parts_count_when_they_are_whole(router: Router) -> None:
    whole = {**FIGURES, "waiting": 1, "workers": [{"tag": "a"}]}
    router.send(whole)
    assert router.channel.figures == whole
    router.send({**FIGURES, "waiting": 2, "workers": [{"tag": "b"}], "last": False})
    # The rest was left out because supervisord was busy.
    router.send({**FIGURES, "waiting": 3, "workers": [{"tag": "c"}], "last": False})
    router.send({"type": "figures", "workers": [{"tag": "d"}], "first": False, "last": False})
    assert router.channel.figures == whole
    router.send({"type": "figures", "workers": [{"tag": "e"}], "first": False, "last": True})
    assert router.channel.figures["waiting"] == 3
    assert [row["tag"] for row in router.channel.figures["workers"]] == ["c", "d", "e"]


def test_each_turn_takes_a_packet_however_late_the_turn_comes(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatchers, "ROUTER_TURN", 0)
    for waiting in range(3):
        channel.send(router.sock, {**FIGURES, "waiting": waiting})
    for waiting in range(3):
        router.channel.handle_read_event()
        assert router.channel.figures["waiting"] == waiting


def test_a_command_leaves_room_for_what_the_router_says_with_it(router: Router) -> None:
    with pytest.raises(RPCError, match="over the limit of 65000"):
        router.channel.command({"type": "query", "room": "r" * 65000})
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(RPCError, match="nested too deeply"):
        router.channel.command({"type": "emit", "arguments": nested})
    router.ask()
