"""Python clients of tests/bench/takeover.py: python takeover_clients.py URL FIRST COUNT RATE

As js/takeover.js has it: the same commands, the same answers; without those that come and go.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cluster.pyclient import InOrder  # noqa: E402
from takeover_app import ROOMS  # noqa: E402
from takeover_oracle import Delays, Hearing  # noqa: E402

TRANSPORTS = (["websocket"], ["polling", "websocket"], ["polling"])
CONNECTS_AT_A_TIME = 8

delays = Delays()
lock = threading.Lock()


class Client:
    def __init__(self, url: str, key: int) -> None:
        self.key = key
        self._url = f"{url}/?key={key}"
        self._hearing = Hearing()
        self._connects = self.sent = self.acked = self.heard = 0
        self.ends: list[str] = []
        self.sid = ""
        self.sio = InOrder(
            reconnection_delay=0.1,
            reconnection_delay_max=1,
            handle_sigint=False,
            request_timeout=60,
        )
        self.sio.on("connect", self._connected)
        self.sio.on("disconnect", self._end)
        self.sio.on("n", self._hear)
        self.sio.on("ask", lambda number: number)

    def connect(self) -> str:
        auth = {"key": str(self.key), "room": self.key % ROOMS}
        transports = TRANSPORTS[self.key % 3]
        self.sio.connect(self._url, transports=transports, auth=auth, wait_timeout=30)
        return self.sid

    def _end(self, text: str) -> None:
        self.ends.append(f"{text} at {datetime.now(timezone.utc).isoformat()}")

    def _connected(self) -> None:
        self._connects += 1
        if self._connects > 1:
            self._hearing.begin_anew()
        self.sid = self.sio.get_sid()

    def _hear(self, emitter: str, total: int, target: str, number: int, sent: float) -> None:
        with lock:
            delays.add(time.monotonic() - sent)
        self.heard += 1
        self._hearing.hear(emitter, total, target, number)

    def send(self) -> None:
        self.sent += 1
        number = self.sent

        def answered(answer: int) -> None:
            self.acked += 1
            if answer != number:
                self._end(f"answer {answer} to {number}")

        try:
            self.sio.emit("up", (str(self.key), number, time.monotonic()), callback=answered)
        except Exception as error:  # it is not connected
            self._end(f"{type(error).__name__}: {error}")

    def report(self) -> dict[str, Any]:
        return {
            "key": str(self.key),
            "sid": self.sid,
            "connects": self._connects,
            "recovered": 0,
            "ends": self.ends,
            "sent": self.sent,
            "acked": self.acked,
            "last": self._hearing.last,
            "faults": self._hearing.faults,
            "examples": self._hearing.examples,
        }


class Sender:
    """Sends for all clients in turn."""

    def __init__(self, clients: list[Client], rate: float) -> None:
        self._clients = clients
        self._rate = rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._stopped.wait(0.01):
            while sent < (time.monotonic() - began) * self._rate:
                self._clients[sent % len(self._clients)].send()
                sent += 1


def main() -> None:
    url, first, count, rate = sys.argv[1], *map(int, sys.argv[2:4]), float(sys.argv[4])
    clients = [Client(url, key) for key in range(first, first + count)]
    with ThreadPoolExecutor(CONNECTS_AT_A_TIME) as pool:
        sids = list(pool.map(Client.connect, clients))
    say({"sids": sids})
    sender: Sender | None = None
    for line in sys.stdin:
        command = line.strip()
        if command == "go":
            sender = Sender(clients, rate)
        elif command == "stop" and sender is not None:
            sender.stop()
        answer: dict[str, Any] = {}
        if command == "count":
            answer["heard"] = sum(client.heard for client in clients)
            answer["acked"] = sum(client.acked for client in clients)
        elif command == "report":
            with lock:
                counts = [*delays.counts.items()]
            reports = [client.report() for client in clients]
            answer = {"clients": reports, "visits": [], "visited": 0}
            answer.update(delays=counts, worst=delays.worst)
        say(answer)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    os._exit(0)  # hundreds of threads wait for answers


def say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
