"""Where sessions that are held are safe when this process dies.

As :mod:`.shelf` for those who wait: each packet with descriptors is also sent through a
socket pair of supervisord's, and left in the kernel. Here what is kept stays for seconds,
may be tens of thousands of descriptors, and is not all given up at once. So it is not sent
anew with each change; what is given up is taken out from among the others.
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


#: As the owner of what is kept: which worker has what is over.
_GIVEN = 0


class _Kept(NamedTuple):
    #: The number of a group; or one below 0, of a journal.
    owner: int
    data: bytes
    #: Open for as long as it is kept.
    descriptors: Sequence[int]
    #: The channel of the relay that it is about; empty when it is not about one.
    channel: str = ""


class HeldShelf:
    """:param ends: of a pair of ``SOCK_SEQPACKET``: what goes into the first comes out of the
    second."""

    def __init__(self, *ends: socket.socket) -> None:
        self._into, self._out_of = ends
        #: What is in the pair, in its order.
        self._kept: deque[_Kept] = deque()
        #: Of journals of workers that are there.
        self._numbers = itertools.count(-1, -1)
        #: Those that the router before this one has kept, with the workers that had them.
        self.journals: list[tuple[Member, Journal]] = []
        #: What the router before this one had given to whom, as :meth:`keep_given` has it.
        self.given: dict[int, str] = {}
        for end in ends:
            end.setblocking(False)

    def take(self) -> list[Group]:
        """What the router before this one has kept, which this one keeps on."""
        groups: dict[int, Group] = {}
        # What is known of a group may have been kept anew behind its batches.
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
            except ChannelError as error:  # of another version
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
        """:param position: instead of that which was kept before, if the kernel has room for it."""
        try:
            own = os.dup(position)
        except OSError as error:
            logger.warning(
                "what was heard for sessions that are held is kept here alone: %s", error
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
        """Whether all of them are."""
        kept = True
        for part, descriptors in group.parts():
            data = channel.encode(recovery.part(group.id, part))
            kept = self._keep(_Kept(group.id, data, descriptors)) and kept
        return kept

    def keep_anew(self, group: Group) -> None:
        """It has lost a part of what is kept."""
        self.forget(group.id)
        self._keep_all(group)

    def keep_journal(self, member: Member, journal: Journal) -> tuple[int, bool]:
        """Of a worker that is there.

        :return: a number, until which is forgotten its descriptors stay open; and whether the
            kernel had room for all of it.
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
        """:param given: by the numbers of groups that are over, the tags of the workers that have
        them; empty where nobody has."""
        self.forget(_GIVEN)
        if given:
            data = channel.encode({"type": "given", "groups": list(given.items())})
            self._keep(_Kept(_GIVEN, data, []))

    def _keep(self, kept: _Kept) -> bool:
        """If the kernel has room for it: else it is as safe as this process."""
        sent = self._send(kept)
        if sent:
            self._kept.append(kept)
        return sent

    def forget(self, *owners: int) -> None:
        """Take out what is kept of those groups, or journals."""
        self._take_out(lambda kept: kept.owner in owners)

    def close(self) -> None:
        """Keep no more; what is there stays for the next router."""
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
            # To the end of the queue, before it leaves the front: it is in there all the time.
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
        """Without room for its descriptors the kernel closes them (unix(7))."""
        try:
            self._out_of.recv(1)
        except OSError:
            logger.exception("the sessions that are held")


def _is_batch(message: Message) -> bool:
    return bool(message["type"] != "held")


def _note_lost(error: Exception) -> None:
    logger.warning("sessions that were held are lost: %s", error)


def _read_given(message: Message) -> dict[int, str]:
    """:raises ChannelError: when it is not understood."""
    given = {}
    for row in message.get("groups", []):
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[1], str)):
            raise ChannelError("a group that is over without its worker")
        given[takeover.read_id({"id": row[0]})] = row[1]
    return given


def _restore(groups: dict[int, Group], message: Message, descriptors: list[int]) -> bool:
    """Whether the descriptors are kept. What is there twice was just being moved to the end.

    :raises ChannelError: when it is not understood.
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
    """What is there twice was just being moved to the end, or kept anew with what has changed.

    :returns: whether these are its descriptors; they are kept, or closed, then.
    """
    if len(part.numbers) != len(descriptors):
        return False
    segments = journal.logs.setdefault(part.log, {})
    for number, descriptor in zip(part.numbers, descriptors):
        if segments.setdefault(number, descriptor) != descriptor:
            os.close(descriptor)
    return True
