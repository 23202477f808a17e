"""Load generator: clients that come, do a thing, and go, over plain sockets.

    python load.py HOST PORT [--what set-up] [--seconds 5] [--in-flight 16] [--timeout 10]

What they do:

``set-up``, what a browser does to reach a websocket:

    connection 1   GET handshake, POST "40", GET poll with the answer to it, GET poll left pending
    connection 2   GET with Upgrade and the sid, "2probe" / "3probe"
    connection 1   the pending poll ends with a NOOP
    connection 2   "5", an event with an ack, its answer, close

``websocket``, the same without polling:

    GET with Upgrade, the handshake, "40" and its answer, an event with an ack, its answer, close

``polling``, requests on kept connections, each counts: POST of an event, GET of its answer.

Ends after the seconds or with SIGTERM, when what is in flight is done, and prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable

from epoll import Loop, Steps
from frames import Failure
from raw_clients import Client, Target

#: Seconds until a client comes again that was refused.
PAUSE = 0.01


@dataclass
class Figures:
    completed: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    generator_cpu: float = 0.0


def percentile(values: Sequence[float], fraction: float) -> float:
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


class Load:
    """:param timeout: seconds for one whole set-up, or one request."""

    def __init__(self, target: Target, seconds: float, timeout: float) -> None:
        self.loop = Loop()
        self._target = target
        self._timeout = timeout
        self._deadline = time.monotonic() + seconds
        self._durations: list[float] = []
        self.figures = Figures()

    def stop(self) -> None:
        self._deadline = 0.0

    def visits(self, visit: Callable[[Client], Steps[None]]) -> Steps[None]:
        """One client after another, until the time is over."""
        while self._goes_on():
            client = Client(self.loop, self._target)
            self.loop.allow(self._timeout)
            try:
                yield from visit(client)
            except (Failure, ValueError) as error:
                reason = f"{client.step}: {error}"
                if client.sid:
                    reason = reason.replace(client.sid.decode("latin-1"), "<sid>")
                self.figures.failures[reason] += 1
                yield PAUSE  # a server that refuses is not to be spun on
            finally:
                client.close()

    def set_up(self, client: Client) -> Steps[None]:
        began = time.monotonic()
        yield from client.open_polling()
        yield from client.join_polling()
        yield from client.upgrade()
        yield from self._use_once(client, began)

    def websocket(self, client: Client) -> Steps[None]:
        began = time.monotonic()
        yield from client.open_websocket()
        yield from client.join_websocket()
        yield from self._use_once(client, began)

    def polling(self, client: Client) -> Steps[None]:
        yield from client.open_polling()
        yield from client.join_polling()
        while self._goes_on():
            self.loop.allow(self._timeout)
            began = time.monotonic()
            yield from client.echo_polling()
            self._durations.append(time.monotonic() - began)
            self.figures.completed += 2
        yield from client.leave()

    def _use_once(self, client: Client, began: float) -> Steps[None]:
        yield from client.echo()
        self._durations.append(time.monotonic() - began)
        yield from client.leave()
        self.figures.completed += 1

    def _goes_on(self) -> bool:
        return time.monotonic() < self._deadline

    def run(self, visit: Callable[[Client], Steps[None]], in_flight: int) -> Figures:
        began, cpu_began = time.monotonic(), time.process_time()
        for _ in range(in_flight):
            self.loop.start(self.visits(visit))
        self.loop.run()
        self.figures.elapsed = time.monotonic() - began
        self.figures.generator_cpu = time.process_time() - cpu_began
        self.figures.p50_ms = percentile(self._durations, 0.50) * 1000
        self.figures.p99_ms = percentile(self._durations, 0.99) * 1000
        return self.figures


#: What clients do.
VISITS = {"set-up": Load.set_up, "websocket": Load.websocket, "polling": Load.polling}


def main() -> None:
    parser = argparse.ArgumentParser(description="Socket.IO clients that come and go")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--what", choices=VISITS, default="set-up")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--timeout", type=float, default=10, help="of one whole set-up")
    parser.add_argument("--query", default=Target.query, help="of their requests")
    options = parser.parse_args()
    load = Load(
        Target(options.host, options.port, query=options.query), options.seconds, options.timeout
    )
    signal.signal(signal.SIGTERM, lambda *_: load.stop())
    figures = load.run(VISITS[options.what].__get__(load), options.in_flight)
    print(json.dumps(vars(figures)))


if __name__ == "__main__":
    main()
