"""Applications that a worker cannot serve, and factories that make one that it can."""

from __future__ import annotations

from typing import Any

import socketio
from flask import Flask

from supervisor_sio import AsyncZmqManager, ZmqManager, serve


def make_server(**options: Any) -> socketio.Server:
    return socketio.Server(
        **{"async_mode": "eventlet", "client_manager": ZmqManager(channel="another"), **options}
    )


def create_app() -> Any:
    return socketio.WSGIApp(make_server(client_manager=ZmqManager()))


def two_tasks() -> Any:
    manager = ZmqManager()
    manager.run_once("ticker", no_manager)
    manager.run_once("ticker", create_app)
    return socketio.WSGIApp(make_server(client_manager=manager))


def threads() -> Any:
    return socketio.WSGIApp(make_server(async_mode="threading"))


def flask_threads() -> Any:
    import flask_socketio

    app = Flask(__name__)
    flask_socketio.SocketIO(app, async_mode="threading", client_manager=ZmqManager())
    return app


def asyncio_server() -> Any:
    return socketio.WSGIApp(socketio.AsyncServer(async_mode="asgi"))


def no_manager() -> Any:
    return socketio.WSGIApp(socketio.Server(async_mode="eventlet"))


def another_path() -> Any:
    return socketio.WSGIApp(make_server(), socketio_path="/ws")


def two_servers() -> Any:
    return socketio.WSGIApp(make_server(), socketio.WSGIApp(make_server()))


def sync_server() -> Any:
    return socketio.ASGIApp(make_server())


def mounted(server: Any = None, path: str = "socket.io") -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    app.mount("/", socketio.ASGIApp(server or make_server(), socketio_path=path))
    return app


def mounted_at_another_path() -> Any:
    manager = AsyncZmqManager()
    server = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
    return mounted(server, "/ws")


def wrong_manager() -> Any:
    return socketio.ASGIApp(socketio.AsyncServer(client_manager=ZmqManager()))


asgi = socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi"))
server = socketio.AsyncServer(async_mode="asgi")

if __name__ == "__main__":
    app = create_app()
    import wrong_app  # as a view of the same project does

    wrong_app.kept = wrong_app.create_app()  # type: ignore[attr-defined]
    serve(app)
