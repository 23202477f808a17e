"""The same Socket.IO servers twice: for a worker, and stock, ``python conformance_app.py PORT``.

Stock is python-socketio with its own manager, on ``eventlet.wsgi``, whatever the worker's mode is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import socketio

#: By path, the options of a server; without a path, those of all.
COMMON: dict[str, Any] = {"ping_interval": 60, "ping_timeout": 60}
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


def make(new_server: Callable[..., Any], application: Callable[..., Any], other: Any) -> Any:
    """The application of all.

    :param new_server: gets the path and the options.
    :param application: gets the server, what is beside it, and ``socketio_path``.
    """
    app = other
    for path, options in SERVERS.items():
        sio = new_server(path, **COMMON, **options)
        sio.on("connect", connect)
        sio.on("disconnect", lambda sid, reason: None)
        sio.on("echo", lambda sid, *args: args)
        sio.on("long", lambda sid, size: "x" * size)
        app = application(sio, app, socketio_path=path)
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

    def new_server(path: str, **options: Any) -> Any:
        return socketio.Server(async_mode="eventlet", **options)

    app = make(new_server, socketio.WSGIApp, not_found)
    eventlet.wsgi.server(listener, app, log_output=False)


if __name__ == "__main__":
    main()
else:
    import portable

    async def nothing(request: portable.Request) -> portable.Answer:
        return portable.Answer(b"nothing here", 404)

    app = make(
        lambda path, **options: portable.make(path.strip("/"), **options)[0],
        portable.application,
        portable.web(nothing),
    )
