"""What every test client records, whatever Socket.IO library it runs on."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

TIMEOUT = 25.0


class Received(NamedTuple):
    event: str
    namespace: str
    args: list[Any]


def deviation(got: Sequence[int], count: int) -> str:
    """How numbers differ from 0 to ``count - 1``, each once and in order; empty if they do not."""
    times = Counter(got)
    faults = {
        "missing": sorted(set(range(count)) - set(got)),
        "unexpected": sorted(set(got) - set(range(count))),
        "doubled": sorted(number for number in times if times[number] > 1),
        "out of order": [(a, b) for a, b in zip(got, got[1:]) if a > b],
    }
    return ", ".join(
        f"{len(found)} {fault}: {str(found[:10])[1:-1]}{' ...' * (len(found) > 10)}"
        for fault, found in faults.items()
        if found
    )


class TestClient(ABC):
    """A Socket.IO client with a thread-safe record of all that happened to it.

    It answers every event that wants an ack with ``{"from": name, "got": args}``;
    only not, when the event's name begins with ``silent``, if its first argument,
    a list of names, has this client's.
    """

    __test__ = False  # not for pytest to collect

    def __init__(self, name: str, namespaces: Sequence[str] = ("/",)) -> None:
        self.name = name
        self.namespaces = list(namespaces)
        self._changed = threading.Condition()
        self._received: list[Received] = []
        self._sids: dict[str, str] = {}
        self.connects = 0
        self.disconnects: list[str] = []

    # --- the record ----------------------------------------------------------

    def _on_event(self, event: str, namespace: str, args: Sequence[Any]) -> None:
        with self._changed:
            self._received.append(Received(event, namespace, list(args)))
            self._changed.notify_all()

    def _on_connect(self, namespace: str, sid: str) -> None:
        with self._changed:
            self._sids[namespace] = sid
            self.connects += 1
            self._changed.notify_all()

    def _on_disconnect(self, namespace: str, reason: str) -> None:
        with self._changed:
            self._sids.pop(namespace, None)
            self.disconnects.append(reason)
            self._changed.notify_all()

    def wait(self, predicate: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> None:
        """Wait for a condition on the record; it is looked at whenever that changes."""
        with self._changed:
            if not self._changed.wait_for(predicate, timeout):
                raise AssertionError(
                    f"{self.name}: no {what} within {timeout:g} s; "
                    f"disconnects: {self.disconnects}, last events: {self._received[-5:]}"
                )

    def received(self, event: str, namespace: str = "/") -> list[list[Any]]:
        """The arguments of every event of this name so far, in order."""
        with self._changed:
            return [r.args for r in self._received if r[:2] == (event, namespace)]

    def count(self, prefix: str) -> int:
        """How many events have come so far whose name begins like this."""
        with self._changed:
            return sum(r.event.startswith(prefix) for r in self._received)

    def wait_for(
        self, event: str, count: int = 1, namespace: str = "/", timeout: float = TIMEOUT
    ) -> list[list[Any]]:
        self.wait(lambda: len(self.received(event, namespace)) >= count, event, timeout)
        return self.received(event, namespace)

    def expect_numbers(
        self, event: str, count: int, namespace: str = "/", timeout: float = TIMEOUT
    ) -> None:
        """The events that come have the numbers from 0 to ``count - 1``, each once, in order."""
        with contextlib.suppress(AssertionError):  # what has come says more
            self.wait_for(event, count, namespace, timeout)
        got = [args[0] for args in self.received(event, namespace)]
        fault = deviation(got, count)
        assert not fault, f"{self.name} has {len(got)} of {count} {event}: {fault}"

    def wait_connected(self, timeout: float = TIMEOUT) -> None:
        self.wait(lambda: self.connected, "connection", timeout)

    def wait_disconnected(self) -> None:
        self.wait(lambda: self.disconnects, "disconnection")

    def wait_talking(self, timeout: float = 30.0) -> None:
        """Wait until the client has found its way back and gets answers."""
        deadline = time.monotonic() + timeout
        while True:
            self.wait_connected(deadline - time.monotonic())
            try:
                assert self.call("echo", "again?", timeout=2) == "again?"
                return
            except (TimeoutError, ConnectionError):
                if time.monotonic() > deadline:
                    raise

    @property
    def connected(self) -> bool:
        """Whether all of its namespaces are connected."""
        return len(self._sids) == len(self.namespaces)

    def sid(self, namespace: str = "/") -> str:
        with self._changed:
            return self._sids[namespace]

    def whoami(self) -> dict[str, Any]:
        """The worker that serves this client: its ``pid`` and ``name``."""
        answer: dict[str, Any] = self.call("whoami")
        return answer

    # --- the library's part --------------------------------------------------

    @property
    @abstractmethod
    def transport(self) -> str: ...

    @abstractmethod
    def connect(self, url: str, transports: list[str] | None = None) -> None:
        """Connect and wait for it; ``None`` starts with polling and upgrades."""

    @abstractmethod
    def emit(self, event: str, *args: Any, namespace: str = "/") -> None: ...

    @abstractmethod
    def call(self, event: str, *args: Any, namespace: str = "/", timeout: float = TIMEOUT) -> Any:
        """Emit and wait for the ack.

        :raises TimeoutError: when none comes.
        :raises ConnectionError: when the client is not connected.
        """

    @abstractmethod
    def close(self) -> None: ...
