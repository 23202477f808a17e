"""What a client has missed, out of the journals of the workers where it was. Pure."""

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
    """A client gets a new session.

    :ivar reason: one of :mod:`.reasons`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OwnerGone(NotRecovered):
    """Another worker has inherited the client since it was asked for: that one is asked anew."""

    def __init__(self) -> None:
        super().__init__(NO_OWNER)


class Journal(Protocol):
    """One that is written, or was."""

    @property
    def last(self) -> int:
        """The number of the last event."""

    @property
    def dropped(self) -> tuple[int, float]:
        """The number and the time of the last event that is not kept."""

    def since(self, k: int) -> Iterator[Event]:
        """The events after this one, as far as there are any now."""

    def to_rooms(self, k: int, rooms: Collection[Room]) -> Iterator[Union[Event, int]]:
        """Those of them that are to one of these rooms, as :func:`.read_to` has it."""


class Missing(NamedTuple):
    """One that was missed."""

    offset: str
    packets: list[EncodedPacket]


class Missed:
    """Events for a client since an offset; read in steps, as there may be many to look at.

    :param offset: what the client has got last.
    :param journal: of a worker, by its tag.
    :param known: until when the client was there for sure, by the host's monotonic clock: it has
        got what was sent before.
    :raises NotRecovered: when a part of them cannot be had.
    """

    def __init__(
        self,
        client: Client,
        offset: Optional[str],
        journal: Callable[[str], Optional[Journal]],
        known: float,
    ) -> None:
        self.events: list[Missing] = []
        #: Of them, in bytes.
        self.size = 0
        self.offset = offset
        self._client = client
        self._journal = journal
        self._known = known
        self._stays = (*client.before, client.stay)
        self._at, self._number = _find(client, self._stays, offset, journal)

    def read(self, seconds: float = float("inf")) -> bool:
        """Read on; whether it has come to the end, as far as that is now.

        :param seconds: for which it reads at most.
        :raises NotRecovered: when a part of them cannot be had.
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
        """Read on in one journal; whether all of it is read."""
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
    """Of an event, in bytes."""
    return sum(map(len, packets)) + OUTPUT_OBJECT


def to_it_alone(client: Client, number: int, journal: Journal) -> list[list[EncodedPacket]]:
    """What was emitted to a client by its session id after an event.

    :param journal: of the worker where it is.
    :raises NotRecovered: when it is not kept.
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
    """In which stay a client has got something last, and its number."""
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
