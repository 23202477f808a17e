"""Where sessions that are held are safe when this process dies.

As :mod:`.shelf` for those who wait: each packet with descriptors is also sent through a
socket pair of supervisord's, and left in the kernel. Here what is kept stays for seconds,
may be tens of thousands of descriptors, and is not all given up at once. So it is not sent
anew with each change; what is given up is taken out from among the others.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from typing import Iterator, NamedTuple, Sequence

from ..common import channel, takeover
from ..common.channel import ChannelError, DescriptorsLost, Message, Packet
from ..common.limits import MAX_DESCRIPTORS
from .held_group import Batch, Channel, Group, read_group

logger = logging.getLogger("supervisor_sio.router")


class _Kept(NamedTuple):
    #: The number of a group.
    owner: int
    data: bytes
    #: This process's own, open for as long as it is kept.
    descriptors: Sequence[int]


class HeldShelf:
    """:param ends: of a pair of ``SOCK_SEQPACKET``: what goes into the first comes out of the
    second."""

    def __init__(self, *ends: socket.socket) -> None:
        self._into, self._out_of = ends
        #: What is in the pair, in its order.
        self._kept: deque[_Kept] = deque()
        for end in ends:
            end.setblocking(False)

    def take(self) -> list[Group]:
        """What the router before this one has kept, which this one keeps on."""
        groups: dict[int, Group] = {}
        for message, descriptors in self._receive():
            kept = False
            try:
                kept = _restore(groups, message, descriptors)
            except ChannelError as error:  # of another version
                logger.warning("sessions that were held are lost: %s", error)
            if not kept:
                channel.close_all(descriptors)
        for group in groups.values():
            for name, place in group.channels.items():
                self.keep_channel(group, name, place.position)
            for number in group.batches:
                self.keep_batch(group, number)
        return list(groups.values())

    def _receive(self) -> Iterator[Packet]:
        while True:
            try:
                packet = channel.receive(self._out_of, MAX_DESCRIPTORS)
            except (ChannelError, DescriptorsLost) as error:
                logger.warning("sessions that were held are lost: %s", error)
                continue
            except OSError:  # BlockingIOError: there is no more
                return
            if packet is None:
                return
            yield packet

    def keep_channel(self, group: Group, name: str, position: int) -> None:
        """:param position: instead of that which was kept before; stays open, as all here, until
        :meth:`forget`."""
        self._keep(group, group.channel_message(name), [position])

    def keep_batch(self, group: Group, number: int) -> None:
        self._keep(group, group.batch_message(number), group.batches[number].descriptors)

    def _keep(self, group: Group, message: Message, descriptors: Sequence[int]) -> None:
        """If the kernel has room for it: else it is as safe as this process."""
        kept = _Kept(group.id, channel.encode(message), descriptors)
        if self._send(kept):
            self._kept.append(kept)

    def forget(self, owner: int) -> None:
        """Take out what is kept of that group."""
        if not any(kept.owner == owner for kept in self._kept):
            return
        for _ in range(len(self._kept)):
            kept = self._kept.popleft()
            # To the end of the queue, before it leaves the front: it is in there all the time.
            stays = kept.owner != owner and self._send(kept)
            self._drop_first()
            if kept.owner != owner and (stays or self._send(kept)):
                self._kept.append(kept)

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
        group.channels[name] = Channel(descriptors[0], None)
        return True
    batch = takeover.read_sessions(message)
    known = groups.get(number)
    if known is None or not descriptors or batch.number in known.batches:
        return False
    known.batches[batch.number] = Batch(batch.tag, batch.sessions, descriptors)
    return True
