"""Parses an application's name: ``module:app``, or ``module:create_app("production")``."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Call:
    """The arguments for a factory."""

    arguments: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    module: str
    #: The name in the module; attributes are separated by dots.
    name: str
    #: The arguments if ``name`` is a factory; ``None`` if it is the application.
    call: Optional[Call] = None


def parse_spec(text: str) -> Spec:
    """:raises ValueError: if the text has neither form; the error says why."""
    module, _, name = text.partition(":")
    name, parenthesis, rest = name.partition("(")
    if not module or not name:
        raise ValueError(f"{text!r} is not module:app, for example chat:app")
    return Spec(module, name, _parse_call(text, f"({rest}") if parenthesis else None)


def _parse_call(text: str, arguments: str) -> Call:
    try:
        call = ast.parse(f"f{arguments}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        options = {each.arg or "": ast.literal_eval(each.value) for each in call.keywords}
        if "" in options or len(options) < len(call.keywords):
            raise ValueError
        return Call([ast.literal_eval(each) for each in call.args], options)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(
            f"{text!r}: a factory's arguments must be literals, for example "
            "'chat:create_app(\"production\")'; in supervisord.conf, include the outer quotes"
        ) from None
