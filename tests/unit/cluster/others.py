"""Helpers for tests of several workers: their messages to a manager, and its messages to them."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import Future
from typing import Any, Callable, List, Optional, Tuple

import pytest
import zmq
from socketio import packet as sio_packet

from supervisor_sio import ZmqManager
from supervisor_sio.cluster.fetching import RemoteSocket
from supervisor_sio.relay.message import RelayMessage
from unit.polling import PollingClient

OTHER = "ffffffff"

Start = Callable[..., "Future[Any]"]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def numbers(clients: list[PollingClient], sockets: list[RemoteSocket]) -> list[int]:
    """The numbers of these clients."""
    sids = [client.sid for client in clients]
    return sorted(sids.index(socket.sid) for socket in sockets)


def heard(manager: ZmqManager, clients: list[PollingClient]) -> list[bool]:
    """Whether each client had received an event before one that all get."""
    manager.emit("last", None)
    events = [client.receive() for client in clients]
    assert all(packets[-1] == '42["last"]' for packets in events)
    return [len(packets) > 1 for packets in events]


class Sent(List[Tuple[Any, Any, Any]]):
    """The messages that a manager sends to other workers: receiver, fields, arguments."""

    def __init__(self, manager: ZmqManager, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()

        def send_to(tags: Any, fields: Any, packets: Any = (), *args: Any) -> None:
            message = RelayMessage.unpack(RelayMessage("x", 1, fields, packets).pack())
            arguments = manager._decode(message) if packets else None
            self.extend((tag, message.fields, arguments) for tag in tags)

        monkeypatch.setattr(manager, "_send_to", send_to)

    def wait(self, count: int) -> None:
        eventually(lambda: len(self) == count)


def from_another(manager: ZmqManager, *arguments: Any, **fields: Any) -> None:
    """Let the manager receive a message of another worker."""
    packets = manager._encode(3, "/", list(arguments), 0)
    fields = {"namespace": "/", "packet": manager._packet_format(), **fields}
    message = RelayMessage(OTHER, 1, fields, packets)
    method = ZmqManager.HANDLERS[fields["method"]]
    getattr(manager, method.__name__)(message)


def relayed(
    manager: ZmqManager,
    *arguments: Any,
    room: Any = None,
    skip: tuple[str, ...] = (),
    ack_id: Optional[int] = None,
) -> RelayMessage:
    """An emit of another worker, in the form in which the relay brings it."""
    fields = {
        "method": "emit",
        "namespace": "/",
        "room": room,
        "skip_sid": list(skip),
        "ack": ack_id,
        "packet": manager._packet_format(),
    }
    packets = manager._encode(sio_packet.EVENT, "/", list(arguments), ack_id)
    return RelayMessage.unpack(RelayMessage("ffffffff", 1, fields, packets).pack())


class SpacedJson:
    """A JSON module whose output differs from the default."""

    loads = staticmethod(json.loads)

    @staticmethod
    def dumps(value: Any, **options: Any) -> str:
        return json.dumps(value, **{**options, "separators": (", ", ": ")})


class OtherPacket(sio_packet.Packet):  # type: ignore[misc]
    """A packet class with another serialization."""

    json = SpacedJson


def _receive(ear: zmq.Socket[bytes]) -> RelayMessage:
    data = ear.recv()
    return RelayMessage.unpack(data, data.index(b"\0", data.index(b"\0") + 1) + 1)


def next_message(ear: zmq.Socket[bytes]) -> RelayMessage:
    """The next numbered message."""
    while True:
        message = _receive(ear)
        if message.sequence:
            return message


def wait_until_heard(ear: zmq.Socket[bytes], topic: bytes, mouth: zmq.Socket[bytes]) -> None:
    """Wait until the relay knows the subscriptions of ``ear``; nothing else is left in its
    queue."""
    for number in itertools.count():
        mouth.send(topic + RelayMessage("test", 0, {"method": "test", "number": number}).pack())
        if ear.poll(10):
            break
    while _receive(ear).fields["number"] != number:
        pass
