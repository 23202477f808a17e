"""Messages of clients that no handler gets yet, because their session moves to another worker.

Where a session leaves, all that comes is kept from the beginning of the move on, and goes along,
behind what came before and waits for a thread. So only handlers that run have to be waited for.
Where it arrives, that comes first when its ``on_takeover`` handler has returned, and then what has
come since. Acknowledgements are not kept: a handler that runs may wait for one.

While nothing is kept, the engine calls the dispatcher itself.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Callable, Deque, Iterable, Optional, Sequence

from ..common.limits import MESSAGES_AT_ONCE, OUTPUT_OBJECT, TAKEOVER_HELD
from ..engine.frames import Payload
from ..engine.session import Session

if TYPE_CHECKING:
    from .dispatch import Dispatcher
    from .eio import EngineOwner


class _Kept:
    """The messages of one session, in the order in which they came."""

    __slots__ = ("messages", "size", "released")

    def __init__(self) -> None:
        self.messages: Deque[Payload] = deque()
        self.size = 0
        #: Whether they are being handled: what comes meanwhile goes behind them.
        self.released = False

    def add(self, messages: Iterable[Payload]) -> None:
        for message in messages:
            self.messages.append(message)
            self.size += len(message) + OUTPUT_OBJECT

    def put_back(self, messages: Sequence[Payload]) -> None:
        """Those that came before all others."""
        for message in reversed(messages):
            self.messages.appendleft(message)
            self.size += len(message) + OUTPUT_OBJECT


class Hold:
    """What waits for the handlers of one server.

    All methods are called in the loop; what starts handlers, by the loop itself: on eventlet a
    handler would else run in the caller's greenlet.
    """

    def __init__(self, dispatcher: Dispatcher, eio: EngineOwner) -> None:
        self._dispatcher = dispatcher
        self._eio = eio
        #: Whether no session's messages are handled.
        self._all = False
        self._kept: dict[Session, _Kept] = {}

    # --- where sessions leave -----------------------------------------------------------

    def keep_all(self) -> None:
        """Start no handler for any message from here on, nor for those that wait for a thread."""
        self._all = True
        self._install()
        for kept in self._kept.values():
            kept.released = False  # what has not been handled goes along
        for session, messages in self._dispatcher.take_back():
            self._of(session).put_back(messages)

    def kept(self, session: Session) -> list[Payload]:
        """What is to be handled where this session arrives."""
        kept = self._kept.get(session)
        return [] if kept is None else list(kept.messages)

    def moved(self, session: Session) -> None:
        """It is gone, with what was kept."""
        self._kept.pop(session, None)
        self._remove()

    # --- where sessions arrive ----------------------------------------------------------

    def keep(self, session: Session, messages: Iterable[Payload]) -> None:
        """Start no handler for messages of this session before :meth:`release`.

        :param messages: that have come along with it.
        """
        self._install()
        self._of(session).add(messages)

    def release_when_done(self, session: Session) -> None:
        """:meth:`release` it when its owner is done with what runs alone for it now."""
        kept = self._kept.get(session)
        if kept is not None:
            kept.released = True

    def release(self, session: Session) -> None:
        """Handle what was kept of this session, and what comes."""
        kept = self._kept.get(session)
        if kept is None:
            session.proceed()  # it has ended
            return
        kept.released = True
        for _ in range(MESSAGES_AT_ONCE):
            if not kept.messages:
                del self._kept[session]
                self._remove()
                session.proceed()
                return
            message = kept.messages.popleft()
            kept.size -= len(message) + OUTPUT_OBJECT
            if not self._dispatcher.on_message(session, message):
                return  # _proceed() goes on
            if session not in self._kept:
                return  # the message has ended it
        self._eio.runtime.call_soon(self._proceed, session)

    # --- in the place of the dispatcher ---------------------------------------------------

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
        if self._dispatcher.take_answer(session, data):
            return True
        kept = self._of(session)
        kept.add((data,))
        return kept.size <= TAKEOVER_HELD

    def _proceed(self, session: Session) -> None:
        """The dispatcher takes the next message of a session."""
        kept = self._kept.get(session)
        if kept is not None and kept.released:
            self.release(session)
        elif kept is None or kept.size <= TAKEOVER_HELD:
            session.proceed()

    def forget(self, session: Session) -> Optional[Callable[[], None]]:
        """A session has ended: what to call, in the loop, before it is told of."""
        kept = self._kept.pop(session, None)
        self._remove()
        if kept is None or not kept.messages:
            return None
        return partial(self._handle_last, session, kept.messages)

    def _handle_last(self, session: Session, messages: Iterable[Payload]) -> None:
        for message in messages:
            if not self._dispatcher.on_message(session, message):
                break  # what is behind it would not have been read, either
        self._dispatcher.drop(session)
