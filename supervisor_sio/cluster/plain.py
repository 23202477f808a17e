"""Data of an application as JSON, written such that reading gives exactly the same. Pure.

JSON turns a tuple into a list, and a key that is a number into a string: those are written with a
mark. What would be read as another type, such as a ``datetime`` or a subclass of ``dict``, is
refused, and the error says where it is in the data.
"""

from __future__ import annotations

import math
from typing import Any, Optional

from ..common.limits import PLAIN_DEPTH

#: The only key of an object that stands for another type; its value has the content.
_TUPLE = "\0tuple"
_BYTES = "\0bytes"
#: A dictionary with a key that is not a ``str``, or begins like these marks.
_PAIRS = "\0pairs"

_AS_THEY_ARE = (str, bool, type(None))

#: Python converts no integer with more than 4,300 digits to a string.
_MOST_BITS = 10_000

_TOO_DEEP = "nested too deeply, or in itself"

_LONGEST_PATH = 200

#: Characters that an object counts beside its text.
_OBJECT = 8


class NotPlain(ValueError):
    """A value that cannot be written.

    :param path: its place in the data, such as ``user.tags[2]``.
    :param what: what it is.
    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} is {what}")
        self.path = path
        self.what = what


class TooLong(ValueError):
    """The data have more characters than allowed."""


class Writer:
    """Writes values that share one limit.

    :param most: characters that all of them may have.
    """

    def __init__(self, most: float = math.inf) -> None:
        self._left = most
        self._binary = False

    def write_binary(self, value: Any, path: str = "") -> Any:
        """As :meth:`write`, but with ``bytes`` allowed."""
        self._binary = True
        try:
            return self.write(value, path)
        finally:
            self._binary = False

    def write_text(self, value: str, path: str) -> str:
        """As :meth:`write`, for a ``str``."""
        self._left -= _OBJECT + len(value)
        if self._left < 0:
            raise TooLong(f"too long at {path}")
        return value

    def write_key(self, key: Any, path: str) -> str:
        """As :meth:`write_text`, for a key.

        :raises NotPlain: when it is not a ``str``.
        """
        if key.__class__ is not str:
            raise NotPlain(f"a key of {path}", _describe(key, key.__class__))
        return self.write_text(key, path)

    def write(self, value: Any, path: str = "") -> Any:
        """Return the value as JSON takes it, for :func:`read`.

        :param path: the name of the value, for errors.
        :raises NotPlain: for a value that cannot be written.
        :raises TooLong: when there are too many characters.
        """
        try:
            return self._write(value, path, PLAIN_DEPTH)
        except RecursionError:
            raise NotPlain(_short(path), _TOO_DEEP) from None

    def _write(self, value: Any, path: str, depth: int) -> Any:
        """
        :param depth: levels that may be below the value.
        """
        kind = value.__class__
        self._left -= _OBJECT + (len(value) if kind in (str, bytes) else 0)
        if self._left < 0:
            raise TooLong(f"too long at {_short(path)}")
        if kind in _AS_THEY_ARE or (kind is float and math.isfinite(value)):
            return value
        if kind is int and value.bit_length() <= _MOST_BITS:
            return value
        if kind is list:
            return self._write_all(value, path, depth)
        if kind is dict:
            return self._write_dict(value, path, depth)
        if kind is tuple:
            return {_TUPLE: self._write_all(value, path, depth)}
        if kind is bytes and self._binary:
            return {_BYTES: value.decode("latin-1")}
        raise NotPlain(_short(path), _describe(value, kind))

    def _write_all(self, values: Any, path: str, depth: int) -> list[Any]:
        below = _below(path, depth)
        return [self._write(item, f"{path}[{index}]", below) for index, item in enumerate(values)]

    def _write_dict(self, value: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
        below = _below(path, depth)
        if all(key.__class__ is str and key[:1] != "\0" for key in value):
            self._left -= sum(map(len, value))
            return {key: self._write(item, _join(path, key), below) for key, item in value.items()}
        pairs = [
            [
                self._write(key, f"a key of {path}", below),
                self._write(item, _join(path, key), below),
            ]
            for key, item in value.items()
        ]
        return {_PAIRS: pairs}


def _describe(value: Any, kind: type) -> str:
    if kind is float:
        return str(value)
    return "too large" if kind is int else f"of type {kind.__qualname__}"


def _below(path: str, depth: int) -> int:
    """Levels that may be below the items of the value at ``path``."""
    if not depth:
        raise NotPlain(_short(path), _TOO_DEEP)
    return depth - 1


def _join(path: str, key: Any) -> str:
    return f"{path}.{key!s:.80}" if path else f"{key!s:.80}"


def _short(path: str) -> str:
    """A path for a line in a log: clients may have chosen the keys."""
    shown = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def read(value: Any) -> Any:
    """Return the value that was written.

    :raises ValueError: when it is not from a :class:`Writer`.
    """
    if value.__class__ is list:
        return [read(item) for item in value]
    if value.__class__ is not dict:
        return value
    kind = _mark(value)
    if kind is None:
        return {key: read(item) for key, item in value.items()}
    content = value[kind]
    try:
        if kind == _TUPLE:
            return tuple(map(read, _checked(content, list)))
        if kind == _BYTES:
            return _checked(content, str).encode("latin-1")
        return {read(key): read(item) for key, item in _checked(content, list)}
    except (TypeError, ValueError) as error:
        raise ValueError(f"not what was written: {error}") from None


def _mark(value: dict[str, Any]) -> Optional[str]:
    for kind in (_TUPLE, _BYTES, _PAIRS):
        if kind in value:
            return kind
    return None


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.80}")
    return value
