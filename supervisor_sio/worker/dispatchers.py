"""Calls the handlers of each kind of Socket.IO server: see :class:`.dispatch.Dispatcher`."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Optional, Sequence

from ..common.blocking import run_blocking
from ..common.limits import EVENTS_WAITING, LONG_EVENT
from ..engine.frames import Payload
from ..engine.session import Session
from . import compat
from .dispatch import Dispatcher

#: A call that waits for a thread: its messages, whether it runs alone, the function and arguments.
_Task = tuple[Sequence[Payload], bool, Callable[..., Any], tuple[Any, ...]]


class SyncDispatcher(Dispatcher):
    """For a ``Server`` whose handlers run in greenlets of the loop's thread."""

    def _as_called(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: run_blocking(function(*args, **kwargs))

    def send_packet(self, eio_sid: str, pkt: Any) -> None:
        self._reply(eio_sid, self._encode(eio_sid, pkt))

    def _run_handler(
        self, sid: str, session: Session, namespace: str, number: Optional[int], event: list[Any]
    ) -> None:
        try:
            try:
                answer = compat.trigger_event(self._server, event[0], namespace, sid, event[1:])
            except Exception as error:
                if not self._is_counted(session, error):
                    raise
                return
            if number is not None:
                self._acknowledge(session, namespace, number, answer)
        finally:
            session.running.pop()  # type: ignore[union-attr]

    def _run_counted(
        self, sid: str, session: Session, namespace: str, number: Optional[int], event: list[Any]
    ) -> None:
        with self._counting(namespace, event[0]):
            self._run_handler(sid, session, namespace, number, event)


class ThreadDispatcher(SyncDispatcher):
    """For a ``Server`` whose handlers run in threads."""

    concurrent = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: By session, the tasks that no thread has started. The loop appends; a thread takes the
        #: first; when a move begins, the loop takes tasks back from the end, so all started tasks
        #: precede all others. A list, because its operations are atomic, and an empty one, which
        #: idle clients have, takes a tenth of a deque's memory.
        self._waiting: dict[Session, list[_Task]] = {}
        #: Sessions whose next event waits until all their tasks have started. Their messages are
        #: read on, for acknowledgements: all threads may be waiting for these.
        self._held: set[Session] = set()
        #: The Engine.IO messages of the event that is being dispatched.
        self._messages: Sequence[Payload] = ()

    def on_message(self, session: Session, data: Payload) -> bool:
        begun = self._partials.get(session) if self._partials else None
        # ``begun.messages`` lacks only the last attachment, which super().on_message() adds.
        self._messages = (data,) if begun is None or isinstance(data, str) else begun.messages
        if not super().on_message(session, data):
            return False
        waiting = self._waiting.get(session)
        if (
            not waiting
            or self.is_within(session)
            or (len(waiting) < EVENTS_WAITING and sum(map(len, self._messages)) <= LONG_EVENT)
        ):
            return True
        self._held.add(session)
        # All tasks may have started before the session was added to _held, and nothing more is read
        # from a closed one.
        if not waiting or session.closed:
            self._held.discard(session)
        else:
            self.hold.read_on(session)
        return True

    def is_full(self, session: Session) -> bool:
        return session in self._held

    def _begin(self, sid: str, session: Session, *event: Any) -> None:
        self._count(session)
        self._wait(session, (self._messages, False, self._runner, (sid, session, *event)))

    def _run(self, session: Session, call: Callable[..., Any], *args: Any) -> None:
        self._wait(session, (self._messages, True, call, args))

    def _wait(self, session: Session, task: _Task) -> None:
        waiting = self._waiting.get(session)
        if waiting is None:
            waiting = self._waiting[session] = []
        waiting.append(task)
        self._eio.runtime.run(self._run_next, waiting, session)

    def _run_next(self, waiting: list[_Task], session: Session) -> None:
        try:
            _, _, call, args = waiting.pop(0)
        except IndexError:
            return  # take_back() has removed the task
        if not waiting and session in self._held:
            self.threads.run(0, self._go_on, session)
        call(*args)

    def _go_on(self, session: Session) -> None:
        if session in self._held:
            self._held.remove(session)
            self._eio.proceed(session)

    def take_back(self) -> Iterator[tuple[Session, Sequence[Payload]]]:
        yield from super().take_back()
        for session, waiting in list(self._waiting.items()):
            if session.closed:
                continue  # a closed session does not move
            while waiting:
                try:
                    messages, alone, _, _ = waiting.pop()
                except IndexError:
                    break  # a thread has taken the last task meanwhile
                if alone:
                    self._eio.taken_back(session)
                else:
                    assert session.running is not None
                    session.running.pop()
                yield session, messages
        for session in self._held:
            self._eio.runtime.call_soon(self._go_on, session)

    def drop(self, session: Session) -> None:
        super().drop(session)
        self._waiting.pop(session, None)
        self._held.discard(session)

    def _reply(self, eio_sid: str, encoded: Any) -> None:
        if self.threads is None or self.threads.here:
            self._send(eio_sid, encoded)
            return
        size = sum(map(len, encoded)) if isinstance(encoded, list) else len(encoded)
        self.threads.run(size, self._send, eio_sid, encoded)


class AsyncDispatcher(Dispatcher):
    """For an ``AsyncServer``."""

    def _as_called(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    async def send_packet(self, eio_sid: str, pkt: Any) -> None:
        self._reply(eio_sid, self._encode(eio_sid, pkt))

    async def _run_handler(
        self, sid: str, session: Session, namespace: str, number: Optional[int], event: list[Any]
    ) -> None:
        server = self._server
        try:
            try:
                answer = await compat.trigger_event(server, event[0], namespace, sid, event[1:])
            except Exception as error:
                if not self._is_counted(session, error):
                    raise
                return
            if number is not None:
                sending = self._acknowledge(session, namespace, number, answer)
                if sending is not None:
                    await sending
        finally:
            session.running.pop()  # type: ignore[union-attr]

    async def _run_counted(
        self, sid: str, session: Session, namespace: str, number: Optional[int], event: list[Any]
    ) -> None:
        with self._counting(namespace, event[0]):
            await self._run_handler(sid, session, namespace, number, event)
