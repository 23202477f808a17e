"""Who is there: the workers of the cluster, as the router tells them. Pure."""

from __future__ import annotations

from typing import Iterable, Iterator, Mapping, NamedTuple


class Gone(NamedTuple):
    """What a change of the members has ended."""

    #: The tags under which nobody sends any more.
    ended: list[str]
    #: Those of them, and aliases, under which nobody hears any more either.
    left: list[str]


class Members:
    """The workers that hear this one, by their tags.

    A worker may hear under several: its own, and those of others whose sessions it has adopted.
    Until that happens, the router hears under those. Such a tag is an *alias*: nobody sends
    under it any more.
    """

    def __init__(self) -> None:
        #: By tag, whether that worker is on another host.
        self._elsewhere: dict[str, bool] = {}
        self._aliases: frozenset[str] = frozenset()
        #: Whether a router has told them yet.
        self.known = False

    def set(self, members: Mapping[str, bool], aliases: Iterable[str] = ()) -> Gone:
        """:param aliases: those of the members that are no more than that."""
        before, living = self._elsewhere, set(self)
        self._elsewhere = dict(members)
        self._aliases = frozenset(aliases)
        self.known = True
        ended = [tag for tag in before if tag in living and tag not in self]
        return Gone(ended, [tag for tag in before if tag not in members])

    def __iter__(self) -> Iterator[str]:
        """Those that live."""
        return (tag for tag in self._elsewhere if tag not in self._aliases)

    def __contains__(self, tag: object) -> bool:
        """Whether a worker lives that sends under this tag."""
        return tag in self._elsewhere and tag not in self._aliases

    def hear(self, tag: str) -> bool:
        """Whether somebody hears under this tag."""
        return tag in self._elsewhere

    def has_others(self, tag: str) -> bool:
        """Whether somebody hears under another tag than this."""
        return any(other != tag for other in self._elsewhere)

    @property
    def senders(self) -> list[str]:
        """Those that live on this host."""
        return [tag for tag in self if not self._elsewhere[tag]]

    @property
    def receivers(self) -> list[str]:
        """The tags under which somebody on this host hears."""
        return [tag for tag, elsewhere in self._elsewhere.items() if not elsewhere]

    def is_local(self, tag: str) -> bool:
        """Whether somebody on this host hears under this tag."""
        return self._elsewhere.get(tag) is False

    def is_remote(self, tag: str) -> bool:
        return bool(self._elsewhere.get(tag))
