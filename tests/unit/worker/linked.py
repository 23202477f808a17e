"""A worker's end of the channel; the test is the router."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any, Callable, Optional

import eventlet

from supervisor_sio.common import channel, handover
from supervisor_sio.common.handover import Handover
from supervisor_sio.common.limits import MAX_DESCRIPTORS
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from supervisor_sio.worker.link import Link, Refused

KNOWN = Handover(("192.0.2.1", 5), ("192.0.2.2", 80), "http", True, False, b"GET /")


class Router:
    """Supervisord's socket, and the router behind it."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen()
        self._listener.setblocking(False)
        self._sock: Optional[socket.socket] = None
        self._messages: list[Any] = []

    def accept(self) -> None:
        """Accept the connection as the next router."""
        until(self._accept, "connected")
        assert self.expect("hello")["version"] == channel.VERSION

    def _accept(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._sock = self._listener.accept()[0]
            self._sock.setblocking(False)
        return self._sock is not None

    def send(self, message: dict[str, Any], *descriptors: int) -> None:
        """Send a message, and close the descriptors."""
        assert self._sock is not None
        channel.send(self._sock, message, descriptors)
        channel.close_all(descriptors)

    def welcome(self) -> None:
        self.send({"type": "welcome", "version": channel.VERSION, "supervisord": os.getppid()})

    def pass_on(self, descriptor: int) -> None:
        assert self._sock is not None
        channel.send_encoded(self._sock, handover.encode(*KNOWN), [descriptor])

    def expect(self, kind: str) -> Any:
        """The next message of this type; earlier ones are dropped."""
        found: list[Any] = []

        def look() -> bool:
            while not found:
                packet = self.read()
                if packet is None:
                    return False
                message, descriptors = packet
                if isinstance(message, Handover):
                    channel.close_all(descriptors)
                    if kind == "connection":
                        found.append(message)
                elif message["type"] == kind:
                    found.append({**message, "descriptors": len(descriptors)})
                    channel.close_all(descriptors)
            return True

        until(look, kind)
        return found[0]

    def read(self) -> Any:
        assert self._sock is not None
        try:
            return handover.receive(self._sock, MAX_DESCRIPTORS)
        except BlockingIOError:
            return None

    def die(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def close(self) -> None:
        self.die()
        self._listener.close()


class Worker:
    """Records the callbacks of the link."""

    def __init__(self, runtime: HubRuntime, run_dir: Any) -> None:
        self.settings: list[Any] = []
        self.taken: list[bytes] = []
        self.members: list[list[str]] = []
        self.stopping: list[bool] = []
        self.refused: list[Refused] = []
        self.questions: list[Any] = []
        self.claims: list[Any] = []
        self.on_members: Callable[[], None] = lambda: None
        self.figure = 0
        self.link = Link(
            runtime,
            run_dir,
            self.settings.append,
            self._take,
            lambda known: None,
            lambda: {"type": "load", "figure": self.figure},
            self._take_members,
            self.questions.append,
            lambda question, answered: self.claims.append((question, answered)),
            self.stopping.append,
            self.refused.append,
        )

    def _take(self, descriptor: int, known: Handover) -> None:
        os.close(descriptor)
        self.taken.append(known.prefix)

    def _take_members(self, members: list[Any]) -> None:
        self.on_members()
        self.members.append([row[0] for row in members])


def until(condition: Callable[[], object], what: object = "") -> None:
    with eventlet.Timeout(20, AssertionError(f"not {what}")):
        while not condition():
            eventlet.sleep(0.005)
