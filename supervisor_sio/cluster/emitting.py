"""Emits: to whom they go, here and at the other workers, and what clients acknowledge."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Callable, ClassVar, Iterable, Iterator, Mapping, Optional, Sequence, Union

from greenlet import getcurrent
from socketio import packet as sio_packet

from ..common import descriptors
from ..common.rundir import ENVIRONMENT_VARIABLE
from ..relay.message import EncodedPacket, RelayMessage
from ..relay.publisher import MessageTooLong
from . import acks, sessions
from .asking import Asking
from .early import Early
from .rooms import IndexedManager, Room, check_names, tags_of

logger = logging.getLogger("supervisor_sio")

#: Whether it was looked, at the first emit, if anybody can hear this process.
_looked_who_hears = False


class Emitting(Asking, IndexedManager):
    """The part of :class:`ZmqManager` that emits."""

    # From ZmqManager.
    _ack_ids: Iterator[int]
    _callbacks: acks.Callbacks
    _awaited: acks.Clients
    _early: dict[str, Early]
    _outlet: Optional[sessions.Outlet]
    _deliver_and_gather: Callable[..., None]

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
        packets = self._encode(sio_packet.EVENT, namespace, [event, *as_arguments(data)], ack_id)
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
            self._send_to(tags_of(room), fields, packets, f"event {event!r}")
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

    # --- clients whose connect handler has yet to say yes --------------------

    def pre_connect(self, eio_sid: str, namespace: str) -> Optional[str]:
        sid: Optional[str] = super().pre_connect(eio_sid, namespace)
        if sid is not None:
            self._early[sid] = Early()
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

    # --- of other workers ------------------------------------------------------

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

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "emit": _on_emit,
        "callback": _on_callback,
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


def as_arguments(data: Any) -> list[Any]:
    """Tuples are expanded to multiple arguments, everything else is one."""
    if isinstance(data, tuple):
        return list(data)
    return [] if data is None else [data]
