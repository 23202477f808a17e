"""The client manager that makes one cluster of all workers of a supervisord."""

from __future__ import annotations

import itertools
import os
import random
import re
import time
import uuid
from collections import OrderedDict
from functools import partial
from typing import Any, Callable, Iterator, Optional, Union

from engineio import packet as eio_packet
from socketio import packet as sio_packet
from socketio.manager import Manager
from socketio.pubsub_manager import PubSubManager

from . import identity, sessions
from .relay.client import Publisher, RelayUnreachable, Subscriber
from .relay.message import EncodedPacket, RelayMessage
from .request import tag_of
from .rundir import ENVIRONMENT_VARIABLE, RunDir, RunDirError

_URL_SCHEME = "zmq+ipc://"

#: A session id as a worker of ours makes it; see :mod:`supervisor_sio.sessions`.
_SID = re.compile(r"[0-9a-f]{8}\.[\w-]{20}", re.ASCII)

#: Seconds in which a write-only manager must find the relay.
_JOIN_TIMEOUT = 5.0

#: Acknowledgements awaited at a time; the oldest is given up beyond that.
_MOST_ACKS = 65536

Room = Union[str, list[str], tuple[str, ...], None]


class ZmqManager(PubSubManager):  # type: ignore[misc]
    """ZeroMQ based client manager for workers under one supervisord.

    To use it, initialize the :class:`socketio.Server` instance as follows::

        server = socketio.Server(async_mode='eventlet', client_manager=ZmqManager())

    Emits, acknowledgements, disconnects and room changes reach the clients of
    every worker, through the relay that ``[eventlistener:sio]`` runs. Packets
    are encoded once, by the worker that emits.

    Without a supervisord that has a ``[rpcinterface:sio]`` section (a laptop,
    a unit test) it manages the clients of its own process, like
    :class:`socketio.Manager`.

    :param url: ``zmq+ipc://`` and the run directory of the cluster. The
                default is the one of the supervisord that started this
                process, from ``SUPERVISOR_SIO_RUN_DIR``.
    :param channel: The name of the cluster on the relay. The default is the
                    ``channel`` of ``[rpcinterface:sio]``.
    :param write_only: If set to ``True``, only initialize to emit events. A
                       write-only instance can be used independently of the
                       server to emit to clients from an external process.
    :param logger: a custom logger to log it. If not given, the server logger
                   is used.
    :param json: An alternative JSON module to use for encoding packets. Custom
                 json modules must have ``dumps`` and ``loads`` functions that
                 are compatible with the standard library versions. This
                 setting is only used when ``write_only`` is set to ``True``.
                 Otherwise the JSON module configured in the server is used.
    :raises ValueError: when ``url`` is not of this form, or when a write-only
                        manager has neither ``url`` nor a supervisord.
    """

    name = "zmq"

    def __init__(
        self,
        url: Optional[str] = None,
        channel: Optional[str] = None,
        write_only: bool = False,
        logger: Any = None,
        json: Any = None,
    ) -> None:
        run_dir = RunDir.from_environment()
        if url is not None:
            if not url.startswith(_URL_SCHEME + "/"):
                raise ValueError(
                    f"url {url!r} is not {_URL_SCHEME} and the absolute path of a run directory"
                )
            run_dir = RunDir(url[len(_URL_SCHEME) :])
        if run_dir is None and write_only:
            raise ValueError(
                "ZmqManager(write_only=True) outside supervisord: set "
                f"{ENVIRONMENT_VARIABLE} or pass url='{_URL_SCHEME}' and the run_dir "
                "of [rpcinterface:sio]"
            )
        super().__init__(channel=channel, write_only=write_only, logger=logger)
        self._write_only_json = json
        self._run_dir = run_dir
        self._publisher: Optional[Publisher] = None
        self._publisher_pid = 0
        self._subscriber: Optional[Subscriber] = None
        if not write_only:
            self.host_id = identity.tag()
        # A client echoes the id it was given, so ids that no two workers share
        # need no translation on the way. 20 random and 32 counted bits: within
        # the 53 that are exact in JavaScript.
        self._ack_ids = itertools.count(random.getrandbits(20) << 32 | 1)
        self._acks: OrderedDict[int, Callable[..., Any]] = OrderedDict()

    # --- life ----------------------------------------------------------------

    def set_server(self, server: Any) -> None:
        super().set_server(server)
        sessions.attach(server)

    def initialize(self) -> None:
        """Start to hear the other workers; python-socketio calls it."""
        if self._run_dir is None:
            return
        if not self.write_only:
            self._subscriber = Subscriber(self._join_relay(), self._run_dir)
        super().initialize()

    def wait_joined(self, given_up: Callable[[], bool]) -> None:
        """Wait until the relay carries messages both ways, or until ``given_up()``."""
        subscriber = self._subscriber
        if subscriber is None:
            return
        patience = time.monotonic() + _JOIN_TIMEOUT
        while not subscriber.joined and not given_up():
            self._join_relay().probe()
            self.server.sleep(0.02)
            if time.monotonic() > patience:
                patience = time.monotonic() + 60
                self._get_logger().error("no relay yet, waiting: is [eventlistener:sio] running?")

    @property
    def dropped(self) -> int:
        """Messages from other workers that were lost on the way."""
        return self._subscriber.dropped if self._subscriber else 0

    def _join_relay(self) -> Publisher:
        """The publisher of this process: a forked child needs its own."""
        if self._publisher is None or self._publisher_pid != os.getpid():
            assert self._run_dir is not None
            try:
                channel = self.channel or self._run_dir.read_channel()
            except RunDirError as error:
                raise RelayUnreachable(str(error)) from None
            if self.write_only:
                self.host_id = uuid.uuid4().hex
            publisher = Publisher(self._run_dir, channel, self.host_id)
            if self.write_only:
                try:
                    publisher.join(_JOIN_TIMEOUT)
                except RelayUnreachable:
                    publisher.close()
                    raise
            self._publisher, self._publisher_pid = publisher, os.getpid()
        return self._publisher

    # --- emitting ------------------------------------------------------------

    def emit(
        self,
        event: str,
        data: Any,
        namespace: Optional[str] = None,
        room: Room = None,
        skip_sid: Union[str, list[str], None] = None,
        callback: Optional[Callable[..., Any]] = None,
        to: Room = None,
        **kwargs: Any,
    ) -> None:
        """Emit a message to a single client, a room, or all the clients
        connected to the namespace, whichever workers they are connected to.

        The parameters are the same as in :meth:`socketio.Server.emit`. When
        several clients answer a ``callback``, the first answer counts.

        :raises RelayUnreachable: in a write-only manager, when no relay answers.
        """
        room = to or room
        namespace = namespace or "/"
        if kwargs.get("ignore_queue") or self._run_dir is None:
            Manager.emit(
                self, event, data, namespace, room=room, skip_sid=skip_sid, callback=callback
            )
            return
        ack_id: Optional[int] = None
        if callback is not None:
            if self.server is None:
                raise RuntimeError("Callbacks can only be issued from the context of a server.")
            if room is None:
                raise ValueError("Cannot use callback without a room set.")
            ack_id = next(self._ack_ids)
        packets = self._encode(sio_packet.EVENT, namespace, [event, *_arguments(data)], ack_id)
        if ack_id is not None and callback is not None:
            self._acks[ack_id] = callback
            if len(self._acks) > _MOST_ACKS:
                self._acks.popitem(last=False)
        skip = [skip_sid] if isinstance(skip_sid, str) else list(skip_sid or ())
        fields = {
            "method": "emit",
            "namespace": namespace,
            "room": room,
            "skip_sid": skip,
            "ack": ack_id,
            "packet": self._packet_format(),
        }
        rooms = room if isinstance(room, (list, tuple)) else [room]
        for tag in _tags(rooms):
            if tag != self.host_id:
                self._join_relay().publish(tag, fields, packets)
        if self.server is not None:
            self._deliver(namespace, room, skip, packets, ack_id, self._answered)

    def _deliver(
        self,
        namespace: str,
        room: Room,
        skip: list[str],
        packets: list[EncodedPacket],
        ack_id: Optional[int],
        answered: Callable[..., Any],
    ) -> None:
        """Send an encoded packet to the clients of this process."""
        texts = [
            eio_packet.Packet(eio_packet.MESSAGE, packet) if isinstance(packet, str) else packet
            for packet in packets
        ]
        for sid, eio_sid in self.get_participants(namespace, room):
            if sid in skip:
                continue
            if ack_id is not None:
                acks = self.callbacks.setdefault(sid, {0: itertools.count(1)})
                acks[ack_id] = partial(answered, ack_id)
            for packet in texts:
                if isinstance(packet, bytes):
                    # An Engine.IO packet keeps its first encoding, and that of
                    # bytes is base64 for one transport and not for the other.
                    packet = eio_packet.Packet(eio_packet.MESSAGE, packet)
                self.server._send_eio_packet(eio_sid, packet)

    def _answered(self, ack_id: int, *args: Any) -> None:
        callback = self._acks.pop(ack_id, None)
        if callback is not None:
            callback(*args)

    # --- packets -------------------------------------------------------------

    def _packet_class(self) -> Any:
        return self.server.packet_class if self.server is not None else sio_packet.Packet

    def _packet_format(self) -> str:
        """Tells whether a worker can pass a packet on to its clients as it is."""
        cls = self._packet_class()
        return f"{cls.__module__}.{cls.__qualname__}"

    def _encode(
        self, kind: int, namespace: str, data: list[Any], ack_id: Optional[int]
    ) -> list[EncodedPacket]:
        packet = self._packet_class()(kind, namespace=namespace, data=data, id=ack_id)
        if self.server is None and self._write_only_json is not None:
            packet.json = self._write_only_json
        encoded = packet.encode()
        parts = encoded if isinstance(encoded, list) else [encoded]
        return [part if isinstance(part, str) else bytes(part) for part in parts]

    def _decode(self, packets: Any, packet_class: Any) -> Any:
        packet = packet_class(encoded_packet=packets[0])
        for attachment in packets[1:]:
            packet.add_attachment(attachment)
        return packet

    # --- the other workers ---------------------------------------------------

    def _publish(self, data: dict[str, Any]) -> None:
        """Disconnects and room changes, as :class:`PubSubManager` phrases them."""
        if self._run_dir is None:
            return
        fields = {key: value for key, value in data.items() if key != "host_id"}
        (tag,) = _tags([data.get("sid")])
        if tag != self.host_id:
            self._join_relay().publish(tag, fields)

    def _listen(self) -> Iterator[dict[str, Any]]:
        assert self._subscriber is not None
        for message in self._subscriber.messages():
            yield {**message.fields, "host_id": message.sender, "message": message}

    def _handle_emit(self, message: dict[str, Any]) -> None:
        relayed: RelayMessage = message["message"]
        packets = list(relayed.packets)
        namespace, ack_id = message["namespace"], message["ack"]
        if message["packet"] != self._packet_format():
            # From a process with another serializer, such as a write-only one.
            packet = self._decode(packets, sio_packet.Packet)
            packets = self._encode(sio_packet.EVENT, namespace, packet.data, ack_id)
        answer = partial(self._send_answer, message["host_id"], namespace)
        self._deliver(namespace, message["room"], message["skip_sid"], packets, ack_id, answer)

    def _send_answer(self, tag: str, namespace: str, ack_id: int, *args: Any) -> None:
        packets = self._encode(sio_packet.ACK, namespace, list(args), ack_id)
        self._join_relay().publish(tag, {"method": "callback", "ack": ack_id}, packets)

    def _handle_callback(self, message: dict[str, Any]) -> None:
        packet = self._decode(message["message"].packets, self._packet_class())
        self._answered(message["ack"], *packet.data)

    def _handle_disconnect(self, message: dict[str, Any]) -> None:
        if self.server is not None:
            super()._handle_disconnect(message)


def _arguments(data: Any) -> list[Any]:
    """Tuples are expanded to multiple arguments, everything else is one."""
    if isinstance(data, tuple):
        return list(data)
    return [] if data is None else [data]


def _tags(rooms: Any) -> set[Optional[str]]:
    """The workers that an emit to these rooms concerns; ``{None}`` for all.

    A session id is a room too, and names the one worker that has it.
    """
    if any(not isinstance(room, str) or not _SID.fullmatch(room) for room in rooms):
        return {None}
    return {tag_of(room) for room in rooms}
