"""Hold what a worker left behind until another worker adopts it: the sessions that it passed on,
and, with recovery, the journals of its clients, see :mod:`.journals`.

What one worker left is one group. Its states:

=======  ===============================================  =====================================
state    what happens                                     then
=======  ===============================================  =====================================
(none)   a worker that ends announces its sessions        PASSING: requests that it hands back
                                                          wait, and the router receives from the
                                                          relay for it
         a router before this one held the group          WAITING; workers that adopted from that
                                                          router may say so first
         a worker with journals has died, or left         WAITING, not for a successor
PASSING  a batch arrives                                  the batch is kept, also for the next
                                                          router
         a batch arrives for which there is no room       it and all later ones stay with the
                                                          worker
         the worker has sent all, and, if it has          WAITING, with its journals
         journals, has left; or its channel has ended;
         or hold_timeout has passed without a batch
WAITING  the group has no batches and no journals         over
         the successor, of the same name, is ready        OFFERED to the successor
         no successor will come (it is drained, has       OFFERED to the worker with the fewest
         failed, or cannot adopt); or hold_timeout        sessions that can adopt
         hold_timeout, and no worker can adopt; or the    the sessions are closed, and counted;
         successor is ready, and no worker has the        journals wait on, for JOURNAL_TIME
         group's format
         JOURNAL_TIME; or too many workers were asked     over: closed, and counted
OFFERED  the worker has received a batch                  the router sends the next batch
         it reports that it has restored all              the router stops receiving for it, and
                                                          sends what it has received
         it has received that, too: the group is its own  GIVEN, if the group has journals, or
                                                          else over
         it refuses, its channel has ended, or it has     WAITING; it is not asked again
         done nothing for ADOPT_TIMEOUT
WAITING  a worker that was asked before reports that it   OFFERED to that worker, as far as above;
OFFERED  has restored all                                 another one that is asked is told
GIVEN    the worker reports that it receives for it       over
         the worker dies before that report               over; the group of what it left goes on
                                                          from this group's position, unless the
                                                          worker's journal has a later one
         the worker's channel has ended, and it lives; or over
         no client can come back from the journals
=======  ===============================================  =====================================

In state GIVEN the router receives on from the relay without confirming anything: the worker writes
the clients to its journal first, which takes a while with many of them, and has no position for
them before. The sessions and the journals are the worker's own already. The next router does not
know of this state.

Over means that the router has dropped the group. A worker that reports an adoption later is told
that the sessions are not its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from functools import partial
from itertools import chain
from typing import Any, Callable, Iterable, Optional, Sequence

from ..common import channel, reasons, takeover
from ..common.channel import ChannelError, Message
from ..common.limits import (
    ADOPT_TIMEOUT,
    HELD_SHARE,
    JOURNAL_TIME,
    TAKEOVER_BATCHES,
    TAKEOVER_CHANNELS,
    TAKEOVER_TRIES,
)
from ..common.processes import is_alive
from ..common.refusals import Refusals
from .carrier import Carrier
from .held_group import Batch, Channel, Group, Keep, Listener, State
from .held_shelf import HeldShelf
from .journals import Journal, Journals
from .placement import REJOIN_TIME, Placement
from .pool import Member, Pool
from .throttle import Throttle

logger = logging.getLogger("supervisor_sio.router")

#: Number of finished adoptions that are remembered, for workers that answer late.
_KNOWN = 64

#: Minimum seconds between two times that changed journals are kept for the next router.
_KEEP_INTERVAL = 0.2

_FAILED = "the listener in place of worker %s on channel %s failed: %r"


class Held:
    """All groups.

    :param carriers: the channels to all workers.
    :param hold_timeout: seconds to wait for a successor.
    :param shelf: keeps the groups for the next router; ``None`` if that cannot continue them.
    :param ceiling: the number below which kept descriptors must be.
    :param listen: starts to receive in place of a worker, from its position in a memory file, see
        :meth:`.StandIns.listen`.
        :raises ValueError: when the position is malformed.
    :param place: returns, as a memory file, the position in the relay of the worker that wrote a
        journal, for the clients with these tags, see :func:`.stand_ins.place`.
        :raises ValueError: when the journal is malformed.
    :param members_changed: called when the tags under which messages are received have changed.
    :param all_stops: whether supervisord is stopping all its processes.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        placement: Placement,
        carriers: Callable[[], Iterable[Carrier]],
        hold_timeout: float,
        shelf: Optional[HeldShelf],
        ceiling: Callable[[], int],
        refusals: Refusals,
        listen: Callable[[int, Optional[Keep], bool], Listener],
        place: Callable[[Journal, list[str], Sequence[int]], int],
        members_changed: Callable[[], None],
        all_stops: Callable[[], bool],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._placement = placement
        self._carriers = carriers
        self._hold_timeout = hold_timeout
        self._shelf = shelf
        self._ceiling = ceiling
        self._refusals = refusals
        self._listen = listen
        self._place = place
        self._members_changed = members_changed
        self._all_stops = all_stops
        self._groups: dict[int, Group] = {}
        #: Those in state GIVEN: to everybody else the router does not have these any more.
        self._unheard: dict[int, Group] = {}
        #: Number of descriptors of all groups.
        self._descriptors = 0
        #: The journals of the connected workers.
        self._journals = Journals(shelf, self._has_room, refusals, time.monotonic)
        self._keep_soon = Throttle(self._loop, _KEEP_INTERVAL, self._journals.keep)
        #: Workers with journals that the router before this one knew, not connected here yet.
        self._missed: list[Member] = []
        self._began = time.monotonic()
        #: Workers with journals whose channel has ended, and which may connect again: their tags,
        #: by each worker's own tag.
        self._absent: dict[str, list[str]] = {}
        #: By the number of a group that is over, the tag of the worker that adopted it, or "".
        self._given: OrderedDict[int, str] = OrderedDict()
        #: Reports of adoptions from earlier routers about groups that this router does not know:
        #: they are answered when all workers have had time to report.
        self._unsure: list[tuple[Carrier, Message]] = []
        self._unsure_until = 0.0
        self._handlers: dict[str, Callable[[Carrier, Message, list[int]], bool]] = {
            "passing": self._take_passing,
            "sessions": self._take_sessions,
            "passed": self._take_passed,
            "took": self._take_took,
            "adopted": self._take_adopted,
            "not-adopted": self._take_not_adopted,
            "adopt-heard": self._take_heard,
            "tags": self._take_tags,
            "journal": self._take_segment,
            "journal-dropped": self._drop_segment,
        }

    @property
    def sessions(self) -> int:
        """The number of held sessions."""
        return sum(group.sessions for group in self._groups.values())

    @property
    def listeners(self) -> int:
        """The number of listeners in place of workers."""
        groups = chain(self._groups.values(), self._unheard.values())
        return sum(len(group.channels) for group in groups)

    def has(self, tag: str) -> bool:
        """Whether the sessions with this tag are held."""
        return tag in self._pool.held

    def keeps(self, tag: str) -> bool:
        """Whether the clients of a worker with this tag may still be adopted or inherited."""
        return self._of(tag) is not None or any(tag in tags for tags in self._absent.values())

    def rows(self) -> list[Any]:
        """Rows of the membership: tags under which the router receives, and none sends."""
        absent = [
            [tag, False, list(self._journals.channels(own)), True]
            for own, tags in self._absent.items()
            for tag in tags
        ]
        held = [
            [tag, False, list(group.channels), True]
            for group in self._groups.values()
            for tag in group.tags
        ]
        return [*absent, *held]

    # --- messages from workers --------------------------------------------------------

    def handles(self, kind: str) -> bool:
        """Whether :meth:`handle` takes messages of this type."""
        return kind in self._handlers

    def handle(self, carrier: Carrier, message: Message, descriptors: list[int]) -> None:
        """Handle a message of a worker; its descriptors are closed unless they are kept.

        :raises ChannelError: when the message is malformed.
        """
        kept = False
        try:
            kept = self._handlers[message["type"]](carrier, message, descriptors)
        finally:
            if not kept:
                channel.close_all(descriptors)

    def lost_descriptors(self, carrier: Carrier, message: Message) -> None:
        """This process had no free descriptors for those of a message."""
        if message["type"] in ("passing", "sessions"):
            self._refuse(carrier, reasons.HELD_FULL)
        elif message["type"] == "journal":
            self._journals.lost_descriptor(carrier, message)

    def _take_passing(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        member = _known(carrier)
        passing = takeover.read_passing(message)
        if len(descriptors) != 1:
            raise ChannelError("sessions without a position in the relay")
        group = self._of(member.tag)
        # Tags that an earlier router held already are no longer among the worker's own.
        its = {*member.tags, *(group.tags if group is not None else ())}
        if member.tag not in passing.tags or not its.issuperset(passing.tags):
            raise ChannelError("sessions of another worker, or without the worker's own tag")
        if self._all_stops():
            self._refuse(carrier, "")
            return False
        if group is None:
            group = Group(
                id=_new_id(),
                name=member.name,
                tags=[],
                format=passing.format,
                deadline=time.monotonic() + self._hold_timeout,
                alone=member.drained,
            )
        elif group.state not in (State.PASSING, State.WAITING):
            self._refuse(carrier, reasons.NO_ROUTER)
            return False
        kept = passing.channel not in group.channels
        if kept:
            if len(group.channels) >= TAKEOVER_CHANNELS:
                raise ChannelError("sessions on too many channels of the relay")
            if not self._has_room(descriptors):
                self._refuse(carrier, reasons.HELD_FULL)
                return False
            try:
                self._hold_channel(group, passing, descriptors[0])
            except Exception as error:
                logger.warning("sessions of worker %s are not held: %s", member.name, error)
                other = isinstance(error, ValueError)
                self._refuse(carrier, reasons.OTHER_FORMAT if other else reasons.NO_ROUTER)
                return False
        group.giver = carrier
        group.state = State.PASSING
        self._pool.givers.update(dict.fromkeys(passing.tags, member))
        carrier.tell({"type": "pass", "batch": group.next_batch})
        return kept

    def _hold_channel(self, group: Group, passing: takeover.Passing, position: int) -> None:
        """:raises ValueError: when the position is malformed.
        :raises OSError: as sockets do.
        """
        listener = self._listen_from(group, passing.channel, position)
        group.channels[passing.channel] = Channel(position, listener)
        self._descriptors += 1
        group.tags += [tag for tag in passing.tags if tag not in group.tags]
        self._groups[group.id] = group
        self._pool.held.update(passing.tags)
        if self._shelf is not None:
            self._shelf.keep_channel(group, passing.channel, position)
        self._members_changed()

    def _take_sessions(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        batch = takeover.read_sessions(message)
        group = self._of(_known(carrier).tag)
        if group is None or group.giver is not carrier:
            self._refuse(carrier, reasons.NO_ROUTER)  # it was too slow
            return False
        if batch.tag not in group.tags or not descriptors:
            raise ChannelError("sessions without their states, or under an unknown tag")
        known = batch.number in group.batches
        if not known:
            if not self._has_room(descriptors):
                self._refuse(carrier, reasons.HELD_FULL)
                return False
            self._hold_batch(group, batch, descriptors)
        group.deadline = time.monotonic() + self._hold_timeout
        carrier.tell({"type": "pass", "batch": batch.number + 1})
        return not known

    def _hold_batch(self, group: Group, batch: takeover.Batch, descriptors: list[int]) -> None:
        group.batches[batch.number] = Batch(batch.tag, batch.sessions, descriptors)
        self._descriptors += len(descriptors)
        if self._shelf is not None:
            self._shelf.keep_batch(group, batch.number)

    def _has_room(self, descriptors: list[int]) -> bool:
        ceiling = self._ceiling()
        more = self._descriptors + self._journals.descriptors + len(descriptors)
        return more <= ceiling * HELD_SHARE and max(descriptors) < ceiling

    def _refuse(self, carrier: Carrier, reason: str) -> None:
        carrier.tell({"type": "no-pass", "reason": reason})

    def _of(self, tag: str) -> Optional[Group]:
        """The group of what the worker with this tag left, or ``None``."""
        return next((group for group in self._groups.values() if tag in group.tags), None)

    def _take_passed(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        if self.has_journals(carrier):
            group = self._of(_known(carrier).tag)
            if group is not None:  # with its journals, which are complete when it has left
                group.deadline = time.monotonic() + self._hold_timeout
                self._has_given(group)
        else:
            self._complete_all(carrier)
        return False

    def _take_segment(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        kept = self._journals.take(carrier, message, descriptors)
        self._keep_soon()
        return kept

    def _drop_segment(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        self._journals.drop(carrier, message)
        self._keep_soon()
        return False

    def _take_took(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        group = self._offered(carrier, message)
        if group is not None:
            group.on_the_way -= 1
            group.until = time.monotonic() + ADOPT_TIMEOUT
            self._pump(group)
        return False

    def _take_adopted(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        number, tags = takeover.read_id(message), takeover.read_tags(message)
        member = _known(carrier)
        group = self._groups.get(number)
        if group is None and number not in self._given and time.monotonic() < self._unsure_until:
            self._unsure.append((carrier, message))
            return False
        if group is not None:
            goes = group.state is not State.PASSING and member.tag not in group.off
        else:  # the worker repeats its report, perhaps after one to another router
            elsewhere = any(self._has_other(tag, member) for tag in tags)
            goes = self._given.get(number, member.tag) == member.tag and not elsewhere
        if not goes:
            carrier.tell({"type": "adopt-off", "id": number})
            return False
        if group is None:
            self._confirm(carrier, number, tags)
            return False
        if group.taker is not carrier:
            self._take_off(group)
        group.state, group.taker, group.adopted = State.OFFERED, carrier, True
        group.until = time.monotonic() + ADOPT_TIMEOUT
        group.packets, group.sent, group.on_the_way = [], 0, 0
        self._pump(group)
        return False

    def _give(self, group: Group, carrier: Carrier) -> None:
        """A worker has adopted a group, and has what was received meanwhile."""
        member = _known(carrier)
        logger.info("worker %s has adopted %s", member.name, group)
        given = group.give(member.tag) if group.journals else None
        self._journals.give(member, self._take_journals(group))
        self._confirm(carrier, group.id, group.tags)
        if given is not None:
            self._unheard[given.id] = given
            self._listen_again(given)

    def _confirm(self, carrier: Carrier, number: int, tags: list[str]) -> None:
        """Tell a worker that what it has adopted belongs to it."""
        member = _known(carrier)
        self._note(number, member.tag)
        self._pool.adopted(member, list(dict.fromkeys([*member.adopted, *tags])))
        if number in self._groups:
            self._end(self._groups[number])
        carrier.tell({"type": "adopt-go", "id": number})
        self._members_changed()
        self._placement.resume(member)

    def _note(self, number: int, tag: str) -> None:
        """Remember that a group is over: the worker with this tag adopted it; "" for none."""
        self._given[number] = tag
        if len(self._given) > _KNOWN:
            self._given.popitem(last=False)
        if self._shelf is not None:  # before the group is removed from the shelf
            self._shelf.keep_given(self._given)

    def _has_other(self, tag: str, member: Optional[Member]) -> bool:
        """Whether the sessions with this tag are held, or belong to another worker."""
        return self.keeps(tag) or self._pool.owner(tag) not in (None, member)

    def _take_not_adopted(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        group = self._offered(carrier, message)
        if group is not None:
            # What it is sent meanwhile would begin another adoption there: it may have refused the
            # offer of an earlier router.
            self._take_off(group)
            self._withdraw(group, takeover.read_reason(message))
        return False

    def _take_tags(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        member = _known(carrier)
        unsure = {tag for one, said in self._unsure if one is carrier for tag in said["tags"]}
        tags = [tag for tag in takeover.read_tags(message) if tag not in unsure]
        gone = [tag for tag in member.adopted if tag not in tags]
        self._pool.adopted(member, [tag for tag in tags if not self._has_other(tag, member)])
        for tag in gone:
            self._placement.released(tag)
        self._members_changed()
        return False

    def _take_heard(self, carrier: Carrier, message: Message, descriptors: list[int]) -> bool:
        given = self._unheard.get(takeover.read_id(message))
        if given is not None and given.heir == _known(carrier).tag:
            self._forget([given])
        return False

    def _forget(self, over: Iterable[Group]) -> None:
        """These groups in state GIVEN are over."""
        for given in list(over):
            del self._unheard[given.id]
            self._descriptors -= len(given.channels)
            self._close_channels(given)

    def _unheard_by(self, tag: str) -> list[Group]:
        """What the worker with this tag has adopted, and does not receive for yet."""
        return [given for given in self._unheard.values() if given.heir == tag]

    # --- events of workers ------------------------------------------------------------

    def leaves(self, carrier: Carrier) -> None:
        """A worker is about to end, or its channel has ended, and it may connect again. For a
        worker with journals, :meth:`over` or :meth:`back` follows."""
        if carrier.member is not None and self.has_journals(carrier):
            tags = [tag for tag in carrier.member.tags if self._of(tag) is None]
            self._absent.setdefault(carrier.member.tag, tags)

    def lost(self, carrier: Carrier) -> None:
        """The channel to a worker has ended."""
        if not self.has_journals(carrier):
            self._complete_all(carrier)
        self._unsure = [one for one in self._unsure if one[0] is not carrier]
        tag, now = carrier.member.tag if carrier.member is not None else "", time.monotonic()
        for group in list(self._groups.values()):
            if group.taker is carrier:
                self._withdraw(group, "it is gone")
            elif tag in group.tags:  # its successor starts only now
                group.deadline = max(group.deadline, now + self._hold_timeout)

    def has_journals(self, carrier: Carrier) -> bool:
        """Whether that worker has journals, which it leaves also when it dies."""
        return carrier.member is not None and bool(self._journals.of(carrier.member.tag))

    def back(self, tag: str) -> None:
        """The worker with this tag has connected again, and will send its journals again."""
        self._absent.pop(tag, None)
        self._forget(self._unheard_by(tag))
        for journal in self._journals.leave(tag):
            journal.close()

    def over(self, member: Member) -> None:
        """A worker has died, or left: another worker may adopt what it left."""
        tag = member.tag
        tags = [one for one in self._absent.pop(tag, []) if not self._has_other(one, None)]
        if not self._journals.of(tag):
            self.back(tag)
            return
        if self._all_stops():
            self.back(tag)
        group = self._of(tag)
        if group is None and self._journals.of(tag) and tag in tags:
            longest = max(journal.recovery for journal in self._journals.of(tag))
            deadline = time.monotonic() + max(longest, JOURNAL_TIME)
            group = Group(_new_id(), member.name, tags, format=0, deadline=deadline, alone=True)
            self._groups[group.id] = group
        if group is None or group.state is State.OFFERED:  # it was too slow to leave
            self._not_inherited(member.name, self._journals.leave(tag))
        else:
            self._inherit_later(group, tag)
            self._complete(group)
        self._forget(self._unheard_by(tag))
        self._members_changed()

    def _look_for_missed(self) -> None:
        """Handle workers that died before they connected to this router."""
        for member in list(self._missed):
            if member.tag not in self._absent:
                self._missed.remove(member)
            elif time.monotonic() - self._began >= REJOIN_TIME and not is_alive(member.pid):
                self._missed.remove(member)
                self.over(member)

    def _inherit_later(self, group: Group, tag: str) -> None:
        """Add the journals of the worker with this tag to its group.

        The shelf keeps them as the worker's until the group has all of them, because this process
        may die meanwhile.
        """
        now = time.monotonic()
        journals = self._journals.of(tag)
        for journal in journals:
            if journal.died is None:
                journal.died = now
                self._hold_place(group, journal)
        # A journal for whose channel no listener receives is useless, also an inherited one.
        good = [journal for journal in journals if journal.source.channel in group.channels]
        # An earlier router may have died after it had kept a part of them with the group.
        known = {journal.source: journal for journal in group.journals}
        not_needed: list[int] = []
        before = group.descriptors
        for journal in good:
            if journal.source in known:
                not_needed += known[journal.source].take_from(journal)
            else:
                group.journals.append(journal)
        self._descriptors += group.descriptors - before
        kept = self._shelf is None or self._shelf.keep_journals(group)
        self._journals.leave(tag)
        if self._shelf is not None and not kept:
            self._shelf.keep_anew(group)  # there is room now
        channel.close_all(not_needed)
        self._not_inherited(group.name, [one for one in journals if one not in good])

    def _hold_place(self, group: Group, journal: Journal) -> None:
        """Receive from the relay in place of a worker that has not passed on sessions."""
        name = journal.source.channel
        if name in group.channels or len(group.channels) >= TAKEOVER_CHANNELS:
            return
        position = -1
        unheard = self._unheard_by(journal.source.tag)
        for given in unheard:
            self._stop_listening(given)
        places = [given.channels[name].latest for given in unheard if name in given.channels]
        try:
            position = self._place(journal, group.tags, places)
            listener = self._listen_from(group, name, position)
        except Exception as error:
            text = "the journal of worker %s on channel %s cannot be inherited: %s"
            logger.warning(text, group.name, name, error)
            channel.close_all([position] if position >= 0 else [])
            return
        group.channels[name] = Channel(position, listener)
        self._descriptors += 1
        if self._shelf is not None:
            self._shelf.keep_channel(group, name, position)

    def _not_inherited(self, name: str, journals: list[Journal]) -> None:
        if journals:
            self._refusals.count(reasons.NOT_INHERITED, f"worker {name}")
        for journal in journals:
            journal.close()

    def _take_journals(self, group: Group) -> list[Journal]:
        """Remove the group's journals; the caller owns them from now on."""
        journals, group.journals = group.journals, []
        self._descriptors -= sum(len(journal.descriptors) for journal in journals)
        return journals

    def resume(self, carrier: Carrier) -> None:
        """A worker reads again."""
        for group in list(self._groups.values()):
            if group.taker is carrier:
                self._pump(group)

    def no_successor(self, name: str) -> None:
        """No process of this name will start."""
        for group in self._groups.values():
            if group.name == name:
                group.alone = True
        self.look()

    def look(self) -> None:
        """Check deadlines, and look for workers that can adopt; called once a second, and when a
        worker may have become ready."""
        self._journals.look()
        self._look_for_missed()
        now = time.monotonic()
        if now >= self._unsure_until:
            unsure, self._unsure = self._unsure, []
            for carrier, message in unsure:
                self._take_adopted(carrier, message, [])
        for group in list(self._groups.values()):
            if group.state is State.PASSING and now >= group.deadline:
                self._complete(group)
            elif group.state is State.OFFERED and now >= group.until:
                self._take_off(group)
                self._withdraw(group, "it takes too long")
            elif group.state is State.WAITING:
                self._find_taker(group, now)
        self._forget(given for given in self._unheard.values() if now >= given.deadline)

    def _complete_all(self, giver: Carrier) -> None:
        for group in list(self._groups.values()):
            if group.giver is giver:
                self._complete(group)

    def _complete(self, group: Group) -> None:
        """The worker will send nothing more of this group."""
        if group.giver is not None and self.has_journals(group.giver):
            self._inherit_later(group, _known(group.giver).tag)
        if group.state is State.PASSING:
            logger.info("%s wait for another worker", group)
        self._has_given(group)
        group.giver = None
        group.state = State.WAITING
        self._find_taker(group, time.monotonic())

    def _has_given(self, group: Group) -> None:
        """The worker will not pass on more sessions: all requests of the group's sessions wait."""
        for tag in group.tags:
            self._pool.givers.pop(tag, None)

    def _find_taker(self, group: Group, now: float) -> None:
        if now < group.not_before:
            return
        if not (group.batches or group.journals):
            self._end(group)
            return
        ready = [(c, c.member) for c in self._carriers() if c.member is not None and c.member.ready]
        others = [(c, member) for c, member in ready if member.tag not in group.tags]
        members = [member for _, member in others]
        takers = [(c, member) for c, member in others if group.may_be_taken_by(member)]
        named = [c for c, member in takers if member.name == group.name]
        late = now >= group.deadline
        if len(group.asked) >= TAKEOVER_TRIES:
            self._close(group, reasons.NOT_ADOPTED)
        elif named:
            self._ask(group, named[-1])
        elif takers and (late or group.has_no_successor(members)):
            # A worker that is busy for a moment is better than none.
            self._ask(group, min(takers, key=lambda taker: (taker[1].busy, taker[1].load))[0])
        elif (
            members and not group.is_understood(members) and (late or group.has_one_named(members))
        ):
            self._give_up(group, reasons.OTHER_FORMAT, members)
        elif late:
            self._give_up(group, reasons.NOT_ADOPTED, members)

    # --- an adoption --------------------------------------------------------------------

    def _ask(self, group: Group, carrier: Carrier) -> None:
        """Ask a worker to adopt.

        The router listens on until the worker has restored all: a sender that dies meanwhile could
        not repeat what it has sent.
        """
        group.state = State.OFFERED
        group.taker = carrier
        group.asked.add(_known(carrier).tag)
        group.until = time.monotonic() + ADOPT_TIMEOUT
        group.packets = group.offer()
        self._pump(group)

    def _pump(self, group: Group) -> None:
        """Send the next packets, as far as TAKEOVER_BATCHES and the channel allow."""
        if group.adopted and not group.packets:
            if group.taker is None or _known(group.taker).busy:
                return  # until it can be sent, more is received
            self._stop_listening(group)
            group.packets = group.places()
        while group.sent < len(group.packets) and group.on_the_way < TAKEOVER_BATCHES:
            packet = group.packets[group.sent]
            assert group.taker is not None
            if not group.taker.pass_on(packet.data, packet.descriptors):
                return  # the worker must read first, or is gone
            group.sent += 1
            group.on_the_way += packet.counts
        if group.adopted and group.taker is not None and not group.on_the_way:
            self._give(group, group.taker)  # it has everything

    def _offered(self, carrier: Carrier, message: Message) -> Optional[Group]:
        group = self._groups.get(takeover.read_id(message))
        offered = group is not None and group.state is State.OFFERED and group.taker is carrier
        return group if offered else None

    def _take_off(self, group: Group) -> None:
        """Tell the asked worker to drop the group, even if it has restored it already."""
        if group.taker is not None:
            group.off.add(_known(group.taker).tag)
            group.taker.tell({"type": "adopt-off", "id": group.id})

    def _withdraw(self, group: Group, reason: str) -> None:
        """The asked worker does not adopt the group."""
        member = group.taker.member if group.taker is not None else None
        logger.warning(
            "worker %s does not adopt the sessions of worker %s: %s",
            member.name if member is not None else "?",
            group.name,
            reason,
        )
        group.taker, group.adopted = None, False
        group.alone = True
        group.packets, group.sent, group.on_the_way = [], 0, 0
        group.state = State.WAITING
        self._listen_again(group)
        self._find_taker(group, time.monotonic())

    # --- the relay ----------------------------------------------------------------------

    def _stop_listening(self, group: Group) -> None:
        """Stop the listeners of a group, and keep what they received."""
        for name, place in group.channels.items():
            listener, place.listener = place.listener, None
            if listener is None:
                continue
            try:
                dump = listener.stop()
            except Exception as error:  # the adopting worker requests these messages again
                logger.error(_FAILED, group.name, name, error)
                continue
            self._keep_dump(group, name, dump)

    def _close_channels(self, group: Group) -> None:
        """Stop the listeners of a group that is over, and drop what they received."""
        for name, place in group.channels.items():
            listener, place.listener = place.listener, None
            try:
                if listener is not None:
                    listener.discard()
            except Exception as error:
                logger.error(_FAILED, group.name, name, error)
            place.close()

    def _keep_dump(self, group: Group, name: str, dump: int) -> None:
        """Keep a listener's state, here and for the next router."""
        place = group.channels[name]
        if self._shelf is not None and group.id in self._groups:  # the group is not over
            self._shelf.keep_channel(group, name, dump)
        if place.dump >= 0:
            os.close(place.dump)
        place.dump = dump

    def _listen_from(self, group: Group, name: str, position: int) -> Listener:
        """:raises ValueError: when the position is malformed.
        :raises OSError: as sockets do.
        """
        if group.state is State.GIVEN:  # the worker confirms what it has received itself
            return self._listen(position, None, False)
        keep = partial(self._keep_dump, group, name) if self._shelf is not None else None
        return self._listen(position, keep, True)

    def _listen_again(self, group: Group) -> None:
        for name, place in group.channels.items():
            if place.listener is not None:
                continue
            try:
                place.listener = self._listen_from(group, name, place.latest)
            except Exception as error:  # as above
                logger.error(_FAILED, group.name, name, error)

    # --- the end ------------------------------------------------------------------------

    def _give_up(self, group: Group, reason: str, members: list[Member]) -> None:
        """No worker adopts the whole group: give up the part that no worker can adopt."""
        if not (group.batches and group.journals):
            self._close(group, reason)
            return
        if any(member.takes == group.format for member in members):
            self._not_inherited(group.name, self._take_journals(group))
        else:
            self._refusals.count(reason, f"worker {group.name}", group.sessions)
            self._descriptors -= sum(len(batch.descriptors) for batch in group.batches.values())
            self._close_some([batch.descriptors for batch in group.batches.values()])
            self._pool.held.difference_update(group.tags)
            group.batches, group.format = {}, 0
            group.deadline = group.journals_until
            for tag in group.tags:
                self._placement.released(tag)
            self._loop.call_soon(self._placement.place_held)
        if self._shelf is not None:
            self._shelf.keep_anew(group)
        self._find_taker(group, time.monotonic())

    def _close(self, group: Group, reason: str) -> None:
        """No worker adopts the group: close its connections."""
        if group.batches:
            self._refusals.count(reason, f"worker {group.name}", group.sessions)
        self._not_inherited(group.name, self._take_journals(group))
        self._note(group.id, "")
        self._end(group)
        self._loop.call_soon(self._placement.place_held)

    def _end(self, group: Group) -> None:
        """Drop the group, from the shelf first, because a worker may be about to use it."""
        if self._shelf is not None:
            self._shelf.forget(group.id)
        del self._groups[group.id]
        self._has_given(group)
        self._descriptors -= group.descriptors
        self._pool.held.difference_update(group.tags)
        self._close_channels(group)
        self._close_some([batch.descriptors for batch in group.batches.values()])
        for journal in group.journals:
            journal.close()
        for tag in group.tags:
            self._placement.released(tag)
        self._members_changed()

    def _close_some(self, descriptors: list[list[int]]) -> None:
        """Close one batch in each turn of the loop, because closing connections takes time."""
        if descriptors:
            channel.close_all(descriptors.pop())
            self._loop.call_soon(self._close_some, descriptors)

    # --- from one router to the next ------------------------------------------------------

    def restore(self) -> None:
        """Continue the groups of the router before this one."""
        if self._shelf is None:
            return
        now = time.monotonic()
        self._unsure_until = now + REJOIN_TIME / 2  # before unknown sessions are refused
        groups = self._shelf.take()
        self._given.update(self._shelf.given)
        for group in groups:
            group.not_before = now + REJOIN_TIME
            group.deadline = max(group.deadline, group.not_before)
            self._groups[group.id] = group
            self._descriptors += group.descriptors
            if group.format:
                self._pool.held.update(group.tags)
            try:
                for name, place in group.channels.items():
                    place.listener = self._listen_from(group, name, place.position)
            except Exception as error:
                logger.warning("sessions of worker %s are not held: %s", group.name, error)
                self._close(group, reasons.OTHER_FORMAT)
        becoming: dict[str, Group] = {}
        for member, journal in self._shelf.journals:
            known = self._of(member.tag)
            if known is not None and is_alive(member.pid):
                journal.close()  # that worker will send it again
                continue
            self._journals.give(member, [journal])
            if known is not None:  # it was just being added to that group
                becoming[member.tag] = known
                continue
            tags = self._absent.setdefault(member.tag, [])
            if not tags:
                self._missed.append(member)
            tags.append(journal.source.tag)
        for tag, group in becoming.items():
            self._inherit_later(group, tag)
        if self._groups:
            logger.info("%d sessions were held for this router", self.sessions)

    def release(self) -> None:
        """The router ends: leave all groups, with their received messages, to the next one."""
        self._journals.keep()
        self._forget(self._unheard.values())
        for group in self._groups.values():
            self._stop_listening(group)
        if self._shelf is not None:
            self._shelf.close()

    def close(self) -> None:
        """The router ends, and no router follows."""
        self._forget(self._unheard.values())
        for group in list(self._groups.values()):
            self._close(group, reasons.ROUTER_STOPPING)


def _new_id() -> int:
    """A number that is unique for all routers of a host."""
    return int.from_bytes(os.urandom(6), "big")


def _known(carrier: Carrier) -> Member:
    """:raises ChannelError: when the worker has not sent its hello."""
    if carrier.member is None:
        raise ChannelError("sessions before a hello")
    return carrier.member
