"""What one worker can ask of the whole cluster, beyond emitting."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Callable, ClassVar, Iterable, Iterator, Mapping, Optional, Union

from socketio import packet as sio_packet

from ..common import identity
from ..relay.message import EncodedPacket, RelayMessage
from ..relay.methods import MalformedFields
from .acks import Question
from .gathering import Answers, Gathering
from .rooms import Room, check_entry, check_name, check_names

Handler = Callable[..., Any]

#: Seconds that gathering answers takes at most, unless the caller says otherwise.
_TIMEOUT = 5.0

#: Seconds that an answer given before its worker left may take to come.
_LAST_WORDS = 0.05

#: Seconds to wait for the router's word on who is there.
_MEMBERS_TIMEOUT = 2.0


@dataclass(frozen=True)
class RemoteSocket:
    """A client of any worker, as :meth:`ZmqManager.fetch_sockets` describes it."""

    sid: str
    namespace: str
    #: As :meth:`socketio.Server.rooms` has them: one of them is the sid.
    rooms: list[Any]
    #: Name of its worker, as supervisorctl shows it.
    worker: str
    #: ``polling`` or ``websocket``.
    transport: str
    #: The client's IP address.
    address: str
    #: What :meth:`ZmqManager.share_session_keys` lets others see of its session.
    data: dict[str, Any] = field(default_factory=dict)


class RoomSizes(Counter[Any]):
    """Clients by room, and whether all workers have answered, as :class:`Answers` has it."""

    timed_out: bool = False
    missing: int = 0


class _Call:
    """A question to the cluster, while somebody waits for the answers."""

    def __init__(self, gathering: Gathering, event: Any) -> None:
        self.gathering = gathering
        self._event = event

    def changed(self) -> None:
        if self.gathering.done:
            self._event.set()

    def wait(self, timeout: float) -> Answers[Any]:
        if not self.gathering.done:
            self._event.wait(timeout)
        timed_out = not self.gathering.done
        self.gathering.give_up()
        answers: Answers[Any] = Answers(self.gathering.answers)
        answers.timed_out, answers.missing = timed_out, self.gathering.missing
        return answers


class Operations:
    """The part of :class:`ZmqManager` that speaks to all workers at once.

    Each call takes a ``namespace``, by default ``/``; a ``room`` or a list of
    rooms, by default everybody in the namespace; ``except_room``, a room or
    rooms whose members are left out; and ``local=True`` for the clients of
    this process alone. An unknown room selects nobody.

    Calls that return answers wait for every worker that lives; one that dies
    meanwhile is not waited for. When the time is up they return what has come,
    and say so in ``timed_out`` and ``missing``. They need a server: a
    write-only manager hears no answers.
    """

    # From ZmqManager and its bases.
    server: Any
    host_id: str
    rooms: dict[str, dict[Any, Any]]
    get_participants: Callable[[str, Any], Iterator[tuple[str, str]]]
    get_rooms: Callable[[str, str], list[Any]]
    basic_enter_room: Callable[..., None]
    basic_leave_room: Callable[..., None]
    _get_logger: Callable[[], Any]
    _run_dir: Any
    _serves: bool
    _in_another_thread: Callable[[], bool]
    _run_in_hub: Callable[..., None]
    _ack_ids: Iterator[int]
    _encode: Callable[..., list[EncodedPacket]]
    _decode: Callable[[RelayMessage], list[Any]]
    _deliver: Callable[..., None]
    _audience: Callable[..., list[tuple[str, str]]]
    _send_to: Callable[..., None]
    _packet_format: Callable[[], str]
    _member_left: Callable[[str], None]

    @property
    def hears(self) -> Optional[str]:
        raise NotImplementedError

    def __init__(self) -> None:
        #: The workers that hear this one: by tag, whether they are on another host.
        self._members: dict[str, bool] = {}
        self._members_known = False
        self._calls: dict[int, _Call] = {}
        self._requests = itertools.count(1)
        self._server_side: dict[tuple[str, str], Handler] = {}
        self._shared_keys: tuple[str, ...] = ()

    # --- who is there ---------------------------------------------------------

    def set_members(self, members: Mapping[str, bool]) -> None:
        """The workers of the cluster have changed; the worker's link calls it.

        :param members: by tag, whether that worker is on another host.
        """
        left = [tag for tag in self._members if tag not in members]
        self._members = dict(members)
        self._members_known = True
        for tag in left:
            self._member_left(tag)
        if left and self._calls:
            self.server.start_background_task(self._give_up_on, left)

    def _give_up_on(self, left: list[str]) -> None:
        # What they said last comes another way than the word that they left.
        self.server.sleep(_LAST_WORDS)
        for call in list(self._calls.values()):
            for tag in left:
                call.gathering.lost(tag)
            call.changed()

    def _need_server(self, what: str = "fetch_sockets() and other calls with answers") -> None:
        """:raises RuntimeError: where no answer would come."""
        if self.server is None or not (self._serves or self._run_dir is None):
            raise RuntimeError(
                f"{what} work only inside a worker: this process serves no clients and cannot "
                "receive answers"
            )
        if self._in_another_thread():
            raise RuntimeError(
                f"{what} work only in the thread that serves the clients; "
                "emit() works in any thread"
            )

    def _wait_for_members(self) -> None:
        until = time.monotonic() + _MEMBERS_TIMEOUT
        while self.hears and not self._members_known and time.monotonic() < until:
            self.server.sleep(0.02)  # a router tells it soon after its start

    def lives(self, tag: str) -> bool:
        return tag in self._members

    def is_local(self, tag: str) -> bool:
        """Whether this is a living worker of this host."""
        return self._members.get(tag) is False

    def is_remote(self, tag: str) -> bool:
        return bool(self._members.get(tag))

    def server_count(self) -> int:
        """Return the number of workers in the cluster, this one included.

        :raises RuntimeError: in a write-only manager.
        """
        self._need_server()
        self._wait_for_members()
        return len({*self._members, self.host_id})

    # --- all clients of a room ------------------------------------------------

    def fetch_sockets(
        self,
        room: Room = None,
        namespace: Optional[str] = None,
        except_room: Room = None,
        local: bool = False,
        timeout: float = _TIMEOUT,
    ) -> Answers[RemoteSocket]:
        """Return the clients of all workers.

        :param timeout: in seconds.
        :raises RuntimeError: in a write-only manager.
        """
        check_names(room)
        check_names(except_room)
        namespace = namespace or "/"
        arguments = {"room": room, "except_room": except_room}
        answers = self._gather("fetch_sockets", namespace, arguments, local, timeout)
        sockets: Answers[RemoteSocket] = Answers(
            RemoteSocket(**socket) for answer in answers for socket in answer
        )
        sockets.timed_out, sockets.missing = answers.timed_out, answers.missing
        return sockets

    def share_session_keys(self, *keys: str) -> None:
        """Let :meth:`fetch_sockets` show these keys of each client's session.

        Nothing of a session leaves its worker unless it is named here. Call it
        once where the server is made, in all workers alike.
        """
        self._shared_keys += keys

    def fetch_rooms(
        self,
        namespace: Optional[str] = None,
        local: bool = False,
        timeout: float = _TIMEOUT,
    ) -> RoomSizes:
        """Return the number of clients of each room, over all workers.

        The room that each client has for itself, named by its sid, is left out.

        :param timeout: in seconds.
        :raises RuntimeError: in a write-only manager.
        """
        answers = self._gather("fetch_rooms", namespace or "/", {}, local, timeout)
        sizes = RoomSizes()
        for answer in answers:
            for room, size in answer:
                sizes[room] += size
        sizes.timed_out, sizes.missing = answers.timed_out, answers.missing
        return sizes

    def sockets_join(
        self,
        rooms: Room,
        room: Room = None,
        namespace: Optional[str] = None,
        except_room: Room = None,
        local: bool = False,
    ) -> None:
        """Add clients to a room or to a list of rooms.

        :raises TypeError: when a room is not named by a ``str`` or an ``int``.
        :raises ValueError: when a name in ``rooms`` has the form of a sid: that is a client's own.
        """
        names = _list(rooms)
        for name in names:
            # A client that is selected alone may enter its own.
            check_entry(room if isinstance(room, str) else "", name)
        self._command("sockets_join", namespace, room, except_room, local, rooms=names)

    def sockets_leave(
        self,
        rooms: Room,
        room: Room = None,
        namespace: Optional[str] = None,
        except_room: Room = None,
        local: bool = False,
    ) -> None:
        """Remove clients from a room or from a list of rooms.

        :raises TypeError: when a room is not named by a ``str`` or an ``int``.
        """
        self._command("sockets_leave", namespace, room, except_room, local, rooms=_list(rooms))

    def disconnect_sockets(
        self,
        room: Room = None,
        namespace: Optional[str] = None,
        except_room: Room = None,
        local: bool = False,
    ) -> None:
        """Disconnect clients from the namespace."""
        self._command("disconnect_sockets", namespace, room, except_room, local)

    def emit_with_acks(
        self,
        event: str,
        data: Any = None,
        room: Room = None,
        namespace: Optional[str] = None,
        except_room: Room = None,
        skip_sid: Union[str, list[str], None] = None,
        local: bool = False,
        timeout: float = _TIMEOUT,
    ) -> Answers[Any]:
        """Emit a message to clients and return the acknowledgements of all of them.

        An answer is what :meth:`socketio.Server.call` returns: the value that
        the client gave, or a tuple when it gave several. A client that
        disconnects is not waited for any longer.

        :param timeout: in seconds.
        :raises TypeError: when ``data`` cannot be encoded; nothing is sent then.
        :raises MessageTooLong: when it is longer than ``message_maxbytes``.
        :raises RuntimeError: in a write-only manager.
        """
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
        with self._call(local, with_self=True, each=None) as (request, call):
            fields["request"] = request
            self._send_to_others(call, fields, packets, f"event {event!r}")
            recipients = self._audience(namespace, room, except_room, skip)
            self._deliver_and_gather(RelayMessage(self.host_id, 0, fields), recipients, packets)
            return call.wait(timeout)

    # --- the other workers themselves -----------------------------------------

    def on(
        self, event: str, handler: Optional[Handler] = None, namespace: Optional[str] = None
    ) -> Any:
        """Register a handler for an event that another worker emits to the workers.

        Can be used as a decorator. The handler gets the arguments; what it
        returns is its answer to :meth:`server_side_call`. Each event runs in a
        background task of its own.
        """

        def set_handler(handler: Handler) -> Handler:
            self._server_side[(namespace or "/", event)] = handler
            return handler

        return set_handler if handler is None else set_handler(handler)

    def server_side_emit(self, event: str, *args: Any, namespace: Optional[str] = None) -> None:
        """Emit an event to the handlers of all other workers; see :meth:`on`.

        :raises TypeError: when an argument cannot be encoded; nothing is sent then.
        :raises MessageTooLong: when they are longer than ``message_maxbytes``.
        """
        namespace = namespace or "/"
        packets = self._encode(sio_packet.ACK, namespace, list(args), 0)
        if self._run_dir is not None:
            fields = {
                "method": "server_side_emit",
                "event": event,
                "namespace": namespace,
                "packet": self._packet_format(),
            }
            self._send_to([None], fields, packets, f"server-side event {event!r}")

    def server_side_call(
        self,
        event: str,
        *args: Any,
        namespace: Optional[str] = None,
        timeout: float = _TIMEOUT,
    ) -> Answers[Any]:
        """Emit an event to the handlers of all other workers and return their answers.

        A worker without a handler, or whose handler fails, is not waited for:
        it counts as ``missing``.

        :param timeout: in seconds.
        :raises TypeError: when an argument cannot be encoded; nothing is sent then.
        :raises MessageTooLong: when they are longer than ``message_maxbytes``.
        :raises RuntimeError: in a write-only manager.
        """
        namespace = namespace or "/"
        packets = self._encode(sio_packet.ACK, namespace, list(args), 0)
        return self._gather(
            "server_side_call", namespace, {"event": event}, False, timeout, packets, False
        )

    # --- asking ---------------------------------------------------------------

    @contextmanager
    def _call(
        self, local: bool, with_self: bool, each: Optional[int]
    ) -> Iterator[tuple[int, _Call]]:
        """A question to the workers that live now: its number, and who waits for it."""
        self._need_server()
        self._wait_for_members()
        workers = set() if local else set(self._members) - {self.host_id}
        if with_self:
            workers.add(self.host_id)
        request = next(self._requests)
        call = _Call(Gathering(workers, each), self.server.eio.create_event())
        self._calls[request] = call
        try:
            yield request, call
        finally:
            del self._calls[request]

    def _send_to_others(
        self, call: _Call, fields: Mapping[str, Any], packets: list[EncodedPacket], what: str
    ) -> None:
        if call.gathering.workers - {self.host_id}:
            self._send_to([None], fields, packets, what)

    def _gather(
        self,
        operation: str,
        namespace: str,
        arguments: Mapping[str, Any],
        local: bool,
        timeout: float,
        packets: Optional[list[EncodedPacket]] = None,
        with_self: bool = True,
    ) -> Answers[Any]:
        """One answer from each worker."""
        with self._call(local, with_self, each=1) as (request, call):
            fields = {
                "method": "request",
                "operation": operation,
                "request": request,
                "namespace": namespace,
                "packet": self._packet_format(),
                **arguments,
            }
            self._send_to_others(call, fields, packets or [], operation)
            if with_self:
                answer = self._LOCAL[operation](self, namespace, **arguments)
                call.gathering.answer(self.host_id, answer)
            return call.wait(timeout)

    def _command(
        self,
        method: str,
        namespace: Optional[str],
        room: Room,
        except_room: Room,
        local: bool,
        **more: Any,
    ) -> None:
        """Something for all workers to do with their clients, without an answer."""
        check_names(room)
        check_names(except_room)
        fields = {
            "method": method,
            "namespace": namespace or "/",
            "room": room,
            "except_room": except_room,
            **more,
        }
        if self._run_dir is not None and not local:
            self._send_to([None], fields, (), method)
        if self.server is not None:
            handle = self.HANDLERS[method]
            self._run_in_hub(handle, self, RelayMessage(self.host_id, 0, fields))

    # --- answering ------------------------------------------------------------

    def _participants(
        self,
        namespace: str,
        room: Room,
        except_room: Room = None,
        skip_sid: Iterable[str] = (),
    ) -> list[tuple[str, str]]:
        """The clients of this process that are selected: sid and Engine.IO sid."""
        if isinstance(room, (list, tuple)) and not room:
            return []
        skip = set(skip_sid)
        if except_room is not None and except_room != []:
            skip.update(sid for sid, _ in self.get_participants(namespace, except_room))
        everybody = self.get_participants(namespace, room)
        return [pair for pair in everybody if pair[0] not in skip] if skip else list(everybody)

    def _local_sockets(
        self, namespace: str, room: Room = None, except_room: Room = None
    ) -> list[dict[str, Any]]:
        found = []
        for sid, _ in self._participants(namespace, room, except_room):
            try:
                session = self.server.get_session(sid, namespace) if self._shared_keys else {}
                socket = RemoteSocket(
                    sid=sid,
                    namespace=namespace,
                    rooms=self.get_rooms(sid, namespace),
                    worker=identity.process_name(),
                    transport=self.server.transport(sid, namespace),
                    address=self.server.get_environ(sid, namespace).get("REMOTE_ADDR", ""),
                    data={key: session[key] for key in self._shared_keys if key in session},
                )
            except (KeyError, AttributeError):
                continue  # about to disconnect
            found.append(asdict(socket))
        return found

    def _local_rooms(self, namespace: str) -> list[list[Any]]:
        rooms = self.rooms.get(namespace, {})
        everybody = rooms.get(None, {})
        return [
            [r, len(members)]
            for r, members in rooms.items()
            if r not in everybody and r is not None
        ]

    _LOCAL: ClassVar[Mapping[str, Callable[..., Any]]] = {
        "fetch_sockets": _local_sockets,
        "fetch_rooms": _local_rooms,
    }

    def _on_request(self, message: RelayMessage) -> None:
        fields = message.fields
        operation = fields["operation"]
        if operation == "server_side_call":
            self._run_server_side(message, partial(self._reply, message))
        elif operation in self._LOCAL:
            names = ("room", "except_room") if operation == "fetch_sockets" else ()
            arguments = {name: fields.get(name) for name in names}
            self._reply(message, self._LOCAL[operation](self, fields["namespace"], **arguments))
        else:
            self._reply_nothing(message)  # of a newer version

    def _on_server_side_emit(self, message: RelayMessage) -> None:
        self._run_server_side(message, None)

    def _run_server_side(
        self, message: RelayMessage, reply: Optional[Callable[[Any], None]]
    ) -> None:
        fields = message.fields
        arguments = self._decode(message)
        handler = self._server_side.get((fields["namespace"], fields["event"]))

        def run() -> None:
            try:
                assert handler is not None
                result = handler(*arguments)
            except Exception:
                self._get_logger().exception("server-side event %r", fields["event"])
                if reply is not None:
                    self._reply_nothing(message)
            else:
                if reply is not None:
                    reply(result)

        if handler is not None:
            self.server.start_background_task(run)
        elif reply is not None:
            self._reply_nothing(message)

    def _reply(self, question: RelayMessage, value: Any) -> None:
        """:param value: a Socket.IO packet carries it, so bytes may be in it."""
        fields = {**self._answer_to(question), "packet": self._packet_format()}
        try:
            packets = self._encode(sio_packet.ACK, question.fields["namespace"], [value], 0)
            self._send_to([self._asker(question)], fields, packets, "an answer")
        except (TypeError, ValueError) as error:
            self._get_logger().error("an answer to another worker cannot be sent: %s", error)
            self._reply_nothing(question)

    def _reply_nothing(self, question: RelayMessage) -> None:
        self._send_to([self._asker(question)], self._answer_to(question))

    def _answer_to(self, question: RelayMessage) -> dict[str, Any]:
        return {
            "method": "answer",
            "request": question.fields["request"],
            "worker": self.host_id,
        }

    @staticmethod
    def _asker(question: RelayMessage) -> str:
        """The worker that gets the answer; the bridge says for whom it asks."""
        return str(question.fields.get("reply_to", question.sender))

    def _deliver_and_gather(
        self,
        question: RelayMessage,
        recipients: list[tuple[str, str]],
        packets: list[EncodedPacket],
    ) -> None:
        """Ask clients of this process, and send each one's answer to who asked."""
        fields = question.fields
        # Nothing of the message is kept for those who do not answer.
        asker, namespace, answer = (
            self._asker(question),
            fields["namespace"],
            self._answer_to(question),
        )
        expected = {**answer, "method": "expect", "count": len(recipients)}
        self._tell(asker, expected)

        def no_answer() -> None:
            self._tell(asker, answer)

        def answered(*args: Any) -> None:
            encoded = self._encode(sio_packet.ACK, namespace, list(args), 0)
            with_packet = {**answer, "packet": self._packet_format(), "client": True}
            try:
                self._tell(asker, with_packet, encoded)
            except ValueError as error:  # too long
                self._get_logger().error("a client's answer cannot be sent: %s", error)
                no_answer()

        asked = Question(fields["ack"], answered, no_answer, fields["timeout"])
        self._deliver(recipients, packets, asked)

    def _tell(
        self, asker: str, fields: dict[str, Any], packets: Iterable[EncodedPacket] = ()
    ) -> None:
        """Send to who asked, or take it as received when that is this process."""
        if asker == self.host_id:
            self.HANDLERS[fields["method"]](
                self, RelayMessage(self.host_id, 0, fields, list(packets))
            )
        else:
            self._send_to([asker], fields, list(packets))

    def _on_expect(self, message: RelayMessage) -> None:
        call = self._calls.get(message.fields["request"])
        if call is not None:
            call.gathering.expect(message.fields["worker"], message.fields["count"])
            call.changed()

    def _on_answer(self, message: RelayMessage) -> None:
        fields = message.fields
        call = self._calls.get(fields["request"])
        if call is None:
            return  # too late
        if not message.packets:
            call.gathering.no_answer(fields["worker"])
        else:
            values = self._decode(message)
            single = values[0] if len(values) == 1 else tuple(values) if values else None
            call.gathering.answer(fields["worker"], single)
        call.changed()

    # --- what all workers do on one's word ------------------------------------

    def _selected(self, message: RelayMessage) -> list[tuple[str, str]]:
        fields = message.fields
        return self._participants(
            fields["namespace"], fields.get("room"), fields.get("except_room")
        )

    def _on_sockets_join(self, message: RelayMessage) -> None:
        namespace, rooms = message.fields["namespace"], _list(message.fields["rooms"])
        sids = [sid for sid, _ in self._selected(message)]
        for sid, room in itertools.product(sids, rooms):
            refuse_entry(sid, room)
            self.basic_enter_room(sid, namespace, room)

    def _on_sockets_leave(self, message: RelayMessage) -> None:
        namespace = message.fields["namespace"]
        for sid, _ in self._selected(message):
            for room in _list(message.fields["rooms"]):
                self.basic_leave_room(sid, namespace, room)

    def _on_disconnect_sockets(self, message: RelayMessage) -> None:
        namespace = message.fields["namespace"]
        sids = [sid for sid, _ in self._selected(message)]

        def disconnect() -> None:
            for sid in sids:
                self.server.disconnect(sid, namespace=namespace, ignore_queue=True)

        # The application's disconnect handlers may take their time.
        self.server.start_background_task(disconnect)

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "request": _on_request,
        "server_side_emit": _on_server_side_emit,
        "expect": _on_expect,
        "answer": _on_answer,
        "sockets_join": _on_sockets_join,
        "sockets_leave": _on_sockets_leave,
        "disconnect_sockets": _on_disconnect_sockets,
    }


def refuse_entry(sid: str, room: Any) -> None:
    """:raises MalformedFields: when another process lets a client enter what it may not."""
    try:
        check_entry(sid, room)
    except (TypeError, ValueError) as error:
        raise MalformedFields(str(error)) from None


def _list(rooms: Room) -> list[Any]:
    found = list(rooms) if isinstance(rooms, (list, tuple)) else [rooms]
    for room in found:
        check_name(room)
    return found
