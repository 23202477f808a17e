"""Objects that each process of an application has itself, such as the application.

The environment of a client may refer to one. When another process takes the client over, the
reference is replaced by the object in the same place there: the place is a path of attributes and
indexes from the application. Since a deploy may change the place, the first object of the same
class is taken otherwise.
"""

from __future__ import annotations

from types import FunctionType, MethodType, ModuleType
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple, Union

from ..common.limits import OBJECTS_LOOKED_AT

#: A step of such a path: an attribute or a key, or an index.
Step = Union[str, int]

#: Most objects whose places are remembered: an application has a few.
_REMEMBERED = 32


class Place(NamedTuple):
    """Where an object is, as a path from the application, and its class."""

    kind: str
    steps: List[Step]


class OwnObjects:
    """The objects that can be reached from the application.

    :param application: as the worker has imported it.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        #: By the id of an object: the object, which keeps the id in use, and its place.
        self._known: dict[int, Tuple[Any, Optional[Place]]] = {}

    def place_of(self, wanted: Any) -> Optional[Place]:
        """Return the place of an object; ``None`` when it is not found."""
        known = self._known.get(id(wanted))
        if known is None:
            kind = _kind(wanted)
            found = (Place(kind, path) for path, value in self._walk() if value is wanted)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[id(wanted)] = wanted, next(found, None)
        return known[1]

    def at(self, place: Place) -> Any:
        """:raises ValueError: when the application has no such object."""
        value = self._application
        for step in place.steps:
            value = dict(_parts(value)).get(step)
        if value is not None and _kind(value) == place.kind:
            return value
        for _, value in self._walk():
            if _kind(value) == place.kind:
                return value
        raise ValueError(f"the application has no {place.kind}")

    def first(self, cls: type) -> Any:
        """The first object of a class, or ``None``."""
        return next((value for _, value in self._walk() if issubclass(type(value), cls)), None)

    def _walk(self) -> Iterator[Tuple[List[Step], Any]]:
        """All objects with their paths, the nearest first."""
        seen = {id(self._application)}
        level: List[Tuple[List[Step], Any]] = [([], self._application)]
        looked_at = 0
        while level:
            below: List[Tuple[List[Step], Any]] = []
            for path, value in level:
                yield path, value
                for step, part in _parts(value):
                    looked_at += 1
                    if looked_at > OBJECTS_LOOKED_AT:
                        return
                    if id(part) not in seen and not issubclass(type(part), _LEAVES):
                        seen.add(id(part))
                        below.append(([*path, step], part))
            level = below


#: Types whose objects lead to no object of the application.
_LEAVES = (str, bytes, int, float, type(None), type, ModuleType)


def _parts(value: Any) -> Iterator[Tuple[Step, Any]]:
    cls = type(value)  # isinstance() would make a proxy look up its object
    if issubclass(cls, (list, tuple)):
        yield from enumerate(value)
    elif cls is FunctionType:
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or ()):
            try:
                yield name, cell.cell_contents
            except ValueError:
                pass  # the variable has no value yet
    elif cls is MethodType:
        yield "__self__", value.__self__
    else:
        yield from _attributes(value)


def _attributes(value: Any) -> List[Tuple[str, Any]]:
    try:
        return list(object.__getattribute__(value, "__dict__").items())
    except AttributeError:
        return []


def _kind(value: Any) -> str:
    cls = type(value)
    return f"{cls.__module__}.{cls.__qualname__}"
