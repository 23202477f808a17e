"""Clients that connect and leave, again and again: how long each handshake takes.

    python tests/bench/handshakes.py HOST PORT [--in-flight 2] [--seconds 60]

A handshake is the time from the first packet to the answer to a websocket's first
request, with Engine.IO's open packet. Ends after so many seconds or with standard input,
and prints a line of JSON: the beginning and the end of each handshake by the clock that
all processes of a host share, and the failures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter

from client import Session
from frames import Failure

#: Seconds that a client that was served lets pass: all in all, the rate of new clients.
PAUSE = 0.005


async def connect_again_and_again(
    host: str,
    port: int,
    ended: asyncio.Event,
    handshakes: list[tuple[float, float]],
    failures: Counter[str],
) -> None:
    while not ended.is_set():
        session = Session(host, port)
        began = time.monotonic()
        try:
            await session.open_websocket()
            handshakes.append((began, time.monotonic()))
        except (Failure, OSError) as error:
            failures[str(error)] += 1
        finally:
            session.close()
        await asyncio.sleep(PAUSE)


async def run(host: str, port: int, in_flight: int, seconds: float) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, ended.set)
    loop.call_later(seconds, ended.set)
    handshakes: list[tuple[float, float]] = []
    failures: Counter[str] = Counter()
    await asyncio.gather(
        *(
            connect_again_and_again(host, port, ended, handshakes, failures)
            for _ in range(in_flight)
        )
    )
    print(json.dumps({"handshakes": handshakes, "failures": failures}))


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of handshakes")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--in-flight", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60, help="at most")
    asyncio.run(run(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
