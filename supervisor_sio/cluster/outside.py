"""Questions of processes that serve no clients: a task of Celery, a cron job, a shell.

Such a process hears what is said to it alone, and nothing of what is sent to all. It learns from
the router, before each question, which workers there are. What they answer has no number on the
relay; see :mod:`.replies`. The thread that listens for it calls nothing of the application's.
"""

from __future__ import annotations

import itertools
import math
import time
from _thread import RLock
from typing import Any, Awaitable, Callable, ClassVar, Mapping, Optional, Sequence

from ..common.rundir import ClusterInfo, RunDir
from ..relay.message import EncodedPacket, RelayMessage
from ..relay.methods import BRIDGE, MalformedFields, check_fields
from ..relay.publisher import Publisher
from ..relay.subscriber import Subscriber
from .asking import Asking, Call
from .relaying import RelayUnreachable
from .replies import Key, Replies

#: Seconds for the router to say who is there. One that has just started says it after a second.
_ROUTER_TIMEOUT = 5.0

#: Seconds between two questions to it.
_ASK_AGAIN = 0.2

#: Seconds until a process that waits asks who has left, and for answers that were lost: at first,
#: at most.
_FIRST_LOOK = 0.25
_LAST_LOOK = 1.0


class Outside(Asking):
    """The part of a manager that asks without serving clients, and that answers such questions."""

    # From the manager and its other parts.
    _tables: RLock
    _publisher: Optional[Publisher]
    _run_dir: Optional[RunDir]
    _cluster: ClusterInfo
    _join_relay: Callable[[], Publisher]
    _wait_for: Callable[[Any, float], Awaitable[None]]

    def __init__(self) -> None:
        #: Numbers the questions to the router.
        self._look_numbers = itertools.count(1)
        self.forget_asked()

    def forget_asked(self) -> None:
        #: By number, an event that is set by the router's answer.
        self._looking: dict[int, Any] = {}
        self._replies = Replies()

    # --- who asks -----------------------------------------------------------------

    async def _meet(self) -> None:
        """Learn who is there now.

        :raises RelayUnreachable: when no relay answers, or no router.
        """
        number, met = next(self._look_numbers), self._create_event()
        self._looking[number] = met
        try:
            until = math.inf
            while number in self._looking:
                await self._begin(True)
                if time.monotonic() > until:
                    path = self._run_dir.path if self._run_dir is not None else ""
                    raise RelayUnreachable(
                        f"no router answers in {path}: is [eventlistener:sio] running?"
                    )
                until = min(until, time.monotonic() + _ROUTER_TIMEOUT)
                self._look(self._join_relay(), number)
                await self._wait_for(met, _ASK_AGAIN)
        finally:
            self._looking.pop(number, None)

    def _look(self, publisher: Publisher, number: int) -> None:
        publisher.ask_router({"method": "members", "asked": number})

    def _met(self, number: int, rows: Any) -> None:
        """The router has answered.

        :raises ValueError: or another exception, when these are not its rows.
        """
        members = {str(tag): bool(elsewhere) for tag, elsewhere, _ in rows}
        with self._tables:
            self._members.set(members, [str(tag) for tag, _, alias in rows if alias])
        met = self._looking.pop(number, None)
        if met is not None:
            met.set()

    async def _wait_outside(self, request: int, call: Call, done: Any, timeout: float) -> None:
        """Wait for answers; for no worker that has left, and for none that was lost."""
        until, pause = time.monotonic() + timeout, _FIRST_LOOK
        missing: set[str] = set()
        before: dict[str, int] = {}
        while not call.done and (left := until - time.monotonic()) > 0:
            await self._wait_for(done, min(pause, left))
            publisher = self._publisher
            if call.done or publisher is None:
                return
            waiting = call.waiting
            # What they said last comes another way than the word that they left: look twice.
            gone = {worker for worker in waiting if not self._members.hear(worker)}
            for worker in gone & missing:
                call.lost(worker)
            missing = gone
            self._look(publisher, 0)
            for worker, first in waiting.items():
                if self._members.is_local(worker):
                    again = {"method": "repeat", "request": request, "first": first}
                    publisher.tell(worker, {**again, "worker": worker})
            # Where much was lost, the next batch is due.
            pause = min(pause * 1.5, _LAST_LOOK) if waiting == before else _FIRST_LOOK
            before = waiting

    def _hear_answer(self, subscriber: Subscriber, message: RelayMessage) -> None:
        """In the thread that listens."""
        method = message.fields["method"]
        if method not in ("expect", "answer"):
            return
        try:
            check_fields(message.fields)
            self.HANDLERS[method](self, message)
        except MalformedFields as error:
            subscriber.refuse(error)

    def _end_calls(self) -> None:
        """Nothing will be received any more."""
        for call in list(self._calls.values()):
            call.end()

    # --- who answers --------------------------------------------------------------

    def _answer_outside(
        self, asker: str, fields: dict[str, Any], packets: Sequence[EncodedPacket]
    ) -> None:
        """:raises MessageTooLong: when it is longer than ``message_maxbytes``."""
        publisher = self._join_relay()
        publisher.check(packets, "an answer")
        with self._tables:  # in the order of the numbers
            publisher.tell(asker, self._replies.add(asker, fields, packets), packets)
        if self._cluster.bridged:  # the process may be on another host
            self._send_to([BRIDGE], {**fields, "to": asker}, packets)

    def _on_repeat(self, message: RelayMessage) -> None:
        fields = message.fields
        key = Key(message.sender, fields["request"], fields["worker"])
        publisher = self._join_relay()
        with self._tables:
            for reply in self._replies.again(key, fields["first"]):
                publisher.tell(message.sender, reply.fields, reply.packets)

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "repeat": _on_repeat,
    }
