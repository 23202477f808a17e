"""Clients on plain sockets that notice all that a takeover could do to them."""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections import defaultdict
from typing import Any

from .wire import Request, Session, WebSocket, sid_of


class Disconnected(Exception):
    """The server has ended the Socket.IO session."""


class Talk(ABC):
    """A client of one namespace: what it has received, in order.

    :ivar sid: of Socket.IO.
    :ivar events: the data of each event, by its name.
    :ivar questions: the same, of those that want an answer, with its number.
    """

    sid: str
    #: Of Engine.IO.
    session: str

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        self._prefix = namespace and f"{namespace},"
        self.events: dict[str, list[Any]] = defaultdict(list)
        self.questions: list[tuple[int, Any]] = []
        self.answers: dict[int, Any] = {}
        self._numbers = itertools.count(1)

    @abstractmethod
    def transmit(self, *packets: str) -> None: ...

    @abstractmethod
    def receive_packets(self) -> list[str]:
        """Those that come next."""

    def ask(self, event: str, *args: Any) -> int:
        """Emit; the number of the answer."""
        number = next(self._numbers)
        self.transmit(f"42{self._prefix}{number}{json.dumps([event, *args])}")
        return number

    def answer(self, number: int) -> Any:
        while number not in self.answers:
            self.read()
        value = self.answers[number]
        return value[0] if len(value) == 1 else value

    def call(self, event: str, *args: Any) -> Any:
        return self.answer(self.ask(event, *args))

    def wait_for(self, event: str, count: int = 1) -> list[Any]:
        while len(self.events[event]) < count:
            self.read()
        return self.events[event]

    def wait_for_question(self) -> int:
        while not self.questions:
            self.read()
        return self.questions.pop(0)[0]

    def reply(self, number: int, value: Any) -> None:
        self.transmit(f"43{self._prefix}{number}{json.dumps([value])}")

    def read(self) -> None:
        for packet in self.receive_packets():
            self._take(packet)

    def _take(self, packet: str) -> None:
        if packet == "2":
            self.transmit("3")
        elif packet[:2] in ("42", "43"):
            if not packet.startswith(self._prefix or tuple("0123456789["), 2):
                return  # of another namespace
            rest = packet[2 + len(self._prefix) :]
            text = rest.lstrip("0123456789")
            number, data = rest[: -len(text)], json.loads(text)
            if packet[1] == "3":
                assert int(number) not in self.answers, f"{packet} once more"
                self.answers[int(number)] = data
            elif number:
                self.questions.append((int(number), data))
            else:
                name, *args = data
                self.events[name].append(args[0] if len(args) == 1 else args)
        elif packet.startswith("41"):
            raise Disconnected(packet)
        else:
            assert packet == "6", packet


class OverWebSocket(Talk):
    def __init__(self, port: int, namespace: str = "") -> None:
        super().__init__(namespace)
        self.wire = WebSocket(port)
        self.session = self.wire.sid

    def join(self) -> OverWebSocket:
        self.sid = self.wire.join(self.namespace)
        return self

    def transmit(self, *packets: str) -> None:
        self.wire.send(*packets)

    def receive_packets(self) -> list[str]:
        packet = self.wire.receive()
        assert isinstance(packet, str)
        return [packet]

    def close(self) -> None:
        self.wire.close()


class OverPolling(Talk):
    """:ivar poll: that waits, if one does."""

    def __init__(self, port: int, namespace: str = "") -> None:
        super().__init__(namespace)
        self.wire = Session(port)
        self.session = self.wire.sid
        self.poll: Request | None = None
        #: What has come with the answer to CONNECT.
        self._came: list[str] = []

    def join(self) -> OverPolling:
        self.transmit(f"40{self.namespace and self.namespace + ','}")
        connected, *self._came = self.wire.poll().packets
        self.sid = sid_of(connected)
        return self

    def start_poll(self) -> None:
        self.poll = self.wire.start_poll()

    def transmit(self, *packets: str) -> None:
        answer = self.wire.post(*packets)
        assert (answer.status, answer.text) == (200, "ok"), answer

    def receive_packets(self) -> list[str]:
        if self._came:
            packets, self._came = self._came, []
            return packets
        poll, self.poll = self.poll or self.wire.start_poll(), None
        return poll.answer().packets

    def close(self) -> None:
        if self.poll is not None:
            self.poll.abandon()
