"""Keep held sessions for the next router, in case this process dies.

As in :mod:`.shelf`, packets with descriptors are sent into a socket pair of supervisord, and stay
in the kernel. Held sessions may have tens of thousands of descriptors, stay for seconds, and are
not dropped all at once. So the packets are not all sent again with each change; packets that are
dropped are taken out from between the others.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
from collections import deque
from typing import Callable, Mapping, NamedTuple, Sequence

from ..common import channel, recovery, takeover
from ..common.channel import ChannelError, Message
from ..common.takeover import is_tag
from .held_group import Batch, Channel, Group, read_group
from .journals import Journal
from .pool import Member

logger = logging.getLogger("supervisor_sio.router")


#: The owner of the packet about finished adoptions.
_GIVEN = 0


class _Kept(NamedTuple):
    #: The number of a group, or of a journal (below 0).
    owner: int
    data: bytes
    #: They stay open while the packet is kept.
    descriptors: Sequence[int]
    #: The channel of the relay that the packet is about, if any.
    channel: str = ""


class HeldShelf:
    """:param ends: a pair of ``SOCK_SEQPACKET`` sockets: packets sent into the first are read from
    the second."""

    def __init__(self, *ends: socket.socket) -> None:
        self._into, self._out_of = ends
        #: The packets in the pair, in their order.
        self._kept: deque[_Kept] = deque()
        #: Numbers for journals of connected workers.
        self._numbers = itertools.count(-1, -1)
        #: Journals that the router before this one kept, with the workers that had them.
        self.journals: list[tuple[Member, Journal]] = []
        #: Finished adoptions of the router before this one, see :meth:`keep_given`.
        self.given: dict[int, str] = {}
        for end in ends:
            end.setblocking(False)

    def take(self) -> list[Group]:
        """Read the groups that the router before this one kept, and keep them again."""
        groups: dict[int, Group] = {}
        # Packets about a group's channels may come after those of its batches.
        packets = channel.receive_left(self._out_of, _note_lost)
        for message, descriptors in sorted(packets, key=lambda one: _is_batch(one[0])):
            kept = False
            try:
                if message["type"] == "had-journal":
                    kept = self._restore_journal(message, descriptors)
                elif message["type"] == "given":
                    self.given = _read_given(message)
                else:
                    kept = _restore(groups, message, descriptors)
            except ChannelError as error:  # written by another version
                _note_lost(error)
            if not kept:
                channel.close_all(descriptors)
        for group in groups.values():
            self._keep_all(group)
        self.keep_given(self.given)
        return list(groups.values())

    def _keep_all(self, group: Group) -> None:
        for name, place in group.channels.items():
            self.keep_channel(group, name, place.latest)
        for number in group.batches:
            self.keep_batch(group, number)
        self.keep_journals(group)

    def keep_channel(self, group: Group, name: str, position: int) -> None:
        """:param position: replaces the one kept before, if the kernel has room for it."""
        try:
            own = os.dup(position)
        except OSError as error:
            logger.warning(
                "messages for held sessions are lost if this process is killed: %s", error
            )
            return
        kept = _Kept(group.id, channel.encode(group.channel_message(name)), [own], name)
        if self._keep(kept):
            self._take_out(
                lambda one: one.owner == group.id and one.channel == name and one is not kept
            )
        else:
            os.close(own)

    def keep_batch(self, group: Group, number: int) -> None:
        """Its descriptors stay open until :meth:`forget`."""
        data = channel.encode(group.batch_message(number))
        self._keep(_Kept(group.id, data, group.batches[number].descriptors))

    def keep_journals(self, group: Group) -> bool:
        """Keep a group's journals; returns whether the kernel had room for all."""
        kept = True
        for part, descriptors in group.parts():
            data = channel.encode(recovery.part(group.id, part))
            kept = self._keep(_Kept(group.id, data, descriptors)) and kept
        return kept

    def keep_anew(self, group: Group) -> None:
        """Keep a group again that has lost a part."""
        self.forget(group.id)
        self._keep_all(group)

    def keep_journal(self, member: Member, journal: Journal) -> tuple[int, bool]:
        """Keep a journal of a connected worker.

        :return: a number for :meth:`forget`, before which the descriptors must stay open, and
            whether the kernel had room for all of it.
        """
        owner, whole = next(self._numbers), True
        worker = {"holder": member.tag, "name": member.name, "pid": member.pid}
        for part, descriptors in journal.parts():
            message = {**recovery.part(0, part), "type": "had-journal", **worker}
            whole = self._keep(_Kept(owner, channel.encode(message), descriptors)) and whole
        return owner, whole

    def _restore_journal(self, message: Message, descriptors: list[int]) -> bool:
        part = recovery.read_part(message)
        tag, name, pid = message.get("holder"), message.get("name"), message.get("pid")
        if not is_tag(tag) or not isinstance(name, str) or type(pid) is not int:
            raise ChannelError("a journal without its worker")
        for member, journal in self.journals:
            if member.tag == tag and journal.source == part.source:
                return add_part(journal, part, descriptors)
        died = None if part.source.tag == tag else part.died
        journal = Journal(part.source, part.format, part.recovery, died)
        self.journals.append((Member(str(tag), name, pid), journal))
        return add_part(journal, part, descriptors)

    def keep_given(self, given: Mapping[int, str]) -> None:
        """:param given: by the numbers of groups that are over, the tags of the workers that
        adopted them, or ""."""
        self.forget(_GIVEN)
        if given:
            data = channel.encode({"type": "given", "groups": list(given.items())})
            self._keep(_Kept(_GIVEN, data, []))

    def _keep(self, kept: _Kept) -> bool:
        """Keep a packet; false if the kernel has no room, so that it is lost with this process."""
        sent = self._send(kept)
        if sent:
            self._kept.append(kept)
        return sent

    def forget(self, *owners: int) -> None:
        """Remove the packets of these groups or journals."""
        self._take_out(lambda kept: kept.owner in owners)

    def close(self) -> None:
        """Keep nothing more; the packets stay for the next router."""
        while self._kept:
            kept = self._kept.popleft()
            if kept.channel:
                channel.close_all(kept.descriptors)

    def _take_out(self, goes: Callable[[_Kept], object]) -> None:
        if not any(map(goes, self._kept)):
            return
        for _ in range(len(self._kept)):
            kept = self._kept.popleft()
            stays = not goes(kept)
            # Send it to the end of the queue before it is read from the front, so that it is never
            # missing.
            sent = stays and self._send(kept)
            self._drop_first()
            if stays and (sent or self._send(kept)):
                self._kept.append(kept)
            elif kept.channel:
                channel.close_all(kept.descriptors)

    def _send(self, kept: _Kept) -> bool:
        try:
            channel.send_encoded(self._into, kept.data, kept.descriptors)
        except OSError:
            return False
        return True

    def _drop_first(self) -> None:
        """Read a packet without its descriptors, which the kernel closes then (unix(7))."""
        try:
            self._out_of.recv(1)
        except OSError:
            logger.exception("a packet about held sessions cannot be read")


def _is_batch(message: Message) -> bool:
    return bool(message["type"] != "held")


def _note_lost(error: Exception) -> None:
    logger.warning("held sessions are lost: %s", error)


def _read_given(message: Message) -> dict[int, str]:
    """:raises ChannelError: when the message is malformed."""
    given = {}
    for row in message.get("groups", []):
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[1], str)):
            raise ChannelError("a finished adoption without its worker")
        given[takeover.read_id({"id": row[0]})] = row[1]
    return given


def _restore(groups: dict[int, Group], message: Message, descriptors: list[int]) -> bool:
    """Add a packet to the groups; returns whether the descriptors are kept. A packet that comes
    twice was just being moved to the end.

    :raises ChannelError: when the message is malformed.
    """
    number = takeover.read_id(message)
    if message["type"] == "held" and len(descriptors) == 1:
        group = groups.setdefault(number, read_group(message))
        group.tags += [tag for tag in read_group(message).tags if tag not in group.tags]
        name = takeover.read_passing(message).channel
        old = group.channels.get(name)
        if old is not None:
            channel.close_all([old.position])
        group.channels[name] = Channel(descriptors[0])
        return True
    known = groups.get(number)
    if message["type"] == "adopt-journal":
        return known is not None and _restore_part(known, recovery.read_part(message), descriptors)
    batch = takeover.read_sessions(message)
    if known is None or not descriptors or batch.number in known.batches:
        return False
    known.batches[batch.number] = Batch(batch.tag, batch.sessions, descriptors)
    return True


def _restore_part(group: Group, part: recovery.Part, descriptors: list[int]) -> bool:
    known = {journal.source: journal for journal in group.journals}
    journal = known.get(part.source)
    if journal is None:
        journal = Journal(part.source, part.format, part.recovery, part.died)
    kept = add_part(journal, part, descriptors)
    if kept and part.source not in known:
        group.journals.append(journal)
    return kept


def add_part(journal: Journal, part: recovery.Part, descriptors: list[int]) -> bool:
    """Add segments to a journal. A segment that comes twice was just being moved to the end, or
    kept again with a change; its second descriptor is closed.

    :returns: whether the descriptors were taken over.
    """
    if len(part.numbers) != len(descriptors):
        return False
    segments = journal.logs.setdefault(part.log, {})
    for number, descriptor in zip(part.numbers, descriptors):
        if segments.setdefault(number, descriptor) != descriptor:
            os.close(descriptor)
    return True
