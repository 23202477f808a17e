"""Which clients of a process a message is for, while the process adopts or passes on clients.

Such a process receives two streams that are at different places: a message may be for its own
clients now, and for the adopted ones later. Pure.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import (
    Any,
    Callable,
    Collection,
    Iterable,
    List,
    Mapping,
    Optional,
    Protocol,
    Tuple,
)

from ..common.request import tag_of

_NO_ONE: Mapping[str, str] = MappingProxyType({})


class Scope:
    """A set of clients, by the tags in their session ids. An optional scope that is ``None`` has
    all clients.

    :param tags: of workers.
    :param only: whether the set has the clients with these tags, or all others.
    :param name: the worker in whose name questions about these clients are answered; empty for this
        one.
    :param guests: by session id, the tag as which a guest receives the relay: not the one in its
        session id.
    """

    __slots__ = ("_tags", "_only", "_guests", "name")

    def __init__(
        self, tags: Iterable[str], only: bool, name: str = "", guests: Mapping[str, str] = _NO_ONE
    ) -> None:
        self._tags = frozenset(tags)
        self._only = only
        self._guests = guests
        self.name = name

    @classmethod
    def without(cls, tags: Collection[str], guests: Mapping[str, str] = _NO_ONE) -> Optional[Scope]:
        """All clients but those with these tags."""
        return cls(tags, only=False, guests=guests) if tags else None

    @property
    def only(self) -> bool:
        """Whether the set has the clients with its tags; else it has all others."""
        return self._only

    @property
    def as_list(self) -> List[Any]:
        """The scope in the form of :mod:`.journal_format`."""
        return [self._only, sorted(self._tags)]

    def __contains__(self, sid: str) -> bool:
        tag = self._guests.get(sid) if self._guests else None
        return ((tag or tag_of(sid)) in self._tags) is self._only

    def select(self, clients: List[Tuple[str, str]]) -> List[Tuple[str, str]]:
        """Those of these clients that are in the set: pairs of sid and Engine.IO sid."""
        return [client for client in clients if client[0] in self]


#: No client here: those that the message is for receive it another way.
NOBODY = Scope((), only=True)


class Selection(Protocol):
    """Selects clients: a :class:`Scope`, or :class:`Sent`."""

    name: str

    def select(self, clients: List[Tuple[str, str]]) -> List[Tuple[str, str]]:
        """Those of these clients that are selected: pairs of sid and Engine.IO sid."""


class Sent:
    """The clients that a message published by this process is for, as of when they are selected.

    A thread may select them long after it has published; meanwhile clients may have arrived that
    receive the message another way.

    :param scope_of: returns the scope, by the number of the message.
    """

    __slots__ = ("_scope_of", "_number", "name")

    def __init__(
        self, scope_of: Callable[[Optional[int]], Optional[Scope]], number: Optional[int]
    ) -> None:
        self._scope_of = scope_of
        self._number = number
        self.name = ""

    def select(self, clients: List[Tuple[str, str]]) -> List[Tuple[str, str]]:
        scope = self._scope_of(self._number)
        return clients if scope is None else scope.select(clients)
