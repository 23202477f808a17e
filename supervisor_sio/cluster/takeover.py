"""Taking clients over from another process, and passing on those of this one.

Clients that a process adopts keep the tag of the worker that had them in their session ids, and
their place in what every process sends. So until both places are the same, this process hears the
relay twice: once for its own clients, once for the adopted ones (see :class:`.Scope`). What it
sends itself reaches adopted clients directly from a known message on, which has a number; what it
sent before comes to them as what others sent does. The same when it passes its clients on: what
it sends after that number is for the process that adopts them, and goes to the relay alone.

Threads may emit all the while: see :meth:`Takeover._scope_of`.
"""

from __future__ import annotations

import time
from _thread import RLock
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

#: Seconds between looks whether what is waited for has happened.
_LOOK = 0.005

#: What is for clients. All else was for the process that had them, and that is gone.
_FOR_CLIENTS = frozenset(
    "emit volatile disconnect enter_room leave_room close_room "
    "sockets_join sockets_leave disconnect_sockets request gone arrived".split()
)


class Underway:
    """Counts what other threads have begun, and not ended: emits, and changes of rooms."""

    def __init__(self, lock: RLock) -> None:
        self._lock = lock
        self.count = 0

    def __enter__(self) -> None:
        with self._lock:
            self.count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.count -= 1


class Takeover(Asking):
    """The part of a manager that knows whose clients this process has."""

    # From the manager and its other parts.
    takeover: bool
    host_id: str
    rooms: dict[str, dict[Any, Any]]
    _outlet: Optional[sessions.Outlet]
    _subscriber: Optional[Subscriber]
    _hear: Callable[[RelayMessage], None]
    _note_heard: Callable[[RelayMessage, Any], None]
    _tables: RLock
    _guests: dict[str, str]
    #: With recovery.
    _save_all_of: Callable[[Collection[str]], None]
    _not_inherited: Callable[[Collection[str]], None]
    _has_moved: Callable[[str], bool]

    def __init__(self) -> None:
        #: By namespace, what is called for each client that this process has adopted.
        self._taken_over: dict[str, Handler] = {}
        self.forget_takeover()

    def forget_takeover(self) -> None:
        self._underway = Underway(self._tables)
        #: Whether what is sent has ever been for a part of the clients only.
        self._moves = False
        #: How many messages this process had published when it passed its clients on.
        self._passed_at: Optional[int] = None
        #: Tags of this process under which nobody hears any more.
        self._unheard: FrozenSet[str] = frozenset()
        #: By tag that is adopted: how many messages it had published when it began to send to
        #: those clients directly; ``None`` before that.
        self._adopted: dict[str, Optional[int]] = {}
        #: Adopted tags of which it is not sure that they are for this process.
        self._expected: FrozenSet[str] = frozenset()
        #: Adopted tags whose messages come apart from the others.
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
        such client of the namespace, before its next event, with its sid and the environment of
        its handshake, as ``connect`` was by the worker that had it before: to restore what an
        application keeps of a client outside of its session and its rooms. What it raises is
        logged. Of an asyncio server it may be a coroutine function.
        """
        return register("on_takeover", self._taken_over, namespace or "/", handler)

    # --- for the worker, in its loop -----------------------------------------------

    @property
    def has_on_takeover(self) -> bool:
        return bool(self._taken_over)

    async def run_on_takeover(self, sid: str, namespace: str, environ: Any) -> None:
        """Call the handler for a client; what it raises is logged."""
        handler = self._taken_over.get(namespace)
        if handler is None:
            return
        try:
            await settle(handler(sid, environ))
        except Exception:
            self._get_logger().exception("takeover handler error")

    @property
    def tags(self) -> FrozenSet[str]:
        """Of whose clients this process takes care: its own tag, and those it has adopted."""
        return frozenset(filter(self._is_ours, (self.host_id, *self._adopted)))

    def _is_ours(self, tag: str) -> bool:
        return self._has_adopted(tag) or (tag == self.host_id and self._passed_at is None)

    def _has_adopted(self, tag: str) -> bool:
        return self._adopted.get(tag) is not None and self._passed_at is None

    def _answers_for(self, tag: str) -> bool:
        """Whether what is said to the worker with this tag is said to this process; also while
        adopted clients have yet to hear what it has sent."""
        if self._passed_at is not None:
            return False
        return tag == self.host_id or tag in self._adopted

    def has_clients_of(self, tag: str) -> bool:
        """Whether there is a client with this tag in its sid, or has gone on to another process."""
        scope = Scope([tag], only=True, guests=self._guests)
        if any(tag_of(sid) == tag for sid in list(self._guests)) or self._has_moved(tag):
            return True
        return any(
            sid in scope for rooms in self.rooms.values() for sid in list(rooms.get(None, ()))
        )

    def detach(self) -> Position:
        """Stop to hear for the clients of this process: the one that adopts them will.

        :return: what they have heard.
        """
        assert self._subscriber is not None
        self._moves = True
        with self._tables:
            position = self._subscriber.detach()
            self._passed_at = position.sent
        return position

    def passed_nothing(self, position: Position) -> None:
        """After :meth:`detach`: no other process hears for these clients, who are about to end."""
        self._unheard = frozenset(position.tags)

    async def wait_settled(self, timeout: float, sleep: Callable[[float], Awaitable[None]]) -> bool:
        """After :meth:`detach`: wait until what other threads had begun to send is sent.

        :param timeout: seconds to wait at most.
        :return: whether it is so.
        """
        outlet = self._outlet
        threads = None if outlet is None else outlet.threads
        if threads is None:
            return True
        until = time.monotonic() + timeout
        if not await _until(lambda: not self._underway.count, timeout, sleep):
            return False
        done: List[None] = []
        threads.run(0, done.append, None)  # behind what they have left to do in the loop
        return await _until(lambda: bool(done), until - time.monotonic(), sleep)

    def expect(self, tags: Collection[str]) -> None:
        """Clients with these tags are about to be restored: until :meth:`adopt` nothing reaches
        them."""
        self._moves = True
        with self._tables:
            self._adopted.update(dict.fromkeys(tags))
            self._apart |= frozenset(tags)
            self._expected |= frozenset(tags)

    def not_adopted(self, tags: Collection[str]) -> None:
        """They do not come, or have been removed again."""
        with self._tables:
            for tag in tags:
                self._adopted.pop(tag, None)
            self._apart -= frozenset(tags)
            self._expected -= frozenset(tags)
            self._not_inherited(tags)

    def adopt(self, position: Position) -> None:
        """All clients of these tags are restored: let them hear what they have not heard yet.

        :param position: of the process that had them, with what was sent meanwhile.
        """
        assert self._subscriber is not None
        with self._tables:
            self._expected -= frozenset(position.tags)
            self._save_all_of(position.tags)
        for part in position.parts:
            tags = list(part.tags)
            # Whoever has asked the process that had them gets its answer in that one's name.
            scope = Scope(tags, only=True, name=tags[0], guests=self._guests)
            self._subscriber.adopt(
                part,
                partial(self._hear_for, scope),
                partial(self._send_directly, scope, tags),
                partial(self._merged, tags),
            )

    def give_up(self, tag: str) -> None:
        """No client of an adopted tag is left."""
        with self._tables:
            self._adopted.pop(tag, None)
            self._apart -= {tag}
        if self._subscriber is not None:
            self._subscriber.give_up(tag)

    # --- two places in what the others send ------------------------------------------

    def _scope_of_main(self, message: RelayMessage) -> Optional[Scope]:
        """Whom of the clients a message is for that comes to this process as ever."""
        method = message.fields["method"]
        if method == "volatile":  # it comes once
            return self._scope_of(None)
        if method not in _FOR_CLIENTS or method == "request":
            return None
        return Scope.without(self._apart, self._guests)

    def _hear_for(self, scope: Scope, message: RelayMessage) -> None:
        """A message for adopted clients alone."""
        # What this process has for its own clients is the same object, and may come later.
        message = copy(message)
        message.scope = scope
        if message.fields["method"] in _FOR_CLIENTS:
            self._hear(message)
        elif message.sequence:
            with self._tables:
                self._note_heard(message, message.stream)

    def _send_directly(
        self, scope: Scope, tags: List[str], fetch: Callable[[], Tuple[List[RelayMessage], int]]
    ) -> None:
        """From here on, what this process sends reaches the adopted clients directly.

        :param fetch: what it has sent until now that they have not heard, and its number.
        """
        with self._tables:
            messages, sent = fetch()
            self._adopted.update(dict.fromkeys(tags, sent))
        for message in messages:
            self._hear_for(scope, message)

    def _merged(self, tags: List[str]) -> None:
        """What comes is for them, too."""
        with self._tables:
            self._apart -= frozenset(tags)

    # --- what this process sends -----------------------------------------------------

    def _scope_of(self, number: Optional[int]) -> Optional[Scope]:
        """Whom of the clients here something is for that this process sends to its clients.

        It is asked after something was published. What changes the answer is noted together with
        the number of messages published so far, while ``_tables`` is held; ``_moves`` is set
        before. So a thread that has published before that moment gets the old answer, and one
        that publishes after it the new one, however long it takes to ask.

        :param number: of the message, as :meth:`.Publisher.publish` returns it; ``None`` when it
            was not published.
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
    """Whether it has become true in so many seconds."""
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            return False
        await sleep(_LOOK)
    return True
