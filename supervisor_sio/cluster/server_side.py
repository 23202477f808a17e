"""Events that workers emit to each other."""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Mapping, Optional, overload

from socketio import packet as sio_packet

from ..common.blocking import settle
from ..relay.message import RelayMessage
from .asking import TIMEOUT, Asking
from .gathering import Answers
from .handlers import AnyHandler, Handler, register


class ServerSide(Asking):
    """The part of a manager that emits events to the workers themselves."""

    def __init__(self) -> None:
        #: Handlers by namespace and event.
        self._server_side: dict[tuple[str, str], Handler] = {}

    @overload
    def on(
        self, event: str, handler: None = None, namespace: Optional[str] = None
    ) -> Callable[[AnyHandler], AnyHandler]: ...

    @overload
    def on(
        self, event: str, handler: AnyHandler, namespace: Optional[str] = None
    ) -> AnyHandler: ...

    def on(
        self, event: str, handler: Optional[Handler] = None, namespace: Optional[str] = None
    ) -> Any:
        """Register a handler for an event that another worker emits to the workers.

        Can be used as a decorator. The handler gets the arguments; what it
        returns is its answer to :meth:`server_side_call`. Each event runs in a
        background task of its own. Of an asyncio server it may be a coroutine.

        :raises TypeError: for an event that is not a ``str``, as in a decorator without one, and
            for a handler that is not a function.
        """
        if not isinstance(event, str):
            raise TypeError(f'on(): {event!r:.80} is not an event: write on("event")')
        return register("on", self._server_side, (namespace or "/", event), handler)

    async def server_side_emit(
        self, event: str, *args: Any, namespace: Optional[str] = None
    ) -> None:
        """Emit an event to the handlers of all other workers; see :meth:`on`.

        :raises TypeError: when an argument cannot be encoded; nothing is sent then.
        :raises MessageTooLong: when they are longer than ``message_maxbytes``.
        """
        namespace = namespace or "/"
        packets = self._encode(sio_packet.ACK, namespace, list(args), 0)
        self._need_cluster()
        await self._begin(True)
        if self._run_dir is not None:
            fields = {
                "method": "server_side_emit",
                "event": event,
                "namespace": namespace,
                "packet": self._packet_format(),
            }
            self._send_to([None], fields, packets, f"server-side event {event!r}")

    async def server_side_call(
        self,
        event: str,
        *args: Any,
        namespace: Optional[str] = None,
        timeout: float = TIMEOUT,
    ) -> Answers[Any]:
        """Emit an event to the handlers of all other workers and return their answers.

        A worker without a handler, or whose handler fails, is not waited for:
        it counts as ``missing``.

        :param timeout: in seconds.
        :raises TypeError: when an argument cannot be encoded; nothing is sent then.
        :raises MessageTooLong: when they are longer than ``message_maxbytes``.
        :raises RuntimeError: in a write-only manager.
        :raises RelayUnreachable: in a process that serves no clients, when no router answers.
        """
        namespace = namespace or "/"
        packets = self._encode(sio_packet.ACK, namespace, list(args), 0)
        return await self._gather(
            "server_side_call", namespace, {"event": event}, False, timeout, packets
        )

    def _on_server_side_emit(self, message: RelayMessage) -> None:
        self._run_server_side(message, answers=False)

    def _on_server_side_call(self, message: RelayMessage) -> None:
        self._run_server_side(message, answers=True)

    def _run_server_side(self, message: RelayMessage, answers: bool) -> None:
        fields = message.fields
        arguments = self._decode(message)
        handler = None
        if message.scope is None:  # else it was for a worker that has ended
            handler = self._server_side.get((fields["namespace"], fields["event"]))
        if handler is not None:
            self._spawn(self._call_handler, handler, arguments, message, answers)
        elif answers:
            self._reply_nothing(message)

    async def _call_handler(
        self, handler: Handler, arguments: list[Any], message: RelayMessage, answers: bool
    ) -> None:
        try:
            result = await settle(handler(*arguments))
        except Exception:
            self._get_logger().exception("server-side event %r", message.fields["event"])
            if answers:
                self._reply_nothing(message)
        else:
            if answers:
                self._reply(message, result)

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "server_side_emit": _on_server_side_emit,
    }
    REQUESTS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "server_side_call": _on_server_side_call,
    }
