"""Which clients of a process something is for, while it adopts others or passes its own on.

The two streams that such a process hears are at different places: a message may be for its own
clients now, and for those it adopts later. Pure.
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
    """Clients by the tags in their session ids. Where one is optional, ``None`` stands for all.

    :param tags: of workers.
    :param only: whether it is those with these tags, or all others.
    :param name: of the worker in whose name a question about them is answered, if that is not
        this one.
    :param guests: by session id, the tags of those who hear the relay with others than their
        session ids say.
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
        """All but those with these tags."""
        return cls(tags, only=False, guests=guests) if tags else None

    @property
    def only(self) -> bool:
        """Whether it is those with its tags; else all others."""
        return self._only

    @property
    def as_list(self) -> List[Any]:
        """As :mod:`.journal_format` has it."""
        return [self._only, sorted(self._tags)]

    def __contains__(self, sid: str) -> bool:
        tag = self._guests.get(sid) if self._guests else None
        return ((tag or tag_of(sid)) in self._tags) is self._only

    def select(self, clients: List[Tuple[str, str]]) -> List[Tuple[str, str]]:
        """Those of these clients, by sid and Engine.IO sid."""
        return [client for client in clients if client[0] in self]


#: Whoever it is for gets it another way.
NOBODY = Scope((), only=True)


class Selection(Protocol):
    """What selects clients: a :class:`Scope`, or :class:`Sent`."""

    name: str

    def select(self, clients: List[Tuple[str, str]]) -> List[Tuple[str, str]]:
        """Those of these clients, by sid and Engine.IO sid."""


class Sent:
    """Whom something is for that this process has published: asked when clients are selected.

    A thread may do that long after it has published, and clients may have come meanwhile who get
    it another way.

    :param scope_of: tells it by the number of the message.
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
