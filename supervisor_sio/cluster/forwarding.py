"""Clients that other workers have now: what comes for them here is sent on to there."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Callable, ClassVar, FrozenSet, Iterable, List, Mapping, Optional

from ..common.limits import CLIENTS_MOVED
from ..common.request import tag_of
from ..relay.message import RelayMessage
from .lost import Client, Moved, encode
from .recovery_base import RecoveryBase
from .rooms import Room, is_sid, tags_of


class Forwarding(RecoveryBase):
    """The part of a manager that knows where clients have gone."""

    # From the manager and its other parts.
    _apart: FrozenSet[str]
    _is_ours: Callable[[str], bool]

    def forget_moved(self) -> None:
        super().forget_moved()
        #: By sid, those that other workers have now.
        self._moved: OrderedDict[str, Moved] = OrderedDict()
        #: Those of whom these have yet to say that they have them.
        self._unconfirmed: dict[str, None] = {}

    # --- where clients are -------------------------------------------------------------------

    def _note_moved(self, moved: Moved) -> None:
        self._moved[moved.sid] = moved
        if moved.state:
            self._unconfirmed[moved.sid] = None
        self._sid_of[moved.pid] = moved.sid
        if self._journal is not None and moved.heard_as not in self._expected:
            self._journal.save(moved.pid, encode(moved.save()))
        while len(self._moved) > CLIENTS_MOVED:
            self._forget_moved(next(iter(self._moved)))

    def _forget_moved(self, sid: str) -> Optional[Moved]:
        moved = self._moved.pop(sid, None)
        self._unconfirmed.pop(sid, None)
        if moved is not None and sid not in self._known:
            self._sid_of.pop(moved.pid, None)
            if self._journal is not None:
                self._journal.remove(moved.pid)
        return moved

    def _has_moved(self, tag: str) -> bool:
        return any(moved.heard_as == tag for moved in list(self._moved.values()))

    def _tags_of(self, room: Room) -> set[Optional[str]]:
        """The workers that an emit to this room or these rooms concerns; ``{None}`` for all."""
        tags = tags_of(room)
        if None in tags or not (self._moved or self._guests):
            return tags
        rooms = room if isinstance(room, (list, tuple)) else (room,)
        return {self._place_of(str(sid)) for sid in rooms}

    def _place_of(self, sid: str) -> str:
        """The tag of who has a client, as far as this process knows."""
        guest = self._guests.get(sid)
        if guest is not None:
            return guest
        moved = self._moved.get(sid)
        return tag_of(sid) if moved is None else moved.tag

    def _passed_to(self, sid: str, stream: str) -> Optional[str]:
        """To whose clients a message for one is passed that has come to the clients of a tag."""
        moved = self._moved.get(sid)
        if moved is not None:
            return moved.tag
        guest = self._guests.get(sid)
        return guest if guest != stream and guest in self._apart else None

    def _names_of(self, tag: str, rooms: Iterable[str]) -> List[str]:
        """Those of these sids whose clients the worker with this tag has."""
        return [room for room in rooms if self._place_of(room) == tag]

    # --- messages for those who are with another worker ---------------------------------------

    def _pass_on(self, message: RelayMessage) -> Optional[RelayMessage]:
        """Send what is for clients who have moved to where they are now.

        :param message: to this worker alone.
        :return: what is left of it, for clients of this one.
        """
        fields = message.fields
        name = "sid" if "sid" in fields else "room"
        named: Any = fields.get(name)
        sids: List[Any] = named if isinstance(named, list) else [named]
        if not all(map(is_sid, sids)) or message.stream is None:
            return message
        passed_to = {sid: self._passed_to(sid, message.stream) for sid in sids}
        if not any(passed_to.values()):
            return message
        volatile = fields["method"] == "volatile"
        scope = message.scope
        for tag in set(filter(None, passed_to.values())):
            theirs = [sid for sid in sids if passed_to[sid] == tag]
            if self._is_ours(tag):  # what this process sends reaches them directly
                passed_to.update(dict.fromkeys(theirs))
                scope = None
                continue
            if fields["method"] == "gone" and fields.get("worker") == tag:
                continue  # it says so
            passed = {**fields, name: theirs if isinstance(named, list) else named}
            passed.setdefault("reply_to", message.sender)
            self._send_to([tag], passed, message.packets, "a message", volatile)
        if fields["method"] == "gone":
            for sid in sids:
                self._forget_moved(sid)
        ours = [sid for sid in sids if passed_to[sid] is None]
        if not ours:
            return None
        left = RelayMessage(
            message.sender,
            message.sequence,
            {**fields, name: ours if isinstance(named, list) else named},
            message.packets,
            message.after,
            message.time,
        )
        left.scope, left.stream = scope, message.stream
        return left

    # --- their ends ------------------------------------------------------------------------

    def _ended(self, client: Client) -> None:
        """It has left for good; with ``_tables``."""
        guest = client.sid in self._guests
        self._forget(client)
        if guest:
            self._say_gone(client.sid, tag_of(client.sid))

    def _say_gone(self, sid: str, tag: str) -> None:
        """Nothing needs to be passed on to a client any more by those who had it before."""
        if self._run_dir is not None:
            self._send_to([tag], {"method": "gone", "sid": sid, "worker": self.host_id})

    def _on_gone(self, message: RelayMessage) -> None:
        """A client that this one had before has left."""
        with self._tables:
            self._forget_moved(message.fields["sid"])

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {"gone": _on_gone}
