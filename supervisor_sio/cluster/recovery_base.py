"""What all parts of recovery share, see :mod:`.recovery`: journals, events, and waiting."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import (
    Any,
    Awaitable,
    Callable,
    Deque,
    FrozenSet,
    List,
    Optional,
    Protocol,
    Sequence,
    Tuple,
)

from socketio import packet as sio_packet

from ..common.limits import CLIENT_ANSWERS, MISSED_THREAD_WAIT, RECOVERY_SLICE, RECOVERY_WAIT
from ..common.reasons import CLAIMS_FULL, IN_USE, INCOMPLETE, NO_OWNER, UNKNOWN_PID
from ..common.request import tag_of
from ..relay.journal_reader import JournalReader
from ..relay.message import EncodedPacket
from . import admin, sessions
from .asking import Asking
from .budget import Budget, Full, Share
from .keeping import Keeping
from .lost import Client, Moved
from .missed import Journal, Missed, NotRecovered

#: Encoded packets, each with its attachments.
Packets = Sequence[Sequence[EncodedPacket]]
Said = Tuple[dict[str, Any], Packets]


class Ask(Protocol):
    """Asks the worker that has the clients of a tag; never raises."""

    def __call__(
        self,
        tag: str,
        question: dict[str, Any],
        packets: Packets = (),
        then: Optional[Callable[[Said], None]] = None,
    ) -> Awaitable[Said]:
        """:param then: called with the answer as soon as it has arrived, in the loop; it does not
        raise. It is not called if none arrives in time.
        """


#: Why a client is disconnected that came back on a new connection while the old one seemed open.
TRANSPORT_CLOSE = "transport close"
#: The reason that the ``disconnect`` handler gets for a client of a dead worker.
SERVER_ERROR = "server error"

#: Seconds between two looks at the conditions that are waited for.
LOOK = 0.01

#: Seconds between two looks at how much clients have taken, while others wait for memory.
LOOK_AT_OUTPUT = 0.05


class RecoveryBase(Asking, Keeping):
    """Where clients and journals are, and how to wait for them."""

    # From the manager and its other parts.
    _expected: FrozenSet[str]
    _moved: OrderedDict[str, Moved]
    _outlet: Optional[sessions.Outlet]

    def __init__(self) -> None:
        Keeping.__init__(self)
        self.forget_moved()

    def forget_moved(self) -> None:
        #: Journals of workers whose clients this one inherited, by tag, and when they expire.
        self._readers: OrderedDict[str, Tuple[JournalReader, float]] = OrderedDict()
        #: Conditions that are waited for, and whether a task looks at them.
        self._waits: Deque[_Wait] = deque()
        self._looks = False
        #: Memory for missed events: read from this worker's journals, and fetched from others.
        self._reading, self._arriving = Budget(), Budget()
        #: Whether a task looks at how much clients have taken.
        self._looks_at_output = False

    # --- clients ---------------------------------------------------------------------------

    def _is_settled(self, client: Client) -> bool:
        """Whether it is certain that this process has the client, and not still to be adopted."""
        return client.stay.heard_as not in self._expected

    def _check_present(self, client: Client) -> None:
        """:raises NotRecovered: when the client has left or moved."""
        if self._known.get(client.sid) is not client or not self.is_connected(
            client.sid, client.namespace
        ):
            raise NotRecovered(IN_USE if client.sid in self._moved else UNKNOWN_PID)

    async def _check_unused(self, client: Client) -> str:
        """Check that a client, as which another connection asks to come back, is not in use.

        :return: the Engine.IO sid of the client's open but dead connection; empty if it has none.
        :raises NotRecovered: when the client is connected, and answers.
        """
        if client.lost is not None or self._outlet is None:
            return ""
        eio_sid, done = client.eio_sid, self._create_event()
        answers: List[bool] = []

        def answered(there: bool) -> None:
            answers.append(there)
            done.set()

        self._outlet.ask_client(eio_sid, answered)
        await self._wait_for(done, CLIENT_ANSWERS)
        if True in answers:
            raise NotRecovered(IN_USE)
        return eio_sid

    def _take_from(self, client: Client, old: str) -> Optional[List[Callable[[], None]]]:
        """Take the dead connection from a client; with ``_tables``.

        :param old: the result of :meth:`_check_unused`.
        :return: as :meth:`_lose`.
        :raises NotRecovered: when the client has got another connection meanwhile.
        """
        if client.lost is not None:
            return []
        if client.eio_sid != old:
            raise NotRecovered(IN_USE)
        return self._lose(client, TRANSPORT_CLOSE)

    def _add_moved_here(self, client: Client) -> None:
        """Note a client that was with another worker and is in the tables now."""
        sid = client.sid
        if client.stay.heard_as != tag_of(sid):
            self._guests[sid] = client.stay.heard_as
        self._note_known(client)
        self._save(client)

    def _remove(self, client: Client) -> None:
        """Remove a client from all tables without calling a handler. Its state in the journal stays
        until the next state overwrites it, as this process may be killed in between."""
        self._let_go(client)
        self._take_out(client.sid, client.namespace)
        admin.connected_at(self).pop(client.sid, None)

    def _welcome(self, client: Client) -> None:
        """Answer the client's CONNECT."""
        data: Any = {"sid": client.sid, "pid": client.pid}
        self._send_later(
            (client.eio_sid,), self._encode(sio_packet.CONNECT, client.namespace, data)
        )

    def _give_session(self, client: Client) -> None:
        """Give the client's new connection what the application has stored for the client."""
        try:
            session = self._session(client.sid, client.namespace)
        except (KeyError, AttributeError, TypeError):
            return  # the connection has ended already
        session.clear()
        session.update(client.stored())

    # --- missed events -----------------------------------------------------------------------

    def _missed(self, client: Client, offset: Optional[str]) -> Missed:
        known = self._known_until(client) if client.lost is None else client.known
        return Missed(client, offset, self._journal_of, known)

    def _journal_of(self, tag: str) -> Optional[Journal]:
        if tag == self.host_id:
            return self._journal
        found = self._readers.get(tag)
        return None if found is None else found[0]

    async def _read_missed(
        self, client: Client, offset: Optional[str], until: float
    ) -> Tuple[Missed, Share]:
        """Wait for memory, and read what a client has missed until now.

        :param until: monotonic time until which to wait for memory.
        :return: the events, and their share of the memory, to be ended or given to a client.
        :raises NotRecovered: when the events are not kept, or there is no memory in time.
        """
        share = await self._get_room(self._reading, until)
        try:
            missed = self._missed(client, offset)
            while not missed.read(RECOVERY_SLICE):
                await self._sleep(0)
        except BaseException:
            self._end(self._reading, share)
            raise
        with self._tables:
            self._reading.has_read(share, missed.size)
        return missed, share

    async def _get_room(self, budget: Budget, until: float) -> Share:
        """Wait until missed events may be read into memory.

        :raises NotRecovered: when it takes too long.
        """
        share = Share()
        keeps_thread = self._outlet is not None and self._outlet.concurrent
        if keeps_thread:
            until = min(until, time.monotonic() + MISSED_THREAD_WAIT)
        with self._tables:
            try:
                budget.join(share, time.monotonic())
            except Full:
                raise NotRecovered(CLAIMS_FULL) from None
            if share.may_read:
                return share
            share.granted = self._create_event()
            looks, self._looks_at_output = self._looks_at_output, True
        if not looks:
            self._spawn(self._look_at_output)
        try:
            await self._wait_for(share.granted, max(until - time.monotonic(), 0))
        except BaseException:
            self._end(budget, share)
            raise
        if keeps_thread:
            with self._tables:
                budget.let_in(share)
        if not share.may_read:
            self._end(budget, share)
            raise NotRecovered(CLAIMS_FULL)
        return share

    def _end(self, budget: Budget, share: Share) -> None:
        with self._tables:
            budget.end(share)

    def _give(self, budget: Budget, share: Share, eio_sid: str = "") -> None:
        with self._tables:
            budget.give(share, time.monotonic(), eio_sid)

    async def _look_at_output(self) -> None:
        """Look at how much clients have taken, as long as a share is waited for."""
        budgets = self._reading, self._arriving
        try:
            while True:
                await self._sleep(LOOK_AT_OUTPUT)
                await self._run_in_loop(self._look_what_is_taken)
                with self._tables:
                    if not any(budget.is_awaited for budget in budgets):
                        self._looks_at_output = False  # the next that waits starts a new task
                        return
        except BaseException:  # the next that waits starts a new task
            self._looks_at_output = False
            raise

    def _look_what_is_taken(self) -> None:
        with self._tables:
            for budget in (self._reading, self._arriving):
                budget.expire(time.monotonic())
                if self._outlet is not None:
                    budget.look(self._outlet.waiting)

    # --- waiting -----------------------------------------------------------------------------

    async def _wait_until(
        self,
        condition: Callable[[], bool],
        until: Optional[float] = None,
        reason: str = NO_OWNER,
    ) -> None:
        """Wait until a condition holds.

        :param condition: without side effects: it may be called once more after the wait is over.
        :param until: monotonic time; by default ``RECOVERY_WAIT`` seconds from now.
        :raises NotRecovered: when it does not hold in time.
        """
        if condition():
            return
        seconds = RECOVERY_WAIT if until is None else until - time.monotonic()
        wait = _Wait(condition, self._create_event())
        with self._tables:
            self._waits.append(wait)
            looks, self._looks = self._looks, True
        if not looks:
            self._spawn(self._look_for_all)
        try:
            await self._wait_for(wait.done, max(seconds, 0))
        finally:
            wait.is_over = True
        if wait.error is not None:
            raise wait.error
        if not wait.is_true:
            raise NotRecovered(reason)

    async def _look_for_all(self) -> None:
        """Look at all conditions in one task, for ``RECOVERY_SLICE`` seconds at a time."""
        try:
            while True:
                await self._sleep(LOOK)
                self._look_at_some()
                with self._tables:
                    if not self._waits:
                        self._looks = False  # the next that waits starts a new task
                        return
        except BaseException:  # the next that waits starts a new task
            self._looks = False
            raise

    def _look_at_some(self) -> None:
        until = time.monotonic() + RECOVERY_SLICE
        for _ in range(len(self._waits)):
            wait = self._waits.popleft()
            if not wait.look():
                self._waits.append(wait)
            if time.monotonic() > until:
                break

    async def _run_in_loop(self, call: Callable[[], Any]) -> Any:
        """Run a call in the loop, where messages of the relay arrive, and return its result."""
        threads = None if self._outlet is None else self._outlet.threads
        if threads is None or threads.here:
            return call()
        done, results = self._create_event(), Results()
        threads.run(0, results.take, call, done.set)
        await self._wait_for(done, RECOVERY_WAIT)
        if not results.give_up():
            await self._wait_for(done, RECOVERY_WAIT)  # it has begun: wait once more, then give up
        return results.get()


class _Wait:
    """A condition that is waited for."""

    def __init__(self, condition: Callable[[], bool], done: Any) -> None:
        self.done = done
        self.is_true = False
        self.error: Optional[Exception] = None
        #: Whether the wait has ended.
        self.is_over = False
        self._condition = condition

    def look(self) -> bool:
        """Look at the condition. Return whether the wait is over."""
        if self.is_over:
            return True
        try:
            self.is_true = self._condition()
        except Exception as error:  # raised to the waiting task
            self.error = error
        if self.is_true or self.error is not None:
            self.is_over = True
            self.done.set()
        return self.is_over


class Results:
    """The result of a call in another thread."""

    def __init__(self) -> None:
        #: The one token: the thread takes it to begin the call, or the waiting side to cancel it.
        self._turn = [None]
        self._result: Any = None
        self._error: Optional[BaseException] = NotRecovered(INCOMPLETE)

    def give_up(self) -> bool:
        """Cancel the call. Return whether it had not begun."""
        try:
            self._turn.pop()
        except IndexError:
            return False
        return True

    def take(self, call: Callable[[], Any], done: Callable[[], None] = lambda: None) -> None:
        if not self.give_up():
            return
        try:
            self._result, self._error = call(), None
        except BaseException as error:
            self._error = error
        done()

    def get(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result
