"""The client manager that makes one cluster of all workers of a supervisord."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import random
import signal
import time
import uuid
import weakref
from functools import partial
from multiprocessing.util import Finalize
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence, Union

from greenlet import GreenletExit, getcurrent
from socketio import packet as sio_packet

from ..common import descriptors, identity
from ..common.limits import ATTACHMENTS, CATCH_UP_BYTES, CATCH_UP_WAIT, EARLY_OUTPUT, OUTPUT_OBJECT
from ..common.refusals import Refusals
from ..common.request import tag_of
from ..common.rundir import ENVIRONMENT_VARIABLE, ClusterInfo, RunDir, RunDirError
from ..relay import native
from ..relay.message import EncodedPacket, RelayMessage
from ..relay.methods import BRIDGE, MalformedFields, check_fields
from ..relay.publisher import MessageTooLong as MessageTooLong
from ..relay.publisher import Publisher
from ..relay.subscriber import Deaf, GreenSubscriber, Subscriber, ThreadSubscriber
from . import acks, admin, sessions
from .operations import Operations
from .packets import CheckedJson, Packet, wire_format
from .rooms import IndexedManager, Room, check_entry, check_name, check_names, is_sid, refuse_entry

logger = logging.getLogger("supervisor_sio")

_URL_SCHEME = "zmq+ipc://"

#: Seconds in which a write-only manager must find the relay.
_JOIN_TIMEOUT = 5.0

#: Seconds between looks whether clients have taken what they were sent.
_LOOK = 0.01

#: Seconds that a write-only manager at its end waits until all workers have what it sent,
#: while none of them fetches anything.
_LEAVE_TIMEOUT = 5.0

_WRONG_THREAD = "in another thread than the one that serves the clients"

#: Whether it was looked, at the first emit, if anybody can hear this process.
_looked_who_hears = False

_channels_in_use: set[str] = set()
_managers: weakref.WeakSet[ZmqManager] = weakref.WeakSet()


class RelayUnreachable(RuntimeError):
    """Nobody relays what this process has to say; the text says what to look at."""


class _Early:
    """What is emitted to a client before its connect handler has said yes."""

    def __init__(self) -> None:
        #: Who runs the handler.
        self.connecting = getcurrent()
        self.emits: list[list[EncodedPacket]] = []
        self._size = 0

    def add(self, packets: list[EncodedPacket]) -> bool:
        """Whether it was kept."""
        self._size += sum(map(len, packets)) + OUTPUT_OBJECT
        if self._size > EARLY_OUTPUT:
            return False
        self.emits.append(packets)
        return True


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
    :param max_attachments: Most binary attachments that an event of a client,
                            or its acknowledgement, may have. The default is 10,
                            as in Node's servers.
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
        max_attachments: int = ATTACHMENTS,
    ) -> None:
        run_dir = RunDir.from_environment()
        if url is not None:
            if not url.startswith(_URL_SCHEME + "/"):
                raise ValueError(
                    f"url {url!r} is not supported: leave url out in a worker, or write "
                    f"{_URL_SCHEME}/run/myapp-sio (the run_dir)"
                )
            run_dir = RunDir(url[len(_URL_SCHEME) :])
        if run_dir is None and write_only:
            raise ValueError(
                "ZmqManager(write_only=True) outside supervisord: set "
                f"{ENVIRONMENT_VARIABLE} or pass url='{_URL_SCHEME}' and the run_dir "
                "of [rpcinterface:sio]"
            )
        IndexedManager.__init__(self)
        Operations.__init__(self)
        self.channel = channel
        self.write_only = write_only
        self.logger = logger
        self.host_id = uuid.uuid4().hex if write_only else identity.tag()
        self._write_only_json = json
        self._max_attachments = max_attachments
        #: By sid, for clients whose connect handlers have yet to say yes.
        self._early: dict[str, _Early] = {}
        self._run_dir = run_dir
        self._cluster = ClusterInfo()
        self._publisher: Optional[Publisher] = None
        self._joining = native.lock()
        self._subscriber: Optional[Subscriber] = None
        #: Whether this process serves clients, or will as soon as its application is
        #: imported: a worker. Any other emits as a write-only manager does.
        self._serves = False
        self._outlet: Optional[sessions.Outlet] = None
        #: Bytes of messages delivered since clients had time for them.
        self._at_once = 0
        # A client echoes the id it was given, so ids that no two workers share
        # need no translation on the way. 20 random and 32 counted bits: within
        # the 53 that are exact in JavaScript.
        self._ack_ids = itertools.count(random.getrandbits(20) << 32 | 1)
        self._callbacks = acks.Callbacks()
        self._awaited = acks.Clients()
        _managers.add(self)
        sessions.manager_made()

    # --- life ----------------------------------------------------------------

    def set_server(self, server: Any) -> None:
        super().set_server(server)
        sessions.attach(server, self._max_attachments, self._send_through)
        self._serves = not self.write_only and sessions.are_expected()
        admin.span_cluster(server, self)

    def _send_through(self, outlet: sessions.Outlet) -> None:
        self._outlet = outlet

    def initialize(self) -> None:
        """Start to hear the other workers; called where clients are served.

        :raises RuntimeError: for a second manager on the same channel in one process.
        """
        if self._run_dir is None:
            return
        if not self.write_only:
            if not self._serves:
                # What it emitted before went out under another name, and is still fetched.
                native.start_thread(partial(_finish, *self._take_apart()), "relay-finish")
                self._serves = True
            publisher = self._join_relay()
            if publisher.channel in _channels_in_use:
                raise RuntimeError(
                    f"two ZmqManagers on channel {publisher.channel!r} in one process: "
                    "give each Socket.IO server its own channel"
                )
            _channels_in_use.add(publisher.channel)
            self._subscriber = GreenSubscriber(publisher, self._run_dir, lives=self.lives)
            self.server.start_background_task(self._thread)
        self._get_logger().info("zmq backend initialized.")

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
        if publisher is None or subscriber is None or publisher.silent:
            return
        deadline = time.monotonic() + timeout
        self._wait_for_members()  # while the router is new it has not told them
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
        return [*tags, BRIDGE] if self._subscriber and self._subscriber.bridged else tags

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
        if not self._serves or self._publisher is None or self._subscriber is None:
            return None
        return self._publisher.channel

    def _join_relay(self) -> Publisher:
        publisher = self._publisher
        if publisher is None:
            with native.holding(self._joining):  # several threads may emit for the first time
                publisher = self._publisher or self._join_relay_once()
        return publisher

    def _join_relay_once(self) -> Publisher:
        assert self._run_dir is not None
        try:
            cluster = self._run_dir.read_cluster()
        except RunDirError as error:
            raise RelayUnreachable(str(error)) from None
        if self.channel and self.channel != cluster.channel:
            # Other hosts hear the one channel of the cluster.
            cluster = cluster._replace(channel=self.channel, bridged=False)
        self._cluster = cluster
        self.host_id = identity.tag() if self._serves else uuid.uuid4().hex
        publisher = Publisher(self._run_dir, cluster, self.host_id, counted=self._serves)
        if not self._serves:
            self._listen_for_questions(publisher)
        self._publisher = publisher
        atexit.register(self.close)
        # The children of multiprocessing end without what atexit knows.
        Finalize(None, self.close, exitpriority=10)
        return publisher

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
        _finish(*self._take_apart())

    def _take_apart(self) -> tuple[Optional[Publisher], Optional[Subscriber]]:
        """From here on the next emit connects anew."""
        atexit.unregister(self.close)
        publisher, subscriber = self._publisher, self._subscriber
        self._publisher = None
        if isinstance(subscriber, ThreadSubscriber):
            self._subscriber = None
        return publisher, subscriber

    def _forget_parent(self) -> None:
        """This is the child of a fork: clients, relay and locks are its parent's."""
        self._joining = native.lock()  # another thread of the parent may hold the old one
        self._publisher = self._subscriber = None
        self._serves = False
        if self._outlet is not None:
            self._outlet.threads = None
        self._calls.clear()
        self._callbacks, self._awaited = acks.Callbacks(), acks.Clients()
        self.forget_clients()
        self._early.clear()

    # --- clients whose connect handler has yet to say yes --------------------

    def pre_connect(self, eio_sid: str, namespace: str) -> Optional[str]:
        sid: Optional[str] = super().pre_connect(eio_sid, namespace)
        if sid is not None:
            self._early[sid] = _Early()
        return sid

    def connect(self, sid: str, namespace: str) -> Any:
        sid = super().connect(sid, namespace)
        early = self._early.pop(sid, None)
        if early is not None and early.emits and self._outlet is not None:
            eio_sid = self.eio_sid_from_sid(sid, namespace)
            for packets in early.emits:
                self._outlet.fan_out([eio_sid], packets)
        return sid

    def _audience(
        self, namespace: str, room: Room, except_room: Room, skip_sid: Iterable[str]
    ) -> list[tuple[str, str]]:
        """The clients of this process that an emit is for.

        Of those who have yet to be let in, only whom it names, or whose own connect
        handler emits: it reaches them when they are in.
        """
        recipients = self._participants(namespace, room, except_room, skip_sid)
        pending = self.pending_connect.get(namespace)
        if not pending:
            return recipients
        named = set(room) if isinstance(room, (list, tuple)) else {room}
        emits = getcurrent()
        return [
            pair
            for pair in recipients
            if pair[0] not in pending
            or pair[0] in named
            or (pair[0] in self._early and self._early[pair[0]].connecting is emits)
        ]

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
        :raises ValueError: when it has NaN or Infinity, which are not JSON; likewise.
        :raises MessageTooLong: when it is longer than ``message_maxbytes``.
        :raises RelayUnreachable: in a process that serves no clients, when no relay answers.
        :raises RuntimeError: with a ``callback``, in a process that serves no clients, or in
                              another thread than the one that does.
        """
        room = to or room
        check_names(room)
        check_names(except_room)
        namespace = namespace or "/"
        local = local or bool(kwargs.get("ignore_queue")) or self._run_dir is None
        ack_id: Optional[int] = None
        if callback is not None:
            if room is None:
                raise ValueError("Cannot use callback without a room set.")
            self._need_server("call() and callbacks")
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
        outlet = self._outlet
        if outlet is None:
            return
        if self._run_dir is None:
            _tell_if_unheard(self.server)
        if outlet.threads is None or outlet.threads.here:
            self._emit_here(namespace, room, except_room, skip, packets, ack_id)
        else:
            size = sum(map(len, packets))
            outlet.threads.run(
                size, self._emit_here, namespace, room, except_room, skip, packets, ack_id
            )

    def _emit_here(
        self,
        namespace: str,
        room: Room,
        except_room: Room,
        skip: list[str],
        packets: list[EncodedPacket],
        ack_id: Optional[int],
    ) -> None:
        recipients = self._audience(namespace, room, except_room, skip)
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
        if self._early:
            for sid, _ in recipients:
                if sid in self._early and not self._early[sid].add(packets):
                    self._get_logger().error("too much for %s, who has yet to connect", sid)
            recipients = [pair for pair in recipients if pair[0] not in self._early]
        if recipients and self._outlet is not None:
            self._outlet.fan_out([eio_sid for _, eio_sid in recipients], packets)

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
        self._early.pop(sid, None)
        super().basic_disconnect(sid, namespace, **kwargs)
        for no_answer in self._awaited.left(sid):
            no_answer()

    # --- clients and rooms ---------------------------------------------------

    def _is_here(self, sid: str, namespace: str) -> bool:
        """Whether this process has the client."""
        return bool(self.is_connected(sid, namespace) or self.is_pre_connected(sid, namespace))

    def can_disconnect(self, sid: str, namespace: str) -> bool:
        """Whether :meth:`socketio.Server.disconnect` shall go on; else it was passed on."""
        namespace = namespace or "/"
        if not self._is_here(sid, namespace):
            self._publish({"method": "disconnect", "sid": sid, "namespace": namespace})
            return False
        if self._in_another_thread():
            self._run_in_hub(self.server.disconnect, sid, namespace)
            return False
        return bool(self.is_connected(sid, namespace))

    def pre_disconnect(self, sid: str, namespace: str) -> Any:
        if self._in_another_thread():
            raise RuntimeError(f"disconnect() with ignore_queue {_WRONG_THREAD}")
        return super().pre_disconnect(sid, namespace)

    def disconnect(
        self, sid: str, namespace: Optional[str] = None, ignore_queue: bool = False
    ) -> None:
        namespace = namespace or "/"
        if ignore_queue:
            self.basic_disconnect(sid, namespace)
        elif self._is_here(sid, namespace):
            self._run_in_hub(self.server.disconnect, sid, namespace)
        else:
            self._publish({"method": "disconnect", "sid": sid, "namespace": namespace})

    def enter_room(
        self, sid: str, namespace: str, room: Any, eio_sid: Optional[str] = None
    ) -> None:
        """Add a client to a room.

        :raises TypeError: when the room is not named by a ``str`` or an ``int``.
        :raises ValueError: when the name has the form of a sid, and is not this client's.
        """
        check_entry(sid, room)
        self._change_room("enter_room", sid, namespace, room)

    def leave_room(self, sid: str, namespace: str, room: Any) -> None:
        """Remove a client from a room.

        :raises TypeError: when the room is not named by a ``str`` or an ``int``.
        """
        check_name(room)
        self._change_room("leave_room", sid, namespace, room)

    def close_room(self, room: Any, namespace: Optional[str] = None) -> None:
        """Remove all clients from a room.

        :raises TypeError: when the room is not named by a ``str`` or an ``int``.
        :raises ValueError: for a client's own room.
        """
        check_name(room)
        if is_sid(room):
            raise ValueError(f"cannot close {room!r}: it is a client's sid")
        self._publish({"method": "close_room", "room": room, "namespace": namespace or "/"})
        self._run_in_hub(self.basic_close_room, room, namespace or "/")

    def _change_room(self, method: str, sid: str, namespace: Optional[str], room: Any) -> None:
        namespace = namespace or "/"
        if self._is_here(sid, namespace):
            self._run_in_hub(self._change_room_here, method, sid, namespace, room)
        else:
            self._publish({"method": method, "sid": sid, "room": room, "namespace": namespace})

    def _change_room_here(self, method: str, sid: str, namespace: str, room: Any) -> None:
        if self._is_here(sid, namespace):
            change = self.basic_enter_room if method == "enter_room" else self.basic_leave_room
            change(sid, namespace, room)

    # --- threads -------------------------------------------------------------

    def _in_another_thread(self) -> bool:
        """Whether clients are served, and in another thread than this one."""
        threads = self._outlet.threads if self._outlet is not None else None
        return threads is not None and not threads.here

    def _run_in_hub(self, call: Callable[..., Any], *args: Any) -> None:
        """Call it, in the thread that serves the clients."""
        threads = self._outlet.threads if self._outlet is not None else None
        if threads is None or threads.here:
            call(*args)
        else:
            threads.run(0, call, *args)

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
            packet.json = CheckedJson(self._write_only_json)
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
        return self._members.known and not known

    def _publish(self, fields: dict[str, Any]) -> None:
        """Tell the worker of a client, or all, of a disconnect or a change of rooms."""
        if self._run_dir is not None:
            self._send_to(_tags(fields.get("sid")), fields)

    def _thread(self) -> None:
        try:
            self._hear()
        except Deaf as error:
            self._get_logger().critical("this worker ends: %s", error)
            os.kill(os.getpid(), signal.SIGTERM)

    def _hear(self) -> None:
        assert self._subscriber is not None
        failures = Refusals(self._get_logger())
        for message in self._subscriber.messages():
            try:
                check_fields(message.fields)
                self._HANDLERS[message.fields["method"]](self, message)
            except MalformedFields as error:
                self._subscriber.refuse(error)
            except GreenletExit:
                raise
            except BaseException as error:  # an application's Timeout is no Exception
                what = f"handling {message.fields.get('method')} ({type(error).__name__})"
                failures.count_failure(what, message.sender)
            if self._subscriber.catching_up:
                self._give_clients_time(sum(map(len, message.packets)))

    def _give_clients_time(self, delivered: int) -> None:
        """What is sent again comes in as fast as it can be read, and clients may take it slower.

        Without this, one that is as fast as others would be cut off as too slow.
        """
        self._at_once += delivered
        if self._at_once < CATCH_UP_BYTES or self._outlet is None:
            return
        self._at_once = 0
        until = time.monotonic() + CATCH_UP_WAIT
        self.server.sleep(0)
        while self._outlet.is_behind() and time.monotonic() < until:
            self.server.sleep(_LOOK)

    def _on_emit(self, message: RelayMessage) -> None:
        fields = message.fields
        namespace, ack_id = fields["namespace"], fields.get("ack")
        packets = list(message.packets)
        if fields["packet"] != self._packet_format():
            data = self._decode(message)
            packets = self._encode(sio_packet.EVENT, namespace, data, ack_id)
        recipients = self._audience(
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
        sid, namespace = message.fields["sid"], message.fields["namespace"]
        self.server.start_background_task(self.server.disconnect, sid, namespace, ignore_queue=True)

    def _on_room_change(self, message: RelayMessage) -> None:
        fields = message.fields
        if fields["method"] == "enter_room":
            refuse_entry(fields["sid"], fields["room"])
        self._change_room_here(fields["method"], fields["sid"], fields["namespace"], fields["room"])

    def _on_close_room(self, message: RelayMessage) -> None:
        self.basic_close_room(message.fields["room"], message.fields["namespace"])

    _HANDLERS: Mapping[str, Callable[[ZmqManager, RelayMessage], None]] = {
        "emit": _on_emit,
        "callback": _on_callback,
        "disconnect": _on_disconnect,
        "enter_room": _on_room_change,
        "leave_room": _on_room_change,
        "close_room": _on_close_room,
        **Operations.HANDLERS,
    }


def _tell_if_unheard(server: Any) -> None:
    """Once in a process: a script that imports the application emits to its own clients only.

    One that listens, for whatever server, may have clients soon, and one that has had a
    client (``manager_initialized``) may be a test of the application.
    """
    global _looked_who_hears
    if _looked_who_hears or server.manager_initialized or sessions.are_expected():
        return
    _looked_who_hears = True
    if not descriptors.listens():
        logger.warning(
            "emit reaches nobody: this process serves no clients and %s is not set",
            ENVIRONMENT_VARIABLE,
        )


def _finish(publisher: Optional[Publisher], subscriber: Optional[Subscriber]) -> None:
    """Disconnect from the relay, when everybody has what was sent."""
    if isinstance(subscriber, ThreadSubscriber):
        subscriber.finish(_LEAVE_TIMEOUT)
    if publisher is not None:
        publisher.close()


def _forget_parent() -> None:
    _channels_in_use.clear()
    for manager in list(_managers):
        manager._forget_parent()


os.register_at_fork(after_in_child=_forget_parent)


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
