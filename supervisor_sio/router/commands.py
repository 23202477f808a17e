"""The commands of ``supervisorctl sio`` that the router executes."""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, Mapping, Optional

from ..common.certificates import describe, make_context
from ..common.channel import Message
from ..common.clusters import section
from .emitter import Emitter
from .placement import Placement
from .pool import Pool
from .queries import Queries, Result, answer_packets, clients, rooms
from .rebalancing import Rebalancing
from .supervisord import CommandError, SupervisordChannel
from .tls import Terminator

logger = logging.getLogger("supervisor_sio.router")


class Commands:
    """Executes commands, and answers each.

    :param drained: the pids of workers that the operator has drained, by Supervisor's name.
    :param answers: sends the answers.
    :param figures: sends supervisord the current figures.
    :param terminator: ends TLS, if it is on, with the certificate in ``tls_files``.
    """

    def __init__(
        self,
        *,
        drained: Mapping[str, int],
        pool: Pool,
        placement: Placement,
        queries: Queries,
        rebalancing: Rebalancing,
        emitter: Emitter,
        answers: SupervisordChannel,
        figures: Callable[[], None],
        terminator: Optional[Terminator],
        tls_files: tuple[str, Optional[str]],
    ) -> None:
        self._drained = dict(drained)
        self._pool = pool
        self._placement = placement
        self._queries = queries
        self._rebalancing = rebalancing
        self._emitter = emitter
        self._answers = answers
        self._figures = figures
        self._terminator = terminator
        self._tls_files = tls_files

    def is_drained(self, name: str, pid: int) -> bool:
        """Whether the operator has drained the process of this name and pid."""
        return self._drained.get(name) == pid

    def execute(self, command: Message) -> None:
        """:raises CommandError: when the command cannot be executed."""
        kind = command["type"]
        if kind == "emit":
            self._emit(command)
            return
        if kind == "query":
            self._query(command)
            return
        if kind == "drain":
            self._drain(command["name"])
        elif kind == "undrain":
            self._undrain(command["name"])
        elif kind == "rebalance":
            self._rebalancing.begin()
        elif kind == "stop-rebalance":
            self._rebalancing.stop()
        elif kind == "reload-tls":
            self._reload_tls()
        else:
            raise CommandError(f"the router has no command {kind!r}; restart the router")
        # Before the answer, so that a client that has it sees the change in the status.
        self._figures()
        self._answers.result(command)

    def _emit(self, command: Message) -> None:
        if not any(member.channels for member in self._pool):
            raise CommandError("no worker is ready to receive it")
        self._emitter.emit(command, lambda error: self._answers.result(command, error))

    def _query(self, command: Message) -> None:
        """Ask the workers, and send their rows to supervisord, up to the limit."""
        merge = rooms if command.get("what") == "rooms" else clients

        def answered(result: Result) -> None:
            try:
                rows = merge(result)[: command["limit"]]
            except (TypeError, ValueError, IndexError) as error:
                # The answer of a worker is malformed.
                self._answers.result(command, f"a worker's answer is malformed: {error}")
                return
            self._answers.answer(answer_packets(command.get("id"), rows, result))

        self._queries.ask(command, answered)

    def _drain(self, name: str) -> None:
        for member in self._members(name):
            member.drained, member.drained_at = True, time.monotonic()
            self._drained[name] = member.pid
            logger.info("worker %s is drained: no new sessions", name)

    def _undrain(self, name: str) -> None:
        self._drained.pop(name, None)  # also for a worker that is not connected yet
        for member in self._members(name):
            member.drained = False
            logger.info("worker %s takes new sessions again", name)
        self._placement.place_held()

    def _members(self, name: str) -> Any:
        members = self._pool.named(name)
        if not members:
            raise CommandError(f"no worker {name} is connected to the router")
        return members

    def _reload_tls(self) -> None:
        if self._terminator is None:
            raise CommandError(f"TLS is off: set tls_certfile in {section()}")
        try:
            self._terminator.context = make_context(*self._tls_files)
        except OSError as error:
            reason = describe(error, *self._tls_files)
            raise CommandError(f"the certificate was not changed: {reason}") from None
        logger.info("certificate %s was reloaded", self._tls_files[0])
