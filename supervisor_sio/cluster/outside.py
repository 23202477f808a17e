"""Questions of processes that serve no clients: a task of Celery, a cron job, a shell.

Such a process receives only messages to itself, and nothing that is sent to all. Before each
question it gets the list of workers from the router. Answers to it have no number on the relay, see
:mod:`.replies`. The thread that receives them calls no code of the application.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any, Awaitable, Callable, ClassVar, Mapping, Optional, Sequence

from ..common.rundir import ClusterInfo, RunDir
from ..relay.message import EncodedPacket, RelayMessage
from ..relay.methods import BRIDGE, MalformedFields, check_fields
from ..relay.publisher import Publisher
from ..relay.subscriber import Subscriber
from .asking import Asking, Call
from .relaying import RelayUnreachable
from .replies import Key, Replies
from .tables import Tables

#: Seconds to wait for the router's list; a router that has just started sends it after a second.
_ROUTER_TIMEOUT = 5.0

#: Seconds until the router is asked again.
_ASK_AGAIN = 0.2

#: Seconds between two looks whether workers have left or answers were lost: the first, and the
#: longest pause.
_FIRST_LOOK = 0.25
_LAST_LOOK = 1.0


class Outside(Asking):
    """The part of a manager that asks without serving clients, and answers such questions."""

    # From the manager and its other parts.
    _tables: Tables
    _publisher: Optional[Publisher]
    _run_dir: Optional[RunDir]
    _cluster: ClusterInfo
    _join_relay: Callable[[], Publisher]
    _wait_for: Callable[[Any, float], Awaitable[None]]

    def __init__(self) -> None:
        #: Numbers of questions to the router.
        self._look_numbers = itertools.count(1)
        self.forget_asked()

    def forget_asked(self) -> None:
        #: By number, an event that is set by the router's answer.
        self._looking: dict[int, Any] = {}
        self._replies = Replies()

    # --- the asking process ---------------------------------------------------------

    async def _ask_for_members(self) -> None:
        """Get the present list of workers from the router.

        :raises RelayUnreachable: when no relay or no router answers in time.
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

    def _take_members(self, number: int, rows: Any) -> None:
        """Take the router's list.

        :raises ValueError: or another exception, when the rows are malformed.
        """
        members = {str(tag): bool(elsewhere) for tag, elsewhere, _ in rows}
        with self._tables:
            self._members.set(members, [str(tag) for tag, _, alias in rows if alias])
        met = self._looking.pop(number, None)
        if met is not None:
            met.set()

    async def _wait_outside(self, request: int, call: Call, done: Any, timeout: float) -> None:
        """Wait for answers; ask again for lost ones, and give up on workers that have left."""
        until, pause = time.monotonic() + timeout, _FIRST_LOOK
        missing: set[str] = set()
        before: dict[str, int] = {}
        while not call.done and (left := until - time.monotonic()) > 0:
            await self._wait_for(done, min(pause, left))
            publisher = self._publisher
            if call.done or publisher is None:
                return
            waiting = call.waiting
            # A worker's last answers and the news that it left come on different ways: look twice.
            gone = {worker for worker in waiting if not self._members.receives(worker)}
            for worker in gone & missing:
                call.lost(worker)
            missing = gone
            self._look(publisher, 0)
            for worker, first in waiting.items():
                if self._members.is_local(worker):
                    again = {"method": "repeat", "request": request, "first": first}
                    publisher.tell(worker, {**again, "worker": worker})
            # After many losses the answers come in batches: ask for the next one soon.
            pause = min(pause * 1.5, _LAST_LOOK) if waiting == before else _FIRST_LOOK
            before = waiting

    def _take_answer(self, subscriber: Subscriber, message: RelayMessage) -> None:
        """Handle an answer, in the receiving thread."""
        method = message.fields["method"]
        if method not in ("expect", "answer"):
            return
        try:
            check_fields(message.fields)
            self.HANDLERS[method](self, message)
        except MalformedFields as error:
            subscriber.refuse(error)

    def _end_calls(self) -> None:
        """End all questions: this process receives nothing any more."""
        for call in list(self._calls.values()):
            call.end()

    # --- the answering process ------------------------------------------------------

    def _answer_outside(
        self, asker: str, fields: dict[str, Any], packets: Sequence[EncodedPacket]
    ) -> None:
        """:raises MessageTooLong: when it is longer than ``message_maxbytes``."""
        publisher = self._join_relay()
        publisher.check(packets, "an answer")
        with self._tables:  # sends in the order of the numbers
            publisher.tell(asker, self._replies.add(asker, fields, packets), packets)
        if self._cluster.bridged:  # the asking process may be on another host
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
