"""The state of a client that can come back, and when lost clients expire. Pure.

A client is *lost* when its connection ended without a DISCONNECT: it stays in the manager's tables
for ``recovery`` seconds, and what is emitted to it is kept. Times are by the host's monotonic
clock, which all processes of the host share.
"""

from __future__ import annotations

import heapq
import json
import math
from typing import Any, Iterator, NamedTuple, Optional

from ..common.limits import CLIENT_STATE, CLIENT_STAYS
from ..common.reasons import INCOMPLETE, NOT_SAVED
from ..common.request import tag_of
from ..engine.saved import Saved
from . import packets
from .budget import Share
from .histories import Stay
from .plain import NotPlain, TooLong, Writer
from .plain import read as read_plain

#: In place of the reason why a client's data cannot be kept.
TOO_MANY_ROOMS = "(it is in too many rooms, or their names are too long)"

#: In place of a client's first offset: the stay to which it belongs is not known any more.
FORGOTTEN = "(forgotten)"

#: In place of the reason why data cannot be kept, while a client arrives from another worker.
ARRIVING = "(it was about to come from another worker)"


class Lost(NamedTuple):
    #: By the host's monotonic clock, in seconds.
    since: float
    #: For the handler of ``disconnect``.
    reason: str


class Fetched(NamedTuple):
    """Another worker has asked for the events that a client has missed."""

    #: The last event that was given.
    number: int
    #: Monotonic time until which that worker may take the client over.
    until: float
    #: That worker's.
    tag: str
    #: The memory that these events take.
    share: Share


class Client:
    """A client in one namespace.

    :param pid: the secret by which it recovers; its sid if it cannot.
    :param eio_sid: of its present or last connection.
    :param stay: its stay at this worker.
    """

    __slots__ = (
        "sid",
        "namespace",
        "pid",
        "eio_sid",
        "stay",
        "capable",
        "before",
        "base",
        "data",
        "not_saved",
        "connected_at",
        "lost",
        "known",
        "back",
        "behind",
        "fetched",
        "arriving",
    )

    def __init__(
        self, sid: str, namespace: str, pid: str, eio_sid: str, stay: Stay, capable: bool = True
    ) -> None:
        self.sid = sid
        self.namespace = namespace
        self.pid = pid
        self.eio_sid = eio_sid
        self.stay = stay
        #: Whether the client knows its ``pid`` and gets offsets. Other clients are kept as well, so
        #: that the heir of a dead worker can call their disconnect handlers.
        self.capable = capable
        #: Its stays at other workers whose journals this process has, the oldest first.
        self.before: tuple[Stay, ...] = ()
        #: The offset with which it came: its place at the beginning of its first stay.
        self.base: Optional[str] = None
        #: What the application has stored for it, in the form of :class:`.Writer`.
        self.data: Any = None
        #: Why its data cannot be kept; empty if it can.
        self.not_saved = ""
        self.connected_at: Optional[float] = None
        self.lost: Optional[Lost] = None
        #: Monotonic time until which it has received everything that was sent to it, as known when
        #: it was lost, came back or began to answer late.
        self.known = 0.0
        #: Monotonic time of its last return: answers to pings sent before prove nothing.
        self.back = 0.0
        #: Whether it answers pings late, and so may lack older events than others do.
        self.behind = False
        #: The last worker that has asked for its missed events.
        self.fetched: Optional[Fetched] = None
        #: While it arrives from another worker: rooms entered (true) and left (false) meanwhile.
        self.arriving: Optional[list[tuple[Any, bool]]] = None

    def store(self, data: Any) -> None:
        """Keep what the application has stored for it.

        :raises NotPlain: when it is not JSON; the client cannot come back then.
        :raises TooLong: when it is too long; the same holds.
        """
        try:
            self.data, self.not_saved = Writer(CLIENT_STATE).write(data) if data else None, ""
        except (NotPlain, TooLong) as error:
            self.data, self.not_saved = None, str(error)
            raise

    @property
    def cannot_come_back(self) -> str:
        """Why the client cannot come back; empty if it can."""
        return self.not_saved or (TOO_MANY_ROOMS if self.stay.is_too_long else "")

    @property
    def why_not_saved(self) -> str:
        """The same as one of :mod:`.reasons`, for the client."""
        return INCOMPLETE if self.not_saved == ARRIVING else NOT_SAVED

    def stored(self) -> dict[str, Any]:
        """What :meth:`store` was given."""
        return {} if self.data is None else dict(read_plain(self.data))

    def save(self) -> dict[str, Any]:
        return _expand(self._shortened())

    def encode(self) -> bytes:
        """The state as JSON, which :func:`decode` reads."""
        return packets.encode(self._shortened()).encode()

    def keep(self) -> bytes:
        """The state for the journal: as :meth:`encode`, without rooms if they are too many."""
        state = self._shortened()
        if self.stay.is_too_long:
            state["stay"].update(rooms=[], left=[])
        return packets.encode(state).encode()

    def _shortened(self) -> dict[str, Any]:
        """The state without fields that have their usual value."""
        state: dict[str, Any] = {"sid": self.sid, "pid": self.pid}
        state["stay"] = _shorten(self.stay, self.sid)
        if self.namespace != "/":
            state["namespace"] = self.namespace
        if not self.capable:
            state["capable"] = False
        if self.before:
            state["before"] = [stay.save() for stay in self.before]
        if self.base is not None:
            state["base"] = self.base
        if self.data is not None:
            state["data"] = self.data
        if self.cannot_come_back:
            state["not"] = self.cannot_come_back
        if self.connected_at is not None:
            state["connected_at"] = self.connected_at
        if self.lost is not None:
            state["lost"] = self.lost
        if self.known:
            state["known"] = self.known
        if self.back:
            state["back"] = self.back
        if self.behind:
            state["behind"] = True
        return state

    @classmethod
    def restored(cls, saved: Saved, eio_sid: str) -> Client:
        """:raises ValueError: when it is not a state from :meth:`save`."""
        client = cls(
            saved.text("sid"),
            saved.text("namespace"),
            saved.text("pid"),
            eio_sid,
            Stay.restored(saved.object("stay")),
            saved.flag("capable"),
        )
        client.before = tuple(Stay.restored(one) for one in saved.objects("before"))
        client.base = None if saved.is_none("base") else saved.text("base")
        if not saved.is_none("data"):
            client.data = dict(saved.object("data").pairs())
            client.stored()
        client.not_saved = saved.text("not")
        if not saved.is_none("connected_at"):
            client.connected_at = saved.seconds("connected_at")
        if not saved.is_none("lost"):
            lost = saved.list("lost")
            client.lost = Lost(lost.seconds(0), lost.text(1))
        client.known, client.back = saved.seconds("known"), saved.seconds("back")
        client.behind = saved.flag("behind")
        return client

    def moves_to(self, tag: str, number: int) -> None:
        """Begin the next stay, at a worker that has the journal of the present one.

        Former stays matter only for clients that can come back.

        :param number: of the last event in the new worker's journal.
        """
        if self.capable:
            if len(self.before) >= CLIENT_STAYS:
                self.base = FORGOTTEN
            self.before = (*self.before, self.stay)[-CLIENT_STAYS:]
        self.stay = Stay(tag, number, self.stay.rooms, self.stay.heard_as)


class Moved(NamedTuple):
    """A client that has moved to another worker."""

    sid: str
    namespace: str
    pid: str
    #: That worker's.
    tag: str
    #: The tag as which the client received the relay here.
    heard_as: str
    #: Its state as JSON, until that worker has confirmed that it has the client.
    state: str = ""
    #: Monotonic time when that worker got it.
    at: float = 0.0
    #: The last event of this worker's journal that was given to that worker.
    number: int = 0

    @property
    def tags(self) -> tuple[str, str]:
        """The tags under which other processes ask for it or send to it here."""
        return self.heard_as, tag_of(self.sid)

    def save(self) -> dict[str, Any]:
        return {**self._asdict(), "moved": True}

    @classmethod
    def restored(cls, saved: Saved) -> Moved:
        """:raises ValueError: when it is not a state from :meth:`save`."""
        sid, namespace, pid, tag, heard_as, state = map(saved.text, cls._fields[:6])
        at, number = saved.seconds("at"), saved.integer("number")
        return cls(sid, namespace, pid, tag, heard_as, state, at, number)


#: Values that are left out of saved states: there may be thousands in memory.
_USUAL: dict[str, Any] = {
    "namespace": "/",
    "capable": True,
    "before": [],
    "base": None,
    "data": None,
    "not": "",
    "connected_at": None,
    "lost": None,
    "known": 0.0,
    "back": 0.0,
    "behind": False,
    "at": 0.0,
    "number": 0,
}
_USUAL_STAY: dict[str, Any] = {"end": None, "ended": None, "rooms": [], "left": []}


def encode(state: dict[str, Any]) -> bytes:
    """Encode a :class:`Moved`, or another entry of the journal, for :func:`decode`."""
    return packets.encode(_without(state, _USUAL)).encode()


def decode(state: bytes) -> Saved:
    """:raises ValueError: when it is not an entry of a journal."""
    try:
        short = json.loads(state)
    except RecursionError:
        raise ValueError("client is nested too deeply") from None
    return Saved(_expand(short) if isinstance(short, dict) else short, "client")


def _expand(short: dict[str, Any]) -> dict[str, Any]:
    """Add the usual values that were left out."""
    state = {**_USUAL, **short}
    stay, sid = state.get("stay"), state.get("sid")
    if isinstance(stay, dict) and isinstance(sid, str):
        state["stay"] = {**_usual_stay(sid, stay.get("begin")), **stay}
    return state


def _shorten(stay: Stay, sid: str) -> dict[str, Any]:
    """A saved stay; mostly just its beginning, at the worker that the session id names."""
    if stay.is_as_begun and stay.tag == stay.heard_as == tag_of(sid):
        return {"begin": stay.begin}
    return _without(stay.save(), _usual_stay(sid, stay.begin))


def _usual_stay(sid: str, begin: Any) -> dict[str, Any]:
    """A stay without rooms and end at the worker that the session id names."""
    tag = tag_of(sid)
    return {**_USUAL_STAY, "tag": tag, "as": tag, "floor": [begin, 0.0]}


def _without(state: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in usual or value != usual[key]}


class Times:
    """When lost clients expire: by sid, the earliest first."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._times)

    def __contains__(self, sid: str) -> bool:
        return sid in self._times

    def add(self, sid: str, time: float) -> None:
        self._times[sid] = time
        heapq.heappush(self._heap, (time, sid))

    def discard(self, sid: str) -> None:
        if self._times.pop(sid, None) is not None and len(self._heap) > 2 * len(self._times) + 64:
            self._heap = [(time, sid) for sid, time in self._times.items()]
            heapq.heapify(self._heap)

    def pop_due(self, now: float, most: float = math.inf) -> Iterator[tuple[str, bool]]:
        """Take those that have expired, and the next ones while there are more than ``most``.

        :return: sids, and whether each has expired.
        """
        while self._heap and (self._heap[0][0] <= now or len(self._times) > most):
            time, sid = heapq.heappop(self._heap)
            if self._times.get(sid) == time:
                del self._times[sid]
                yield sid, time <= now
