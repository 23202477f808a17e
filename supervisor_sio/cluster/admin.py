"""``sio.instrument()`` in a cluster: an Admin UI acts on the clients of all workers.

python-socketio lets an admin join, leave and disconnect only clients of the worker that serves the
admin; here these commands, and reports of clients, span all workers.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Callable, Coroutine, Optional

from ..common.blocking import run_blocking, settle
from .sessions import traffic

#: Asks the other workers to report their clients to an admin.
_REPORT = "supervisor_sio:report_clients"


def span_cluster(server: Any, manager: Any) -> None:
    """Let commands and reports of an Admin UI span the cluster.

    :param server: a ``socketio.Server`` or ``AsyncServer``.
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
            if event in handlers:  # absent in production, and when the UI is read only
                handlers[event] = _handler(server, handler)
        if instrumented.mode == "development":
            _default_namespace(manager)
            _count_packets(instrumented.event_buffer)
            _ask_for_clients(server, manager, instrumented)
        return instrumented

    server.instrument = instrument_cluster


def connected_at(manager: Any) -> dict[str, float]:
    """When each client connected, by sid, for the Admin UI; entries of gone clients are removed."""
    times: Any = getattr(manager, "_timestamps", None)
    return times if isinstance(times, dict) else {}


def _handler(server: Any, handler: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """The handler in the form in which the server calls it."""
    if server.is_asyncio_based():
        return handler
    return lambda *args: run_blocking(handler(*args))


def _ask_for_clients(server: Any, manager: Any, instrumented: Any) -> None:
    """Have all workers report their clients to an admin that connects.

    This worker too: python-socketio's own ``all_sockets`` goes to the last client that it lists,
    which is the admin only while no other namespace was opened after the admin's, and is not sent
    at all when a client disconnects meanwhile.
    """
    namespace = instrumented.admin_namespace
    handlers = server.handlers[namespace]
    connect = handlers["connect"]

    async def admin_connect(sid: str, environ: Any, auth: Any) -> Any:
        answer = await settle(connect(sid, environ, auth))
        await settle(manager.server_side_emit(_REPORT, sid, namespace=namespace))
        server.start_background_task(_handler(server, report), sid)
        return answer

    async def report(admin: str) -> None:
        for nsp in list(manager.get_namespaces()):
            for sid, eio_sid in list(manager.get_participants(nsp, None)):
                try:
                    client = instrumented.serialize_socket(sid, nsp, eio_sid)
                except KeyError:
                    continue  # the client is about to disconnect
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
