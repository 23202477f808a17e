"""The group of held sessions and journals of one worker, see :mod:`.held`. Pure."""

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

#: Called with a memory file that has the state of a listener.
Keep = Callable[[int], None]


class Listener(Protocol):
    """Receives in a channel of the relay in place of a worker that has ended."""

    def stop(self) -> int:
        """Stop, and return the state as a memory file; may block for a moment."""

    def discard(self) -> None:
        """Stop, when nobody needs the state any more."""


class State(Enum):
    PASSING = auto()
    WAITING = auto()
    OFFERED = auto()
    GIVEN = auto()


@dataclass
class Channel:
    """The position of a worker in the streams of a channel of the relay."""

    #: The memory file that the worker sent.
    position: int
    listener: Optional[Listener] = None
    #: The listener's state when it stopped, or when it last confirmed messages to others: a memory
    #: file, with the messages received; -1 for none. The later one of both is on the shelf.
    dump: int = -1

    @property
    def latest(self) -> int:
        return self.dump if self.dump >= 0 else self.position

    def close(self) -> None:
        """Close the memory files."""
        channel.close_all([d for d in (self.position, self.dump) if d >= 0])


@dataclass
class Batch:
    tag: str
    sessions: int
    #: A memory file, and the connections.
    descriptors: list[int]


@dataclass
class Packet:
    """A packet to a worker that is asked to adopt."""

    data: bytes
    descriptors: Sequence[int] = ()
    #: Whether the worker confirms it.
    counts: bool = False


@dataclass(eq=False)
class Group:
    id: int
    #: Supervisor's name of the worker's process.
    name: str
    tags: list[str]
    #: Format of the sessions; 0 when none have been announced.
    format: int
    #: When other workers than the successor may adopt it; in seconds of the host's monotonic clock,
    #: as all times here.
    deadline: float
    #: No successor will come, so other workers may adopt it before the deadline.
    alone: bool
    #: No worker is asked before this time.
    not_before: float = 0.0
    state: State = State.PASSING
    channels: dict[str, Channel] = field(default_factory=dict)
    batches: dict[int, Batch] = field(default_factory=dict)
    #: The worker's journals, with recovery: its own and inherited ones.
    journals: list[Journal] = field(default_factory=list)
    #: The worker that passes it on, until it has sent all.
    giver: Optional[Carrier] = None
    #: The worker that is being asked.
    taker: Optional[Carrier] = None
    #: Tags of all workers that were asked.
    asked: set[str] = field(default_factory=set)
    #: Tags of the asked workers that were told to drop it.
    off: set[str] = field(default_factory=set)
    #: The packets for the taker, how many were sent, how many of these it has not confirmed, and
    #: the deadline of its next step.
    packets: list[Packet] = field(default_factory=list)
    sent: int = 0
    on_the_way: int = 0
    until: float = 0.0
    #: Whether the taker has restored all: only the places remain to be sent.
    adopted: bool = False
    #: The tag of the worker that has adopted it, in state GIVEN.
    heir: str = ""

    @property
    def sessions(self) -> int:
        return sum(batch.sessions for batch in self.batches.values())

    @property
    def next_batch(self) -> int:
        return max(self.batches, default=-1) + 1

    @property
    def descriptors(self) -> int:
        """The number of its descriptors."""
        beside = [batch.descriptors for batch in self.batches.values()]
        beside += [journal.descriptors for journal in self.journals]
        return sum(map(len, beside)) + len(self.channels)

    @property
    def recovers(self) -> int:
        """The format of the journals; 0 when there are none."""
        return self.journals[0].format if self.journals else 0

    @property
    def journals_until(self) -> float:
        """When no client can recover from the journals any more."""
        times = ((j.died, j.recovery) for j in self.journals)
        return max((d + max(r, JOURNAL_TIME) for d, r in times if d is not None), default=0.0)

    def __str__(self) -> str:
        has = f"{self.sessions} sessions" if self.format else "the clients"
        return f"{has} of worker {self.name}"

    def is_understood_by(self, member: Member) -> bool:
        """Whether a worker has the formats of its sessions and journals."""
        takes = not self.batches or member.takes == self.format
        return takes and (not self.journals or member.recovers == self.recovers)

    def may_be_taken_by(self, member: Member) -> bool:
        """Whether a worker can be asked to adopt it."""
        return (
            self.is_understood_by(member)
            and member.eligible
            and member.tag not in self.asked
            and len(member.adopted) + len(self.tags) <= TAKEOVER_TAGS
        )

    def has_no_successor(self, others: Iterable[Member]) -> bool:
        """Whether no successor will come, or the successor cannot adopt it."""
        return self.alone or any(
            other.name == self.name
            and (not self.is_understood_by(other) or other.tag in self.asked)
            for other in others
        )

    def has_one_named(self, others: Sequence[Member]) -> bool:
        """Whether its successor is among these workers."""
        return any(other.name == self.name for other in others)

    def is_understood(self, others: Sequence[Member]) -> bool:
        """Whether one of these workers has its formats."""
        return any(map(self.is_understood_by, others))

    def offer(self) -> list[Packet]:
        """The packets for a worker that is asked to adopt it."""
        about = {
            "id": self.id,
            "tags": self.tags,
            "format": self.format if self.batches else 0,
            "recovers": self.recovers,
        }
        packets = [
            Packet(channel.encode({"type": "adopt", **about, "channel": name}), [place.position])
            for name, place in self.channels.items()
        ]
        for number, batch in sorted(self.batches.items()):
            data = channel.encode(self.batch_message(number))
            packets.append(Packet(data, batch.descriptors, counts=True))
        for part, descriptors in self.parts():
            data = channel.encode(recovery.part(self.id, part))
            packets.append(Packet(data, descriptors, counts=True))
        return [*packets, Packet(channel.encode({"type": "adopt-end", "id": self.id}))]

    def give(self, heir: str) -> Group:
        """Split off what the router keeps until the worker that has adopted it receives for it.

        :param heir: that worker's tag.
        """
        channels, self.channels = self.channels, {}
        return Group(
            id=self.id,
            name=self.name,
            tags=self.tags,
            format=0,
            deadline=max(((j.died or 0.0) + j.recovery for j in self.journals), default=0.0),
            alone=True,
            state=State.GIVEN,
            channels=channels,
            heir=heir,
        )

    def places(self) -> list[Packet]:
        """What a worker is sent that has restored all of it: what was received meanwhile."""
        return [
            Packet(channel.encode(takeover.place(self.id, name)), [place.latest], counts=True)
            for name, place in self.channels.items()
        ]

    def batch_message(self, number: int) -> Message:
        """The message of a batch as its worker sent it, with the number of the group."""
        batch = self.batches[number]
        return {**takeover.sessions(number, batch.tag, batch.sessions), "id": self.id}

    def parts(self) -> Iterator[tuple[recovery.Part, list[int]]]:
        """The parts of all journals, see :meth:`.Journal.parts`."""
        return chain.from_iterable(journal.parts() for journal in self.journals)

    def channel_message(self, name: str) -> Message:
        """The message for the next router about one channel."""
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
    """Read a message of :meth:`Group.channel_message`; without its attached descriptor.

    :raises ChannelError: when the message is malformed.
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
