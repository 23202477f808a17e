"""Clients that come back to their session, at the worker that has it or at another one.

The *owner* of a client is the worker that answers for it: the one that its ``pid`` names, or the
one that has taken over that worker's clients. A worker to which the client comes back asks the
owner, in three steps that hand over the client's position in every sender's stream without a gap:

============  ===================================================================================
``claim``     the client's state: the new worker adds it to its tables, and receives what is
              sent to the client's home, the worker that its session id names; messages for the
              client are held at the new worker from now on
``fetch``     the events that the client has missed: at least up to the position that the new
              worker had when it began to hold messages
``taken``     the new worker has the client from now on. Or ``not_taken``: it is lost as before
============  ===================================================================================

The new worker may die before it has written down that it has the client. So the former owner asks a
little later, ``has``; if no worker has the client, the former owner calls its ``disconnect``
handler.

A client at another worker than its home is a *guest* there.

========================  =====================================================================
:mod:`.claiming`          the steps in the new worker
:mod:`.handing_over`      the steps in the owner
:mod:`.confirming`        the question afterwards, and its answer
:mod:`.forwarding`        the places of clients that have moved, and of guests
:mod:`.inheriting`        clients of a worker that has died
here                      clients that come back to the worker that has them; and their ends
========================  =====================================================================
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Callable, ClassVar, List, Mapping, Optional, Tuple, overload

from ..common.blocking import settle
from ..common.limits import CLIENTS_LOST, RECOVERY_HOPS, RECOVERY_WAIT
from ..common.reasons import IN_USE, LOST_FULL, NO_OWNER, UNKNOWN_PID
from ..common.request import tag_of
from ..relay.message import RelayMessage
from . import offsets
from .claiming import Claiming, check_answer, read_heard, read_state
from .handing_over import HandingOver
from .handlers import ClientHandler, Handler, register
from .histories import Stay
from .inheriting import Inheriting
from .lost import ARRIVING, Client
from .missed import Missed, NotRecovered, OwnerGone
from .offsets import Asked
from .recovery_base import Ask


class _Turn:
    """The turn of a connection that asks to come back as a client while another one does."""

    waits = False


class Recovery(Claiming, HandingOver, Inheriting):
    """The part of a manager that lets clients come back."""

    def __init__(self) -> None:
        super().__init__()
        #: By namespace: the application's handlers for clients that have come back.
        self._recovered: dict[str, Handler] = {}

    def forget_moved(self) -> None:
        super().forget_moved()
        #: Number of clients that have come back to this worker.
        self.recovered = 0
        #: By sid: clients that are coming back now, each with the turn of the last connection that
        #: waits to come back as the same client.
        self._coming: dict[str, Optional[_Turn]] = {}

    # --- what an application calls -------------------------------------------------

    @overload
    def on_recovery(
        self, handler: None = None, namespace: Optional[str] = None
    ) -> Callable[[ClientHandler], ClientHandler]: ...

    @overload
    def on_recovery(
        self, handler: ClientHandler, namespace: Optional[str] = None
    ) -> ClientHandler: ...

    def on_recovery(
        self, handler: Optional[Handler] = None, namespace: Optional[str] = None
    ) -> Any:
        """Register a handler for clients that have come back to their session.

        Can be used as a decorator, with and without a ``namespace``. It is called once for each
        time that such a client comes back, before its next event, with its sid and the environment
        of its new handshake; ``connect`` and ``disconnect`` are not called. Exceptions are logged.
        For an asyncio server it may be a coroutine function.
        """
        return register("on_recovery", self._recovered, namespace or "/", handler)

    # --- for the worker --------------------------------------------------------------------

    async def recover(
        self, eio_sid: str, environ: Any, namespace: str, asked: Asked, ask: Ask
    ) -> Optional[str]:
        """Let a connection come back as a client; called where handlers run.

        The CONNECT is answered, the missed events are sent, and the handler is called.

        :param environ: of the connection's handshake.
        :param ask: asks the worker that has the clients of a tag.
        :return: why the client gets a new session, one of :mod:`.reasons`; ``None`` if it is back.
        """
        try:
            sid = await self._recover(eio_sid, namespace, asked, ask)
        except NotRecovered as error:
            return error.reason
        self.recovered += 1
        handler = self._recovered.get(namespace)
        if handler is not None:
            try:
                await settle(handler(sid, environ))
            except Exception:
                self._get_logger().exception("recovery handler error")
        return None

    async def _recover(self, eio_sid: str, namespace: str, asked: Asked, ask: Ask) -> str:
        pid = asked.pid
        if self._journal is None or not pid or self.sid_from_eio_sid(eio_sid, namespace):
            raise NotRecovered(UNKNOWN_PID)
        tag = tag_of(pid)
        question = {"do": "claim", "pid": pid, "namespace": namespace}
        was_here = False
        for _ in range(RECOVERY_HOPS):
            client = self._known.get(self._sid_of.get(pid, ""))
            if client is not None:
                return await self._recover_here(client, eio_sid, namespace, asked.offset)
            moved = None
            if self._is_ours(tag):  # otherwise the client has moved on since
                moved = self._moved.get(self._sid_of.get(pid, ""))
                was_here = was_here or moved is not None
                self._check_moved(moved)
            answer, packets = ({"moved": moved.tag}, ()) if moved else await ask(tag, question, ())
            if self._is_known(pid):
                continue  # this process has inherited it meanwhile
            if not isinstance(answer.get("moved"), str):
                check_answer(answer)
                client = read_state(packets, eio_sid)
                there, _ = read_heard(packets[1:])
                try:
                    moved = await self._recover_from(tag, client, namespace, asked, ask, there)
                except NotRecovered as error:
                    if self._is_known(pid) or isinstance(error, OwnerGone):
                        continue  # this process has inherited it, or another one has
                    raise
                if was_here and moved is not None:  # workers that had it since need not forward
                    self._say_gone(client.sid, moved.tag)
                home = tag_of(pid)
                if tag != home and not self._is_ours(home):
                    self._say_arrived(client.sid)
                return client.sid
            tag = answer["moved"]
        raise NotRecovered(NO_OWNER)

    def _is_known(self, pid: str) -> bool:
        return self._sid_of.get(pid) in self._known

    def expire(self, now: float) -> List[Tuple[str, str, str, str]]:
        """Take the clients that have expired.

        :param now: by the host's monotonic clock; infinite for all lost clients.
        :return: Engine.IO sid, sid, namespace and reason of each, for its ``disconnect`` handler;
            :meth:`disconnect` must be called then.
        """
        over = []
        with self._tables:
            for sid, is_due in list(self._times.pop_due(now, CLIENTS_LOST)):
                client = self._known.get(sid)
                if client is None or client.lost is None:
                    continue
                later = 0.0
                if not self._is_settled(client):
                    later = time.monotonic() + 1
                elif client.fetched is not None:
                    later = client.fetched.until
                if later > now:
                    self._times.add(sid, later)
                    continue
                over.append((client.eio_sid, sid, client.namespace, client.lost.reason))
                if not is_due:
                    self._note_gone(client, LOST_FULL)
            self._drop_arrivals(now)
            for budget in (self._reading, self._arriving):
                budget.expire(now)
            if self._journal is not None:
                self._journal.trim()
            self._drop_journals(now)
            self._hear_no_more()
        return over

    # --- clients that this process has -------------------------------------------------------

    async def _recover_here(
        self, client: Client, eio_sid: str, namespace: str, offset: Optional[str]
    ) -> str:
        if client.namespace != namespace or not client.capable:
            raise NotRecovered(UNKNOWN_PID)
        if client.arriving is not None:
            raise NotRecovered(IN_USE)  # it arrives from another worker, on another connection
        await self._wait_until(lambda: self._is_settled(client))
        # The pid may be known to many connections: only two may try at a time.
        turn, until = _Turn(), time.monotonic() + RECOVERY_WAIT
        while not self._takes_turn(client.sid, turn):
            await self._wait_until(partial(self._need_not_wait, client.sid, turn), until)
        try:
            old = await self._check_unused(client)
            until = time.monotonic() + RECOVERY_WAIT
            missed, share = await self._read_missed(client, offset, until)
            try:
                await self._run_in_loop(partial(self._bring_back, client, eio_sid, old, missed))
            except BaseException:
                self._end(self._reading, share)
                raise
            self._give(self._reading, share, eio_sid)
        finally:
            with self._tables:
                del self._coming[client.sid]
        if old and self._outlet is not None:
            self._outlet.close_connection(old)
        return client.sid

    def _takes_turn(self, sid: str, turn: _Turn) -> bool:
        """Whether no other connection is coming back as this client now.

        :raises NotRecovered: when a connection that came later waits for that.
        """
        with self._tables:
            if sid not in self._coming:
                self._coming[sid] = None
                return True
            if not turn.waits:
                turn.waits = True
                self._coming[sid] = turn
            elif self._coming[sid] is not turn:
                raise NotRecovered(IN_USE)
            return False

    def _need_not_wait(self, sid: str, turn: _Turn) -> bool:
        """Whether :meth:`_takes_turn` would return or raise now."""
        return self._coming.get(sid) is not turn

    def _bring_back(self, client: Client, eio_sid: str, old: str, missed: Missed) -> None:
        """Give the client its new connection, in the loop.

        :param old: the result of :meth:`_check_unused`.
        """
        sid, namespace = client.sid, client.namespace
        with self._tables:
            self._check_present(client)
            if self.sid_from_eio_sid(eio_sid, namespace) is not None:
                raise NotRecovered(UNKNOWN_PID)
            missed.read()
            left = self._take_from(client, old)
            if left is None or client.cannot_come_back:
                raise NotRecovered(client.why_not_saved)
            rooms = self.get_rooms(sid, namespace)
            client.arriving = []  # the next two calls are not changes of rooms
            self._take_out(sid, namespace)
            self._take_in(sid, eio_sid, namespace, rooms)
            client.arriving = None
            client.eio_sid, client.lost, client.fetched = eio_sid, None, None
            client.back = time.monotonic()
            self._see_whether_behind(client)
            self._times.discard(sid)
            self._between.discard(sid)
            self._give_session(client)
            self._welcome(client)
            if client.before:  # other workers may not have those stays' journals
                assert self._journal is not None
                stay = client.stay
                client.base, client.before = missed.offset, ()
                client.stay = Stay(self.host_id, self._journal.last, stay.rooms, stay.heard_as)
                # If this process dies in between, an heir would send some of the events twice.
                client.not_saved = ARRIVING
                self._save(client)
                for one in missed.events:
                    self._send_alone(client, one.packets)
                client.not_saved = ""
            else:
                for one in missed.events:
                    packets = offsets.add(one.packets, one.offset)
                    self._send_later((eio_sid,), packets)
            self._save(client)
        self._send_all()
        for no_answer in left:
            no_answer()

    # --- clients that move to another process, see :mod:`.moving` -----------------------------

    def save_recovery(self, sid: str) -> Optional[dict[str, Any]]:
        """The state for the new process; with ``_tables``."""
        client = self._known.get(sid)
        if client is None or self._journal is None:
            return None
        self._store(client)
        if client.lost is None:
            client.known = self._known_until(client)
        state = client.save()
        state["stay"]["end"], state["stay"]["ended"] = self._journal.last, time.monotonic()
        return state

    def restore_recovery(self, state: Any, eio_sid: str) -> None:
        """With ``_tables``. :raises ValueError: when it is not from :meth:`save_recovery`."""
        client = Client.restored(state, eio_sid)
        if client.stay.heard_as != tag_of(client.sid):
            self._guests[client.sid] = client.stay.heard_as
        if self._journal is None:
            return  # clients cannot come back to this process
        client.moves_to(self.host_id, self._journal.last)
        # The next answer may be to a ping of the former process.
        client.back, client.behind = time.monotonic(), True
        self._add_moved_here(client)

    def forget_recovery(self, sid: str) -> None:
        """Another process has the client; with ``_tables``."""
        client = self._known.get(sid)
        if client is not None:
            self._forget(client)
        self._guests.pop(sid, None)

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        **HandingOver.HANDLERS,
        **Inheriting.HANDLERS,
    }
