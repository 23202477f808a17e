"""Finding the WSGI application that ``module:app`` names."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any


class ApplicationError(Exception):
    """The application cannot be served; the text is one line for a person.

    ``detail`` has the traceback when the application's own code failed.
    """

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


def load(spec: str) -> Any:
    """Import ``module:app``; the working directory comes first on the path.

    :raises ApplicationError: when there is no such application.
    """
    module_name, colon, attribute = spec.partition(":")
    if not colon or not module_name or not attribute:
        raise ApplicationError(f"{spec!r} is not module:app, as in chat:app")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        target = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ApplicationError(
                f"no module named {error.name!r} in {os.getcwd()} or on the Python path"
            ) from None
        raise _failed(module_name) from None
    except Exception:
        raise _failed(module_name) from None
    for name in attribute.split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            raise ApplicationError(f"module {module_name!r} has no {attribute!r}") from None
    check(target, spec)
    return target


def check(app: Any, spec: str = "the application") -> None:
    """:raises ApplicationError: for what is not a WSGI application."""
    if not callable(app):
        hint = ""
        if hasattr(app, "handle_request"):  # a socketio.Server
            hint = "; wrap it: app = socketio.WSGIApp(sio)"
        raise ApplicationError(f"{spec} is a {type(app).__name__}, not a WSGI application{hint}")


def _failed(module_name: str) -> ApplicationError:
    error = sys.exc_info()[1]
    return ApplicationError(
        f"importing {module_name!r} failed with {type(error).__name__}: {error}",
        traceback.format_exc(),
    )
