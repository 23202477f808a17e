"""Holds messages of clients whose session moves to another worker, or has many waiting events.

The old worker holds all messages that arrive after the move has begun, and passes them on with the
session, after those that were waiting for a thread. So it waits only for handlers that run already.
The new worker handles the passed messages first, when the session's ``on_takeover`` handler has
returned, and then those that it has received since.

Without a move, messages are held while :attr:`.Dispatcher.is_full` is true of their session.

Acknowledgements are never held, because a running handler may wait for one.

While no message is held, the engine calls the dispatcher directly.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Callable, Deque, Iterable, Optional, Sequence

from ..common.limits import MESSAGES_AT_ONCE, MESSAGES_HELD, OUTPUT_OBJECT
from ..engine.frames import Payload
from ..engine.session import Session

if TYPE_CHECKING:
    from .dispatch import Dispatcher
    from .eio import EngineOwner


class _Kept:
    """The held messages of one session, in the order received."""

    __slots__ = ("messages", "size", "released")

    def __init__(self) -> None:
        self.messages: Deque[Payload] = deque()
        self.size = 0
        #: Whether they are being handled; messages received meanwhile are appended.
        self.released = False

    def add(self, messages: Iterable[Payload]) -> None:
        for message in messages:
            self.messages.append(message)
            self.size += len(message) + OUTPUT_OBJECT

    def put_back(self, messages: Sequence[Payload]) -> None:
        """Insert messages that were received before all others."""
        for message in reversed(messages):
            self.messages.appendleft(message)
            self.size += len(message) + OUTPUT_OBJECT


class Hold:
    """The held messages for the handlers of one server.

    Call all methods in the loop. Methods that start handlers must be called by the loop itself:
    on eventlet a handler would otherwise run in the caller's greenlet.
    """

    def __init__(self, dispatcher: Dispatcher, eio: EngineOwner) -> None:
        self._dispatcher = dispatcher
        self._eio = eio
        #: Whether the messages of all sessions are held.
        self._all = False
        self._kept: dict[Session, _Kept] = {}

    # --- in the old worker --------------------------------------------------------------

    def keep_all(self) -> None:
        """Hold all messages from now on, also those that wait for a thread."""
        self._all = True
        self._install()
        for kept in self._kept.values():
            kept.released = False  # unhandled messages move with the session
        for session, messages in self._dispatcher.take_back():
            self._of(session).put_back(messages)

    def kept(self, session: Session) -> list[Payload]:
        """The messages of this session that the new worker is to handle."""
        kept = self._kept.get(session)
        return [] if kept is None else list(kept.messages)

    def moved(self, session: Session) -> None:
        """Drop everything about a session that has moved."""
        self._kept.pop(session, None)
        self._remove()
        self._dispatcher.drop(session)

    # --- in the new worker --------------------------------------------------------------

    def keep(self, session: Session, messages: Iterable[Payload]) -> None:
        """Hold the messages of this session until :meth:`release`.

        :param messages: the messages that were passed on with it.
        """
        self._install()
        self._of(session).add(messages)

    def read_on(self, session: Session) -> None:
        """Hold the messages of this session until the dispatcher is ready for them."""
        self._install()
        self._of(session).released = True

    def release_when_done(self, session: Session) -> None:
        """Like :meth:`release`, once the handler that runs alone for the session has ended."""
        kept = self._kept.get(session)
        if kept is not None:
            kept.released = True

    def release(self, session: Session) -> None:
        """Handle the held messages of this session, then those that arrive."""
        kept = self._kept.get(session)
        if kept is None:
            session.proceed()  # the session has ended
            return
        kept.released = True
        left = MESSAGES_AT_ONCE
        # What arrives between two turns must not be taken for an attachment of a held packet.
        while left > 0 or self._dispatcher.is_within(session):
            if not kept.messages:
                del self._kept[session]
                self._remove()
                session.proceed()
                return
            message = kept.messages.popleft()
            kept.size -= len(message) + OUTPUT_OBJECT
            if not self._dispatcher.on_message(session, message):
                return  # _proceed() continues
            if session not in self._kept:
                return  # the message has ended the session
            if self._dispatcher.is_full(session):
                break  # _proceed() continues
            left -= 1
        self._eio.runtime.call_soon(self._proceed, session)

    # --- called instead of the dispatcher -------------------------------------------------

    def _install(self) -> None:
        self._eio.on_message = self._on_message  # type: ignore[method-assign]
        self._eio.proceed = self._proceed

    def _remove(self) -> None:
        if not self._all and not self._kept:
            self._eio.on_message = self._dispatcher.on_message  # type: ignore[method-assign]
            self._eio.proceed = Session.proceed

    def _of(self, session: Session) -> _Kept:
        kept = self._kept.get(session)
        if kept is None:
            kept = self._kept[session] = _Kept()
        return kept

    def _on_message(self, session: Session, data: Payload) -> bool:
        """:meth:`.Owner.on_message`"""
        if not self._all and session not in self._kept:
            return self._dispatcher.on_message(session, data)
        read_on = self._dispatcher.take_answer(session, data)
        if read_on is not None:
            return read_on
        kept = self._of(session)
        kept.add((data,))
        return kept.size <= MESSAGES_HELD

    def _proceed(self, session: Session) -> None:
        """The dispatcher may be ready for the next message of a session."""
        if self._eio.is_busy(session):
            return  # called again when that task has ended
        kept = self._kept.get(session)
        if kept is not None and kept.released and not self._dispatcher.is_full(session):
            self.release(session)
        elif kept is None or kept.size <= MESSAGES_HELD:
            session.proceed()

    def forget(self, session: Session) -> Optional[Callable[[], None]]:
        """A session has ended.

        :return: what to call in the loop before the session's end is reported, if anything.
        """
        kept = self._kept.pop(session, None)
        self._remove()
        if kept is None or not kept.messages:
            return None
        return partial(self._handle_last, session, kept.messages)

    def _handle_last(self, session: Session, messages: Iterable[Payload]) -> None:
        for message in messages:
            if not self._dispatcher.on_message(session, message):
                break  # the messages after it would not have been read, either
        self._dispatcher.drop(session)
