"""The workers of the cluster, as the router lists them. Pure."""

from __future__ import annotations

from typing import Iterable, Iterator, Mapping, NamedTuple


class Gone(NamedTuple):
    """The tags that a change of the list has ended."""

    #: Tags under which no process sends any more.
    ended: list[str]
    #: Tags, and aliases, under which no process receives any more.
    left: list[str]


class Members:
    """The workers that receive what this process sends, by their tags.

    A worker may receive under several tags: its own, and those of workers whose sessions it has
    adopted. Until the sessions are adopted, the router receives under those tags. Such a tag is an
    *alias*: no process sends under it any more.
    """

    def __init__(self) -> None:
        #: By tag, whether that worker is on another host.
        self._elsewhere: dict[str, bool] = {}
        self._aliases: frozenset[str] = frozenset()
        #: Whether a router has sent the list yet.
        self.known = False

    def set(self, members: Mapping[str, bool], aliases: Iterable[str] = ()) -> Gone:
        """:param aliases: those of the members that are aliases only."""
        before, living = self._elsewhere, set(self)
        self._elsewhere = dict(members)
        self._aliases = frozenset(aliases)
        self.known = True
        ended = [tag for tag in before if tag in living and tag not in self]
        return Gone(ended, [tag for tag in before if tag not in members])

    def __iter__(self) -> Iterator[str]:
        """The tags of living workers, without aliases."""
        return (tag for tag in self._elsewhere if tag not in self._aliases)

    def __contains__(self, tag: object) -> bool:
        """Whether a living worker sends under this tag."""
        return tag in self._elsewhere and tag not in self._aliases

    def receives(self, tag: str) -> bool:
        """Whether a process receives under this tag."""
        return tag in self._elsewhere

    def has_others(self, tag: str) -> bool:
        """Whether a process receives under any other tag."""
        return any(other != tag for other in self._elsewhere)

    @property
    def senders(self) -> list[str]:
        """The living workers on this host."""
        return [tag for tag in self if not self._elsewhere[tag]]

    @property
    def receivers(self) -> list[str]:
        """The tags under which a process on this host receives."""
        return [tag for tag, elsewhere in self._elsewhere.items() if not elsewhere]

    def is_local(self, tag: str) -> bool:
        """Whether a process on this host receives under this tag."""
        return self._elsewhere.get(tag) is False

    def is_remote(self, tag: str) -> bool:
        return bool(self._elsewhere.get(tag))
