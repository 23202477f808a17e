"""Who is there: the workers of the cluster, as the router tells them. Pure."""

from __future__ import annotations

from typing import Iterator, Mapping


class Members:
    """The workers that hear this one, by their tags."""

    def __init__(self) -> None:
        #: By tag, whether that worker is on another host.
        self._elsewhere: dict[str, bool] = {}
        #: Whether a router has told them yet.
        self.known = False

    def set(self, members: Mapping[str, bool]) -> list[str]:
        """:return: those that have left."""
        left = [tag for tag in self._elsewhere if tag not in members]
        self._elsewhere = dict(members)
        self.known = True
        return left

    def __iter__(self) -> Iterator[str]:
        return iter(self._elsewhere)

    def __contains__(self, tag: object) -> bool:
        return tag in self._elsewhere

    def is_local(self, tag: str) -> bool:
        """Whether this is a living worker of this host."""
        return self._elsewhere.get(tag) is False

    def is_remote(self, tag: str) -> bool:
        return bool(self._elsewhere.get(tag))
