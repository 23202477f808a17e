"""All private names of python-socketio that a worker uses.

They belong to a ``Server`` or an ``AsyncServer``. For an ``AsyncServer`` they are coroutine
functions, so the caller has to await what the functions in here return.

A worker checks the names and their arguments when it starts. If a release of python-socketio has
changed one, :func:`missing` returns it, and the worker uses the public interface, which takes more
time per message.

The names are looked up at each call, because ``sio.instrument()`` replaces some at run time.
"""

from __future__ import annotations

import inspect
from types import TracebackType
from typing import Any, Callable, Optional

import socketio

#: Methods of both kinds of server, with the number of arguments passed here.
_METHODS = {
    "_send_packet": 2,
    "_trigger_event": 4,
    "_handle_event": 4,
    "_handle_event_internal": 6,
    "_handle_ack": 4,
    "_handle_connect": 3,
    "_handle_disconnect": 3,
}


def missing(server: Any) -> list[str]:
    """The names that a server lacks, or that take other arguments."""
    return [name for name, count in _METHODS.items() if not _takes(server, name, count)]


def is_async(server: Any) -> bool:
    """Whether the server is an ``AsyncServer``."""
    return bool(server.is_asyncio_based())


def _takes(server: Any, name: str, count: int) -> bool:
    method = getattr(server, name, None)
    if not callable(method) or inspect.iscoroutinefunction(method) != is_async(server):
        return False
    try:
        inspect.signature(method).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


def handles_events_as_usual(server: Any) -> bool:
    """Whether no subclass changes how an event's handler is called."""
    base = socketio.AsyncServer if is_async(server) else socketio.Server
    return all(
        getattr(type(server), name) is getattr(base, name)
        for name in ("_handle_event", "_handle_event_internal")
    )


def replace_send_packet(server: Any, send_packet: Callable[[str, Any], Any]) -> None:
    """Let the server send its packets through this function, which takes an Engine.IO sid."""
    server._send_packet = send_packet


def sends_by(server: Any, send_packet: Callable[[str, Any], Any]) -> bool:
    """Whether the server still uses the function set by :func:`replace_send_packet`."""
    return server._send_packet is send_packet


def replace_handle_disconnect(
    server: Any, handle: Callable[..., Any]
) -> Callable[[str, str, Any], Any]:
    """Replace the method that handles the end of a session.

    :return: the previous method.
    """
    before: Callable[[str, str, Any], Any] = server._handle_disconnect
    server._handle_disconnect = handle
    return before


def send_packet(server: Any, eio_sid: str, pkt: Any) -> Any:
    """Send a Socket.IO packet to a client."""
    return server._send_packet(eio_sid, pkt)


def trigger_event(server: Any, event: Any, namespace: str, sid: str, args: Any) -> Any:
    """Call the handler of an event, and return its result."""
    return server._trigger_event(event, namespace, sid, *args)


def event_of(trace: Optional[TracebackType]) -> Optional[str]:
    """The event whose handler appears in a traceback; ``None`` if there is none."""
    code = {kind._trigger_event.__code__ for kind in (socketio.Server, socketio.AsyncServer)}
    while trace is not None:
        if trace.tb_frame.f_code in code:
            return str(trace.tb_frame.f_locals.get("event"))
        trace = trace.tb_next
    return None


def handle_event(server: Any, eio_sid: str, namespace: str, pkt: Any) -> Any:
    """Call the handler of an event through the server's own method."""
    return server._handle_event(eio_sid, namespace, pkt.id, pkt.data)


def handle_ack(server: Any, eio_sid: str, pkt: Any) -> Any:
    """Handle a client's acknowledgement of an event."""
    return server._handle_ack(eio_sid, pkt.namespace, pkt.id, pkt.data)


def handle_connect(server: Any, eio_sid: str, namespace: str, pkt: Any) -> Any:
    """Handle a client's CONNECT to a namespace."""
    return server._handle_connect(eio_sid, namespace, pkt.data)
