"""A Flask-SocketIO application as it is written for ``async_mode="threading"``.

It logs in with a session, has something like ``current_user``, calls other servers with what
blocks, and emits from background tasks and from plain threads. As a program it runs on the
server that comes with Flask: ``python threads_flask_app.py PORT``.
"""

from __future__ import annotations

import contextvars
import hashlib
import os
import sys
import threading
import time
import urllib.request
from typing import Any, Iterator

from flask import Flask, Response, abort, g, request, session
from flask_socketio import ConnectionRefusedError, SocketIO, emit, join_room, leave_room, rooms
from werkzeug.local import LocalProxy

from supervisor_sio import ZmqManager

app = Flask(__name__)
app.secret_key = "not a secret"
socketio = SocketIO(
    app,
    async_mode="threading",
    client_manager=ZmqManager(),
    ping_interval=float(os.environ.get("PING_INTERVAL", "25")),
)

#: What a library of the application may keep for a call.
tag: contextvars.ContextVar[str] = contextvars.ContextVar("tag", default="")

closed_streams: list[str] = []


def find_user() -> str:
    if "user" not in g:
        g.user = session.get("user", "nobody")
    user: str = g.user
    return user


current_user = LocalProxy(find_user)


@app.post("/login")
def login() -> str:
    session["user"] = request.form["user"]
    return "welcome\n"


@app.get("/whoami")
def whoami_page() -> str:
    return f"{current_user}"


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.get("/slow")
def slow() -> str:
    """For a file that a test asks for, and then for some time."""
    with open(request.args["begun"], "w"):
        pass
    time.sleep(float(request.args["seconds"]))
    return "slow\n"


@app.post("/upload")
def upload() -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    while True:
        piece = request.stream.read(65536)
        if not piece:
            return {"sha256": digest.hexdigest(), "size": size, "user": str(current_user)}
        digest.update(piece)
        size += len(piece)


@app.get("/download/<int:size>")
def download(size: int) -> Response:
    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 65536):
            yield b"x" * min(65536, size - start)

    return Response(pieces(), mimetype="application/octet-stream")


@app.get("/file")
def file() -> Any:
    from flask import send_file

    return send_file(__file__, mimetype="text/x-python")


@app.get("/events")
def events() -> Response:
    """Server-sent events, until the client goes."""

    def lines() -> Iterator[str]:
        try:
            for number in range(10_000):
                yield f"data: {number}\n\n"
                time.sleep(0.02)
        finally:
            closed_streams.append("events")

    return Response(lines(), mimetype="text/event-stream", headers={"Connection": "keep-alive"})


@app.get("/closed")
def closed() -> str:
    return str(len(closed_streams))


@app.get("/broken")
def broken() -> str:
    raise ValueError("a view that fails")


@app.get("/announce")
def announce() -> str:
    """An emit of a view."""
    socketio.emit("announced", {"by": str(current_user)})
    return "said\n"


@socketio.on("connect")
def connect(auth: Any = None) -> None:
    if isinstance(auth, dict) and auth.get("refused"):
        raise ConnectionRefusedError("not you")
    emit("hello", {"user": str(current_user), "sid": request.sid})  # type: ignore[attr-defined]


@socketio.on("whoami")
def whoami() -> dict[str, Any]:
    return {
        "user": str(current_user),
        "sid": request.sid,  # type: ignore[attr-defined]
        "agent": request.headers.get("User-Agent", ""),
        "address": request.remote_addr,
        "pid": os.getpid(),
        "thread": threading.current_thread() is not threading.main_thread(),
    }


@socketio.on("echo")
def echo(*args: Any) -> Any:
    return args[0] if len(args) == 1 else args


@socketio.on("remember")
def remember(name: str, value: Any) -> None:
    """What Flask-SocketIO keeps for this client."""
    session[name] = value


@socketio.on("recall")
def recall(name: str) -> Any:
    return session.get(name)


@socketio.on("tag")
def set_tag(value: str) -> str:
    """What was there before; it is nobody else's."""
    before = tag.get()
    tag.set(value)
    return before


@socketio.on("fetch")
def fetch(url: str) -> str:
    """As ``requests.get()``."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


@socketio.on("join")
def join(room: str) -> list[str]:
    join_room(room)
    return sorted(rooms())


@socketio.on("leave")
def leave(room: str) -> list[str]:
    leave_room(room)
    return sorted(rooms())


@socketio.on("say")
def say(room: str, text: Any) -> None:
    emit("said", text, to=room)


@socketio.on("ask")
def ask(question: Any) -> Any:
    """Wait for the client's own answer."""
    return socketio.call("question", question, to=request.sid, timeout=10)  # type: ignore[attr-defined]


@socketio.on("block")
def block(path: str) -> str:
    """Until there is such a file; there is one with a name of its own from the beginning."""
    with open(f"{path}.begun-{threading.get_ident()}", "w"):
        pass
    while not os.path.exists(path):
        time.sleep(0.02)
    return "released"


@socketio.on("write_later")
def write_later(path: str, seconds: float) -> None:
    with open(f"{path}.begun", "w"):
        pass
    time.sleep(seconds)
    with open(path, "w"):
        pass


@socketio.on("forever")
def forever(daemon: bool) -> bool:
    """A thread that does not end with the process."""
    threading.Thread(target=time.sleep, args=(3600,), daemon=daemon).start()
    return True


@socketio.on("background")
def background(count: int) -> None:
    sid = request.sid  # type: ignore[attr-defined]

    def count_up() -> None:
        for number in range(count):
            socketio.emit("counted", number, to=sid)
            socketio.sleep(0)

    socketio.start_background_task(count_up)


@socketio.on("thread")
def thread(count: int) -> None:
    """A plain thread that emits, many in one go."""
    sid = request.sid  # type: ignore[attr-defined]

    def count_up() -> None:
        for number in range(count):
            socketio.emit("counted", number, to=sid)

    threading.Thread(target=count_up, daemon=True).start()


@socketio.on("fails")
def fails() -> None:
    raise ValueError("a handler that fails")


@socketio.on("goodbye")
def goodbye() -> None:
    from flask_socketio import disconnect

    disconnect()


@socketio.on("disconnect")
def disconnected(reason: str) -> None:
    socketio.emit("left", {"user": str(current_user), "reason": reason})


@app.before_request
def only_known() -> None:
    if request.args.get("forbidden"):
        abort(401)


if __name__ == "__main__":
    socketio.run(app, "127.0.0.1", int(sys.argv[1]), allow_unsafe_werkzeug=True)
