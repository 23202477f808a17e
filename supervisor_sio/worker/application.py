"""Imports the application that ``module:app`` names, and checks that a mode can serve it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from typing import Any, Iterator, Sequence

import socketio

from ..cluster import sessions
from ..common.clusters import section
from ..common.modes import ASYNC_MODES, ASYNCIO, EVENTLET, THREADING, AsyncMode
from .spec import Call, parse_spec

#: Usual names of an application in its module.
_USUAL_NAMES = ("app", "application")

#: Most nested applications to inspect.
_MOST_LAYERS = 256

#: Attributes with the wrapped application: of socketio.WSGIApp and Flask, then of
#: socketio.ASGIApp, and of most WSGI and ASGI middleware.
_INNER = ("wsgi_app", "other_asgi_app", "app", "application", "asgi_app")

#: Attributes with the server, of socketio.WSGIApp and socketio.ASGIApp.
_SERVER = ("engineio_app", "engineio_server")

#: Examples of applications, for error messages.
_WSGI = "socketio.WSGIApp, Flask, or what Django's get_wsgi_application() returns"
_ASGI = "socketio.ASGIApp, FastAPI, Starlette"


class ApplicationError(Exception):
    """The application cannot be served; the text is one line for the user.

    ``detail`` has the traceback if the application's own code failed.
    """

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


def load(spec: str, mode: AsyncMode = EVENTLET) -> Any:
    """Import ``module:app``, with the working directory first on the path.

    ``module:make()`` calls a factory, ``module:make("production")`` a factory with arguments.

    :raises ApplicationError: if there is no such application, or the mode cannot serve it.
    """
    try:
        named = parse_spec(spec)
    except ValueError as error:
        raise ApplicationError(str(error)) from None
    module_name, name_of_app = named.module, named.name
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        target = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            hint = ""
            if module_name.endswith(".py"):
                name = module_name[:-3].replace("/", ".")
                hint = f"; write {name}:{spec.partition(':')[2]}, without .py"
            raise ApplicationError(
                f"no module named {error.name!r} in {os.getcwd()} or on the Python path{hint}"
            ) from None
        raise _failed(f"importing {module_name!r}") from None
    except Exception:
        raise _failed(f"importing {module_name!r}") from None
    module = target
    for name in name_of_app.split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            hint = _other_name(module, name_of_app) if target is module else ""
            raise ApplicationError(f"module {module_name!r} has no {name_of_app!r}{hint}") from None
    if named.call is not None:
        target = _call(target, spec, named.call)
    check(target, spec, mode)
    return target


def _other_name(module: Any, name: str) -> str:
    """A hint at a similar name, for a name that the module does not have."""
    usual = [one for one in _USUAL_NAMES if callable(getattr(module, one, None))]
    known = [one for one in vars(module) if not one.startswith("_")]
    likely = [*difflib.get_close_matches(name, known, 1), *usual]
    return f"; did you mean {likely[0]!r}?" if likely else ""


def _call(factory: Any, spec: str, call: Call) -> Any:
    if not callable(factory):
        name = spec.partition("(")[0]
        raise ApplicationError(f"{name} is not callable, its type is {type(factory).__name__}")
    try:
        inspect.signature(factory).bind(*call.arguments, **call.options)
    except TypeError as error:
        if not call.arguments and not call.options:
            text = f"{spec} needs arguments, but is called without any"
            raise ApplicationError(text) from None
        raise ApplicationError(f"{spec} does not take these arguments: {error}") from None
    except ValueError:  # the factory has no signature
        pass
    try:
        return factory(*call.arguments, **call.options)
    except Exception:
        raise _failed(spec) from None


def check(app: Any, spec: str = "the application", mode: AsyncMode = EVENTLET) -> None:
    """Check that ``app`` is an application that the mode can serve.

    :raises ApplicationError: if it is not.
    """
    kind = type(app).__name__
    wanted = "ASGI" if mode is ASYNCIO else "WSGI"
    if not callable(app):
        hint = ""
        if _is_server(app):
            if app.is_asyncio_based() != (mode is ASYNCIO):
                _check_server(app, spec, mode)
            hint = f"; wrap it: app = socketio.{wanted}App(sio)"
        raise ApplicationError(f"{spec} is {_a(kind)}, not {_a(wanted)} application{hint}")
    found = _interface(app)
    if found == "ASGI" and mode is not ASYNCIO:
        raise ApplicationError(
            f"{spec} is an ASGI application ({kind}), which takes --async-mode asyncio; "
            f"{mode.name} serves WSGI: {_WSGI}"
        )
    if found != "ASGI" and _is_factory(app):
        raise ApplicationError(
            f"{spec} is a function that makes an application; write module:{app.__name__}()"
        )
    if found == "WSGI" and mode is ASYNCIO:
        raise ApplicationError(
            f"{spec} is a WSGI application ({kind}), which takes --async-mode {EVENTLET.name} or "
            f"{THREADING.name}; {mode.name} serves ASGI: {_ASGI}"
        )
    if not found:
        arguments = "scope, receive and send" if mode is ASYNCIO else "environ and start_response"
        raise ApplicationError(
            f"{spec} ({kind}) does not take {arguments} as {_a(wanted)} application does"
        )
    for layer in layers(app):
        server = server_of(layer)
        if server is not None:
            _check_server(server, spec, mode)


def mode_for(app: Any) -> AsyncMode:
    """The mode for an application, as far as it can be detected; eventlet by default."""
    servers = [server for server in map(server_of, layers(app)) if server is not None]
    servers = servers or sessions.servers()
    if _interface(app) == "ASGI" or any(server.is_asyncio_based() for server in servers):
        return ASYNCIO
    return THREADING if any(s.async_mode == THREADING.name for s in servers) else EVENTLET


def check_servers(mode: AsyncMode = EVENTLET) -> None:
    """Check that the mode can run all Socket.IO servers of this process.

    :raises ApplicationError: if it cannot.
    """
    for server in sessions.servers():
        _check_server(server, "the application", mode)
    _check_imported_once()


def check_manager(app: Any, spec: str = "the application") -> None:
    """Check that the workers of a cluster can share the application's clients.

    :raises ApplicationError: if it has Socket.IO servers, but none with one of our managers: a
        poll could reach a worker that does not have its session.
    """
    if sessions.servers():
        return
    for layer in layers(app):
        server = server_of(layer)
        if server is not None:
            fault, is_async = "has a Socket.IO server without", server.is_asyncio_based()
            raise ApplicationError(sessions.why_no_manager(spec, fault, is_async))


def check_path(app: Any, paths: Sequence[str]) -> None:
    """Check that the router recognizes requests for the application's Socket.IO server.

    :param paths: the option of ``[rpcinterface:sio]``.
    :raises ApplicationError: if it does not, so that sessions would not be sticky.
    """
    for layer in layers(app):
        path = getattr(layer, "engineio_path", None)
        # Compare the ends: some middleware removes the beginning of a path.
        if isinstance(path, str) and not any(known.endswith(path) for known in paths):
            raise ApplicationError(
                f"the application has its Socket.IO server at {path}, the router looks for "
                f"{', '.join(paths)}: set path = {path} in {section()}, restart supervisord"
            )


def layers(app: Any) -> Iterator[Any]:
    """The application and, as far as detectable, those that it wraps or mounts; each once."""
    seen = {id(app)}
    layers = [app]
    for layer in layers:  # the list grows during the loop
        yield layer
        for inner in _inside(layer):
            if id(inner) not in seen and len(layers) < _MOST_LAYERS:
                seen.add(id(inner))
                layers.append(inner)


def _inside(layer: Any) -> Iterator[Any]:
    for name in _INNER:
        inner = getattr(layer, name, None)
        if callable(inner):
            yield inner
    routes = getattr(layer, "routes", None)  # of Starlette and FastAPI
    if isinstance(routes, (list, tuple)):
        yield from (route for route in routes if hasattr(route, "app"))


def server_of(layer: Any) -> Any:
    """The Socket.IO server of a layer; ``None`` if it has none."""
    servers = (getattr(layer, name, None) for name in _SERVER)
    return next((server for server in servers if _is_server(server)), None)


def _is_server(one: Any) -> bool:
    return isinstance(one, (socketio.Server, socketio.AsyncServer))


def _check_server(server: Any, spec: str, mode: AsyncMode) -> None:
    """Check that the mode can run a Socket.IO server.

    :raises ApplicationError: if it cannot.
    """
    if server.is_asyncio_based() and mode is not ASYNCIO:
        raise ApplicationError(
            f"{spec} has {_a(type(server).__name__)}, which needs --async-mode asyncio; "
            f"{mode.name} runs a socketio.Server(async_mode={mode.name!r})"
        )
    if server.is_asyncio_based():
        return
    if mode is ASYNCIO:
        raise ApplicationError(
            f"{spec} has {_a(type(server).__name__)}, whose handlers would block the loop: use "
            "socketio.AsyncServer(client_manager=AsyncZmqManager()), or serve it as WSGI with "
            f"--async-mode {THREADING.name}"
        )
    if server.async_mode != mode.name:
        other = ASYNC_MODES.get(server.async_mode)
        hint = f", or write --async-mode {other.name}" if other else ""
        raise ApplicationError(
            f"{spec} has a Socket.IO server with async_mode={server.async_mode!r}: a worker with "
            f"--async-mode {mode.name} needs async_mode={mode.name!r}{hint}"
        )


def _check_imported_once() -> None:
    """Check that the main program is not also imported, which would create two servers.

    :raises ApplicationError: if it is.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if not path or len(sessions.servers()) < 2:
        return
    for name, module in list(sys.modules.items()):
        if module is not main and getattr(module, "__file__", None) == path:
            raise ApplicationError(
                f"{os.path.basename(path)} runs as the program and is also imported as module "
                f"{name!r}, so there are two Socket.IO servers; move sio to its own module, or "
                f"start it with: supervisor-sio worker {name}:app"
            )


def _interface(app: Any) -> str:
    """``ASGI``, ``WSGI``, ``any`` if both are possible, or empty if none is."""
    if _is_coroutine_function(app):
        return "ASGI"
    asgi, wsgi = _takes(app, 3), _takes(app, 2)
    if asgi and wsgi:
        return "any"
    return "ASGI" if asgi else "WSGI" if wsgi else ""


def _is_coroutine_function(call: Any) -> bool:
    if inspect.iscoroutinefunction(call):
        return True
    return callable(call) and inspect.iscoroutinefunction(type(call).__call__)


def _takes(call: Any, count: int) -> bool:
    """Whether ``call`` takes ``count`` positional arguments, as far as its signature shows."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'AEIO' else 'a'} {word}"


def _is_factory(call: Any) -> bool:
    if not inspect.isfunction(call) or not _takes(call, 0):
        return False
    kinds = [parameter.kind for parameter in inspect.signature(call).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL not in kinds  # *args: a decorated function


def _failed(what: str) -> ApplicationError:
    error = sys.exc_info()[1]
    assert error is not None
    text = " ".join(str(error).split())
    caller = _caller_of_ours(error)
    if caller:
        return ApplicationError(f"{what} failed at {caller}: {text}")
    return ApplicationError(
        f"{what} failed with {type(error).__name__}: {text}", traceback.format_exc()
    )


def _caller_of_ours(error: BaseException) -> str:
    """Where the application's call was that supervisor-sio has refused; empty for other errors.

    For such an error the text alone is enough, without a traceback.
    """
    frames = traceback.extract_tb(error.__traceback__)
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    libraries = os.path.dirname(os.path.abspath(socketio.__file__)) + os.sep
    if not frames or not frames[-1].filename.startswith(ours):
        return ""
    for frame in reversed(frames):
        if not frame.filename.startswith((ours, libraries)):
            return f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return ""
