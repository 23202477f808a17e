"""The sessions of one worker that are held, as :mod:`.held` has them, and its journals. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain
from typing import Callable, Iterable, Iterator, Optional, Protocol, Sequence

from ..common import channel, recovery, takeover
from ..common.channel import ChannelError, Message
from ..common.limits import JOURNAL_TIME, TAKEOVER_TAGS
from .carrier import Carrier
from .journals import Journal
from .pool import Member

#: Takes a memory file with what was heard.
Keep = Callable[[int], None]


class Listener(Protocol):
    """Who listens to a channel of the relay in the place of a worker that has ended."""

    def stop(self) -> int:
        """What it knows, as a memory file; may block for a moment."""


class State(Enum):
    PASSING = auto()
    WAITING = auto()
    OFFERED = auto()


@dataclass
class Channel:
    """The place of a worker in the streams of a channel of the relay."""

    #: As it came: a memory file.
    position: int
    listener: Optional[Listener] = None
    #: What the listener knew when it stopped, or when others last relied on what it had heard;
    #: the same, with what it heard. The later one of both is on the shelf.
    dump: int = -1

    @property
    def latest(self) -> int:
        return self.dump if self.dump >= 0 else self.position


@dataclass
class Batch:
    tag: str
    sessions: int
    #: A memory file, and the connections.
    descriptors: list[int]


@dataclass
class Packet:
    """Of what a worker is sent that is asked to adopt."""

    data: bytes
    descriptors: Sequence[int] = ()
    #: It says when it has it.
    counts: bool = False


@dataclass(eq=False)
class Group:
    id: int
    #: Of the worker's process, as Supervisor has it.
    name: str
    tags: list[str]
    #: Of the sessions; 0 when none have been announced.
    format: int
    #: When others may adopt it, too; seconds of the host's monotonic clock, as all here.
    deadline: float
    #: The others need not wait: no process of that name will come for it.
    alone: bool
    #: Nobody is asked before.
    not_before: float = 0.0
    state: State = State.PASSING
    channels: dict[str, Channel] = field(default_factory=dict)
    batches: dict[int, Batch] = field(default_factory=dict)
    #: What the worker has left, if it had recovery: its own, and those that it had inherited.
    journals: list[Journal] = field(default_factory=list)
    #: The worker that passes it on, while it does.
    giver: Optional[Carrier] = None
    #: The worker that is asked now.
    taker: Optional[Carrier] = None
    #: Tags of those that were.
    asked: set[str] = field(default_factory=set)
    #: Tags of those of them that were told to forget it.
    off: set[str] = field(default_factory=set)
    #: What the taker is sent, how much it has been sent, how many batches it has still to take,
    #: and until when it has to do the next step.
    packets: list[Packet] = field(default_factory=list)
    sent: int = 0
    on_the_way: int = 0
    until: float = 0.0

    @property
    def sessions(self) -> int:
        return sum(batch.sessions for batch in self.batches.values())

    @property
    def next_batch(self) -> int:
        return max(self.batches, default=-1) + 1

    @property
    def descriptors(self) -> int:
        """How many it has."""
        beside = [batch.descriptors for batch in self.batches.values()]
        beside += [journal.descriptors for journal in self.journals]
        return sum(map(len, beside)) + len(self.channels)

    @property
    def recovers(self) -> int:
        """The format of the journals; 0 when there are none."""
        return self.journals[0].format if self.journals else 0

    @property
    def journals_until(self) -> float:
        """When they are of no use any more."""
        times = ((j.died, j.recovery) for j in self.journals)
        return max((d + max(r, JOURNAL_TIME) for d, r in times if d is not None), default=0.0)

    def __str__(self) -> str:
        has = f"{self.sessions} sessions" if self.format else "the clients"
        return f"{has} of worker {self.name}"

    def is_understood_by(self, member: Member) -> bool:
        """Whether it takes this format, or these."""
        takes = not self.batches or member.takes == self.format
        return takes and (not self.journals or member.recovers == self.recovers)

    def may_be_taken_by(self, member: Member) -> bool:
        """Whether that worker can be asked."""
        return (
            self.is_understood_by(member)
            and member.eligible
            and member.tag not in self.asked
            and len(member.adopted) + len(self.tags) <= TAKEOVER_TAGS
        )

    def has_no_successor(self, others: Iterable[Member]) -> bool:
        """Whether none of its name will come, or one is there and cannot take it."""
        return self.alone or any(
            other.name == self.name
            and (not self.is_understood_by(other) or other.tag in self.asked)
            for other in others
        )

    def has_one_named(self, others: Sequence[Member]) -> bool:
        """Whether its successor is there."""
        return any(other.name == self.name for other in others)

    def is_understood(self, others: Sequence[Member]) -> bool:
        """Whether one of those takes this format, or these."""
        return any(map(self.is_understood_by, others))

    def offer(self) -> list[Packet]:
        """What a worker is sent that is to adopt it."""
        about = {
            "id": self.id,
            "tags": self.tags,
            "format": self.format if self.batches else 0,
            "recovers": self.recovers,
        }
        packets = [
            Packet(channel.encode({"type": "adopt", **about, "channel": name}), [place.latest])
            for name, place in self.channels.items()
        ]
        for number, batch in sorted(self.batches.items()):
            data = channel.encode(self.batch_message(number))
            packets.append(Packet(data, batch.descriptors, counts=True))
        for part, descriptors in self.parts():
            data = channel.encode(recovery.part(self.id, part))
            packets.append(Packet(data, descriptors, counts=True))
        return [*packets, Packet(channel.encode({"type": "adopt-end", "id": self.id}))]

    def batch_message(self, number: int) -> Message:
        """As its worker has sent it, with the number of the group."""
        batch = self.batches[number]
        return {**takeover.sessions(number, batch.tag, batch.sessions), "id": self.id}

    def parts(self) -> Iterator[tuple[recovery.Part, list[int]]]:
        """Those of all journals."""
        return chain.from_iterable(journal.parts() for journal in self.journals)

    def channel_message(self, name: str) -> Message:
        """For the next router."""
        return {
            "type": "held",
            "id": self.id,
            "name": self.name,
            "tags": self.tags,
            "format": self.format,
            "channel": name,
            "deadline": self.deadline,
            "alone": self.alone,
        }


def read_group(message: Message) -> Group:
    """Of what :meth:`Group.channel_message` has made; without what came beside it.

    :raises ChannelError: when it is not that.
    """
    name, deadline = message.get("name"), message.get("deadline")
    if not isinstance(name, str) or not isinstance(deadline, float):
        raise ChannelError("sessions that are held without a name or deadline")
    passing = takeover.read_passing(message)
    return Group(
        id=takeover.read_id(message),
        name=name,
        tags=passing.tags,
        format=passing.format,
        deadline=deadline,
        alone=bool(message.get("alone")),
        state=State.WAITING,
    )
