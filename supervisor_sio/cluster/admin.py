"""``sio.instrument()`` in a cluster: an Admin UI acts on the clients of all workers.

python-socketio looks for those to join, leave or disconnect among the clients
of the worker that serves the admin, and reports of all workers reach it.
"""

from __future__ import annotations

from typing import Any, Optional


def span_cluster(server: Any, manager: Any) -> None:
    """Let what an Admin UI does to clients of a ``socketio.Server`` reach all workers.

    :param manager: the server's :class:`.ZmqManager`.
    """
    instrument = server.instrument

    def join(_: str, namespace: str, room: str, room_filter: Any = None) -> None:
        manager.sockets_join(room, room=room_filter, namespace=namespace)

    def leave(_: str, namespace: str, room: str, room_filter: Any = None) -> None:
        manager.sockets_leave(room, room=room_filter, namespace=namespace)

    def disconnect(_: str, namespace: str, close: bool, room_filter: Any = None) -> None:
        manager.disconnect_sockets(room=room_filter, namespace=namespace)

    def instrument_cluster(*args: Any, **kwargs: Any) -> Any:
        instrumented = instrument(*args, **kwargs)
        handlers = server.handlers[instrumented.admin_namespace]
        for event, handler in (("join", join), ("leave", leave), ("_disconnect", disconnect)):
            if event in handlers:  # not in production, nor if it is read only
                handlers[event] = handler
        if instrumented.mode == "development":
            _default_namespace(manager)
        return instrumented

    server.instrument = instrument_cluster


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
    ) -> None:
        emit(event, data, namespace or "/", to or room, skip_sid, callback, **kwargs)

    manager.emit = with_default
