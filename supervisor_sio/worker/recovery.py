"""Recovery of lost clients: the worker's part, beside that of the managers.

A client that loses its connection stays in its manager's tables as *lost*, and no handler is
called. When it returns, to this worker or another, it identifies itself by its ``pid``, see
:mod:`.claims`. If it does not return in time, the worker that owns it then calls its
``disconnect`` handler.

=============================  ================================================================
a client                       what happens
=============================  ================================================================
connects                       it gets a ``pid``, if it asks for one
loses its connection           it becomes lost; the environment of its handshake is kept
returns                        it continues with its old sid at the worker it has connected to
does not return in time,       its ``disconnect`` handler is called, with the reason for which
or this worker is the last     the connection was lost
=============================  ================================================================
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from contextlib import contextmanager
from typing import Any, Awaitable, Callable, Deque, Iterator, Optional

from ..cluster import environs
from ..cluster.offsets import Asked, read_connect
from ..common.allowance import Allowance
from ..common.limits import CLAIM_TIMEOUT, CLAIMS_IN_VAIN, CLAIMS_IN_VAIN_AT_ONCE, LOST_HANDLERS
from ..common.reasons import CLAIMS_FULL, INCOMPLETE, UNKNOWN_PID
from .claims import Messages, Said, no_answer
from .eio import EngineOwner, Lost
from .runtime import Runtime

#: Seconds between checks for expired clients.
_LOOK = 1.0

#: Most ended sessions to check at a time for clients that may still return.
_LOOKED_AT = 2000

#: Asks another worker: takes a tag, the question, and a callback for the answer.
Ask = Callable[[str, Said, Callable[[Said], None]], None]


class _Stored:
    """Stands in for a session that ended in another worker."""

    __slots__ = ("data",)

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data


class Recovery:
    """Recovery for the clients of one server.

    :param end_client: takes a client's Engine.IO sid, its namespace and a reason; calls its
        ``disconnect`` handler, and removes it.
    """

    def __init__(
        self,
        server: Any,
        eio: EngineOwner,
        end_client: Callable[[str, str, str], Awaitable[None]],
    ) -> None:
        self._server = server
        self.manager = server.manager
        self._eio = eio
        eio.find_lost = self._find_lost
        eio.behind = lambda session, behind: self.manager.note_behind(session.sid, behind)
        self._end_client = end_client
        reasons = eio.reason
        #: The reasons of a session's end after which its client may return. They include
        #: CLIENT_DISCONNECT, because a polling client also closes its session after a failed
        #: request; a client that disconnects deliberately has left its namespaces before.
        self._reasons = {
            reasons.TRANSPORT_CLOSE,
            reasons.TRANSPORT_ERROR,
            reasons.PING_TIMEOUT,
            reasons.CLIENT_DISCONNECT,
        }
        #: ``None`` if there are no other workers.
        self.ask_others: Optional[Ask] = None
        #: Limits claims with an unknown, possibly invented, ``pid``.
        self._in_vain = Allowance(CLAIMS_IN_VAIN, CLAIMS_IN_VAIN_AT_ONCE)
        #: The CONNECT data of connecting clients, by Engine.IO sid and namespace.
        self._asked: dict[tuple[str, str], Asked] = {}
        #: Whether no client can return any more.
        self._over = False
        #: Whether another worker takes the lost clients over.
        self._closed = False
        self._looking = False
        #: Whether :meth:`_confirm` is running.
        self._confirming = False
        #: Clients whose handler waits, and the number of running handlers.
        self._waiting: Deque[tuple[str, str, str]] = deque()
        self._running = 0
        #: By Engine.IO sid: how many handlers need the environment of the ended session.
        self._in_use: Counter[str] = Counter()

    def in_loop(self, task: Callable[..., Any], *args: Any) -> None:
        """Call a task in a later turn of the loop; may be called in any thread."""
        self._eio.in_loop(self._eio.runtime.call_soon, task, *args)

    # --- a client connects ----------------------------------------------------------------

    async def recovers(self, eio_sid: str, namespace: str, pkt: Any) -> bool:
        """Recover a connecting client if it is a lost one; return whether it was.

        :param pkt: its CONNECT packet, from which the recovery data is removed.
        """
        if not self._looking:
            self._eio.in_loop(self.look)
        environ = self._server.environ[eio_sid]
        asked = read_connect(environ, pkt.data)
        pkt.data = asked.data
        if asked.pid is not None:
            try:
                reason = await self.manager.recover(eio_sid, environ, namespace, asked, self._ask)
            except Exception:  # the client connects as a new one
                self._eio.logger.exception("recovery error")
                reason = INCOMPLETE
            if reason is None:
                return True
            self._count(eio_sid, reason)
        self._asked[eio_sid, namespace] = asked
        return False

    def connected(self, eio_sid: str, namespace: str) -> None:
        """The connect of a new client has ended: accepted or refused."""
        self._asked.pop((eio_sid, namespace), None)

    def begin(self, eio_sid: str, pkt: Any) -> None:
        """Add the pid to the packet that confirms a client's connect, if it gets one."""
        namespace = pkt.namespace or "/"
        asked = self._asked.get((eio_sid, namespace))
        if asked is not None:  # a new client, not a recovered one
            pid = self.manager.begin(pkt.data["sid"], namespace, asked)
            if pid:
                pkt.data["pid"] = pid

    def _count(self, eio_sid: str, reason: str) -> None:
        session = self._eio.engine.sessions.get(eio_sid)
        if session is not None:
            self._eio.count_of(session, reason)

    # --- questions ------------------------------------------------------------------------

    async def _ask(
        self,
        tag: str,
        question: dict[str, Any],
        messages: Messages = (),
        then: Optional[Callable[[Said], None]] = None,
    ) -> Said:
        """:class:`..cluster.recovery_base.Ask`; called where handlers run."""
        ask = self.ask_others
        if ask is None:
            return no_answer(UNKNOWN_PID)
        is_claim = question["do"] == "claim"
        if is_claim and not self._in_vain.left:
            return no_answer(CLAIMS_FULL)
        answers: list[Said] = []
        event = self._eio.create_event()
        has_threads = self._eio.runtime.has_threads

        def answered(answer: Said) -> None:
            answers.append(answer)
            if then is not None and has_threads:  # else the waiting task is in the loop itself
                then(answer)
            event.set()

        said = {"channel": self.manager.hears, **question}, messages
        self._eio.in_loop(ask, tag, said, answered)
        await self._eio.wait(event, CLAIM_TIMEOUT)
        answer = answers[0] if answers else no_answer()
        if answers and then is not None and not has_threads:
            then(answer)
        if is_claim and answer[0].get("reason") == UNKNOWN_PID:
            self._in_vain.use()
        return answer

    def answer(self, question: Said, answered: Callable[[Said], None]) -> None:
        """Answer another worker's question; called in the loop."""
        runtime = self._eio.runtime
        # Like an acknowledgement: two workers may wait for each other's answers.
        run = runtime.run_answer
        if runtime.has_threads and question[0].get("do") == "taken":
            # Nothing is waited for, and the client is nowhere until the answer has arrived.
            run = runtime.call_soon
        run(self._eio.call, self._answer, question, answered)

    async def _answer(self, question: Said, answered: Callable[[Said], None]) -> None:
        answer = no_answer()
        try:
            answer = await self.manager.answer_claim(*question)
        finally:
            self._eio.in_loop(answered, answer)

    # --- a client is lost -----------------------------------------------------------------

    def loses(self, eio_sid: str, namespace: str, reason: Optional[str]) -> bool:
        """A client has lost its connection; make it lost, and return true, if it may return."""
        if self._over or reason not in self._reasons:
            return False
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace)
        if sid is None or not self.manager.lose(sid, namespace, reason):
            return False
        session = self._eio.engine.sessions.get(eio_sid)
        if eio_sid not in self._eio.lost and session is not None:
            self._eio.lost[eio_sid] = Lost(session, self._server.environ.get(eio_sid))
        if not self._looking:
            self._eio.in_loop(self.look)
        return True

    def may_come_back(self, eio_sid: str) -> bool:
        """Whether a client could, if it lost its connection now."""
        find = self.manager.sid_from_eio_sid
        sids = (find(eio_sid, name) for name in list(self.manager.get_namespaces()))
        return any(sid is not None and self.manager.may_come_back(sid) for sid in sids)

    def look(self) -> None:
        """Check regularly for expired clients, as long as there are any; call it in the loop."""
        if not self._looking:
            self._looking = True
            self._eio.runtime.call_later(_LOOK, self._look)

    def _look(self) -> None:
        self._looking = False
        self._expire(time.monotonic())
        if self.manager.unconfirmed and not self._confirming:
            self._confirming = True
            self._eio.runtime.run(self._eio.call, self._confirm)
        lost = self._eio.lost
        for eio_sid in list(lost)[:_LOOKED_AT]:
            one = lost.pop(eio_sid, None)
            if one is not None and self._is_known(eio_sid):
                lost[eio_sid] = one  # at the end: the next check begins with others
        waiting = lost or self.manager.lost or self.manager.unconfirmed
        if waiting or self._eio.engine.sessions:
            self.look()

    async def _confirm(self) -> None:
        """Ask other workers about clients that have recovered there."""
        try:
            await self.manager.confirm(self._ask)
        finally:
            self._confirming = False

    def _is_known(self, eio_sid: str) -> bool:
        find = self.manager.sid_from_eio_sid
        return any(find(eio_sid, name) is not None for name in list(self.manager.get_namespaces()))

    # --- its end --------------------------------------------------------------------------

    def close(self) -> None:
        """This worker stops: another worker takes its lost clients over, also those whose sessions
        it closes now, and calls the handlers that have not started."""
        self._closed = True
        self._waiting.clear()  # clients stay in the journal until their handlers have run
        self._reasons.add(self._eio.reason.SERVER_DISCONNECT)

    def finish(self) -> None:
        """No client can return any more: call the handlers of all lost clients."""
        self._over = True
        self._expire(math.inf)

    @property
    def has_handlers(self) -> bool:
        """Whether handlers of expired clients have yet to finish."""
        return bool(self._waiting or self._running)

    def _expire(self, now: float) -> None:
        if self._closed:
            return
        for eio_sid, _, namespace, reason in self.manager.expire(now):
            self._waiting.append((eio_sid, namespace, reason))
        if self._waiting:  # from the loop itself: in a greenlet, handlers would run one by one
            self._eio.runtime.call_soon(self._run_handlers)

    def _run_handlers(self) -> None:
        while self._waiting and self._running < LOST_HANDLERS:
            self._running += 1
            self._eio.runtime.run(self._eio.call, self._end, *self._waiting.popleft())

    async def _end(self, eio_sid: str, namespace: str, reason: str) -> None:
        try:
            if eio_sid not in self._eio.lost:
                self._know_of(eio_sid, namespace)
            with self._environment(eio_sid):
                await self._end_client(eio_sid, namespace, reason)
        finally:
            self._eio.in_loop(self._ended)

    def _know_of(self, eio_sid: str, namespace: str) -> None:
        """Make an inherited client, which another worker had when it died, known as lost."""
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace)
        if sid is not None:
            stored = _Stored({namespace: self.manager.lost_session(sid) or {}})
            environ = environs.unknown(self._server.is_asyncio_based())
            self._eio.lost[eio_sid] = Lost(stored, environ)

    def _find_lost(self, eio_sid: str) -> Optional[Lost]:
        for namespace in list(self.manager.get_namespaces()):
            self._know_of(eio_sid, namespace)
        return self._eio.lost.get(eio_sid)

    def _ended(self) -> None:
        self._running -= 1
        if self._waiting:
            self._eio.runtime.call_soon(self._run_handlers)

    @contextmanager
    def environment(self, sid: str, namespace: str) -> Iterator[None]:
        """Provide the environment to handlers while a possibly lost client is disconnected."""
        eio_sid = self.manager.eio_sid_from_sid(sid, namespace)
        known = (self._eio.lost, self._server.environ, self._eio.engine.sessions)
        if eio_sid is not None and not any(eio_sid in found for found in known):
            self._know_of(eio_sid, namespace)
        with self._environment(eio_sid):
            yield

    @contextmanager
    def _environment(self, eio_sid: Optional[str]) -> Iterator[None]:
        lost = None if eio_sid is None else self._eio.lost.get(eio_sid)
        if eio_sid is None or lost is None:
            yield
            return
        self._in_use[eio_sid] += 1
        self._server.environ[eio_sid] = lost.environ
        try:
            yield
        finally:
            self._in_use[eio_sid] -= 1
            if not self._in_use[eio_sid]:
                del self._in_use[eio_sid]
                self._server.environ.pop(eio_sid, None)
            if not self._is_known(eio_sid):
                self._eio.lost.pop(eio_sid, None)


def recoveries(runtime: Runtime) -> list[Recovery]:
    """The recoveries of all servers of this process that have one."""
    found = [getattr(outlet, "recovery", None) for outlet in runtime.outlets]
    return [recovery for recovery in found if recovery is not None]
