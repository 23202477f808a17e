"""Sessions that come to this worker from the router, see :mod:`supervisor_sio.common.takeover`,
and the journals of workers that have ended, see :mod:`supervisor_sio.common.recovery`.

What is known of them here:

=========  =============================================  =====================================
state      what happens                                   then
=========  =============================================  =====================================
(none)     the router asks                                COMING, or it is told why not
COMING     a batch, or a part of a journal                it is kept, and the router told
           all have come                                  GIVEN: the adopter has them
           the router is gone, or asks another worker     over; the descriptors are closed
GIVEN      the adopter has them in place                  SAID, to this router and to the next
           it cannot                                      over; the router is told why
           the router asks another worker                 over; the adopter discards them
SAID       the router says that they are ours             over; the adopter begins
           that they are not, or this worker ends         over; the adopter discards them
=========  =============================================  =====================================
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional, Protocol

from ..common import channel, recovery, takeover
from ..common.channel import ChannelError, Message


class Journal(NamedTuple):
    """What a worker has left of its clients."""

    source: recovery.Source
    #: That they have to come back, from when it has died.
    seconds: float
    died: float
    #: For each log the segments by their numbers, in their order.
    logs: dict[str, dict[int, int]]

    def segment(self, log: str, number: int) -> recovery.Segment:
        """As a router is told of it."""
        return recovery.Segment(self.source, log, number, recovery.FORMAT, self.seconds, self.died)

    @property
    def descriptors(self) -> list[int]:
        return [one for segments in self.logs.values() for one in segments.values()]


class Adoption(NamedTuple):
    """The sessions of one worker, and the journals that it had. Its descriptors are the
    receiver's."""

    id: int
    #: All that may be in their ids.
    tags: list[str]
    format: int
    #: For each channel of the relay, the place in its streams, as a memory file.
    positions: list[tuple[str, int]]
    #: The tag of some sessions, how many they are, and their descriptors: a memory file with
    #: their states, and their connections. Whoever reads a memory file has to say from where on:
    #: its offset belongs to others, too.
    batches: list[tuple[str, int, list[int]]]
    #: Its own, and those that it had inherited.
    journals: dict[recovery.Source, Journal]

    def close(self) -> None:
        for journal in self.journals.values():
            channel.close_all(journal.descriptors)
        channel.close_all([descriptor for _, descriptor in self.positions])
        for _, _, descriptors in self.batches:
            channel.close_all(descriptors)


class Adopter(Protocol):
    """Who makes sessions of what has come."""

    def on_adopt(self, adoption: Adoption) -> None:
        """All of it is there. Put it in place, without a word to the clients: another worker may
        get the same. Then call ``adopted`` or ``not_adopted`` of the link.
        """

    def on_go(self, number: int) -> None:
        """The sessions of this adoption are this worker's: begin."""

    def on_discard(self, number: int) -> None:
        """They are not: let go of all, without a word to the clients or the router."""


class Arriving:
    """:param post: sends a message to the router, if there is one.
    :param ceiling: below it are the numbers of descriptors that may be taken.
    """

    def __init__(self, post: Callable[[Message], None], ceiling: Callable[[], int]) -> None:
        self._post = post
        self._ceiling = ceiling
        #: The format that is taken; 0 for none.
        self.takes = 0
        #: The format of the journals that are inherited; 0 for none.
        self.recovers = 0
        self.adopter: Optional[Adopter] = None
        #: By number, as all here: COMING.
        self._coming: dict[int, Adoption] = {}
        #: Their tags: GIVEN and SAID.
        self._given: dict[int, list[str]] = {}
        #: How many sessions: SAID.
        self._said: dict[int, int] = {}
        #: The adopted tags that still have sessions.
        self._tags: list[str] = []

    # --- what the router says -------------------------------------------------------------

    def handle(self, message: Message, descriptors: list[int]) -> bool:
        """Whether the descriptors are kept. :raises ChannelError: when it is not understood."""
        kind, number = message["type"], takeover.read_id(message)
        if kind == "adopt":
            return self._take_question(number, message, descriptors)
        if kind == "sessions":
            return self._take_batch(number, takeover.read_sessions(message), descriptors)
        if kind == "adopt-journal":
            return self._take_journal(number, recovery.read_part(message), descriptors)
        if kind == "adopt-end":
            self._give(number)
        elif kind == "adopt-go":
            self._begin(number)
        else:
            self._discard(number)
        return False

    def lost_descriptors(self, message: Message) -> None:
        """This process had none free for what came with a message.

        :raises ChannelError: when it is not understood.
        """
        if message["type"] in ("adopt", "sessions", "adopt-journal"):
            self._refuse(takeover.read_id(message), "no descriptor is free")

    def _take_question(self, number: int, message: Message, descriptors: list[int]) -> bool:
        if number in self._given:
            return False  # of another router; this one will hear what has become of it
        about, recovers = takeover.read_passing(message), recovery.read_recovers(message)
        if self.adopter is None or about.format not in (0, self.takes):
            self._refuse(number, f"format {about.format} is not taken here")
            return False
        if recovers not in (0, self.recovers):
            self._refuse(number, f"journals of format {recovers} are not inherited here")
            return False
        if len(descriptors) != 1:
            raise ChannelError("sessions without a place in the relay")
        if descriptors[0] >= self._ceiling():
            self._refuse(number, "no descriptor is free")
            return False
        made = Adoption(number, about.tags, about.format, [], [], {})
        self._coming.setdefault(number, made).positions.append((about.channel, descriptors[0]))
        return True

    def _take_batch(self, number: int, batch: takeover.Batch, descriptors: list[int]) -> bool:
        adoption = self._coming.get(number)
        if adoption is None:
            return False  # it was refused
        if not descriptors:
            raise ChannelError("sessions without their states")
        if max(descriptors) >= self._ceiling():
            self._refuse(number, "no descriptor is free")
            return False
        adoption.batches.append((batch.tag, batch.sessions, descriptors))
        self._post({"type": "took", "id": number, "batch": batch.number})
        return True

    def _take_journal(self, number: int, part: recovery.Part, descriptors: list[int]) -> bool:
        adoption = self._coming.get(number)
        if adoption is None:
            return False  # it was refused
        if len(descriptors) != len(part.numbers):
            raise ChannelError("a journal without its segments")
        if max(descriptors) >= self._ceiling():
            self._refuse(number, "no descriptor is free")
            return False
        made = Journal(part.source, part.recovery, part.died, {})
        segments = adoption.journals.setdefault(part.source, made).logs.setdefault(part.log, {})
        if not segments.keys().isdisjoint(part.numbers):
            raise ChannelError("a segment of a journal comes twice")
        segments.update(zip(part.numbers, descriptors))
        self._post({"type": "took", "id": number})
        return True

    def _give(self, number: int) -> None:
        adoption = self._coming.pop(number, None)
        if adoption is None:
            return
        assert self.adopter is not None
        self._given[number] = adoption.tags
        try:
            self.adopter.on_adopt(adoption)
        except Exception as error:
            self.not_adopted(number, repr(error))
            raise

    def _begin(self, number: int) -> None:
        if self._said.pop(number, None) is not None:
            assert self.adopter is not None
            tags = self._given.pop(number)
            self._tags = list(dict.fromkeys([*self._tags, *tags]))
            self.adopter.on_go(number)

    def _discard(self, number: int) -> None:
        adoption = self._coming.pop(number, None)
        if adoption is not None:
            adoption.close()
        self._said.pop(number, None)
        if self._given.pop(number, None) is not None:
            assert self.adopter is not None
            self.adopter.on_discard(number)

    def _refuse(self, number: int, reason: str) -> None:
        adoption = self._coming.pop(number, None)
        if adoption is not None:
            adoption.close()
        self._post({"type": "not-adopted", "id": number, "reason": reason})

    # --- what the adopter says ------------------------------------------------------------

    def adopted(self, number: int, sessions: int) -> None:
        """All that :meth:`Adopter.on_adopt` got is in place, and so many sessions are made."""
        if number in self._given:
            self._said[number] = sessions
            self._post(self._adopted(number))

    def _adopted(self, number: int) -> Message:
        tags, sessions = self._given[number], self._said[number]
        return {"type": "adopted", "id": number, "tags": tags, "sessions": sessions}

    def not_adopted(self, number: int, reason: str) -> None:
        """It cannot be, and nothing of it is left here; another worker may be asked."""
        if self._given.pop(number, None) is not None:
            self._said.pop(number, None)
            self._refuse(number, reason)

    def set_tags(self, tags: list[str]) -> None:
        """The adopted tags that still have sessions; the router sends requests of no others."""
        self._tags = tags
        # With those that are this worker's as soon as the router has read of it.
        said = (tag for number in self._said for tag in self._given[number])
        self._post({"type": "tags", "tags": list(dict.fromkeys([*tags, *said]))})

    # --- routers come and go --------------------------------------------------------------

    def greet(self) -> None:
        """What the next router has to know before it places a request: what is this worker's.

        What it has said to have adopted may be another's by now.
        """
        if self._tags:
            self._post({"type": "tags", "tags": self._tags})

    def repeat(self) -> None:
        """What it has to answer, when it knows that this worker is ready."""
        for number in self._said:
            self._post(self._adopted(number))

    def lost(self) -> None:
        """The router is gone."""
        coming, self._coming = self._coming, {}
        for adoption in coming.values():
            adoption.close()

    def close(self) -> None:
        """This worker ends."""
        self.lost()
        for number in list(self._given):
            self._discard(number)
