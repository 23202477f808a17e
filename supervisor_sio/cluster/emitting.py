"""Emits: the clients they go to, here and at other workers, and the acknowledgements."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import (
    Any,
    Awaitable,
    Callable,
    ClassVar,
    Iterable,
    Iterator,
    Mapping,
    Optional,
    Sequence,
    Union,
)

from socketio import packet as sio_packet

from ..common import descriptors
from ..common.blocking import settle
from ..common.clusters import why_none
from ..common.limits import ACK_TIMEOUT
from ..common.rundir import ENVIRONMENT_VARIABLE
from ..relay.journal_format import OWN, Stream
from ..relay.message import EncodedPacket, RelayMessage
from ..relay.publisher import MessageTooLong, Publisher
from . import acks, sessions
from .asking import Asking
from .bases import BaseManager
from .early import Early
from .keeping import Keeping
from .rooms import Room, check_names, tags_of
from .scope import Selection, Sent

logger = logging.getLogger("supervisor_sio")

#: The tags for an emit to all workers.
_TO_ALL: frozenset[Optional[str]] = frozenset([None])

#: Whether the first emit has been checked for a cluster or clients to send to.
_checked_reach = False


class Emitting(Asking, Keeping):
    """The part of a manager that emits."""

    # From the manager.
    _connecting: Callable[[], Any]
    _ack_ids: Iterator[int]
    _callbacks: acks.Callbacks
    _awaited: acks.Clients
    _early: dict[str, Early]
    _outlet: Optional[sessions.Outlet]
    _deliver_and_gather: Callable[..., None]
    _gathering_question: Callable[..., acks.Question]
    _publish_to: Callable[..., Optional[int]]
    _moves: bool
    _publisher: Optional[Publisher]
    _tags_of: Callable[[Room], set[Optional[str]]]
    _away_tags: Callable[[Room], set[str]]

    def _emit(
        self,
        event: str,
        data: Any,
        namespace: Optional[str],
        room: Room,
        skip_sid: Union[str, list[str], None],
        callback: Optional[Callable[..., Any]],
        except_room: Room,
        local: bool,
        volatile: bool,
    ) -> Optional[Awaitable[Any]]:
        """The same as ``emit`` of the managers; it does not wait.

        :return: an awaitable, which a caller on asyncio must await before it sends anything else.
        """
        check_names(room)
        check_names(except_room)
        namespace = namespace or "/"
        ack_id: Optional[int] = None
        if callback is not None:
            if room is None:
                raise ValueError("Cannot use callback without a room set.")
            if volatile:
                raise ValueError("callback with volatile: the client may not get the event")
            if self._outside:
                raise RuntimeError(
                    "call() and callbacks work only inside a worker: this process serves no "
                    "clients; use call() of the manager here"
                )
            self._need_answers("callbacks", waits=False)
            ack_id = next(self._ack_ids)
        packets = self._encode(sio_packet.EVENT, namespace, [event, *as_arguments(data)], ack_id)
        skip = [skip_sid] if isinstance(skip_sid, str) else list(skip_sid or ())
        question = None
        if ack_id is not None and callback is not None:
            question = acks.Question(ack_id, partial(self._answered, ack_id))
        local = local or self._run_dir is None
        number: Optional[int] = None
        if not local or self._journal is not None:
            fields: dict[str, Any] = {
                "method": "volatile" if volatile else "emit",
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
            if self._journal is not None:
                self._emit_kept(event, fields, packets, local, volatile, question, callback)
                return None
            what = f"event {event!r}"
            number = self._publish_to(tags_of(room), fields, packets, what, volatile)
        if question is not None and callback is not None:
            with self._tables:
                self._callbacks.add(question.ack_id, callback)
        outlet = self._outlet
        if outlet is None:
            self._need_cluster()
            return None
        if self._run_dir is None:
            _warn_if_unreachable(self.server)
        threads = outlet.threads
        here = threads is None or threads.here
        # In the loop no client arrives in between.
        scope = self._scope_of(number) if here else Sent(self._scope_of, number)
        if threads is None or here or outlet.concurrent:
            return self._emit_here(
                namespace, room, except_room, skip, scope, packets, question, volatile
            )
        size = sum(map(len, packets))
        selection = namespace, room, except_room, skip, scope
        threads.run(size, self._emit_here, *selection, packets, question, volatile)
        return None

    def _emit_here(
        self,
        namespace: str,
        room: Room,
        except_room: Room,
        skip: Sequence[str],
        scope: Optional[Selection],
        packets: list[EncodedPacket],
        question: Optional[acks.Question] = None,
        volatile: bool = False,
    ) -> Optional[Awaitable[Any]]:
        """Send an encoded packet to clients of this process."""
        with self._tables:
            recipients = self._audience(namespace, room, except_room, skip, scope)
            if volatile:  # nothing is kept for clients that are still connecting
                eio_sids = [eio_sid for sid, eio_sid in recipients if sid not in self._early]
            else:
                eio_sids = self._admit(recipients, packets, question)
        return self._fan_out(eio_sids, packets, volatile)

    # --- with recovery ---------------------------------------------------------

    def _emit_kept(
        self,
        event: str,
        fields: dict[str, Any],
        packets: list[EncodedPacket],
        local: bool,
        volatile: bool,
        question: Optional[acks.Question],
        callback: Optional[Callable[..., Any]],
    ) -> None:
        """Go on with :meth:`_emit` where clients can come back.

        The event is published and written to the journal under one lock: the journal has whatever
        this process says it has published.
        """
        room = fields.get("room")
        if isinstance(room, (list, tuple)) and not local and self._away_tags(room):
            if None not in self._tags_of(room):
                for sid in dict.fromkeys(room):  # each may go another way
                    one = {**fields, "room": sid}
                    self._emit_kept(event, one, packets, local, volatile, question, callback)
                return
        outlet = self._outlet
        threads = None if outlet is None else outlet.threads
        in_loop = threads is None or threads.here
        concurrent = outlet is not None and outlet.concurrent
        here = in_loop or concurrent
        message = RelayMessage(self.host_id, 0, fields, packets, 0, time.monotonic())
        tables = self._tables
        tables.acquire()
        try:
            # While a client connects, it depends on who emits whether it gets the event.
            collects = in_loop and not (
                concurrent or local or volatile or self._early or question is not None
            )
            if tables.collected and not collects:
                self._write_collected()
            stream: Stream = OWN
            number: Optional[int] = None
            if not local:
                tags = _TO_ALL if room is None else self._tags_of(room)
                number = self._publish_to(
                    tags, fields, packets, f"event {event!r}", volatile, message
                )
                if message.sequence:
                    stream = message.stream
                if collects and stream is None and self._collect(message, number):
                    return
                if tables.collected:
                    self._write_collected()
            if question is not None and callback is not None:
                self._callbacks.add(question.ack_id, callback)
            if here:
                message.scope = self._scope_of(number) if self._moves else None
                self._queue_for(message, stream, packets, question, volatile)
            elif stream is not OWN:
                self._unwritten.add((stream, message.sequence))
        finally:
            tables.release()
        if in_loop:
            self._send_all()
        elif here:
            self._send_queued(packets)
        elif threads is not None:
            size = sum(map(len, packets))
            threads.run(size, self._emit_late, number, message, stream, packets, question, volatile)

    def _collect(self, message: RelayMessage, number: Optional[int]) -> bool:
        """Collect an event that was published to all, if it waits at the publisher.

        Of what has left, everything is written.
        """
        publisher, tables = self._publisher, self._tables
        if publisher is None or not publisher.is_waiting:
            return False
        if publisher.waiting <= len(tables.collected):  # the earlier ones have left
            self._write_collected()
        tables.collected.append((message, number))
        return True

    def _emit_late(
        self,
        number: Optional[int],
        message: RelayMessage,
        stream: Stream,
        packets: list[EncodedPacket],
        question: Optional[acks.Question],
        volatile: bool,
    ) -> None:
        """Write and send in the loop what another thread has published."""
        with self._tables:
            self._unwritten.discard((stream, message.sequence))
            message.scope = self._scope_of(number)
            self._queue_for(message, stream, packets, question, volatile)
        self._send_all()

    def _queue_for(
        self,
        message: RelayMessage,
        stream: Stream,
        packets: list[EncodedPacket],
        question: Optional[acks.Question],
        volatile: bool,
    ) -> None:
        fields = message.fields
        recipients = self._audience(
            fields["namespace"],
            fields.get("room"),
            fields.get("except_room"),
            fields.get("skip_sid", ()),
            message.scope,
        )
        self._queue(message, stream, recipients, packets, question, volatile)

    def _admit(
        self,
        recipients: list[tuple[str, str]],
        packets: list[EncodedPacket],
        question: Optional[acks.Question],
    ) -> list[str]:
        """Note a question to clients, and keep what is for clients that are still connecting.

        :return: the Engine.IO sids of the other clients.
        """
        if question is not None:
            self._awaited.ask([sid for sid, _ in recipients], question)
        if not self._early:
            return [eio_sid for _, eio_sid in recipients]
        for sid, _ in recipients:
            if sid in self._early and self._early[sid].add(packets, question is None):
                self._get_logger().error("too much is emitted to %s while it connects", sid)
        return [eio_sid for sid, eio_sid in recipients if sid not in self._early]

    def _fan_out(
        self, eio_sids: Sequence[str], packets: list[EncodedPacket], volatile: bool = False
    ) -> Optional[Awaitable[Any]]:
        """Send, or queue; call it without ``_tables``, as it may wait for room."""
        outlet = self._outlet
        if not eio_sids or outlet is None:
            return None
        if self._journal is not None:
            self._sendings.append((eio_sids, packets, volatile))
            self._send_queued(packets)
            return None
        fan_out = outlet.fan_out_volatile if volatile else outlet.fan_out
        if outlet.concurrent and outlet.threads is not None and not outlet.threads.here:
            outlet.threads.run(sum(map(len, packets)), fan_out, eio_sids, packets)
            return None
        return fan_out(eio_sids, packets)

    def _answered(self, ack_id: int, *args: Any) -> Any:
        with self._tables:
            callback = self._callbacks.take(ack_id)
        return callback(*args) if callback is not None else None

    def _acknowledged(self, sid: str, id: Any, data: Any) -> Any:
        """A client of this process has acknowledged an event.

        :return: what the application's callback returns.
        """
        if not isinstance(data, (list, tuple)):
            return None
        with self._tables:
            answered = self._awaited.answered(sid, id)
        return answered(*data) if answered is not None else None

    def basic_disconnect(self, sid: str, namespace: str, **kwargs: Any) -> None:
        """Remove a client; questions to it end without an answer."""
        with self._tables:
            self._early.pop(sid, None)
            client = self._known.get(sid) if self._known else None
            super().basic_disconnect(sid, namespace, **kwargs)
            left = self._awaited.left(sid)
            if client is not None:
                self._ended(client)
        for no_answer in left:
            no_answer()

    # --- clients whose connect handler has not returned yet --------------------

    def _pre_connect(self, eio_sid: str, namespace: str) -> Optional[str]:
        with self._tables:
            sid: Optional[str] = BaseManager.pre_connect(self, eio_sid, namespace)
            if sid is not None:
                self._early[sid] = Early(self._connecting())
        return sid

    def _connect(self, sid: str, namespace: str) -> tuple[Optional[str], list[Awaitable[Any]]]:
        """A client is connected.

        :return: its sid, and awaitables for what was emitted to it meanwhile.
        """
        if not self.is_pre_connected(sid, namespace):
            connected = self._pre_connect(sid, namespace)
            if connected is None:
                return None, []
            sid = connected
        with self._tables:
            self.pending_connect.discard(sid, namespace)
        outlet = self._outlet
        threads = outlet.threads if outlet is not None and outlet.concurrent else None
        if threads is None or threads.here:
            return sid, self._send_early(sid, namespace)
        # After the answer to the CONNECT, which the loop's thread has yet to send: events that the
        # relay brings there now are kept until then. Before whatever is emitted from now on.
        threads.run(0, self._send_early, sid, namespace)
        return sid, []

    def _send_early(self, sid: str, namespace: str) -> list[Awaitable[Any]]:
        with self._tables:
            early = self._early.pop(sid, None)
            eio_sid = self.eio_sid_from_sid(sid, namespace)
            if early is None or eio_sid is None:
                return []  # it has left
            if self._journal is not None:
                self._begins(sid, namespace, early)
        if not early.emits or self._outlet is None:
            return []
        if self._journal is not None:
            self._send_queued(())
            return []
        sent = [self._outlet.fan_out([eio_sid], packets) for packets, *_ in early.emits]
        return [one for one in sent if one is not None]

    def _audience(
        self,
        namespace: str,
        room: Room,
        except_room: Room,
        skip_sid: Iterable[str],
        scope: Optional[Selection] = None,
    ) -> list[tuple[str, str]]:
        """The clients of this process that an emit is for.

        Clients that are still connecting are left out, unless the emit names them or comes from
        their own connect handler: it reaches them when they are connected.
        """
        recipients = self._participants(namespace, room, except_room, skip_sid, scope)
        pending = self.pending_connect.get(namespace)
        if not pending:
            return recipients
        named = set(room) if isinstance(room, (list, tuple)) else {room}
        return [
            pair
            for pair in recipients
            if pair[0] not in pending or pair[0] in named or self._connects(pair[0])
        ]

    def _connects(self, sid: str) -> bool:
        """Whether the connect handler of this client is the one that emits."""
        early, emits = self._early.get(sid), self._connecting()
        return early is not None and emits is not None and early.connecting is emits

    # --- messages of other workers ----------------------------------------------

    def _on_emit(self, message: RelayMessage, volatile: bool = False) -> None:
        fields = message.fields
        namespace, ack_id = fields["namespace"], fields.get("ack")
        packets = list(message.packets)
        if fields["packet"] != self._packet_format():
            data = self._decode(message)
            packets = self._encode(sio_packet.EVENT, namespace, data, ack_id)
        if "request" in fields:
            self._deliver_and_gather(message, packets)
            return
        question = None
        if ack_id is not None:
            question = self._question(ack_id, acks.Asked(self._asker(message), namespace))
        if self._journal is not None:
            with self._tables:
                if message.run and self._early:  # early emits are noted one by one, by number
                    for one in message.each():
                        self._queue_for(one, one.stream, list(one.packets), None, volatile)
                else:
                    self._queue_for(message, message.stream, packets, question, volatile)
            self._send_queued(packets)
            return
        room, except_room = fields.get("room"), fields.get("except_room")
        skip = fields.get("skip_sid", ())
        self._emit_here(
            namespace, room, except_room, skip, message.scope, packets, question, volatile
        )

    def _on_volatile(self, message: RelayMessage) -> None:
        self._on_emit(message, volatile=True)

    def _question(
        self, ack_id: int, asked: acks.Asked, timeout: float = ACK_TIMEOUT
    ) -> acks.Question:
        """The question of another process to clients.

        It keeps nothing of the event, which may be long and never acknowledged.
        """
        if asked.request is not None:
            return self._gathering_question(ack_id, asked, timeout)
        if asked.asker == self.host_id:  # this process has adopted the client meanwhile
            return acks.Question(ack_id, partial(self._answered, ack_id), timeout=timeout)
        answered = partial(self._send_answer, asked.asker, asked.namespace, ack_id)
        return acks.Question(ack_id, answered, timeout=timeout, asked=asked)

    def _send_answer(self, asker: str, namespace: str, ack_id: int, *args: Any) -> None:
        packets = self._encode(sio_packet.ACK, namespace, list(args), ack_id)
        fields = {"method": "callback", "ack": ack_id, "packet": self._packet_format()}
        try:
            self._send_to([asker], fields, packets, "an acknowledgement")
        except MessageTooLong as error:
            self._get_logger().error("an acknowledgement cannot be sent: %s", error)

    def _on_callback(self, message: RelayMessage) -> None:
        # The application's callbacks may take long, or wait for messages that arrive here.
        self._spawn(self._call_back, message.fields["ack"], self._decode(message))

    async def _call_back(self, ack_id: int, arguments: list[Any]) -> None:
        await settle(self._answered(ack_id, *arguments))

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "emit": _on_emit,
        "volatile": _on_volatile,
        "callback": _on_callback,
    }


def _warn_if_unreachable(server: Any) -> None:
    """Warn once when an emit reaches no client, as in a script that imports the application.

    A process that listens, for whatever server, may have clients soon; one that has had a client
    (``manager_initialized``) may be a test of the application.
    """
    global _checked_reach
    if _checked_reach or server.manager_initialized or sessions.are_expected():
        return
    _checked_reach = True
    if not descriptors.listens():
        reason = why_none() or (
            f"this process serves no clients and {ENVIRONMENT_VARIABLE} is not set"
        )
        logger.warning("emit reaches nobody: %s", reason)


def as_arguments(data: Any) -> list[Any]:
    """The arguments of an event: of a tuple its items, of ``None`` none."""
    if isinstance(data, tuple):
        return list(data)
    return [] if data is None else [data]
