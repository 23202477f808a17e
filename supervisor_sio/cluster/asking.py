"""Questions to all workers of the cluster, and answers to the questions of other workers.

The questions themselves are in :mod:`.fetching`, :mod:`.emit_with_acks` and :mod:`.server_side`.
What is different in a process that serves no clients is in :mod:`.outside`.
"""

from __future__ import annotations

import itertools
import random
import time
from contextlib import contextmanager
from functools import partial
from typing import (
    Any,
    Awaitable,
    Callable,
    ClassVar,
    Iterable,
    Iterator,
    Mapping,
    Optional,
    Sequence,
)

from socketio import packet as sio_packet

from ..common.clusters import why_none
from ..common.rundir import ENVIRONMENT_VARIABLE
from ..relay.message import EncodedPacket, RelayMessage
from ..relay.methods import ASKER
from .gathering import Answers, Gathering
from .members import Members
from .replies import Came
from .scope import Scope, Selection
from .tables import Tables

#: Seconds to wait for answers, unless the caller says otherwise.
TIMEOUT = 5.0

#: Seconds to wait for answers that a worker sent before it left.
_LAST_WORDS = 0.05

#: Seconds to wait until the router has sent the list of workers.
_MEMBERS_TIMEOUT = 2.0


class Call:
    """A question to the cluster whose answers are waited for.

    :param done: an event of the runtime, which is set when nothing more will come.
    :param lock: guards the answers: they may arrive in other threads.
    :param sent: whether there is another process to send it to.
    """

    def __init__(self, gathering: Gathering, done: Any, lock: Tables, sent: bool) -> None:
        self.sent = sent
        self._gathering = gathering
        self._done = done
        self._lock = lock
        #: By worker: which answers have arrived, where an answer may arrive twice.
        self._came: dict[str, Came] = {}
        self._ended = False

    def is_new(self, fields: Mapping[str, Any]) -> bool:
        """Whether an answer has not arrived before."""
        if "number" not in fields:
            return True
        with self._lock:
            came = self._came.setdefault(fields["worker"], Came())
            return came.is_new(fields["start"], fields["number"])

    @property
    def waiting(self) -> dict[str, int]:
        """The workers that are waited for, and the number of the first answer that each one
        lacks."""
        with self._lock:
            return {
                worker: self._came[worker].lacks if worker in self._came else 0
                for worker in self._gathering.waiting
            }

    @property
    def done(self) -> bool:
        """Whether no answer is waited for any more."""
        return self._ended or self._gathering.done

    def end(self) -> None:
        """Stop waiting: workers that have not answered are missing."""
        self._ended = True
        self._done.set()

    def expect(self, worker: str, count: int) -> None:
        """A worker will give ``count`` answers."""
        self._note(self._gathering.expect, worker, count)

    def answer(self, worker: str, value: Any) -> None:
        self._note(self._gathering.answer, worker, value)

    def no_answer(self, worker: str) -> None:
        """One answer of this worker will not come."""
        self._note(self._gathering.no_answer, worker)

    def lost(self, worker: str) -> None:
        """This worker has left."""
        self._note(self._gathering.lost, worker)

    def _note(self, change: Callable[..., None], *args: Any) -> None:
        with self._lock:
            change(*args)
            done = self._gathering.done
        if done:
            self._done.set()

    async def wait(
        self, timeout: float, wait_for: Callable[[Any, float], Awaitable[None]]
    ) -> Answers[Any]:
        if not self.done:
            await wait_for(self._done, timeout)
        with self._lock:
            timed_out = not self._gathering.done
            self._gathering.give_up()
        answers: Answers[Any] = Answers(self._gathering.answers)
        answers.timed_out, answers.missing = timed_out, self._gathering.missing
        return answers


class Asking:
    """The part of a manager that asks all workers, waits for answers, and answers others."""

    # From the manager and its other parts.
    server: Any
    _tables: Tables
    host_id: str
    _get_logger: Callable[[], Any]
    _run_dir: Any
    _serves: bool
    _check_caller: Callable[[str, bool], None]
    #: Every operation begins with it. It raises where the operation must not be called, and joins
    #: the relay for one that publishes.
    _begin: Callable[[bool], Awaitable[None]]
    _create_event: Callable[[], Any]
    _wait_for: Callable[[Any, float], Awaitable[None]]
    _sleep: Callable[[float], Awaitable[None]]
    _spawn: Callable[..., None]
    _encode: Callable[..., list[EncodedPacket]]
    _decode: Callable[[RelayMessage], list[Any]]
    #: Returns which clients of this process the message is for as well, if it is for clients.
    _send_to: Callable[..., Optional[Selection]]
    _packet_format: Callable[[], str]
    _member_left: Callable[[str], None]
    _scope_of: Callable[[Optional[int]], Optional[Scope]]
    #: Used in a process that serves no clients.
    write_only: bool
    _ask_for_members: Callable[[], Awaitable[None]]
    _wait_outside: Callable[[int, Call, Any, float], Awaitable[None]]
    _answer_outside: Callable[..., None]

    #: The methods that answer other workers' questions, by operation.
    REQUESTS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {}

    @property
    def hears(self) -> Optional[str]:
        raise NotImplementedError

    def __init__(self) -> None:
        self._members = Members()
        self._calls: dict[int, Call] = {}
        # Numbers start at random: a process may get an answer that was meant for its predecessor.
        self._requests = itertools.count(random.getrandbits(20) << 32 | 1)

    # --- the workers of the cluster --------------------------------------------

    def set_members(self, members: Mapping[str, bool], aliases: Iterable[str] = ()) -> None:
        """The workers of the cluster have changed; the worker's link calls it.

        :param members: by tag, whether that worker is on another host.
        :param aliases: those of the tags under which no process sends any more; the worker that
            adopts their sessions answers for them.
        """
        with self._tables:
            ended, left = self._members.set(members, aliases)
        for tag in ended:
            self._member_left(tag)
        if left and self._calls:
            self._spawn(self._give_up_on, left)

    async def _give_up_on(self, left: list[str]) -> None:
        # A worker's last answers and the news that it left come on different ways.
        await self._sleep(_LAST_WORDS)
        for call in list(self._calls.values()):
            for tag in left:
                call.lost(tag)

    @property
    def _outside(self) -> bool:
        """Whether this process knows a cluster, but serves none of its clients."""
        return self._run_dir is not None and not self._serves

    def _need_answers(
        self, what: str = "fetch_sockets() and other calls with answers", waits: bool = True
    ) -> None:
        """:raises RuntimeError: where no answer would come, or the caller must not wait for it."""
        if self._outside:
            if self.write_only:
                raise RuntimeError(
                    f"{what} need a manager that receives answers: make it without write_only=True"
                )
        else:
            self._need_cluster()
            self._check_caller(what, waits)

    def _need_cluster(self) -> None:
        """:raises RuntimeError: in a process without clients and without a cluster."""
        if self.server is None and self._run_dir is None:
            raise RuntimeError(
                why_none()
                or "this process serves no clients, and knows of no cluster: set "
                f"{ENVIRONMENT_VARIABLE} or pass url to the manager"
            )

    async def _wait_for_members(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        until = time.monotonic() + _MEMBERS_TIMEOUT
        while self.hears and not self._members.known and time.monotonic() < until:
            await sleep(0.02)  # a router sends the list soon after its start

    def lives(self, tag: str) -> bool:
        """Whether a living worker sends under this tag."""
        return tag in self._members

    def is_local(self, tag: str) -> bool:
        """Whether a process on this host receives under this tag."""
        return self._members.is_local(tag)

    def is_remote(self, tag: str) -> bool:
        return self._members.is_remote(tag)

    async def server_count(self) -> int:
        """Return the number of workers in the cluster, this one included.

        :raises RuntimeError: in a write-only manager.
        :raises RelayUnreachable: in a process that serves no clients, when no router answers.
        """
        await self._prepare_call()
        return len({*self._members} if self._outside else {*self._members, self.host_id})

    # --- asking ---------------------------------------------------------------

    async def _prepare_call(self) -> None:
        """Before :meth:`_call`.

        :raises RuntimeError: where no answer would come.
        :raises RelayUnreachable: in a process that serves no clients, when no router answers.
        """
        self._need_answers()
        if self._outside:
            await self._ask_for_members()
        else:
            await self._wait_for_members(self._sleep)

    @contextmanager
    def _call(
        self, local: bool, with_self: bool, each: Optional[int], enough: Optional[int] = None
    ) -> Iterator[tuple[int, Call]]:
        """Register a question to the present workers: its number, and what gathers the answers."""
        with self._tables:  # other threads may learn who is there
            workers = set() if local else set(self._members) - {self.host_id}
        if with_self and not self._outside:
            workers.add(self.host_id)
        request = next(self._requests)
        sent = not local and self._members.has_others(self.host_id)
        call = Call(Gathering(workers, each, enough), self._create_event(), self._tables, sent)
        self._calls[request] = call
        try:
            yield request, call
        finally:
            self._calls.pop(request, None)  # a child of a fork has none

    async def _answers(self, request: int, call: Call, timeout: float) -> Answers[Any]:
        """Wait for the answers, for ``timeout`` seconds at most."""
        if self._outside:
            return await call.wait(timeout, partial(self._wait_outside, request, call))
        return await call.wait(timeout, self._wait_for)

    def _send_to_others(
        self, call: Call, fields: Mapping[str, Any], packets: list[EncodedPacket], what: str
    ) -> Optional[Selection]:
        """:return: which clients of this process it is for as well."""
        if call.sent:
            return self._send_to([None], fields, packets, what)
        return self._scope_of(None)

    async def _gather(
        self,
        operation: str,
        namespace: str,
        arguments: Mapping[str, Any],
        local: bool,
        timeout: float,
        packets: Optional[list[EncodedPacket]] = None,
        own: Optional[Callable[[], Any]] = None,
    ) -> Answers[Any]:
        """Get one answer from each worker.

        :param own: makes this worker's answer; without it only the others are asked.
        """
        await self._prepare_call()
        with self._call(local, own is not None, each=1) as (request, call):
            fields = {
                "method": "request",
                "operation": operation,
                "request": request,
                "namespace": namespace,
                "packet": self._packet_format(),
                **arguments,
            }
            self._send_to_others(call, fields, packets or [], operation)
            if own is not None and not self._outside:
                call.answer(self.host_id, own())
            return await self._answers(request, call, timeout)

    def _on_expect(self, message: RelayMessage) -> None:
        call = self._calls.get(message.fields["request"])
        if call is not None and call.is_new(message.fields):
            call.expect(message.fields["worker"], message.fields["count"])

    def _on_answer(self, message: RelayMessage) -> None:
        fields = message.fields
        call = self._calls.get(fields["request"])
        if call is None or not call.is_new(fields):
            return  # it came too late, or twice
        if not message.packets:
            call.no_answer(fields["worker"])
        else:
            values = self._decode(message)
            single = values[0] if len(values) == 1 else tuple(values) if values else None
            call.answer(fields["worker"], single)

    # --- answering ------------------------------------------------------------

    def _on_request(self, message: RelayMessage) -> None:
        # An unknown operation is one of a newer version.
        self.REQUESTS.get(message.fields["operation"], Asking._reply_nothing)(self, message)

    def _reply(self, question: RelayMessage, value: Any) -> None:
        """:param value: sent in a Socket.IO packet, so it may have bytes in it."""
        fields = {**self._answer_to(question), "packet": self._packet_format()}
        try:
            packets = self._encode(sio_packet.ACK, question.fields["namespace"], [value], 0)
            self._answer(self._asker(question), fields, packets)
        except (TypeError, ValueError) as error:
            self._get_logger().error("an answer to another worker cannot be sent: %s", error)
            self._reply_nothing(question)

    def _reply_nothing(self, question: RelayMessage) -> None:
        self._answer(self._asker(question), self._answer_to(question))

    def _answer(
        self, asker: str, fields: dict[str, Any], packets: Sequence[EncodedPacket] = ()
    ) -> None:
        if asker.startswith(ASKER):
            self._answer_outside(asker, fields, packets)
        else:
            self._send_to([asker], fields, packets, "an answer")

    def _answer_to(self, question: RelayMessage) -> dict[str, Any]:
        return {
            "method": "answer",
            "request": question.fields["request"],
            "worker": (question.scope and question.scope.name) or self.host_id,
        }

    @staticmethod
    def _asker(question: RelayMessage) -> str:
        """The process that gets the answer; the bridge names the one for which it asks."""
        return str(question.fields.get("reply_to", question.sender))

    def _tell(
        self, asker: str, fields: dict[str, Any], packets: Iterable[EncodedPacket] = ()
    ) -> None:
        """Send to the process that asked, or handle it here when this process asked."""
        if asker == self.host_id:
            self.HANDLERS[fields["method"]](
                self, RelayMessage(self.host_id, 0, fields, list(packets))
            )
        else:
            self._answer(asker, fields, list(packets))

    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        "request": _on_request,
        "expect": _on_expect,
        "answer": _on_answer,
    }
