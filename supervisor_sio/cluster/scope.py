"""Which clients of a process something is for, while it adopts others or passes its own on.

The two streams that such a process hears are at different places: a message may be for its own
clients now, and for those it adopts later. Pure.
"""

from __future__ import annotations

from typing import Collection, Iterable, List, Optional, Tuple

from ..common.request import tag_of


class Scope:
    """Clients by the tags in their session ids. Where one is optional, ``None`` stands for all.

    :param tags: of workers.
    :param only: whether it is those with these tags, or all others.
    :param name: of the worker in whose name a question about them is answered, if that is not
        this one.
    """

    __slots__ = ("_tags", "_only", "name")

    def __init__(self, tags: Iterable[str], only: bool, name: str = "") -> None:
        self._tags = frozenset(tags)
        self._only = only
        self.name = name

    @classmethod
    def without(cls, tags: Collection[str]) -> Optional[Scope]:
        """All but those with these tags."""
        return cls(tags, only=False) if tags else None

    def __contains__(self, sid: str) -> bool:
        return (tag_of(sid) in self._tags) is self._only

    def select(self, clients: Iterable[Tuple[str, str]]) -> List[Tuple[str, str]]:
        """Those of these clients, by sid and Engine.IO sid."""
        return [client for client in clients if client[0] in self]


#: Whoever it is for gets it another way.
NOBODY = Scope((), only=True)
