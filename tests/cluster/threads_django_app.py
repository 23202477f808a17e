"""A Django project in one file, with a Socket.IO server in threading mode beside it."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Any

import socketio
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from supervisor_sio import ZmqManager

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="not a secret",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
)
sio = socketio.Server(async_mode="threading", client_manager=ZmqManager())


@csrf_exempt
def login(request: HttpRequest) -> HttpResponse:
    request.session["user"] = request.POST["user"]
    return HttpResponse("welcome\n")


def whoami(request: HttpRequest) -> HttpResponse:
    return JsonResponse(
        {"user": request.session.get("user", "nobody"), "address": request.META["REMOTE_ADDR"]}
    )


def announce(request: HttpRequest) -> HttpResponse:
    sio.emit("announced", {"by": request.session.get("user", "nobody")})
    return HttpResponse("said\n")


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    digest, size = hashlib.sha256(), 0
    while True:
        piece = request.read(65536)
        if not piece:
            return JsonResponse({"sha256": digest.hexdigest(), "size": size})
        digest.update(piece)
        size += len(piece)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(f"{number}\n" for number in range(1000))


def broken(request: HttpRequest) -> HttpResponse:
    raise ValueError("a view that fails")


urlpatterns = [
    path("login", login),
    path("whoami", whoami),
    path("announce", announce),
    path("upload", upload),
    path("stream", stream),
    path("broken", broken),
]


@sio.event
def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
    # The session of the page that has the socket, as Django reads it.
    from django.core.handlers.wsgi import WSGIRequest

    request = WSGIRequest(environ)
    engine = __import__(settings.SESSION_ENGINE, fromlist=["SessionStore"])
    store = engine.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    with sio.session(sid) as session:
        session["user"] = store.get("user", "nobody")


@sio.event
def who(sid: str) -> dict[str, Any]:
    return {
        "user": sio.get_session(sid)["user"],
        "sid": sid,
        "pid": os.getpid(),
        "thread": threading.current_thread() is not threading.main_thread(),
    }


app = socketio.WSGIApp(sio, get_wsgi_application())
