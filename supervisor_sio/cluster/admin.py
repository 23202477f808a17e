"""``sio.instrument()`` in a cluster: an Admin UI acts on the clients of all workers.

python-socketio looks for those to join, leave or disconnect among the clients
of the worker that serves the admin, and reports of all workers reach it.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Callable, Coroutine, Optional

from ..common.blocking import run_blocking, settle
from .sessions import traffic

#: Asks the other workers to report their clients to an admin.
_REPORT = "supervisor_sio:report_clients"


def span_cluster(server: Any, manager: Any) -> None:
    """Let what an Admin UI does to clients of a ``socketio.Server`` reach all workers.

    :param server: it, or an ``AsyncServer``.
    :param manager: the server's :class:`.ZmqManager`, or :class:`.AsyncZmqManager`.
    """
    instrument = server.instrument

    async def join(_: str, namespace: str, room: str, room_filter: Any = None) -> None:
        await settle(manager.sockets_join(room, room=room_filter, namespace=namespace))

    async def leave(_: str, namespace: str, room: str, room_filter: Any = None) -> None:
        await settle(manager.sockets_leave(room, room=room_filter, namespace=namespace))

    async def disconnect(_: str, namespace: str, close: bool, room_filter: Any = None) -> None:
        await settle(manager.disconnect_sockets(room=room_filter, namespace=namespace))

    def instrument_cluster(*args: Any, **kwargs: Any) -> Any:
        instrumented = instrument(*args, **kwargs)
        handlers = server.handlers[instrumented.admin_namespace]
        for event, handler in (("join", join), ("leave", leave), ("_disconnect", disconnect)):
            if event in handlers:  # not in production, nor if it is read only
                handlers[event] = _handler(server, handler)
        if instrumented.mode == "development":
            _default_namespace(manager)
            _count_packets(instrumented.event_buffer)
            _ask_for_clients(server, manager, instrumented)
        return instrumented

    server.instrument = instrument_cluster


def connected_at(manager: Any) -> dict[str, float]:
    """When each client connected, by sid: an Admin UI wants to know, and to forget it."""
    times: Any = getattr(manager, "_timestamps", None)
    return times if isinstance(times, dict) else {}


def _handler(server: Any, handler: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """As the server calls those of its events."""
    if server.is_asyncio_based():
        return handler
    return lambda *args: run_blocking(handler(*args))


def _ask_for_clients(server: Any, manager: Any, instrumented: Any) -> None:
    """An admin who comes hears of the clients of the other workers, too."""
    namespace = instrumented.admin_namespace
    handlers = server.handlers[namespace]
    connect = handlers["connect"]

    async def admin_connect(sid: str, environ: Any, auth: Any) -> Any:
        answer = await settle(connect(sid, environ, auth))
        await settle(manager.server_side_emit(_REPORT, sid, namespace=namespace))
        return answer

    async def report(admin: str) -> None:
        for nsp in list(manager.get_namespaces()):
            for sid, eio_sid in list(manager.get_participants(nsp, None)):
                try:
                    client = instrumented.serialize_socket(sid, nsp, eio_sid)
                except KeyError:
                    continue  # it is about to disconnect
                now = datetime.now(timezone.utc).isoformat()
                event = (client, now)
                await settle(server.emit("socket_connected", event, to=admin, namespace=namespace))
                await settle(server.sleep(0))

    handlers["connect"] = _handler(server, admin_connect)
    manager.on(_REPORT, report, namespace)


def _count_packets(buffer: Any) -> None:
    """Report the packets of this worker: the instrumented engineio does not see them."""
    take = buffer.get_and_clear
    counted = {"packetsIn": traffic.received, "packetsOut": traffic.sent}

    def with_packets() -> Any:
        for kind, count in (("packetsIn", traffic.received), ("packetsOut", traffic.sent)):
            if count > counted[kind]:
                buffer.push(kind, count - counted[kind])
                counted[kind] = count
        return take()

    buffer.get_and_clear = with_packets


def _default_namespace(manager: Any) -> None:
    """The instrumented ``emit()`` wants a namespace, and takes no ``to`` for a room."""
    emit = manager.emit

    def with_default(
        event: str,
        data: Any,
        namespace: Optional[str] = None,
        room: Any = None,
        skip_sid: Any = None,
        callback: Any = None,
        to: Any = None,
        **kwargs: Any,
    ) -> Any:
        return emit(event, data, namespace or "/", to or room, skip_sid, callback, **kwargs)

    manager.emit = with_default
