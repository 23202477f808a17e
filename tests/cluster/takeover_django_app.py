"""A Django project whose clients move to other workers, and what its handlers see."""

from __future__ import annotations

import os
from typing import Any

import portable
import socketio
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.core.wsgi import get_wsgi_application

from supervisor_sio import ZmqManager

settings.configure(ROOT_URLCONF=(), ALLOWED_HOSTS=["*"], SECRET_KEY="not a secret")
manager = ZmqManager(takeover=True)
sio = socketio.Server(async_mode=portable.MODE, client_manager=manager)
app = socketio.WSGIApp(sio, get_wsgi_application())
called: list[Any] = []


@manager.on_takeover
def taken_over(sid: str, environ: Any) -> None:
    called.append(["takeover", sid, environ["REMOTE_ADDR"]])


@sio.event
def connect(sid: str, environ: Any) -> None:
    called.append(["connect", sid])
    sio.enter_room(sid, "everybody")


@sio.event
def disconnect(sid: str, reason: str) -> None:
    called.append(["disconnect", reason])


@sio.event
def note(sid: str, value: Any) -> None:
    with sio.session(sid) as session:
        session["noted"] = value


@sio.event
def look(sid: str) -> list[Any]:
    request = WSGIRequest(sio.get_environ(sid))
    seen = {
        "sid": sid,
        "address": request.META["REMOTE_ADDR"],
        "agent": request.headers.get("User-Agent"),
        "path": request.path,
        "query": request.GET.get("EIO"),
        "host": request.get_host(),
        "session": sio.get_session(sid),
        "rooms": sorted(set(sio.rooms(sid)) - {sid}),
    }
    return [os.getpid(), seen, called]
