"""What a client has missed, read from the journals of the workers where it was. Pure."""

from __future__ import annotations

import time
from typing import (
    Any,
    Callable,
    Collection,
    Iterator,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Union,
)

from ..common.limits import OUTPUT_OBJECT
from ..common.reasons import INCOMPLETE, NO_OWNER, NOT_KEPT, UNKNOWN_OFFSET
from ..relay.journal_format import OWN, Event, Incomplete
from ..relay.journal_index import Room
from ..relay.message import EncodedPacket
from . import offsets
from .histories import Stay
from .lost import FORGOTTEN, Client
from .rooms import tags_of


class NotRecovered(Exception):
    """A client cannot have its session back, and gets a new one.

    :ivar reason: one of :mod:`.reasons`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OwnerGone(NotRecovered):
    """Another worker has inherited the client meanwhile: the claim starts again with that
    worker."""

    def __init__(self) -> None:
        super().__init__(NO_OWNER)


class Journal(Protocol):
    """A journal, one's own or that of another worker."""

    @property
    def last(self) -> int:
        """The number of the last event."""

    @property
    def dropped(self) -> tuple[int, float]:
        """The number and the time of the newest event that is not kept any more."""

    def since(self, k: int) -> Iterator[Event]:
        """The events after number ``k`` that there are now."""

    def to_rooms(self, k: int, rooms: Collection[Room]) -> Iterator[Union[Event, int]]:
        """Those of them that are for one of these rooms, as :func:`.read_to` yields them."""


class Missing(NamedTuple):
    """An event that the client has missed."""

    offset: str
    packets: list[EncodedPacket]


class Missed:
    """The events for a client since an offset; read in slices, since a journal may be long.

    :param offset: of the last event that the client has received.
    :param journal: returns the journal of a worker, by its tag.
    :param known: monotonic time until which the client has certainly received everything.
    :raises NotRecovered: when a part of the events is not kept.
    """

    def __init__(
        self,
        client: Client,
        offset: Optional[str],
        journal: Callable[[str], Optional[Journal]],
        known: float,
    ) -> None:
        self.events: list[Missing] = []
        #: Size of these events in bytes.
        self.size = 0
        self.offset = offset
        self._client = client
        self._journal = journal
        self._known = known
        self._stays = (*client.before, client.stay)
        self._at, self._number = _find(client, self._stays, offset, journal)

    def read(self, seconds: float = float("inf")) -> bool:
        """Read on. Return whether everything is read that is there now.

        :param seconds: to read at most.
        :raises NotRecovered: when a part of the events is not kept.
        """
        until = time.monotonic() + seconds
        while True:
            stay = self._stays[self._at]
            journal = self._journal(stay.tag)
            if journal is not None:
                if not self._read(stay, journal, until):
                    return False
            elif stay.ended is None or stay.ended > self._known:
                raise NotRecovered(NOT_KEPT)
            if self._at == len(self._stays) - 1:
                return True
            self._at += 1
            self._number = self._stays[self._at].begin

    def _read(self, stay: Stay, journal: Journal, until: float) -> bool:
        """Read on in one journal. Return whether all of it is read."""
        for number, at in (journal.dropped, (stay.floor, stay.floor_time)):
            if self._number < number and at > self._known:
                raise NotRecovered(NOT_KEPT)
            self._number = max(self._number, number)
        sid, namespace = self._client.sid, self._client.namespace
        try:
            end = journal.last if stay.end is None else stay.end
            if end > journal.last:
                raise NotRecovered(INCOMPLETE)
            for event in journal.to_rooms(self._number, stay.all_rooms(sid, namespace)):
                if isinstance(event, int):
                    self._number = min(event, end)
                elif event.k > end:
                    break
                else:
                    self._number = event.k
                    if stay.is_for(sid, namespace, event):
                        offset = offsets.write(stay.tag, event.k)
                        missing = Missing(offset, list(event.message.packets))
                        self.events.append(missing)
                        self.size += size_of(missing.packets)
                if time.monotonic() > until:
                    return False
        except (Incomplete, ValueError):
            raise NotRecovered(INCOMPLETE) from None
        self._number = max(self._number, end)
        return True


def size_of(packets: Sequence[EncodedPacket]) -> int:
    """Size of an event in bytes."""
    return sum(map(len, packets)) + OUTPUT_OBJECT


def to_it_alone(client: Client, number: int, journal: Journal) -> list[list[EncodedPacket]]:
    """What was emitted here to a client's own session id after event ``number``.

    :param journal: of the worker that has the client.
    :raises NotRecovered: when a part of it is not kept.
    """
    try:
        return [
            list(event.message.packets)
            for event in journal.since(number)
            if event.stream is OWN
            and None not in tags_of(event.message.fields.get("room"))
            and client.stay.is_for(client.sid, client.namespace, event)
        ]
    except (Incomplete, ValueError):
        raise NotRecovered(INCOMPLETE) from None


def _find(
    client: Client,
    stays: tuple[Stay, ...],
    offset: Optional[str],
    journal: Callable[[str], Optional[Journal]],
) -> tuple[int, int]:
    """The stay in which a client received its last event, as an index, and that event's number.

    :raises NotRecovered: when the offset is in none of its stays.
    """
    if offset == client.base and offset != FORGOTTEN:
        return 0, stays[0].begin
    found = offsets.read(offset)
    if found is not None:
        for index, stay in enumerate(stays):
            last: Any = stay.end
            if last is None:
                here = journal(stay.tag)
                last = 0 if here is None else here.last
            if found.tag == stay.tag and stay.begin <= found.number <= last:
                return index, found.number
    raise NotRecovered(UNKNOWN_OFFSET)
