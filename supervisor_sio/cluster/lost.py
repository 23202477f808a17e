"""Clients that can come back, and those of them that are lost. Pure.

A client is *lost* when its connection has ended and nobody has said goodbye: it stays in the
tables of the manager for a while, and what is emitted to it is kept.
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

#: Instead of why its data cannot be kept, of a client.
TOO_MANY_ROOMS = "(it is in too many rooms, or their names are too long)"

#: Instead of the place where a client came: that stay is not known any more.
FORGOTTEN = "(forgotten)"

#: Instead of why its data cannot be kept, while a client comes from another worker.
ARRIVING = "(it was about to come from another worker)"


class Lost(NamedTuple):
    #: By the host's monotonic clock, in seconds.
    since: float
    #: For its handler of ``disconnect``.
    reason: str


class Fetched(NamedTuple):
    """Another worker has asked for what a client has missed."""

    #: Up to this event.
    number: int
    #: Until then it may say that the client is there.
    until: float
    #: Of that worker.
    tag: str
    #: Of what is in memory.
    share: Share


class Client:
    """One in a namespace; most know their ``pid``.

    :param eio_sid: of its connection, or of the last one.
    :param stay: at this worker.
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
        #: Whether it has been told its ``pid``, and gets offsets. Of others it is known who they
        #: are, for the end of their worker.
        self.capable = capable
        #: At other workers, whose journals this process has; the first one first.
        self.before: tuple[Stay, ...] = ()
        #: The offset with which it came, which is its place at the begin of its stay here.
        self.base: Optional[str] = None
        #: What the application has stored for it, as a :class:`.Writer` has written it.
        self.data: Any = None
        #: Why that cannot be kept.
        self.not_saved = ""
        self.connected_at: Optional[float] = None
        self.lost: Optional[Lost] = None
        #: It has got all that was sent to it until then: as far as that was known when it was
        #: lost, or has come back, or has fallen behind. By the host's monotonic clock.
        self.known = 0.0
        #: When it has come back: its answers to pings from before say nothing.
        self.back = 0.0
        #: Whether it answers pings late, so that it may lack older events than others.
        self.behind = False
        #: By the last worker to which it has come.
        self.fetched: Optional[Fetched] = None
        #: While it comes from another worker: the rooms that it has entered (true) and left.
        self.arriving: Optional[list[tuple[Any, bool]]] = None

    def store(self, data: Any) -> None:
        """Keep what the application has stored for it.

        :raises NotPlain: when that is not JSON; the client cannot come back then.
        :raises TooLong: when it is too much; likewise.
        """
        try:
            self.data, self.not_saved = Writer(CLIENT_STATE).write(data) if data else None, ""
        except (NotPlain, TooLong) as error:
            self.data, self.not_saved = None, str(error)
            raise

    @property
    def cannot_come_back(self) -> str:
        """Why, or nothing."""
        return self.not_saved or (TOO_MANY_ROOMS if self.stay.is_too_long else "")

    @property
    def why_not_saved(self) -> str:
        """One of :mod:`.reasons`, for who comes back and cannot."""
        return INCOMPLETE if self.not_saved == ARRIVING else NOT_SAVED

    def stored(self) -> dict[str, Any]:
        """What :meth:`store` was given."""
        return {} if self.data is None else dict(read_plain(self.data))

    def save(self) -> dict[str, Any]:
        return _expand(self._shortened())

    def encode(self) -> bytes:
        """The same; what :func:`decode` reads."""
        return packets.encode(self._shortened()).encode()

    def keep(self) -> bytes:
        """As :meth:`encode`; without the rooms of one that does not come back for them."""
        state = self._shortened()
        if self.stay.is_too_long:
            state["stay"].update(rooms=[], left=[])
        return packets.encode(state).encode()

    def _shortened(self) -> dict[str, Any]:
        """Without what is usual."""
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
        """:raises ValueError: when it is not what :meth:`save` has made."""
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
        """The next stay begins, at a worker that has the journal of this one.

        Nobody asks where one was that does not come back.

        :param number: of the last event in the next one's journal.
        """
        if self.capable:
            if len(self.before) >= CLIENT_STAYS:
                self.base = FORGOTTEN
            self.before = (*self.before, self.stay)[-CLIENT_STAYS:]
        self.stay = Stay(tag, number, self.stay.rooms, self.stay.heard_as)


class Moved(NamedTuple):
    """One that another worker has now."""

    sid: str
    namespace: str
    pid: str
    #: Of that worker.
    tag: str
    #: With the clients of which tag it heard the relay here.
    heard_as: str
    #: Its own, as JSON, until that worker has said that it has the client.
    state: str = ""
    #: When that worker got it, by the host's monotonic clock.
    at: float = 0.0
    #: Of the journal here, the last event of which that worker was told.
    number: int = 0

    @property
    def tags(self) -> tuple[str, str]:
        """Under which others ask for it here, or send to it."""
        return self.heard_as, tag_of(self.sid)

    def save(self) -> dict[str, Any]:
        return {**self._asdict(), "moved": True}

    @classmethod
    def restored(cls, saved: Saved) -> Moved:
        """:raises ValueError: when it is not what :meth:`save` has made."""
        sid, namespace, pid, tag, heard_as, state = map(saved.text, cls._fields[:6])
        at, number = saved.seconds("at"), saved.integer("number")
        return cls(sid, namespace, pid, tag, heard_as, state, at, number)


#: What need not be written of most clients: thousands of states lie in memory.
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
    """What :func:`decode` reads, of a client that has moved and of what else there is."""
    return packets.encode(_without(state, _USUAL)).encode()


def decode(state: bytes) -> Saved:
    """:raises ValueError: when it is not the state of a client."""
    try:
        short = json.loads(state)
    except RecursionError:
        raise ValueError("client is nested too deeply") from None
    return Saved(_expand(short) if isinstance(short, dict) else short, "client")


def _expand(short: dict[str, Any]) -> dict[str, Any]:
    """With what is usual."""
    state = {**_USUAL, **short}
    stay, sid = state.get("stay"), state.get("sid")
    if isinstance(stay, dict) and isinstance(sid, str):
        state["stay"] = {**_usual_stay(sid, stay.get("begin")), **stay}
    return state


def _shorten(stay: Stay, sid: str) -> dict[str, Any]:
    """Nearly always it is as it began, at the worker that the session id names."""
    if stay.is_as_begun and stay.tag == stay.heard_as == tag_of(sid):
        return {"begin": stay.begin}
    return _without(stay.save(), _usual_stay(sid, stay.begin))


def _usual_stay(sid: str, begin: Any) -> dict[str, Any]:
    """At the worker that the session id names."""
    tag = tag_of(sid)
    return {**_USUAL_STAY, "tag": tag, "as": tag, "floor": [begin, 0.0]}


def _without(state: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in usual or value != usual[key]}


class Times:
    """When what is lost is given up: by sid, the earliest first."""

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
        """Those whose time is over, and the next ones as long as there are more than ``most``.

        :return: sids, and whether their time is over.
        """
        while self._heap and (self._heap[0][0] <= now or len(self._times) > most):
            time, sid = heapq.heappop(self._heap)
            if self._times.get(sid) == time:
                del self._times[sid]
                yield sid, time <= now
