"""Load generator: many clients that stay, and come back when they are cut off.

    python crowd.py HOST PORT --clients 2000 [--transport websocket] [--in-flight 8]

Connects the clients and says so in a line of JSON. Pings are answered all the time. Transports:

``websocket``   with a websocket at once
``polling``     polls, on one connection, and never upgrades
``browser``     polling first, then a websocket; the connection of the polls is kept for as long
                as the server keeps it
``upgraded``    the same, but that connection is closed

Then it takes commands from standard input, a line of JSON for a line:

    {"do": "come-back", "seconds": 300}
        wait until each client was cut off and is connected again, or the time is over; as
        socket.io-client does it, each tries after about a second, then after two, four, and
        every five

Each client has an address of its own, in 127.0.0.0/8. The end of standard input ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from epoll import Loop, Steps
from frames import Failure
from raw_clients import Client, Target

#: Seconds for a handshake, without an answer later, and until the next try, as socket.io-client
#: has them; the second are those without a ping.
HANDSHAKE_TIMEOUT, ANSWER_TIMEOUT = 20.0, 45.0
FIRST_DELAY, LONGEST_DELAY, JITTER = 1.0, 5.0, 0.5

#: Seconds between tries at first, and the share of the clients that may have to try again.
PAUSE = 0.01
FIRST_FAILURES = 0.5

#: Seconds without another loss after which all are back: workers may end one after another.
SETTLE = 3.0

TRANSPORTS = ("websocket", "polling", "browser", "upgraded")


class Crowd:
    """:ivar up: the clients that are connected, by their numbers."""

    def __init__(self, target: Target, clients: int, transport: str) -> None:
        self.loop = Loop()
        self._target = target
        self._clients = clients
        self._transport = transport
        self._random = random.Random(0)  # every server has the same clients
        self.up: set[int] = set()
        self.failures: Counter[str] = Counter()
        self._never_lost: set[int] = set()
        self._first_loss = self._last_back = 0.0

    def connect(self, in_flight: int) -> None:
        places = iter(range(self._clients))
        for _ in range(in_flight):
            self.loop.start(self._fill(places))
        self.loop.run(lambda: len(self.up) == self._clients)

    def _fill(self, places: Iterator[int]) -> Steps[None]:
        for number in places:
            while (client := (yield from self._try(number))) is None:
                if sum(self.failures.values()) > self._clients * FIRST_FAILURES:
                    raise Failure(f"clients cannot connect: {dict(self.failures)}")
                yield PAUSE
            self.loop.start(self._live(number, client))

    def _try(self, number: int) -> Steps[Client | None]:
        """The connected client, if it got so far."""
        high, low = divmod(number, 250)
        client = Client(self.loop, self._target, f"127.1.{high}.{low + 1}")
        try:
            yield from self._connect(client)
        except (Failure, ValueError) as error:
            reason = f"{client.step}: {error}"
            self.failures[reason.replace(client.sid.decode() or "-", "<sid>")] += 1
            client.close()
            return None
        self.loop.allow(float("inf"))
        self.up.add(number)
        self._last_back = time.monotonic()
        return client

    def _connect(self, client: Client) -> Steps[None]:
        self.loop.allow(HANDSHAKE_TIMEOUT)
        if self._transport == "websocket":
            yield from client.open_websocket()
            self.loop.allow(ANSWER_TIMEOUT)
            yield from client.join_websocket()
            return
        yield from client.open_polling()
        self.loop.allow(ANSWER_TIMEOUT)
        yield from client.join_polling()
        if self._transport != "polling":
            self.loop.allow(ANSWER_TIMEOUT)
            yield from client.upgrade()
        if self._transport == "upgraded":
            client.stop_polling()

    def _live(self, number: int, client: Client) -> Steps[None]:
        while True:
            with contextlib.suppress(Failure):
                yield from client.stay()
            client.close()
            self._lose(number)
            client = yield from self._come_back(number)

    def _come_back(self, number: int) -> Steps[Client]:
        delay = FIRST_DELAY
        while True:
            yield min(LONGEST_DELAY, delay * self._random.uniform(1 - JITTER, 1 + JITTER))
            client = yield from self._try(number)
            if client is not None:
                return client
            delay = min(LONGEST_DELAY, delay * 2)

    def _lose(self, number: int) -> None:
        self.up.discard(number)
        self._never_lost.discard(number)
        self._first_loss = self._first_loss or time.monotonic()

    def wait_until_back(self, seconds: float) -> dict[str, Any]:
        """Times are of the monotonic clock, which all processes share."""
        self._never_lost = set(self.up)
        self._first_loss = 0.0
        self.failures.clear()
        deadline = time.monotonic() + seconds
        self.loop.run(lambda: self._are_back() or time.monotonic() > deadline)
        return {
            "first_loss": self._first_loss,
            "last_back": self._last_back if self._are_back() else deadline,
            "missing": self._clients - len(self.up - self._never_lost),
            "failures": dict(self.failures),
        }

    def _are_back(self) -> bool:
        whole = not self._never_lost and len(self.up) == self._clients
        return whole and time.monotonic() > self._last_back + SETTLE


def main() -> None:
    parser = argparse.ArgumentParser(description="Many cheap Socket.IO clients that stay")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--transport", choices=TRANSPORTS, default="websocket")
    parser.add_argument("--in-flight", type=int, default=8, help="set-ups at a time, at first")
    parser.add_argument("--query", default=Target.query, help="of their requests")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    target = Target(options.host, options.port, query=options.query)
    crowd = Crowd(target, options.clients, options.transport)
    try:
        crowd.connect(options.in_flight)
        print(json.dumps({"failures": crowd.failures}), flush=True)
        while True:
            crowd.loop.run(also=sys.stdin.fileno())
            line = sys.stdin.readline()
            if not line:
                return
            command = json.loads(line)
            if command["do"] != "come-back":
                raise Failure(f"unknown command {command['do']!r}")
            print(json.dumps(crowd.wait_until_back(command["seconds"])), flush=True)
    except (Failure, OSError) as error:
        sys.exit(f"crowd: {error}")


if __name__ == "__main__":
    main()
