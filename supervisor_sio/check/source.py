"""Find out about an application by parsing its module, without importing it."""

from __future__ import annotations

import ast
import os
import warnings
from collections import Counter
from typing import Iterator, NamedTuple, Optional, Sequence

from ..common.limits import SCRIPT_LENGTH
from .roles import head_of

#: Callables that make an application, by the last part of their name.
_INTERFACES = {
    "WSGIApp": "WSGI",
    "Flask": "WSGI",
    "get_wsgi_application": "WSGI",
    "ASGIApp": "ASGI",
    "FastAPI": "ASGI",
    "Starlette": "ASGI",
    "Quart": "ASGI",
    "get_asgi_application": "ASGI",
}

#: Classes of Socket.IO servers, and whether they are for asyncio.
_SERVERS = {
    "socketio.Server": False,
    "socketio.AsyncServer": True,
    "flask_socketio.SocketIO": False,
}

_MANAGERS = ("ZmqManager", "AsyncZmqManager")


class Server(NamedTuple):
    """A Socket.IO server. An argument is empty if it is not given, and ``None`` if its value cannot
    be determined."""

    maker: str
    is_async: bool
    async_mode: Optional[str]
    manager: Optional[str]


class Application(NamedTuple):
    """``interface`` is ``WSGI``, ``ASGI``, or empty when it cannot be determined."""

    interface: str
    maker: str
    servers: list[Server]
    #: Whether the module makes a manager with ``takeover=True``.
    takeover: bool = False
    #: The names that ``run_once()`` is given for more than one function of the module.
    repeated_tasks: Sequence[str] = ()


def look(directory: str, spec: str) -> Optional[Application]:
    """The application ``module:app`` below a directory, or ``None`` if it cannot be read."""
    module, _, name = spec.partition(":")
    path = os.path.join(directory, *module.split("."))
    text = head_of(f"{path}.py") or head_of(os.path.join(path, "__init__.py"))
    if len(text) == SCRIPT_LENGTH:
        return None  # the text may be cut
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its string literals
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    imported = dict(_imports(tree))
    maker = _maker(tree, name, imported)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    servers = [_server(call, imported) for call in calls]
    return Application(
        _INTERFACES.get(maker.rpartition(".")[2], ""),
        maker,
        [one for one in servers if one],
        any(_takes_over(call, imported) for call in calls),
        [name for (_, name), count in Counter(_tasks(tree)).items() if count > 1],
    )


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The imported names of the module, with their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _maker(tree: ast.Module, name: str, imported: dict[str, str]) -> str:
    """The callable that makes the application; empty unless exactly one statement assigns it."""
    made = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.Name, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and (
            isinstance(node.ctx, ast.Store) and node.id == name
            if isinstance(node, ast.Name)
            else node.name == name
        )
    ]
    if len(made) != 1:
        return ""
    for statement in tree.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(
            statement.value, ast.Call
        ):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if made[0] in targets:
                return _name(statement.value.func, imported)
    return ""


def _server(call: ast.Call, imported: dict[str, str]) -> Optional[Server]:
    maker = _name(call.func, imported)
    if maker not in _SERVERS:
        return None
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    not_given = None if None in given else ast.Constant("")  # **options may include it
    mode = given.get("async_mode", not_given)
    # The first argument of python-socketio's servers; SocketIO() may get it later, by init_app().
    may_follow = call.args if maker.startswith("socketio.") else not call.args
    manager = given.get("client_manager", None if may_follow else not_given)
    return Server(
        maker,
        _SERVERS[maker],
        mode.value if isinstance(mode, ast.Constant) and isinstance(mode.value, str) else None,
        _manager(manager, imported),
    )


def _manager(given: Optional[ast.expr], imported: dict[str, str]) -> Optional[str]:
    if isinstance(given, ast.Call):
        return _name(given.func, imported).rpartition(".")[2]
    return "" if isinstance(given, ast.Constant) else None


def _takes_over(call: ast.Call, imported: dict[str, str]) -> bool:
    if _name(call.func, imported).rpartition(".")[2] not in _MANAGERS:
        return False
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    value = given.get("takeover")
    return isinstance(value, ast.Constant) and bool(value.value)


def _tasks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The manager and the task of each function that is certainly given to ``run_once()``."""
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for one in statement.decorator_list:
                if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute):
                    name = one.args[0] if one.func.attr == "run_once" and one.args else None
                    if isinstance(name, ast.Constant) and isinstance(name.value, str):
                        yield ast.unparse(one.func.value), name.value


def _name(node: ast.expr, imported: dict[str, str]) -> str:
    """A dotted name, with imported names replaced by their full names."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    parts.append(imported.get(node.id, node.id))
    return ".".join(reversed(parts))
