"""Takeover: this process adopts clients of another one, or passes its own clients on.

Adopted clients keep the tag of their former worker in their session ids, and their position in
every process's stream. Until that position and the position of this process's own clients are the
same, this process receives the relay twice: once for its own clients, once for the adopted ones
(see :class:`.Scope`). From a certain numbered message on, what this process sends reaches adopted
clients directly; earlier messages reach them through the relay, like those of other processes. The
same holds when it passes its clients on: messages after such a number are for the process that
adopts them, and go to the relay only.

Threads may emit meanwhile: see :meth:`Takeover._scope_of`.
"""

from __future__ import annotations

import time
from copy import copy
from functools import partial
from typing import (
    Any,
    Awaitable,
    Callable,
    ClassVar,
    Collection,
    FrozenSet,
    List,
    Mapping,
    Optional,
    Tuple,
    overload,
)

from ..common.blocking import settle
from ..common.request import tag_of
from ..relay.message import RelayMessage
from ..relay.position import Position
from ..relay.subscriber import Subscriber
from . import sessions
from .asking import Asking
from .handlers import ClientHandler, Handler, register
from .scope import NOBODY, Scope
from .tables import Tables

#: Seconds between two looks at a condition that is waited for.
_LOOK = 0.005

#: Methods that are for clients. All others were for the former process itself, which has ended.
_FOR_CLIENTS = frozenset(
    "emit volatile disconnect enter_room leave_room close_room "
    "sockets_join sockets_leave disconnect_sockets request gone arrived".split()
)


class Underway:
    """Counts operations that other threads have begun and not ended: emits, and changes of
    rooms."""

    def __init__(self, lock: Tables) -> None:
        self._lock = lock
        self.count = 0

    def __enter__(self) -> None:
        with self._lock:
            self.count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.count -= 1


class Takeover(Asking):
    """The part of a manager that knows which tags' clients this process has."""

    # From the manager and its other parts.
    takeover: bool
    host_id: str
    rooms: dict[str, dict[Any, Any]]
    _outlet: Optional[sessions.Outlet]
    _subscriber: Optional[Subscriber]
    _receive: Callable[[RelayMessage], None]
    _note_heard: Callable[[RelayMessage, Any], None]
    _tables: Tables
    _guests: dict[str, str]
    # From recovery.
    _save_states_of: Callable[[Collection[str]], None]
    _note_heir_of: Callable[[Collection[str]], None]
    _not_inherited: Callable[[Collection[str]], None]
    _has_moved: Callable[[str], bool]

    def __init__(self) -> None:
        #: By namespace: the application's handlers for clients that this process has adopted.
        self._taken_over: dict[str, Handler] = {}
        self.forget_takeover()

    def forget_takeover(self) -> None:
        self._underway = Underway(self._tables)
        #: Whether a message has ever been for a part of the clients only.
        self._moves = False
        #: How many messages this process had published when it passed its clients on.
        self._passed_at: Optional[int] = None
        #: Tags of this process under which no process receives any more.
        self._unheard: FrozenSet[str] = frozenset()
        #: By adopted tag: how many messages this process had published when it began to send to
        #: those clients directly; ``None`` before that.
        self._adopted: dict[str, Optional[int]] = {}
        #: Adopted tags that may still go to another process instead.
        self._expected: FrozenSet[str] = frozenset()
        #: Adopted tags whose messages are received separately.
        self._apart: FrozenSet[str] = frozenset()

    # --- what an application calls -------------------------------------------------

    @overload
    def on_takeover(
        self, handler: None = None, namespace: Optional[str] = None
    ) -> Callable[[ClientHandler], ClientHandler]: ...

    @overload
    def on_takeover(
        self, handler: ClientHandler, namespace: Optional[str] = None
    ) -> ClientHandler: ...

    def on_takeover(
        self, handler: Optional[Handler] = None, namespace: Optional[str] = None
    ) -> Any:
        """Register a handler for clients that this worker has taken over from another one.

        Can be used as a decorator, with and without a ``namespace``. It is called once for each
        such client of the namespace, before its next event, with the same sid and environment as
        ``connect`` in the former worker: to restore what an application keeps of a client outside
        of its session and its rooms. Exceptions are logged. For an asyncio server it may be a
        coroutine function.
        """
        return register("on_takeover", self._taken_over, namespace or "/", handler)

    # --- for the worker, in its loop -----------------------------------------------

    @property
    def has_on_takeover(self) -> bool:
        return bool(self._taken_over)

    async def run_on_takeover(self, sid: str, namespace: str, environ: Any) -> None:
        """Call the handler for a client; its exceptions are logged."""
        handler = self._taken_over.get(namespace)
        if handler is None:
            return
        try:
            await settle(handler(sid, environ))
        except Exception:
            self._get_logger().exception("takeover handler error")

    @property
    def tags(self) -> FrozenSet[str]:
        """The tags whose clients this process has: its own, and those it has adopted."""
        return frozenset(filter(self._is_ours, (self.host_id, *self._adopted)))

    def _is_ours(self, tag: str) -> bool:
        return self._has_adopted(tag) or (tag == self.host_id and self._passed_at is None)

    def _has_adopted(self, tag: str) -> bool:
        return self._adopted.get(tag) is not None and self._passed_at is None

    def _answers_for(self, tag: str) -> bool:
        """Whether this process handles messages to this tag; also before adopted clients receive
        directly what it sends."""
        if self._passed_at is not None:
            return False
        return tag == self.host_id or tag in self._adopted

    def has_clients_of(self, tag: str) -> bool:
        """Whether a client with this tag in its sid is here, or has moved to another process."""
        scope = Scope([tag], only=True, guests=self._guests)
        if any(tag_of(sid) == tag for sid in list(self._guests)) or self._has_moved(tag):
            return True
        return any(
            sid in scope for rooms in self.rooms.values() for sid in list(rooms.get(None, ()))
        )

    def detach(self) -> Position:
        """Stop receiving for the clients of this process: the one that adopts them will.

        :return: their position: what they have received.
        """
        assert self._subscriber is not None
        self._moves = True
        with self._tables:
            position = self._subscriber.detach()
            self._passed_at = position.sent
        return position

    def passed_nothing(self, position: Position) -> None:
        """After :meth:`detach`, when no process adopts the clients: they are about to end."""
        self._unheard = frozenset(position.tags)

    async def wait_settled(self, timeout: float, sleep: Callable[[float], Awaitable[None]]) -> bool:
        """After :meth:`detach`: wait until other threads have sent what they had begun to send.

        :param timeout: seconds to wait at most.
        :return: whether they have.
        """
        outlet = self._outlet
        threads = None if outlet is None else outlet.threads
        if threads is None:
            return True
        until = time.monotonic() + timeout
        if not await _until(lambda: not self._underway.count, timeout, sleep):
            return False
        done: List[None] = []
        threads.run(0, done.append, None)  # runs after the calls that they have queued
        return await _until(lambda: bool(done), until - time.monotonic(), sleep)

    def expect(self, tags: Collection[str]) -> None:
        """Clients with these tags are about to be restored; nothing reaches them until
        :meth:`adopt`."""
        self._moves = True
        with self._tables:
            self._adopted.update(dict.fromkeys(tags))
            self._apart |= frozenset(tags)
            self._expected |= frozenset(tags)

    def not_adopted(self, tags: Collection[str]) -> None:
        """Clients with these tags do not come, or have been removed again."""
        with self._tables:
            for tag in tags:
                self._adopted.pop(tag, None)
            self._apart -= frozenset(tags)
            self._expected -= frozenset(tags)
            self._not_inherited(tags)

    def adopt(self, position: Position) -> None:
        """All clients with these tags are restored: let them receive what they have not received
        yet.

        :param position: of their former process, with the messages sent meanwhile.
        """
        assert self._subscriber is not None
        with self._tables:
            self._expected -= frozenset(position.tags)
            self._save_states_of(position.tags)
        for part in position.parts:
            tags = list(part.tags)
            # Answers to questions to the former process name that process as the worker.
            scope = Scope(tags, only=True, name=tags[0], guests=self._guests)
            self._subscriber.adopt(
                part,
                partial(self._receive_for, scope),
                partial(self._send_directly, scope, tags),
                partial(self._merged, tags),
            )
        # Last: the next heir takes it that this process has begun to receive for all of them.
        with self._tables:
            self._note_heir_of(position.tags)

    def give_up(self, tag: str) -> None:
        """The last client with an adopted tag has left."""
        with self._tables:
            self._adopted.pop(tag, None)
            self._apart -= {tag}
        if self._subscriber is not None:
            self._subscriber.give_up(tag)

    # --- the two positions in the other processes' streams ---------------------------

    def _scope_of_main(self, message: RelayMessage) -> Optional[Scope]:
        """Which clients a message is for that arrives on this process's own stream."""
        method = message.fields["method"]
        if method == "volatile":  # it is received once only
            return self._scope_of(None)
        if method not in _FOR_CLIENTS or method == "request":
            return None
        return Scope.without(self._apart, self._guests)

    def _receive_for(self, scope: Scope, message: RelayMessage) -> None:
        """Handle a message for adopted clients only."""
        # The same object may be handled later for this process's own clients.
        message = copy(message)
        message.scope = scope
        if message.fields["method"] in _FOR_CLIENTS:
            self._receive(message)
        elif message.sequence:
            with self._tables:
                self._note_heard(message, message.stream)

    def _send_directly(
        self, scope: Scope, tags: List[str], fetch: Callable[[], Tuple[List[RelayMessage], int]]
    ) -> None:
        """From now on this process sends to the adopted clients directly.

        :param fetch: returns what it has sent so far that they have not received, and the number of
            the last message.
        """
        with self._tables:
            messages, sent = fetch()
            self._adopted.update(dict.fromkeys(tags, sent))
        for message in messages:
            self._receive_for(scope, message)

    def _merged(self, tags: List[str]) -> None:
        """The adopted clients have the position of all others from now on."""
        with self._tables:
            self._apart -= frozenset(tags)

    # --- what this process sends -----------------------------------------------------

    def _scope_of(self, number: Optional[int]) -> Optional[Scope]:
        """Which clients of this process a message is for that this process sends.

        It is called after the message was published. A change of the answer is noted with
        ``_tables`` held, together with the number of messages published so far; ``_moves`` is set
        before. So a thread that published before the change gets the old answer, and one that
        published after it the new one, however late it asks.

        :param number: of the message, from :meth:`.Publisher.publish`; ``None`` when it was not
            published.
        """
        if not self._moves:
            return None
        with self._tables:
            if number is None:
                apart = [tag for tag, at in self._adopted.items() if at is None]
                return Scope.without(apart, self._guests)
            if self._passed_at is not None and number > self._passed_at:
                return NOBODY
            apart = [tag for tag, at in self._adopted.items() if at is None or number <= at]
            return Scope.without(apart, self._guests)

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {}


async def _until(
    condition: Callable[[], bool], timeout: float, sleep: Callable[[float], Awaitable[None]]
) -> bool:
    """Wait until a condition holds, for ``timeout`` seconds at most. Return whether it holds."""
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            return False
        await sleep(_LOOK)
    return True
