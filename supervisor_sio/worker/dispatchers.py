"""How each kind of Socket.IO server has its handlers called: see :class:`.dispatch.Dispatcher`."""

from __future__ import annotations

from typing import Any, Callable, Optional

from ..common.blocking import run_blocking
from ..common.limits import EVENTS_WAITING, LONG_EVENT
from ..engine.frames import Payload
from ..engine.session import Session
from . import compat
from .dispatch import Dispatcher


class SyncDispatcher(Dispatcher):
    """For a ``Server`` whose handlers run in greenlets of the loop's thread."""

    def _as_called(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: run_blocking(function(*args, **kwargs))

    def send_packet(self, eio_sid: str, pkt: Any) -> None:
        self._reply(eio_sid, pkt.encode())

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


class ThreadDispatcher(SyncDispatcher):
    """For a ``Server`` whose handlers run in threads."""

    concurrent = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: An item for each event of a session that no thread has begun. They are added in the
        #: loop, and taken out in the threads.
        self._waiting: dict[Session, list[None]] = {}
        #: Sessions whose next message waits for the begin of all of theirs.
        self._held: set[Session] = set()

    def on_message(self, session: Session, data: Payload) -> bool:
        if not super().on_message(session, data):
            return False
        waiting = self._waiting.get(session)
        if not waiting or (len(waiting) < EVENTS_WAITING and len(data) <= LONG_EVENT):
            return True
        self._held.add(session)
        if waiting:
            return False
        self._held.discard(session)  # all have begun meanwhile, and have not seen it there
        return True

    def _begin(self, sid: str, session: Session, *event: Any) -> None:
        waiting = self._waiting.setdefault(session, [])
        waiting.append(None)
        self._count(session)
        self._eio.runtime.run(self._begun, waiting, sid, session, *event)

    def _begun(self, waiting: list[None], sid: str, session: Session, *event: Any) -> None:
        waiting.pop()
        if not waiting and session in self._held:
            self.threads.run(0, self._go_on, session)
        self._run_handler(sid, session, *event)

    def _go_on(self, session: Session) -> None:
        if session in self._held:
            self._held.remove(session)
            self._eio.proceed(session)

    def _forget(self, session: Session) -> Optional[Callable[[], None]]:
        self._waiting.pop(session, None)
        self._held.discard(session)
        return super()._forget(session)

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
        self._reply(eio_sid, pkt.encode())

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
