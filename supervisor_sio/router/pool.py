"""The workers that a router knows, and the choice of a worker for the next connection. Pure.

A worker counts as *ready* from its ``ready`` message until it drains, is being stopped, or its
channel closes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import AbstractSet, Iterator, Mapping, Optional, Sequence

from ..common.balance import METHODS, least_connection, round_robin
from ..common.event_figures import EventRow
from ..common.figures import Figure, Source


@dataclass
class Member:
    """One worker process, for as long as its channel is open."""

    tag: str
    name: str
    pid: int
    #: The version of supervisor-sio that it runs.
    release: str = ""
    ready: bool = False
    draining: bool = False
    #: Drained by the operator: it gets no new sessions. The worker itself is not told.
    drained: bool = False
    #: Since when, by the host's monotonic clock; 0 if a router before this one drained it.
    drained_at: float = 0.0
    #: It no longer reports: a handler blocks its loop, or its process is stopped.
    hung: bool = False
    #: Seconds without a report, while it hangs.
    silent: int = 0
    #: Its channel is full until it reads.
    busy: bool = False
    #: The figures of its last report, by name; each report replaces the mapping.
    figures: Mapping[str, int] = field(default_factory=dict)
    #: The figures of its clients' events, with ``event_metrics``.
    events: Sequence[EventRow] = ()
    #: Channels of the relay in which it receives; none before it is ready.
    channels: list[str] = field(default_factory=list)
    #: The format of the sessions that it adopts; 0 when it adopts none.
    takes: int = 0
    #: The format of the journals that it inherits; 0 when it has no recovery.
    recovers: int = 0
    #: Tags of earlier workers whose sessions it has adopted.
    adopted: list[str] = field(default_factory=list)
    #: When it last reported, by the loop's clock.
    reported_at: float = 0.0
    #: Handshakes handed over.
    handshakes: int = 0

    def hangs(self, silent: float) -> None:
        """Note that it has not reported for so many seconds."""
        self.hung, self.silent = True, int(silent)

    def is_back(self) -> None:
        """Note that it has reported again."""
        self.hung, self.silent = False, 0

    @property
    def load(self) -> int:
        """The number of sessions, with those in transit to the worker."""
        get = self.figures.get
        coming = self.handshakes - get("handshakes_seen", 0)
        return get("sessions", 0) + (coming if coming > 0 else 0)

    def count(self, figure: Figure) -> int:
        """The value of a figure that the worker has reported, or the router has counted."""
        if figure.source is Source.ROUTER:
            count: int = getattr(self, figure.name)
            return count
        return self.figures.get(figure.name, 0)

    @property
    def tags(self) -> list[str]:
        """The tags in the ids of its sessions."""
        return [self.tag, *self.adopted]

    @property
    def eligible(self) -> bool:
        return self.ready and not (self.draining or self.drained or self.hung)

    @property
    def reachable(self) -> bool:
        """Whether a connection can be passed to it now."""
        return self.ready and not (self.hung or self.busy)

    @property
    def state(self) -> str:
        if self.draining:
            return "draining"
        if self.drained:
            return "drained"
        if self.hung:
            return "hung"
        return "ready" if self.ready else "starting"


@dataclass
class Pool:
    """All workers with an open channel, by their tags."""

    method: str
    #: Whether new sessions go to the worker that has the fewest, whatever the method is.
    evens_out: bool = False
    #: The tags of sessions that the router holds, so that no worker has them.
    held: set[str] = field(default_factory=set)
    #: By the tags of held sessions that a worker is passing on: that worker.
    givers: dict[str, Member] = field(default_factory=dict)
    _members: dict[str, Member] = field(default_factory=dict)
    #: Members by their adopted tags.
    _adopters: dict[str, Member] = field(default_factory=dict)
    _turn: int = 0
    _plain_turn: int = 0

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def add(self, member: Member) -> None:
        self._members[member.tag] = member

    def remove(self, member: Member) -> None:
        if self._members.get(member.tag) is member:
            del self._members[member.tag]
        self.adopted(member, [])

    def adopted(self, member: Member, tags: list[str]) -> None:
        """Set the adopted tags of a worker."""
        for tag in member.adopted:
            if self._adopters.get(tag) is member:
                del self._adopters[tag]
        member.adopted = tags
        self._adopters.update(dict.fromkeys(tags, member))

    def owner(self, tag: str) -> Optional[Member]:
        """The worker that has the sessions with this tag, if it is connected and ready."""
        if tag in self.held:
            return None
        member = self._members.get(tag) or self._adopters.get(tag)
        return member if member is not None and member.ready else None

    def giver(self, tag: str, refused_by: str) -> Optional[Member]:
        """The worker that is passing on the sessions with this tag: it still has those with a
        running handler, which may wait for an acknowledgement.

        :param refused_by: the tag of the worker that has handed the request back: then the session
            has left.
        """
        member = self.givers.get(tag)
        if member is None or member.tag == refused_by or not member.ready:
            return None
        return member if self._members.get(member.tag) is member else None

    def knows(self, tag: str) -> bool:
        """Whether a connected worker has this tag; it may not be ready yet."""
        return tag in self._members or tag in self._adopters

    def named(self, name: str) -> list[Member]:
        """The workers with this Supervisor name; more than one only during a restart."""
        return [member for member in self if member.name == name]

    def _placeable(self) -> list[Member]:
        return [member for member in self._members.values() if not member.busy and member.eligible]

    @property
    def eligible(self) -> list[str]:
        """The tags of workers that take new sessions, now or when their channel has room."""
        return [member.tag for member in self._members.values() if member.eligible]

    def place_handshake(self, among: Optional[AbstractSet[str]] = None) -> Optional[Member]:
        """Choose the worker for a new session by the option ``balance``; ``None`` if none is free.

        :param among: choose among workers with these tags; ``None`` for all.
        """
        members = self._placeable()
        if among is not None:
            members = [member for member in members if member.tag in among]
        if not members:
            return None
        self._turn += 1
        choose = least_connection if self.evens_out else METHODS[self.method]
        chosen: Member = choose(members, self._turn)
        return chosen

    def place_plain(self) -> Optional[Member]:
        """Choose the worker for a connection that opens no session: each worker in turn."""
        members = self._placeable()
        if not members:
            return None
        self._plain_turn += 1
        return round_robin(members, self._plain_turn)
