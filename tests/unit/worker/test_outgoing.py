from __future__ import annotations

import errno
import os
import socket
from typing import Any, Optional

import pytest

from supervisor_sio.common.limits import LINK_MESSAGES
from supervisor_sio.worker.outgoing import Blocked, Outgoing, RouterGone


class Router:
    """A channel that takes as much as the test allows."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.room = 1000
        self.error: Optional[int] = None

    def sendmsg(self, buffers: list[bytes], ancillary: Any, flags: int) -> None:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        if len(self.taken) == self.room:
            raise BlockingIOError
        self.taken += buffers


class Connection:
    def __init__(self, descriptor: int = 5) -> None:
        self.ended = False
        self.told: list[bool] = []
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def moved(self, gone: bool) -> None:
        self.told.append(gone)


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
def outgoing(failures: list[str]) -> Outgoing:
    return Outgoing(lambda reason, text: failures.append(f"{reason}: {text}"))


def test_what_the_router_does_not_take_waits_in_its_order(outgoing: Outgoing) -> None:
    router, connections = Router(), [Connection(), Connection()]
    router.room = 2
    for data in (b"one", b"two", b"three"):
        outgoing.add(data)
    for number, connection in enumerate(connections):
        outgoing.add_move(b"move %d" % number, connection)
    with pytest.raises(BlockingIOError):
        outgoing.send_all(router)
    assert router.taken == [b"one", b"two"]
    router.room = 4
    with pytest.raises(BlockingIOError):
        outgoing.send_all(router)
    assert [one.told for one in connections] == [[True], []]
    router.room = 1000
    outgoing.add(b"four")
    outgoing.send_all(router)
    outgoing.send_all(router)
    assert router.taken == [b"one", b"two", b"three", b"move 0", b"four", b"move 1"]
    assert [one.told for one in connections] == [[True], [True]]


def test_a_connection_that_ended_meanwhile_is_not_sent(outgoing: Outgoing) -> None:
    router, ended, open_one = Router(), Connection(), Connection()
    outgoing.add_move(b"ended", ended)
    outgoing.add_move(b"open", open_one)
    ended.ended = True
    outgoing.send_all(router)
    assert router.taken == [b"open"]
    assert (ended.told, open_one.told) == ([False], [True])


def test_messages_are_for_one_router_and_connections_for_the_next(outgoing: Outgoing) -> None:
    router, connection = Router(), Connection()
    router.error = errno.EPIPE
    outgoing.add(b"to the first")
    outgoing.add_move(b"moved", connection)
    with pytest.raises(RouterGone):
        outgoing.send_all(router)
    outgoing.forget_messages()
    router.error = None
    outgoing.send_all(router)
    assert (router.taken, connection.told) == ([b"moved"], [True])


def test_connections_stay_when_no_router_will_come(outgoing: Outgoing) -> None:
    connections = [Connection(), Connection()]
    for connection in connections:
        outgoing.add_move(b"moved", connection)
    outgoing.keep_all()
    outgoing.keep_all()
    assert [one.told for one in connections] == [[False], [False]]
    outgoing.send_all(Router())


def test_what_can_never_be_sent_does_not_keep_the_rest(
    outgoing: Outgoing, failures: list[str]
) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        lost, good = Connection(descriptor=987654), Connection(descriptor=0)
        outgoing.add_move(b"lost", lost)
        outgoing.add_move(b"good", good)
        outgoing.send_all(here)
        assert there.recvmsg(100, 100)[0] == b"good"
    assert (lost.told, good.told) == ([False], [True])
    assert failures == [f"message: [Errno {errno.EBADF}] {os.strerror(errno.EBADF)}"]


def test_what_the_kernel_cannot_take_now_is_sent_later(outgoing: Outgoing) -> None:
    router, connection = Router(), Connection()
    outgoing.add_move(b"moved", connection)
    router.error = errno.ETOOMANYREFS
    with pytest.raises(Blocked):
        outgoing.send_all(router)
    router.error = None
    outgoing.send_all(router)
    assert connection.told == [True]


def test_there_is_room_for_so_many_messages(outgoing: Outgoing) -> None:
    for _ in range(LINK_MESSAGES):
        assert outgoing.has_room
        outgoing.add(b"")
    assert not outgoing.has_room
