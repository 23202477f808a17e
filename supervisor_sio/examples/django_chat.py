"""The same chat with Django, in one file; a view sends messages as well.

supervisor-sio worker supervisor_sio.examples.django_chat:app
curl -d text=hello http://127.0.0.1:8000/announce
"""

import os
from pathlib import Path
from typing import Any

import socketio
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.http import require_POST

from supervisor_sio import Lease, ZmqManager

PAGE = Path(__file__).with_name("chat.html")
WORKER = os.environ.get("SUPERVISOR_PROCESS_NAME", "no supervisor")

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
manager = ZmqManager(takeover=True)
sio = socketio.Server(async_mode="eventlet", client_manager=manager)


@sio.event
@manager.on_takeover
def connect(sid: str, environ: dict[str, Any]) -> None:
    sio.emit("welcome", {"worker": WORKER, "sid": sid}, to=sid)


@sio.event
def message(sid: str, who: str, text: str) -> None:
    sio.emit("message", {"who": who, "text": text, "worker": WORKER})


@manager.run_once("headcount")
def headcount(lease: Lease) -> None:
    """Runs in one worker of the cluster; in all, each client would get the number several times."""
    while lease.wait(5):
        sio.emit("present", len(manager.fetch_sockets()))


@require_POST
def announce(request: HttpRequest) -> HttpResponse:
    message("", "Django", request.POST.get("text", ""))
    return HttpResponse("said\n")


urlpatterns = [path("announce", announce)]
static = {"/": str(PAGE), "/socket.io.min.js": str(PAGE.with_name("socket.io.min.js"))}
app = socketio.WSGIApp(sio, get_wsgi_application(), static_files=static)
