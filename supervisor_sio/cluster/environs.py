"""The environment of a client's handshake, for a process that takes the client over.

Handlers have it as long as the client is there: in ``connect``, ``get_environ()``, Flask's
``request``. Text in it is moved; so are the session that Flask-SocketIO keeps in it, and the scope
of an ASGI application. Objects that each process has itself are replaced by those of the new
process: ``flask.app``, the ``app`` of a scope, the state of its lifespan, ``wsgi.errors``. What
belonged to the request alone is left out.
"""

from __future__ import annotations

import io
import sys
from contextlib import AsyncExitStack
from functools import lru_cache
from typing import Any, Callable, Mapping, Optional, Tuple

from ..common.limits import SHARED_LENGTH, SHARED_TEXTS
from ..engine.saved import Saved
from .own_objects import OwnObjects, Place
from .plain import Writer, read

Environ = dict[str, Any]

#: The body of a request that has ended or had none, such as a handshake.
NO_INPUT = io.BytesIO()


class NoAsyncInput:
    """The same for an ``AsyncServer``."""

    __slots__ = ()

    async def read(self, length: Optional[int] = None) -> bytes:
        return b""


NO_ASYNC_INPUT = NoAsyncInput()

_SCOPE = "asgi.scope"

#: Each process sets them itself, or they belong to the request, or a framework makes them again.
_LEFT_OUT = ("wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "asgi.receive", "asgi.send", _SCOPE)
_LEFT_OUT_PREFIXES = ("eventlet.", "werkzeug.", "flask._", "supervisor_sio.")

#: How the scope got to the Socket.IO server, and what is saved separately.
_SCOPE_LEFT_OUT = ("endpoint", "route", "router", "headers", "state")
_SCOPE_LEFT_OUT_PREFIXES = ("starlette.", "fastapi", "supervisor_sio.")

#: Keys whose values lead to an application.
_OWN = ("flask.app", "app")

#: Variables whose values differ from client to client.
_PRIVATE = frozenset(
    "HTTP_COOKIE HTTP_AUTHORIZATION HTTP_SEC_WEBSOCKET_KEY HTTP_X_FORWARDED_FOR HTTP_X_REAL_IP "
    "REMOTE_PORT".split()
)


#: For a handshake whose environment is not known.
_UNKNOWN = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/socket.io/",
    "QUERY_STRING": "",
    "RAW_URI": "/socket.io/",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "",
    "REMOTE_PORT": "0",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.multithread": False,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


class _Process:
    """What each process has itself: its application's objects, and the state of its lifespan."""

    def __init__(
        self, application: Any = None, state: Callable[[], Mapping[str, Any]] = dict
    ) -> None:
        self.objects = OwnObjects(application)
        self.state = state


_process = _Process()


def serve(application: Any, state: Callable[[], Mapping[str, Any]] = dict) -> None:
    """Set the application whose clients this process serves.

    :param application: as it was imported.
    :param state: returns the state of an ASGI application's lifespan.
    """
    global _process
    _process = _Process(application, state)


def save(environ: Environ, writer: Writer) -> dict[str, Any]:
    """The state of an environment, as JSON takes it.

    :raises NotPlain: when something in it cannot be moved to another process.
    :raises TooLong: when it is too long.
    """
    scope = environ.get(_SCOPE)
    saved = _save_values(environ, writer, _is_left_out)
    saved["scope"] = None if scope is None else _save_scope(scope, writer)
    return saved


def restore(saved: Saved) -> Environ:
    """:raises ValueError: when it is not from :func:`save`, or this process lacks an object of
    it."""
    environ = _restore_values(saved)
    for key, value in environ.items():
        if value.__class__ is str and key not in _PRIVATE:
            environ[key] = _share(value)
    environ["wsgi.errors"] = sys.stderr
    environ["wsgi.input"] = NO_ASYNC_INPUT if environ.get("wsgi.async") else NO_INPUT
    if not saved.is_none("scope"):
        environ[_SCOPE] = _restore_scope(saved.object("scope"))
    return environ


def unknown(is_async: bool) -> Environ:
    """An environment for handlers of a client whose process has died.

    :param is_async: whether the server is an ``AsyncServer``.
    """
    environ: Environ = {**_UNKNOWN, "wsgi.errors": sys.stderr, "wsgi.input": NO_INPUT}
    if is_async:
        scope = {"type": "websocket", "path": _UNKNOWN["PATH_INFO"], "headers": []}
        environ.update({"wsgi.async": True, "wsgi.input": NO_ASYNC_INPUT, _SCOPE: scope})
    flask = sys.modules.get("flask")
    if flask is not None:
        environ["flask.app"] = _process.objects.first(flask.Flask)
    return environ


def _save_values(
    values: dict[str, Any], writer: Writer, is_left_out: Callable[[str], bool], prefix: str = ""
) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    sessions: dict[str, Any] = {}
    own: dict[str, Place] = {}
    for key, value in values.items():
        if value.__class__ is str:  # nearly all
            plain[key] = writer.write_text(value, key)
            continue
        if is_left_out(key):
            continue
        path = prefix + key
        if _is_session(value):
            sessions[key] = _save_items(value, writer, path)
            continue
        place = _process.objects.place_of(value) if key in _OWN else None
        if place is not None:
            own[key] = place
        else:
            plain[key] = writer.write_binary(value, path)
    return {"values": plain, "sessions": sessions, "own": own}


def _restore_values(saved: Saved) -> dict[str, Any]:
    values = {sys.intern(key): read(value) for key, value in saved.object("values").pairs()}
    own_sessions = saved.object("sessions")
    for key, _ in own_sessions.pairs():
        items = own_sessions.object(key).pairs()
        values[key] = _make_session({name: read(value) for name, value in items})
    places = saved.object("own")
    for key, _ in places.pairs():
        place = places.list(key)
        steps = [step for _, step in place.list(1).pairs() if isinstance(step, (str, int))]
        values[key] = _process.objects.at(Place(place.text(0), steps))
    return values


def _save_items(items: dict[str, Any], writer: Writer, path: str) -> dict[str, Any]:
    """The items of a dictionary, whose class is not kept.

    :raises NotPlain: also for a key that is not a ``str``.
    """
    return {
        writer.write_key(key, path): writer.write(value, f"{path}.{key}")
        for key, value in items.items()
    }


def _is_left_out(key: str) -> bool:
    return key in _LEFT_OUT or key.startswith(_LEFT_OUT_PREFIXES)


def _is_left_out_of_scope(key: str) -> bool:
    return key in _SCOPE_LEFT_OUT or key.startswith(_SCOPE_LEFT_OUT_PREFIXES)


def _is_session(value: Any) -> bool:
    """Whether it is the session that Flask-SocketIO keeps for a client."""
    flask = sys.modules.get("flask.sessions")
    return flask is not None and isinstance(value, dict) and isinstance(value, flask.SessionMixin)


@lru_cache(1)
def _session_class() -> Any:
    from flask.sessions import SessionMixin

    return type("ManagedSession", (dict, SessionMixin), {})


def _make_session(items: Any) -> Any:
    try:
        return _session_class()(items)
    except ImportError:
        raise ValueError("the session is one of Flask, which this process lacks") from None


# --- the scope of ASGI -------------------------------------------------------------


def _save_scope(scope: dict[str, Any], writer: Writer) -> dict[str, Any]:
    values = {key: value for key, value in scope.items() if not isinstance(value, AsyncExitStack)}
    if isinstance(values.get("session"), dict):  # Starlette's middleware has a subclass
        values["session"] = dict(values["session"])
    saved = _save_values(values, writer, _is_left_out_of_scope, f"{_SCOPE}.")
    headers = [
        [name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]
    ]
    saved["headers"] = writer.write(headers, f"{_SCOPE}.headers")
    state = scope.get("state")
    saved["state"] = None if state is None else _save_state(state, writer)
    return saved


def _save_state(state: dict[str, Any], writer: Writer) -> dict[str, Any]:
    ours = _process.state()
    shared = [key for key, value in state.items() if key in ours and ours[key] is value]
    others = {key: value for key, value in state.items() if key not in shared}
    return {"shared": shared, "values": _save_items(others, writer, f"{_SCOPE}.state")}


def _restore_scope(saved: Saved) -> dict[str, Any]:
    scope = _restore_values(saved)
    scope["headers"] = [
        _field(field.text(0).encode("latin-1"), field.text(1).encode("latin-1"))
        for field in saved.items("headers")
    ]
    if not saved.is_none("state"):
        scope["state"] = _restore_state(saved.object("state"))
    return scope


def _restore_state(saved: Saved) -> dict[str, Any]:
    ours = _process.state()
    state = {}
    for _, key in saved.list("shared").pairs():
        if not isinstance(key, str) or key not in ours:
            raise ValueError(f"{key!r:.80} is not in the state of the application's lifespan")
        state[key] = ours[key]
    state.update((key, read(value)) for key, value in saved.object("values").pairs())
    return state


# --- values that many clients have are stored once -----------------------------------


def _share(text: str) -> str:
    return _shared(text) if len(text) <= SHARED_LENGTH else text


@lru_cache(SHARED_TEXTS)
def _shared(text: str) -> str:
    return text


@lru_cache(SHARED_TEXTS)
def _shared_field(name: bytes, value: bytes) -> Tuple[bytes, bytes]:
    return name, value


#: Header fields whose values differ from client to client.
_PRIVATE_FIELDS = frozenset(
    name[5:].replace("_", "-").lower().encode() for name in _PRIVATE if name.startswith("HTTP_")
)


def _field(name: bytes, value: bytes) -> Tuple[bytes, bytes]:
    own = name in _PRIVATE_FIELDS or len(value) > SHARED_LENGTH
    return (name, value) if own else _shared_field(name, value)
