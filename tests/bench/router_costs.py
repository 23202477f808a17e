"""What the router costs: per session set-up, per message, per idle client, under attack.

    python tests/bench/router_costs.py [--runs 3] [--idle 2000] [--slow 2000]

Prints a row for each figure with its bar; ends with 1 if one is missed.

* set-up: CPU of the router, beside that of nginx in front of the same workers;
* message: CPU of the router while 100 websocket clients echo;
* idle: memory and descriptors of the router with and without idle websockets;
* slow heads: connections that send a byte of a request line each second, and the
  median time of a well-behaved handshake meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import struct
import time
from dataclasses import dataclass

from servers import HOST, Server, behind_nginx, supervised_cluster
from session_setup import load

UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
HANDSHAKE = (
    b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
)
SETTLE = 1.5  # seconds until the figures of a burst are in


@dataclass
class Row:
    what: str
    figure: str
    bar: str
    met: bool


def cpu(server: Server, part: str) -> float:
    return server.cpu()[part]


def frame(text: str) -> bytes:
    """A text frame, masked with zeros (RFC 6455, section 5.2)."""
    data = text.encode()
    assert len(data) < 126
    return struct.pack("!BBI", 0x81, 0x80 | len(data), 0) + data


async def open_websocket(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(UPGRADE + frame("40"))
    await reader.readuntil(b'40{"sid"')
    return reader, writer


async def open_many(
    port: int, count: int
) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    opened = []
    for start in range(0, count, 100):
        batch = range(start, min(count, start + 100))
        opened += await asyncio.gather(*(open_websocket(port) for _ in batch))
    return opened


def set_up_rows(cluster: Server, runs: int) -> list[Row]:
    ours, nginx = [], []
    with behind_nginx(cluster) as proxied:
        for _ in range(runs):
            for server, part, costs in ((cluster, "router", ours), (proxied, "nginx", nginx)):
                before = cpu(server, part)
                run = load(server.port, 5, 16)
                assert not run.failures, run.failures
                time.sleep(SETTLE)
                costs.append((cpu(server, part) - before) / run.completed * 1000)
    ratio = statistics.median(a / b for a, b in zip(ours, nginx))
    figure = f"{statistics.median(ours):.3f} ms, nginx {statistics.median(nginx):.3f} ms"
    return [
        Row("CPU per set-up", figure, "", True),
        Row("  ratio to nginx", f"{ratio:.2f}", "<= 0.5", ratio <= 0.5),
    ]


async def message_row(cluster: Server) -> Row:
    clients = await open_many(cluster.port, 100)
    await asyncio.sleep(SETTLE)
    rounds = 200

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(rounds):
            writer.write(frame('421["echo","x"]'))
            await reader.readuntil(b"431[")

    began, before = time.monotonic(), cpu(cluster, "router")
    await asyncio.gather(*(echo(*client) for client in clients))
    busy, seconds = cpu(cluster, "router") - before, time.monotonic() - began
    before = cpu(cluster, "router")
    await asyncio.sleep(seconds)
    idle = cpu(cluster, "router") - before
    for _, writer in clients:
        writer.close()
    each = max(0.0, busy - idle) / (rounds * len(clients)) * 1e6
    return Row("CPU per message", f"{each:.2f} µs above idle", "< 1.5 µs (clock tick)", each < 1.5)


async def idle_rows(cluster: Server, count: int) -> list[Row]:
    (router,) = cluster.parts["router"]
    before = router.num_fds(), router.memory_info().rss / 1024
    clients = await open_many(cluster.port, count)
    await asyncio.sleep(SETTLE)
    after = router.num_fds(), router.memory_info().rss / 1024
    for _, writer in clients:
        writer.close()
    await asyncio.sleep(SETTLE)
    return [
        Row(f"descriptors, 0 and {count} idle", f"{before[0]}, {after[0]}", "same",
            after[0] == before[0]),
        Row(f"memory, 0 and {count} idle", f"{before[1]:.0f}, {after[1]:.0f} KiB", "+ < 2 MiB",
            after[1] - before[1] < 2048),
    ]  # fmt: skip


async def slow_rows(cluster: Server, count: int, seconds: float = 10) -> list[Row]:
    end = time.monotonic() + seconds
    line = b"GET /" + b"a" * 200

    async def attack(number: int) -> None:
        await asyncio.sleep(number / count)
        while time.monotonic() < end:
            try:
                _, writer = await asyncio.open_connection(HOST, cluster.port)
                for byte in line:
                    if time.monotonic() >= end:
                        break
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(1)
                writer.close()
            except OSError:
                await asyncio.sleep(0.5)

    attackers = [asyncio.create_task(attack(number)) for number in range(count)]
    await asyncio.sleep(2)
    began, before = time.monotonic(), cpu(cluster, "router")
    times = []
    while time.monotonic() < end - 0.5:
        start = time.monotonic()
        reader, writer = await asyncio.open_connection(HOST, cluster.port)
        writer.write(HANDSHAKE)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200"), answer
        times.append(time.monotonic() - start)
        writer.close()
        await asyncio.sleep(0.05)
    share = (cpu(cluster, "router") - before) / (time.monotonic() - began)
    await asyncio.gather(*attackers)
    median = statistics.median(times) * 1000
    return [
        Row(
            f"handshake under {count} slow heads", f"{median:.1f} ms median", "< 50 ms", median < 50
        ),
        Row("  CPU of the router meanwhile", f"{share:.1%} of a core", "< 30 %", share < 0.3),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="What the router costs.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--slow", type=int, default=2000)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows: list[Row] = []
    with supervised_cluster() as cluster:
        rows += asyncio.run(idle_rows(cluster, arguments.idle))
        rows.append(asyncio.run(message_row(cluster)))
        rows += set_up_rows(cluster, arguments.runs)
    # With the default share of an address, and with room for all of the attackers.
    for max_pending in (4096, arguments.slow * 4):
        with supervised_cluster(settings=f"max_pending = {max_pending}") as cluster:
            rows += asyncio.run(slow_rows(cluster, arguments.slow))
            rows[-2].what += f", max_pending {max_pending}"
    for row in rows:
        verdict = "" if not row.bar else "ok" if row.met else "MISSED"
        print(f"{row.what:50} {row.figure:32} {row.bar:22} {verdict}")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
