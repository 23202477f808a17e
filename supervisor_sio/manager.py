"""The client manager that makes one cluster of all workers of a supervisord."""

from __future__ import annotations

import atexit
import itertools
import os
import random
import signal
import threading
import time
import uuid
from functools import partial
from multiprocessing.util import Finalize
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence, Union

from greenlet import GreenletExit
from socketio import packet as sio_packet

from . import acks, admin, identity, sessions
from .operations import Operations, refuse_entry
from .packets import Packet, wire_format
from .relay.message import EncodedPacket, RelayMessage
from .relay.methods import BRIDGE, MalformedFields, check_fields
from .relay.publisher import MessageTooLong as MessageTooLong
from .relay.publisher import Publisher
from .relay.subscriber import Deaf, GreenSubscriber, Subscriber, ThreadSubscriber
from .request import tag_of
from .rooms import IndexedManager, Room, check_entry, check_name, check_names, is_sid
from .rundir import ENVIRONMENT_VARIABLE, ClusterInfo, RunDir, RunDirError

_URL_SCHEME = "zmq+ipc://"

#: Seconds in which a write-only manager must find the relay.
_JOIN_TIMEOUT = 5.0

#: Seconds that a write-only manager at its end waits until all workers have what it sent,
#: while none of them fetches anything.
_LEAVE_TIMEOUT = 5.0

_channels_in_use: set[str] = set()


class RelayUnreachable(RuntimeError):
    """Nobody relays what this process has to say; the text says what to look at."""


class ZmqManager(Operations, IndexedManager):
    """ZeroMQ based client manager for workers under one supervisord.

    To use it, initialize the :class:`socketio.Server` instance as follows::

        server = socketio.Server(async_mode='eventlet', client_manager=ZmqManager())

    Emits, acknowledgements, disconnects and room changes reach the clients of
    every worker, through the relay that ``[eventlistener:sio]`` runs: each
    client once, in the order of the worker that emits. Packets are encoded
    once, by that worker.

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
        IndexedManager.__init__(self, channel=channel, write_only=write_only, logger=logger)
        Operations.__init__(self)
        self._write_only_json = json
        self._run_dir = run_dir
        self._cluster = ClusterInfo()
        self._publisher: Optional[Publisher] = None
        self._publisher_pid = 0
        self._made_in = os.getpid()
        self._joining = threading.Lock()
        self._subscriber: Optional[Subscriber] = None
        self._fan_out: sessions.FanOut
        if not write_only:
            self.host_id = identity.tag()
        # A client echoes the id it was given, so ids that no two workers share
        # need no translation on the way. 20 random and 32 counted bits: within
        # the 53 that are exact in JavaScript.
        self._ack_ids = itertools.count(random.getrandbits(20) << 32 | 1)
        self._callbacks = acks.Callbacks()
        self._awaited = acks.Clients()

    # --- life ----------------------------------------------------------------

    def set_server(self, server: Any) -> None:
        super().set_server(server)
        self._fan_out = sessions.attach(server)
        admin.span_cluster(server, self)

    def initialize(self) -> None:
        """Start to hear the other workers; python-socketio calls it.

        :raises RuntimeError: for a second manager on the same channel in one process.
        """
        if self._run_dir is None:
            return
        if not self.write_only:
            publisher = self._join_relay()
            if publisher.channel in _channels_in_use:
                raise RuntimeError(
                    f"two ZmqManagers on channel {publisher.channel!r} in one process: "
                    "give each Socket.IO server its own channel"
                )
            _channels_in_use.add(publisher.channel)
            self._subscriber = GreenSubscriber(publisher, self._run_dir, lives=self.lives)
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

    def leave(self, timeout: float) -> None:
        """Wait until all workers have what this one has sent: it is about to end.

        :param timeout: seconds to wait at most.
        """
        publisher, subscriber = self._publisher, self._subscriber
        if publisher is None or subscriber is None:
            return
        deadline = time.monotonic() + timeout
        subscriber.wait_confirmed(self._receivers, lambda: deadline, self.server.sleep)
        # From here on nothing needs to be fetched; once more for what came meanwhile.
        publisher.ends = True
        missing = subscriber.wait_confirmed(self._receivers, lambda: deadline, self.server.sleep)
        if missing:
            self._get_logger().error(
                "%d workers have not fetched all that this one has sent: %s",
                len(missing),
                ", ".join(missing[:5]),
            )

    def _receivers(self) -> list[str]:
        """Who hears what this process sends to all, on this host."""
        tags = [tag for tag in self._members if self.is_local(tag)]
        return [*tags, BRIDGE] if self._cluster.bridged else tags

    @property
    def tally(self) -> Optional[int]:
        """The descriptor of the memory in which this worker counts what it sends."""
        tally = None if self._publisher is None else self._publisher.tally
        return None if tally is None else tally.descriptor

    def figures(self) -> dict[str, int]:
        """What this process has heard and said on the relay: counts of messages."""
        return {
            "received": getattr(self._subscriber, "received", 0),
            "dropped": getattr(self._subscriber, "dropped", 0),
            "malformed": getattr(self._subscriber, "malformed", 0),
            "sent_again": getattr(self._publisher, "sent_again", 0),
        }

    def _member_left(self, tag: str) -> None:
        if self._subscriber is not None:
            self._subscriber.ended(tag)

    @property
    def hears(self) -> Optional[str]:
        """The channel on which this manager hears the others, if it does."""
        if self.write_only or self._publisher is None or self._subscriber is None:
            return None
        return self._publisher.channel

    def _join_relay(self) -> Publisher:
        """The publisher of this process: a forked child needs its own."""
        if self._publisher is None or self._publisher_pid != os.getpid():
            with self._joining:  # several threads may emit for the first time
                return self._join_relay_once()
        return self._publisher

    def _join_relay_once(self) -> Publisher:
        if self._publisher is None or self._publisher_pid != os.getpid():
            assert self._run_dir is not None
            try:
                cluster = self._run_dir.read_cluster()
            except RunDirError as error:
                raise RelayUnreachable(str(error)) from None
            if self.channel and self.channel != cluster.channel:
                # Other hosts hear the one channel of the cluster.
                cluster = cluster._replace(channel=self.channel, bridged=False)
            self._cluster = cluster
            # The fork of a worker is not that worker: nobody answers it.
            only_emits = self.write_only or self._made_in != os.getpid()
            if only_emits:
                self.host_id = uuid.uuid4().hex
            publisher = Publisher(self._run_dir, cluster, self.host_id, counted=not only_emits)
            if only_emits:
                self._listen_for_questions(publisher)
            self._publisher, self._publisher_pid = publisher, os.getpid()
            atexit.register(self.close)
            # The children of multiprocessing end without what atexit knows.
            Finalize(None, self.close, exitpriority=10)
        return self._publisher

    def _listen_for_questions(self, publisher: Publisher) -> None:
        """:raises RelayUnreachable: when no relay carries what this process says."""
        assert self._run_dir is not None
        subscriber = ThreadSubscriber(publisher, self._run_dir, hears_all=False)
        subscriber.start()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        while not subscriber.joined:
            if time.monotonic() > deadline:
                subscriber.stop()
                publisher.close()
                raise RelayUnreachable(
                    f"no relay answers in {self._run_dir.path}: "
                    "is supervisord running, with [eventlistener:sio]?"
                )
            publisher.probe()
            time.sleep(0.01)
        self._subscriber = subscriber

    def close(self) -> None:
        """Send what is left and disconnect from the relay; a later emit connects anew.

        A write-only manager does so at the end of its process by itself.
        """
        atexit.unregister(self.close)
        publisher, subscriber = self._publisher, self._subscriber
        if publisher is None or self._publisher_pid != os.getpid():
            return
        if isinstance(subscriber, ThreadSubscriber):
            subscriber.finish(_LEAVE_TIMEOUT)
            self._subscriber = None
        self._publisher = None
        publisher.close()

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
        except_room: Room = None,
        local: bool = False,
        **kwargs: Any,
    ) -> None:
        """Emit a message to a single client, a room, or all the clients
        connected to the namespace, whichever workers they are connected to.

        The parameters are the same as in :meth:`socketio.Server.emit`, and two
        more. When several clients answer a ``callback``, the first answer
        counts; see :meth:`emit_with_acks` for all of them.

        :param except_room: a room or a list of rooms whose members do not get it.
        :param local: only to clients of this process.
        :raises TypeError: when ``data`` cannot be encoded, or a room is not named by a
                           ``str`` or an ``int``; nothing is sent then.
        :raises MessageTooLong: when it is longer than ``message_maxbytes``.
        :raises RelayUnreachable: in a write-only manager, when no relay answers.
        """
        room = to or room
        check_names(room)
        check_names(except_room)
        namespace = namespace or "/"
        local = local or bool(kwargs.get("ignore_queue")) or self._run_dir is None
        ack_id: Optional[int] = None
        if callback is not None:
            if self.server is None:
                raise RuntimeError("Callbacks can only be issued from the context of a server.")
            if room is None:
                raise ValueError("Cannot use callback without a room set.")
            ack_id = next(self._ack_ids)
        packets = self._encode(sio_packet.EVENT, namespace, [event, *_arguments(data)], ack_id)
        skip = [skip_sid] if isinstance(skip_sid, str) else list(skip_sid or ())
        if not local:
            fields: dict[str, Any] = {
                "method": "emit",
                "namespace": namespace,
                "packet": self._packet_format(),
            }
            for name, value in (
                ("room", room),
                ("except_room", except_room),
                ("skip_sid", skip),
                ("ack", ack_id),
            ):
                if value is not None and value != []:
                    fields[name] = value
            self._send_to(_tags(room), fields, packets, f"event {event!r}")
        if ack_id is not None and callback is not None:
            self._callbacks.add(ack_id, callback)
        if self.server is not None:
            recipients = self._participants(namespace, room, except_room, skip)
            question = None
            if ack_id is not None:
                question = acks.Question(ack_id, partial(self._answered, ack_id))
            self._deliver(recipients, packets, question)

    def _deliver(
        self,
        recipients: Sequence[tuple[str, str]],
        packets: list[EncodedPacket],
        question: Optional[acks.Question] = None,
    ) -> None:
        """Send an encoded packet to clients of this process."""
        if question is not None:
            self._awaited.ask([sid for sid, _ in recipients], question)
        self._fan_out([eio_sid for _, eio_sid in recipients], packets)

    def _answered(self, ack_id: int, *args: Any) -> None:
        callback = self._callbacks.take(ack_id)
        if callback is not None:
            callback(*args)

    def trigger_callback(self, sid: str, id: Any, data: Any) -> None:
        """A client of this process acknowledges an event."""
        answered = self._awaited.answered(sid, id) if isinstance(data, (list, tuple)) else None
        if answered is not None:
            answered(*data)

    def basic_disconnect(self, sid: str, namespace: str, **kwargs: Any) -> None:
        """A client is gone: those who wait for its answer need not any longer."""
        super().basic_disconnect(sid, namespace, **kwargs)
        for no_answer in self._awaited.left(sid):
            no_answer()

    # --- rooms ---------------------------------------------------------------

    def enter_room(
        self, sid: str, namespace: str, room: Any, eio_sid: Optional[str] = None
    ) -> None:
        """:raises TypeError: when the room is not named by a ``str`` or an ``int``.
        :raises ValueError: when the name has the form of a sid, and is not this client's.
        """
        check_entry(sid, room)
        super().enter_room(sid, namespace, room, eio_sid=eio_sid)

    def leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """:raises TypeError: when the room is not named by a ``str`` or an ``int``."""
        check_name(room)
        super().leave_room(sid, namespace, room)

    def close_room(self, room: Any, namespace: Optional[str] = None) -> None:
        """:raises TypeError: when the room is not named by a ``str`` or an ``int``.
        :raises ValueError: for a client's own room.
        """
        check_name(room)
        if is_sid(room):
            raise ValueError(f"cannot close {room!r}: it is the own room of a client")
        super().close_room(room, namespace)

    # --- packets -------------------------------------------------------------

    def _packet_class(self) -> Any:
        return self.server.packet_class if self.server is not None else Packet

    def _packet_format(self) -> str:
        """Tells whether a worker can pass a packet on to its clients as it is."""
        return wire_format(self._packet_class())

    def _encode(
        self, kind: int, namespace: str, data: list[Any], ack_id: Optional[int] = None
    ) -> list[EncodedPacket]:
        packet = self._packet_class()(kind, namespace=namespace, data=data, id=ack_id)
        if self.server is None and self._write_only_json is not None:
            packet.json = self._write_only_json
        encoded = packet.encode()
        parts = encoded if isinstance(encoded, list) else [encoded]
        return [part if isinstance(part, str) else bytes(part) for part in parts]

    def _decode(self, message: RelayMessage) -> list[Any]:
        """The arguments of an encoded packet.

        :raises MalformedFields: when it is not a packet.
        """
        # Of another serializer only a process without a server sends, such as a
        # write-only one or the bridge to other hosts: JSON.
        same = message.fields.get("packet", self._packet_format()) == self._packet_format()
        cls = self._packet_class() if same else Packet
        try:
            packet = cls(encoded_packet=message.packets[0])
            for attachment in message.packets[1:]:
                packet.add_attachment(attachment)
            return list(packet.data)
        except Exception as error:
            raise MalformedFields(f"not a Socket.IO packet: {error}") from None

    # --- the other workers ---------------------------------------------------

    def _send_to(
        self,
        tags: Iterable[Optional[str]],
        fields: Mapping[str, Any],
        packets: Sequence[EncodedPacket] = (),
        what: str = "a message",
    ) -> None:
        """To the workers with these tags, except this one; ``None`` is all of them."""
        publisher = self._join_relay()
        publisher.check(packets, what)
        wanted = set(tags)
        others = {tag for tag in wanted if tag is not None and tag != self.host_id}
        # Of a name that is not known there is nobody, or one so new that this
        # worker has yet to hear of it.
        unknown = any(map(self._is_unknown, others)) and not _is_answer(fields)
        if None in wanted or unknown:
            publisher.publish(None, fields, packets)
            return
        for tag in others:
            if tag == BRIDGE or not self.is_remote(tag):
                publisher.publish(tag, fields, packets)
            if tag != BRIDGE and not self.is_local(tag) and self._cluster.bridged:
                publisher.publish(BRIDGE, {**fields, "to": tag}, packets)

    def _is_unknown(self, tag: str) -> bool:
        known = tag == BRIDGE or self.lives(tag)
        return self._members_known and not known

    def _publish(self, data: dict[str, Any]) -> None:
        """Disconnects and room changes, as :class:`PubSubManager` phrases them."""
        if self._run_dir is None:
            return
        fields = {key: value for key, value in data.items() if key != "host_id"}
        self._send_to(_tags(data.get("sid")), fields)

    def _thread(self) -> None:
        try:
            self._hear()
        except Deaf as error:
            self._get_logger().critical("this worker ends: %s", error)
            os.kill(os.getpid(), signal.SIGTERM)

    def _hear(self) -> None:
        assert self._subscriber is not None
        for message in self._subscriber.messages():
            try:
                check_fields(message.fields)
                self._HANDLERS[message.fields["method"]](self, message)
            except MalformedFields as error:
                self._subscriber.refuse(error)
            except GreenletExit:
                raise
            except BaseException:  # an application's Timeout is no Exception
                self._get_logger().exception("handling %s of %s", message.fields, message.sender)

    def _on_emit(self, message: RelayMessage) -> None:
        fields = message.fields
        namespace, ack_id = fields["namespace"], fields.get("ack")
        packets = list(message.packets)
        if fields["packet"] != self._packet_format():
            data = self._decode(message)
            packets = self._encode(sio_packet.EVENT, namespace, data, ack_id)
        recipients = self._participants(
            namespace, fields.get("room"), fields.get("except_room"), fields.get("skip_sid", ())
        )
        if "request" in fields:
            self._deliver_and_gather(message, recipients, packets)
        else:
            question = None
            if ack_id is not None:  # nothing of the message: it may be long, and never answered
                answered = partial(self._send_answer, self._asker(message), namespace, ack_id)
                question = acks.Question(ack_id, answered)
            self._deliver(recipients, packets, question)

    def _send_answer(self, asker: str, namespace: str, ack_id: int, *args: Any) -> None:
        packets = self._encode(sio_packet.ACK, namespace, list(args), ack_id)
        fields = {"method": "callback", "ack": ack_id, "packet": self._packet_format()}
        try:
            self._send_to([asker], fields, packets, "an acknowledgement")
        except MessageTooLong as error:
            self._get_logger().error("it does not reach the worker that asked: %s", error)

    def _on_callback(self, message: RelayMessage) -> None:
        # The application's callbacks and handlers may take their time, and may
        # wait for what comes through here.
        arguments = self._decode(message)
        self.server.start_background_task(self._answered, message.fields["ack"], *arguments)

    def _on_disconnect(self, message: RelayMessage) -> None:
        self.server.start_background_task(self._handle_disconnect, dict(message.fields))

    def _on_enter_room(self, message: RelayMessage) -> None:
        refuse_entry(message.fields["sid"], message.fields["room"])
        self._handle_enter_room(dict(message.fields))

    def _on_leave_room(self, message: RelayMessage) -> None:
        self._handle_leave_room(dict(message.fields))

    def _on_close_room(self, message: RelayMessage) -> None:
        self.basic_close_room(message.fields["room"], message.fields["namespace"])

    def _handle_disconnect(self, message: dict[str, Any]) -> None:
        if self.server is not None:
            super()._handle_disconnect(message)

    _HANDLERS: Mapping[str, Callable[[ZmqManager, RelayMessage], None]] = {
        "emit": _on_emit,
        "callback": _on_callback,
        "disconnect": _on_disconnect,
        "enter_room": _on_enter_room,
        "leave_room": _on_leave_room,
        "close_room": _on_close_room,
        **Operations.HANDLERS,
    }


def _is_answer(fields: Mapping[str, Any]) -> bool:
    """Whether it is for who has asked, and for nobody else."""
    return fields["method"] in ("callback", "expect", "answer")


def _arguments(data: Any) -> list[Any]:
    """Tuples are expanded to multiple arguments, everything else is one."""
    if isinstance(data, tuple):
        return list(data)
    return [] if data is None else [data]


def _tags(room: Room) -> set[Optional[str]]:
    """The workers that an emit to this room or these rooms concerns; ``{None}`` for all.

    A session id is a room too, and names the one worker that has it.
    """
    rooms = room if isinstance(room, (list, tuple)) else [room]
    if not all(map(is_sid, rooms)):
        return {None}
    return {tag_of(one) for one in rooms if isinstance(one, str)}
