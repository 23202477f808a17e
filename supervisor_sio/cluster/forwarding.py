"""Where clients are that have moved to other workers, or are guests here; how to reach them."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, Callable, ClassVar, Iterable, List, Mapping, Optional

from ..common.limits import CLIENTS_MOVED
from ..common.request import tag_of
from ..relay.message import RelayMessage
from ..relay.subscriber import Subscriber
from .lost import Client, Moved, encode
from .recovery_base import RecoveryBase
from .rooms import Room, tags_of


class Forwarding(RecoveryBase):
    """The part of a manager that knows to which workers clients have moved."""

    # From the manager and its other parts.
    _subscriber: Optional[Subscriber]
    _is_ours: Callable[[str], bool]
    _answers_for: Callable[[str], bool]

    def forget_moved(self) -> None:
        super().forget_moved()
        #: By sid: clients that have moved to other workers.
        self._moved: OrderedDict[str, Moved] = OrderedDict()
        #: Sids of those whose new workers have yet to confirm that they have them.
        self._unconfirmed: dict[str, None] = {}
        #: By sid: where clients had moved that are about to come back here, or that this process is
        #: about to inherit.
        self._returning: dict[str, Moved] = {}

    # --- where clients are -------------------------------------------------------------------

    def _note_moved(self, moved: Moved) -> None:
        self._moved[moved.sid] = moved
        if moved.state:
            self._unconfirmed[moved.sid] = None
        self._sid_of[moved.pid] = moved.sid
        if self._journal is not None:
            self._write(moved.pid, moved.heard_as, encode(moved.save()))
        while len(self._moved) > CLIENTS_MOVED:
            self._forget_moved(next(iter(self._moved)))

    def _forget_moved(self, sid: str) -> Optional[Moved]:
        moved = self._moved.pop(sid, None)
        self._unconfirmed.pop(sid, None)
        if moved is not None and sid not in self._known:
            self._sid_of.pop(moved.pid, None)
            self._unwrite(moved.pid, moved.heard_as)
        return moved

    def _has_moved(self, tag: str) -> bool:
        return any(tag in moved.tags for moved in list(self._moved.values()))

    def _tags_of(self, room: Room) -> set[Optional[str]]:
        """The tags for an emit to this room or these rooms; ``{None}`` for all workers.

        What is for one client is sent to its home, the worker that its session id names, wherever
        it is now: a worker with a guest receives that, too. So each process's messages to the
        client take one way, and keep their order.
        """
        tags = tags_of(room)
        if None in tags or not self._guests:
            return tags
        rooms = room if isinstance(room, (list, tuple)) else (room,)
        return {self._place_of(str(sid)) for sid in rooms}

    def _place_of(self, sid: str) -> str:
        """The tag to which messages for a client are sent."""
        guest = self._guests.get(sid)
        if guest is None or sid in self._between or not self._is_ours(guest):
            return tag_of(sid)
        return guest

    def _away_tags(self, rooms: Any) -> set[str]:
        """The tags of those of these sids whose messages other workers must receive as well."""
        if not (self._moved or self._between or self._guests):
            return set()
        sids = rooms if isinstance(rooms, (list, tuple)) else (rooms,)
        return {tag_of(sid) for sid in sids if self._is_away(sid)}

    def _is_away(self, sid: Any) -> bool:
        if sid in self._moved or sid in self._between:
            return True
        guest = self._guests.get(sid)
        return guest is not None and not self._is_ours(guest)

    def _names_of(self, tag: str, rooms: Iterable[str]) -> List[str]:
        """Those of these sids whose messages are sent to this tag."""
        return [room for room in rooms if self._place_of(room) == tag]

    def _hear_no_more(self) -> None:
        """Stop receiving for guests that have left."""
        subscriber = self._subscriber
        if subscriber is not None and subscriber.guest_tags:
            homes = set(map(tag_of, self._guests))
            subscriber.hear_no_more(subscriber.guest_tags - homes)

    # --- their ends ------------------------------------------------------------------------

    def _ended(self, client: Client) -> None:
        """A client has left for good; with ``_tables``."""
        guest = client.sid in self._guests
        self._forget(client)
        self._returning.pop(client.sid, None)
        if guest:
            self._say_gone(client.sid, tag_of(client.sid))

    def _say_gone(self, sid: str, tag: str) -> None:
        """Tell a former worker of the client that it need not know its place any more."""
        if self._run_dir is not None:
            self._send_gone(tag, sid, self.host_id)

    def _send_gone(self, tag: str, sid: str, worker: Optional[str]) -> None:
        """:param worker: the last worker that had the client; ``None`` if not known."""
        self._send_to([tag], {"method": "gone", "to_tag": tag, "sid": sid, "worker": worker})

    def _on_gone(self, message: RelayMessage) -> None:
        """A client that moved from here has left."""
        fields = message.fields
        if not self._is_to_this(fields):
            return
        with self._tables:
            moved = self._forget_moved(fields["sid"])
        # The worker to which it moved from here may have to forget it, too.
        if moved is not None and moved.tag != fields.get("worker") and not self._is_ours(moved.tag):
            self._send_gone(moved.tag, fields["sid"], fields.get("worker"))

    def _say_arrived(self, sid: str) -> None:
        """Tell the home of a guest where it is now: other workers on its way may forget it then."""
        tag = tag_of(sid)
        arrived = {"method": "arrived", "to_tag": tag, "sid": sid, "worker": self.host_id}
        self._send_to([tag], {**arrived, "at": time.monotonic()})

    def _on_arrived(self, message: RelayMessage) -> None:
        """A client that moved from here has arrived at yet another worker."""
        fields = message.fields
        if not self._is_to_this(fields):
            return
        sid, tag, at = fields["sid"], fields["worker"], fields["at"]
        with self._tables:
            before = self._moved.get(sid)
            if before is None or at <= before.at:
                return  # it is back here, or has moved again since
            self._unconfirmed.pop(sid, None)
            self._note_moved(before._replace(tag=tag, state="", at=at))
        if before.tag != tag and not self._is_ours(before.tag):
            self._send_gone(before.tag, sid, tag)

    def _is_to_this(self, fields: Mapping[str, Any]) -> bool:
        """False for a message received for guests, or one that went to all because its sender did
        not know the worker with that tag."""
        return self._answers_for(fields["to_tag"])

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "gone": _on_gone,
        "arrived": _on_arrived,
    }
