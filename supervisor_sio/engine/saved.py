"""Read a state that was saved as JSON, checking every field.

The state may come from another release, or have been edited by hand: a wrong field raises
an error that names it, such as ``session: queue[3] is not a text``.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Iterator
from enum import Enum
from typing import Any, TypeVar, Union

Choice = TypeVar("Choice", bound=Enum)

Key = Union[str, int]


def as_text(data: bytes) -> str:
    """Bytes as base64 text, for JSON."""
    return binascii.b2a_base64(data, newline=False).decode()


class Saved:
    """The fields of a JSON object, or the items of a JSON list.

    :param name: what the state belongs to; error messages begin with it.
    :raises ValueError: if ``value`` is neither. All methods raise it for a wrong field.
    """

    __slots__ = ("_value", "_name")

    def __init__(self, value: Any, name: str) -> None:
        if not isinstance(value, (dict, list)):
            raise ValueError(f"{name} is not an object")
        self._value: Any = value
        self._name = name

    def _get(self, key: Key, kind: Any, what: str) -> Any:
        try:
            value = self._value[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"{self._path(key)} is missing") from None
        # In Python True is an int; in a saved state it is not.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, what)
        return value

    def _path(self, key: Key) -> str:
        if isinstance(key, int):
            return f"{self._name}[{key}]"
        return f"{self._name}{'.' if ': ' in self._name else ': '}{key}"

    def wrong(self, key: Key, what: str) -> ValueError:
        """The error for a field.

        :param what: what the field should have been.
        """
        return ValueError(f"{self._path(key)} is not {what}")

    def is_none(self, key: Key) -> bool:
        """Whether the field is present, and is ``null``."""
        try:
            return self._value[key] is None
        except (KeyError, IndexError, TypeError):
            return False

    def text(self, key: Key) -> str:
        value: str = self._get(key, str, "a text")
        return value

    def flag(self, key: Key) -> bool:
        value: bool = self._get(key, bool, "true or false")
        return value

    def integer(self, key: Key) -> int:
        value: int = self._get(key, int, "an integer")
        return value

    def seconds(self, key: Key) -> float:
        value: float = self._get(key, (int, float), "a number of seconds")
        try:
            if math.isfinite(value):
                return value
        except OverflowError:  # an integer
            pass
        raise self.wrong(key, "a number of seconds")

    def data(self, key: Key, skip: int = 0) -> bytes:
        """The bytes that were given to :func:`as_text`.

        :param skip: number of characters in front of the base64 text.
        """
        try:
            return binascii.a2b_base64(self.text(key)[skip:].encode("ascii"))
        except ValueError:
            raise self.wrong(key, "base64") from None

    def choice(self, key: Key, choices: type[Choice]) -> Choice:
        try:
            return choices(self.text(key))
        except ValueError:
            names = ", ".join(str(choice.value) for choice in choices)
            raise self.wrong(key, f"one of {names}") from None

    def object(self, key: Key) -> Saved:
        return Saved(self._get(key, dict, "an object"), self._path(key))

    def items(self, key: str) -> Iterator[Saved]:
        """The items of a list of lists."""
        items = self.list(key)
        for index in range(len(items)):
            yield Saved(items._get(index, list, "a list"), items._path(index))

    def objects(self, key: str) -> Iterator[Saved]:
        """The items of a list of objects."""
        items = self.list(key)
        return (items.object(index) for index in range(len(items)))

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Field names, or item indexes, each with its value."""
        items = self._value
        return iter(items.items() if isinstance(items, dict) else enumerate(items))

    def list(self, key: Key) -> Saved:
        return Saved(self._get(key, list, "a list"), self._path(key))

    def __len__(self) -> int:
        return len(self._value)
