"""Receives sessions from the router, see :mod:`supervisor_sio.common.takeover`, and the journals
of workers that have ended, see :mod:`supervisor_sio.common.recovery`.

The states of an adoption:

=========  =============================================  =====================================
state      event                                          next state
=========  =============================================  =====================================
(none)     the router offers an adoption                  COMING, or refused with a reason
COMING     a batch, or a part of a journal, arrives       COMING; it is stored and confirmed
           all have arrived                               GIVEN: the adopter gets them
           the router ends, or asks another worker        (none); the descriptors are closed
GIVEN      the adopter has restored them                  SAID; the router is told
           the adopter has failed                         (none); the router is told why
           the router asks another worker                 (none); the adopter discards them
SAID       the router sends the latest positions          SAID; the adopter gets them
           the router confirms the adoption               (none); the adopter continues them, and
                                                          says when it receives for them
           a new router connects                          SAID; it is told, too
           the router revokes it, or this worker stops    (none); the adopter discards them
=========  =============================================  =====================================
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional, Protocol

from ..common import channel, recovery, takeover
from ..common.channel import ChannelError, Message


class Journal(NamedTuple):
    """The journal of a worker that has ended."""

    source: recovery.Source
    #: How long its clients can recover, from the death of the worker on.
    seconds: float
    died: float
    #: By log, the descriptors of its segments by number, in order.
    logs: dict[str, dict[int, int]]

    def segment(self, log: str, number: int) -> recovery.Segment:
        """The description of a segment that is sent to a router."""
        return recovery.Segment(self.source, log, number, recovery.FORMAT, self.seconds, self.died)

    @property
    def descriptors(self) -> list[int]:
        return [one for segments in self.logs.values() for one in segments.values()]


class Adoption(NamedTuple):
    """The sessions of one worker, and its journals. The receiver owns the descriptors."""

    id: int
    #: All tags with which their ids may begin.
    tags: list[str]
    format: int
    #: For each channel of the relay, a memory file with the positions in its streams. Later ones
    #: come before the adoption is confirmed.
    positions: list[tuple[str, int]]
    #: The tag of some sessions, their number, and descriptors: of a memory file with their states,
    #: then of their connections. Read memory files with an explicit offset: other processes share
    #: the file's own offset.
    batches: list[tuple[str, int, list[int]]]
    #: The worker's own journals, and those that it had inherited.
    journals: dict[recovery.Source, Journal]

    def close(self) -> None:
        for journal in self.journals.values():
            channel.close_all(journal.descriptors)
        channel.close_all([descriptor for _, descriptor in self.positions])
        for _, _, descriptors in self.batches:
            channel.close_all(descriptors)


class Adopter(Protocol):
    """Restores the received sessions."""

    def on_adopt(self, adoption: Adoption) -> None:
        """An adoption is complete. Restore it without sending to clients: another worker may get
        the same sessions. Then call ``adopted`` or ``not_adopted`` of the link.
        """

    def on_place(self, number: int, name: str, descriptor: int) -> None:
        """The position in the streams of a channel of the relay, and what the router has received
        from there on, as a memory file. It replaces the one in the adoption.

        :raises ValueError: if it cannot be read; or OSError. The adoption is discarded then.
        """

    def on_go(self, number: int) -> None:
        """This worker owns the sessions of the adoption now: continue them."""

    def on_discard(self, number: int) -> None:
        """This worker does not get the sessions: drop them, without sending anything."""


class Arriving:
    """:param post: sends a message to the router, if one is connected.
    :param ceiling: returns the number from which on a received descriptor is refused.
    """

    def __init__(self, post: Callable[[Message], None], ceiling: Callable[[], int]) -> None:
        self._post = post
        self._ceiling = ceiling
        #: The format of sessions that this worker supports; 0 for none.
        self.takes = 0
        #: The format of journals that this worker supports; 0 for none.
        self.recovers = 0
        self.adopter: Optional[Adopter] = None
        #: The adoptions in state COMING, by number.
        self._coming: dict[int, Adoption] = {}
        #: The tags of adoptions in the states GIVEN and SAID, by number.
        self._given: dict[int, list[str]] = {}
        #: How many sessions were restored of adoptions in state SAID, by number.
        self._said: dict[int, int] = {}
        #: The adopted tags that still have sessions.
        self._tags: list[str] = []

    # --- messages from the router ---------------------------------------------------------

    def handle(self, message: Message, descriptors: list[int]) -> bool:
        """Handle a message.

        :return: whether this object has taken the descriptors.
        :raises ChannelError: if the message is malformed.
        """
        kind, number = message["type"], takeover.read_id(message)
        if kind == "adopt":
            return self._take_question(number, message, descriptors)
        if kind == "sessions":
            return self._take_batch(number, takeover.read_sessions(message), descriptors)
        if kind == "adopt-journal":
            return self._take_journal(number, recovery.read_part(message), descriptors)
        if kind == "adopt-place":
            self._take_place(number, takeover.read_place(message), descriptors)
        elif kind == "adopt-end":
            self._give(number)
        elif kind == "adopt-go":
            self._begin(number)
        else:
            self._discard(number)
        return False

    def lost_descriptors(self, message: Message) -> None:
        """A message has lost its descriptors, because this process had none free.

        :raises ChannelError: if the message is malformed.
        """
        if message["type"] in ("adopt", "sessions", "adopt-journal"):
            self._refuse(takeover.read_id(message), "no descriptor is free")
        elif message["type"] == "adopt-place" and takeover.read_id(message) in self._said:
            self._give_back(takeover.read_id(message), "no descriptor is free")

    def _take_question(self, number: int, message: Message, descriptors: list[int]) -> bool:
        if number in self._given:
            return False  # offered by an earlier router already; repeat() reports its result
        about, recovers = takeover.read_passing(message), recovery.read_recovers(message)
        if self.adopter is None or about.format not in (0, self.takes):
            self._refuse(number, f"sessions of format {about.format} are not supported here")
            return False
        if recovers not in (0, self.recovers):
            self._refuse(number, f"journals of format {recovers} are not supported here")
            return False
        if len(descriptors) != 1:
            raise ChannelError("an adoption without positions in the relay")
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

    def _take_place(self, number: int, name: str, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            raise ChannelError("a place without positions in the relay")
        if number not in self._said:
            return
        assert self.adopter is not None
        try:
            self.adopter.on_place(number, name, descriptors[0])
        except (ValueError, OSError) as error:
            self._give_back(number, f"the position in channel {name} cannot be read: {error}")
        else:
            self._post({"type": "took", "id": number})

    def _give_back(self, number: int, reason: str) -> None:
        """Without the position this worker would lack what was sent meanwhile: senders that have
        ended do not repeat it."""
        self._discard(number)
        self._refuse(number, reason)

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

    # --- called by the adopter ------------------------------------------------------------

    def adopted(self, number: int, sessions: int) -> None:
        """The adopter has restored an adoption, with this many sessions."""
        if number in self._given:
            self._said[number] = sessions
            self._post(self._adopted(number))

    def _adopted(self, number: int) -> Message:
        tags, sessions = self._given[number], self._said[number]
        return {"type": "adopted", "id": number, "tags": tags, "sessions": sessions}

    def heard(self, number: int) -> None:
        """The adopter has begun to receive messages of the relay for a confirmed adoption."""
        self._post({"type": "adopt-heard", "id": number})

    def not_adopted(self, number: int, reason: str) -> None:
        """The adopter could not restore it and dropped it; the router may ask another worker."""
        if self._given.pop(number, None) is not None:
            self._said.pop(number, None)
            self._refuse(number, reason)

    def set_tags(self, tags: list[str]) -> None:
        """Report the adopted tags that have sessions; the router sends no requests for others."""
        self._tags = tags
        # Include the tags whose adoption the router is about to confirm.
        said = (tag for number in self._said for tag in self._given[number])
        self._post({"type": "tags", "tags": list(dict.fromkeys([*tags, *said]))})

    # --- changes of the router ------------------------------------------------------------

    def greet(self) -> None:
        """Report this worker's tags to a new router, before it places a request.

        This leaves out unconfirmed adoptions, which another worker may have by now.
        """
        if self._tags:
            self._post({"type": "tags", "tags": self._tags})

    def repeat(self) -> None:
        """Report unconfirmed adoptions to a new router, which knows that this worker is ready."""
        for number in self._said:
            self._post(self._adopted(number))

    def lost(self) -> None:
        """The router has ended: drop incomplete adoptions."""
        coming, self._coming = self._coming, {}
        for adoption in coming.values():
            adoption.close()

    def close(self) -> None:
        """This worker stops: drop all adoptions."""
        self.lost()
        for number in list(self._given):
            self._discard(number)
