"""An event to clients of all workers, and the acknowledgements of all of them."""

from __future__ import annotations

from typing import Any, Awaitable, Callable, Iterator, Optional, Union

from socketio import exceptions
from socketio import packet as sio_packet

from ..relay.message import EncodedPacket, RelayMessage
from .acks import Asked, Question
from .asking import TIMEOUT, Asking
from .gathering import Answers
from .lost import Times
from .rooms import Room, check_names
from .takeover import Underway

#: Seconds that :meth:`EmitWithAcks.call` waits, as python-socketio's ``call()``.
CALL_TIMEOUT = 60.0


class EmitWithAcks(Asking):
    """The part of a manager that asks clients for acknowledgements."""

    # From the manager and its other parts.
    _ack_ids: Iterator[int]
    _admit: Callable[..., list[str]]
    _fan_out: Callable[..., Optional[Awaitable[Any]]]
    _audience: Callable[..., list[tuple[str, str]]]
    _underway: Underway
    _times: Times

    async def emit_with_acks(
        self,
        event: str,
        data: Any = None,
        room: Room = None,
        namespace: Optional[str] = None,
        except_room: Room = None,
        skip_sid: Union[str, list[str], None] = None,
        local: bool = False,
        timeout: float = TIMEOUT,
    ) -> Answers[Any]:
        """Emit a message to clients and return the acknowledgements of all of them.

        An answer is what :meth:`socketio.Server.call` returns: the value that
        the client gave, or a tuple when it gave several. A client that
        disconnects is not waited for any longer.

        :param timeout: in seconds.
        :raises TypeError: when ``data`` cannot be encoded; nothing is sent then.
        :raises MessageTooLong: when it is longer than ``message_maxbytes``.
        :raises RuntimeError: in a write-only manager.
        :raises RelayUnreachable: in a process that serves no clients, when no router answers.
        """
        return await self._ask_clients(
            event, data, room, namespace, except_room, skip_sid, local, timeout
        )

    async def call(
        self,
        event: str,
        data: Any = None,
        to: Optional[str] = None,
        sid: Optional[str] = None,
        namespace: Optional[str] = None,
        timeout: float = CALL_TIMEOUT,
    ) -> Any:
        """Emit a message to one client, and return its acknowledgement.

        Like :meth:`socketio.Server.call`, but works in a process that serves no clients, too. When
        it is for several clients, the first answer counts.

        :param to: the sid of the client.
        :param sid: the same, by its other name.
        :param timeout: in seconds.
        :return: what the client gave: a value, a tuple of several, or ``None``.
        :raises socketio.exceptions.TimeoutError: when it does not answer in time; at once when
            it is not connected, or has disconnected meanwhile.
        :raises ValueError: without ``to`` and ``sid``.

        It raises what :meth:`emit_with_acks` does, too.
        """
        client = to or sid
        if client is None:
            raise ValueError("Cannot use call() to broadcast.")
        answers = await self._ask_clients(event, data, client, namespace, timeout=timeout, enough=1)
        if not answers:
            raise exceptions.TimeoutError(f"{client} has not acknowledged event {event!r}")
        return answers[0]

    async def _ask_clients(
        self,
        event: str,
        data: Any,
        room: Room,
        namespace: Optional[str],
        except_room: Room = None,
        skip_sid: Union[str, list[str], None] = None,
        local: bool = False,
        timeout: float = TIMEOUT,
        enough: Optional[int] = None,
    ) -> Answers[Any]:
        check_names(room)
        check_names(except_room)
        namespace = namespace or "/"
        ack_id = next(self._ack_ids)
        arguments = list(data) if isinstance(data, tuple) else [] if data is None else [data]
        packets = self._encode(sio_packet.EVENT, namespace, [event, *arguments], ack_id)
        skip = [skip_sid] if isinstance(skip_sid, str) else list(skip_sid or ())
        fields = {
            "method": "emit",
            "namespace": namespace,
            "room": room,
            "except_room": except_room,
            "skip_sid": skip,
            "ack": ack_id,
            "packet": self._packet_format(),
            "timeout": timeout,
        }
        await self._prepare_call()
        with self._call(local, with_self=True, each=None, enough=enough) as (request, call):
            fields["request"] = request
            with self._underway:
                message = RelayMessage(self.host_id, 0, fields)
                message.scope = self._send_to_others(call, fields, packets, f"event {event!r}")
                if not self._outside:
                    self._deliver_and_gather(message, packets)
            return await self._answers(request, call, timeout)

    def _deliver_and_gather(
        self,
        question: RelayMessage,
        packets: list[EncodedPacket],
    ) -> None:
        """Ask clients of this process, and send each one's answer to the process that asked."""
        fields, scope = question.fields, question.scope
        namespace, answer = fields["namespace"], self._answer_to(question)
        asker = self._asker(question)
        asked = Asked(asker, namespace, answer["request"], answer["worker"])
        with self._tables:
            recipients = self._audience(
                namespace,
                fields.get("room"),
                fields.get("except_room"),
                fields.get("skip_sid", ()),
                scope,
            )
            if self._times:  # lost clients do not answer
                recipients = [pair for pair in recipients if pair[0] not in self._times]
            asks = self._gathering_question(fields["ack"], asked, fields["timeout"])
            eio_sids = self._admit(recipients, packets, asks)
        self._tell(asker, {**answer, "method": "expect", "count": len(recipients)})
        self._fan_out(eio_sids, packets)

    def _gathering_question(self, ack_id: int, asked: Asked, timeout: float) -> Question:
        """The question of :meth:`emit_with_acks`; it keeps nothing of the event."""
        asker, namespace, request, worker = asked
        answer = {"method": "answer", "request": request, "worker": worker}

        def no_answer() -> None:
            self._tell(asker, answer)

        def answered(*args: Any) -> None:
            encoded = self._encode(sio_packet.ACK, namespace, list(args), 0)
            with_packet = {**answer, "packet": self._packet_format(), "client": True}
            try:
                self._tell(asker, with_packet, encoded)
            except ValueError as error:  # it is too long
                self._get_logger().error("a client's answer cannot be sent: %s", error)
                no_answer()

        return Question(
            ack_id, answered, no_answer, timeout, None if asker == self.host_id else asked
        )
