"""The load generators as child processes of a bench."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from servers import HERE, HOST

#: Seconds for all clients to connect, and for a command beyond the seconds it is to take.
CONNECT_TIMEOUT = 300.0
ANSWER_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0

#: How clients ask: that of a browser may come back to its session, one of Python may not.
BROWSER, PYTHON = "EIO=4&transport={}", "transport={}&EIO=4"


class Generator:
    """A generator that answers lines of JSON with lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Meanwhile its clients do nothing."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def ask(self, do: str, seconds: float, **options: Any) -> dict[str, Any]:
        self.begin(do, seconds, **options)
        return self.answer(seconds + ANSWER_TIMEOUT)

    def begin(self, do: str, seconds: float, **options: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "seconds": seconds, **options}) + "\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """The answer to the end of the commands."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.answer(ANSWER_TIMEOUT)

    def answer(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise RuntimeError("a generator failed" if ready else "a generator does not answer")
        return dict(json.loads(line))


@contextlib.contextmanager
def generator(script: str, port: int, *options: str) -> Iterator[Generator]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), HOST, str(port), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Generator(process)
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.contextmanager
def swarm(
    port: int, clients: int, in_flight: int = 8, query: str = BROWSER
) -> Iterator[tuple[Generator, dict[str, Any]]]:
    """Clients with websockets for much traffic, and the report of swarm.py about them."""
    options = ["--clients", str(clients), "--in-flight", str(in_flight), "--query", query]
    with generator("swarm.py", port, *options) as process:
        yield process, process.answer(CONNECT_TIMEOUT)


@contextlib.contextmanager
def crowd(
    port: int, clients: int, transport: str, in_flight: int = 8, query: str = BROWSER
) -> Iterator[Generator]:
    """Clients that stay and come back, connected; see crowd.py."""
    options = ["--clients", str(clients), "--in-flight", str(in_flight), "--query", query]
    options += ["--transport", transport]
    with generator("crowd.py", port, *options) as process:
        process.answer(CONNECT_TIMEOUT)
        yield process
