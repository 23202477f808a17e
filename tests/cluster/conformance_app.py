"""The same Socket.IO servers twice: for a worker, and stock, ``python conformance_app.py PORT``.

Stock is python-socketio with its own manager, on ``eventlet.wsgi``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import socketio

#: By path, the options of a server; without a path, those of all.
COMMON: dict[str, Any] = {"async_mode": "eventlet", "ping_interval": 60, "ping_timeout": 60}
SERVERS: dict[str, dict[str, Any]] = {
    "/socket.io/": {},
    "/anybody.io/": {"cors_allowed_origins": "*", "cookie": "io", "compression_threshold": 200},
    "/friends.io/": {
        "cors_allowed_origins": ["http://friend.example", "http://other.example:8000"],
        "cors_credentials": False,
        "cookie": {"name": "sid", "path": "/friends", "HttpOnly": True, "SameSite": "Strict"},
    },
    "/chosen.io/": {"cors_allowed_origins": lambda origin: "friend" in (origin or "")},
    "/off.io/": {"cors_allowed_origins": [], "http_compression": False, "allow_upgrades": False},
    "/small.io/": {"transports": ["polling"], "max_http_buffer_size": 200},
}


def make(new_manager: Callable[[str], Any]) -> Any:
    """The WSGI application of all.

    :param new_manager: for the server of this path; ``None`` is python-socketio's.
    """
    app: Any = not_found
    for path, options in SERVERS.items():
        sio = socketio.Server(client_manager=new_manager(path), **COMMON, **options)
        sio.on("connect", connect)
        sio.on("disconnect", lambda sid, reason: None)
        sio.on("echo", lambda sid, *args: args)
        sio.on("long", lambda sid, size: "x" * size)
        app = socketio.WSGIApp(sio, app, socketio_path=path)
    return app


def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> Any:
    """Refuses who says so."""
    if auth == {"may": False}:
        return False
    return None


def not_found(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"nothing here"]


def main() -> None:
    import eventlet.wsgi

    eventlet.monkey_patch()
    listener = eventlet.listen(("127.0.0.1", int(sys.argv[1])))
    eventlet.wsgi.server(listener, make(lambda path: None), log_output=False)


if __name__ == "__main__":
    main()
else:
    from supervisor_sio import ZmqManager

    app = make(lambda path: ZmqManager(channel=path.strip("/")))
