"""Finding the WSGI application that ``module:app`` names."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from typing import Any, Iterator, Sequence

from ..cluster import sessions
from ..common.modes import ASYNC_MODES, ASYNCIO, EVENTLET, AsyncMode

#: What an application is called by most.
_USUAL_NAMES = ("app", "application")

#: Middleware within middleware that is looked through.
_MOST_LAYERS = 16


class ApplicationError(Exception):
    """The application cannot be served; the text is one line for a person.

    ``detail`` has the traceback when the application's own code failed.
    """

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


def load(spec: str, mode: AsyncMode = EVENTLET) -> Any:
    """Import ``module:app``; the working directory comes first on the path.

    ``module:make()`` calls a factory without arguments.

    :raises ApplicationError: when there is no such application, or the mode does not serve it.
    """
    module_name, colon, attribute = spec.partition(":")
    calls = attribute.endswith("()")
    name_of_app = attribute[:-2] if calls else attribute
    if not colon or not module_name or not name_of_app:
        raise ApplicationError(f"{spec!r} is not module:app, as in chat:app")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        target = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            hint = ""
            if module_name.endswith(".py"):
                name = module_name[:-3].replace("/", ".")
                hint = f"; write {name}:{attribute}, without .py"
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
    if calls:
        target = _call(target, spec)
    check(target, spec, mode)
    return target


def _other_name(module: Any, name: str) -> str:
    """What may be meant by a name that the module does not have."""
    usual = [one for one in _USUAL_NAMES if callable(getattr(module, one, None))]
    known = [one for one in vars(module) if not one.startswith("_")]
    likely = [*difflib.get_close_matches(name, known, 1), *usual]
    return f"; did you mean {likely[0]!r}?" if likely else ""


def _call(factory: Any, spec: str) -> Any:
    if not callable(factory):
        raise ApplicationError(f"{spec[:-2]} is a {type(factory).__name__}, it cannot be called")
    if not _takes(factory, 0):
        raise ApplicationError(f"{spec} is called without arguments, and needs some")
    try:
        return factory()
    except Exception:
        raise _failed(spec) from None


def check(app: Any, spec: str = "the application", mode: AsyncMode = EVENTLET) -> None:
    """:raises ApplicationError: for what is not an application that the mode serves."""
    kind = type(app).__name__
    gateway = "ASGI" if mode is ASYNCIO else "WSGI"
    if not callable(app):
        hint = ""
        if hasattr(app, "handle_request"):  # a server of python-socketio
            if _is_coroutine_function(app.handle_request) is not (mode is ASYNCIO):
                _check_server(app, spec, mode)
            hint = f"; wrap it: app = socketio.{gateway}App(sio)"
        article = "an" if mode is ASYNCIO else "a"
        raise ApplicationError(f"{spec} is a {kind}, not {article} {gateway} application{hint}")
    if _is_factory(app):
        raise ApplicationError(
            f"{spec} is a function that makes an application; write module:{app.__name__}()"
        )
    if mode is ASYNCIO:
        _check_asgi(app, spec)
    else:
        _check_wsgi(app, spec, mode)
    for layer in _layers(app):
        _check_server(_server_of(layer), spec, mode)


def mode_for(app: Any) -> AsyncMode:
    """The mode that serves an application, as far as that shows."""
    if is_asgi(app):
        return ASYNCIO
    servers = [_server_of(layer) for layer in _layers(app)]
    modes = [getattr(server, "async_mode", None) for server in servers]
    return next((ASYNC_MODES[mode] for mode in modes if mode in ASYNC_MODES), EVENTLET)


def is_asgi(app: Any) -> bool:
    """Whether it is called as an ASGI application, as far as its signature tells."""
    return _is_coroutine_function(app) or not (_takes(app, 2) or not _takes(app, 3))


def _check_wsgi(app: Any, spec: str, mode: AsyncMode) -> None:
    kind = type(app).__name__
    if is_asgi(app):
        raise ApplicationError(
            f"{spec} is an ASGI application ({kind}), a worker serves WSGI with --async-mode "
            f"{mode.name}: write --async-mode asyncio"
        )
    if not _takes(app, 2):
        raise ApplicationError(
            f"{spec} ({kind}) does not take environ and start_response as a WSGI application does"
        )


def _check_asgi(app: Any, spec: str) -> None:
    if is_asgi(app):
        return
    kind = type(app).__name__
    if _takes(app, 2):
        raise ApplicationError(
            f"{spec} is a WSGI application ({kind}), a worker serves ASGI with --async-mode "
            "asyncio: write --async-mode threading, or eventlet"
        )
    raise ApplicationError(
        f"{spec} ({kind}) does not take scope, receive and send as an ASGI application does"
    )


def _server_of(layer: Any) -> Any:
    """That of a WSGIApp, or of an ASGIApp."""
    return getattr(layer, "engineio_app", None) or getattr(layer, "engineio_server", None)


def check_servers(mode: AsyncMode = EVENTLET) -> None:
    """:raises ApplicationError: when the Socket.IO servers of this process cannot run in it."""
    for server in sessions.servers():
        _check_server(server, "the application", mode)
    _check_imported_once()


def check_manager(app: Any, spec: str = "the application") -> None:
    """Whether the workers of a cluster can share the clients of the application.

    :raises ApplicationError: when it has a Socket.IO server, and none with a ZmqManager: each
        poll of a client could come to a worker that does not know its session.
    """
    if sessions.servers():
        return
    for layer in _layers(app):
        if hasattr(_server_of(layer), "manager"):
            fault = "has a Socket.IO server without ZmqManager"
            raise ApplicationError(sessions.why_no_manager(spec, fault))


def check_path(app: Any, paths: Sequence[str]) -> None:
    """Whether requests for the application's Socket.IO server are known as such.

    :param paths: of ``[rpcinterface:sio]``.
    :raises ApplicationError: when no handshake would find its worker again.
    """
    for layer in _layers(app):
        path = getattr(layer, "engineio_path", None)
        # Some middleware takes away the first part of a path.
        if isinstance(path, str) and not any(known.endswith(path) for known in paths):
            raise ApplicationError(
                f"the application has its Socket.IO server at {path}, the router looks for "
                f"{', '.join(paths)}: set path = {path} in [rpcinterface:sio], restart supervisord"
            )


def _layers(app: Any) -> Iterator[Any]:
    """The application, and what it wraps, as far as that shows.

    The names are those of socketio.WSGIApp and Flask, and of most middleware.
    """
    for _ in range(_MOST_LAYERS):
        yield app
        inner = [getattr(app, name, None) for name in ("wsgi_app", "app", "application")]
        app = next((one for one in inner if callable(one)), None)
        if app is None:
            return


def _check_server(server: Any, spec: str, mode: AsyncMode) -> None:
    """:raises ApplicationError: for a Socket.IO server that cannot run in this worker."""
    if server is None:
        return
    kind, its_mode = type(server).__name__, getattr(server, "async_mode", mode.name)
    is_async = _is_coroutine_function(getattr(server, "handle_request", None))
    if is_async and mode is not ASYNCIO:
        raise ApplicationError(
            f"{spec} has a {kind}, for asyncio: write --async-mode asyncio, or use "
            f"socketio.Server(async_mode={mode.name!r})"
        )
    if mode is ASYNCIO and not is_async:
        raise ApplicationError(
            f"{spec} has a {kind} with async_mode={its_mode!r}: --async-mode asyncio runs "
            "socketio.AsyncServer"
        )
    if not is_async and its_mode != mode.name:
        other = f"write --async-mode {its_mode}, or " if its_mode in ASYNC_MODES else ""
        raise ApplicationError(
            f"{spec} has a Socket.IO server with async_mode={its_mode!r}: {other}"
            f"set async_mode={mode.name!r}"
        )


def _check_imported_once() -> None:
    """A program that is imported by its name as well has two servers, each with its clients."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if not path or len(sessions.servers()) < 2:
        return
    for name, module in list(sys.modules.items()):
        if module is not main and getattr(module, "__file__", None) == path:
            raise ApplicationError(
                f"{os.path.basename(path)} is the program, and is imported as module {name!r} as "
                "well: there are two Socket.IO servers; put sio into a module of its own, or "
                f"start it with: supervisor-sio worker {name}:app"
            )


def _is_coroutine_function(call: Any) -> bool:
    if inspect.iscoroutinefunction(call):
        return True
    return callable(call) and inspect.iscoroutinefunction(type(call).__call__)


def _takes(call: Any, count: int) -> bool:
    """Whether it can be called with so many arguments, as far as its signature tells."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _is_factory(call: Any) -> bool:
    if not inspect.isfunction(call) or not _takes(call, 0):
        return False
    kinds = [parameter.kind for parameter in inspect.signature(call).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL not in kinds  # as a decorator's function has


def _failed(what: str) -> ApplicationError:
    error = sys.exc_info()[1]
    text = " ".join(str(error).split())
    return ApplicationError(
        f"{what} failed with {type(error).__name__}: {text}", traceback.format_exc()
    )
