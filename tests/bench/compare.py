"""This package beside its peers: one table of figures, ratios and bars.

    python tests/bench/compare.py [--only ROW,ROW] [--peers ours,pm2] [--runs 5] [--seconds 3]
                                  [--ours CHECKOUT]

The peers of rows with two workers are socket.io under @socket.io/pm2 ("pm2"), and stock
python-socketio on eventlet behind nginx, with a ZeroMQ broker ("stock"). Where clients
poll it is one stock worker: nginx cannot keep those apart that come from one address.
The peers of rows with one worker, our router with it, are of one process each: socket.io
on Node ("node"), on Bun with @socket.io/bun-engine ("bun"), and socketio.AsyncServer on
uvicorn ("uvicorn"). There are workers of ours of each mode there: "ours" (eventlet),
"ours-asyncio", "ours-threading", and "ours-orjson", which is "ours-asyncio" with orjson as
its JSON module. The peer of rows with threads is python-socketio on gunicorn's gthread
("gunicorn"). All have the same application. What they need is installed the first time,
into a cache directory of the user.

The servers of a row run side by side and are measured in turn, in each round in another
order. Figures are medians over the rounds, ratios the medians of each round's ratio. CPU
is user and system time of all processes of a server but supervisord, which counts only
where it restarts workers; what the load generators take is shown, and counts nowhere.

With ``--ours`` another checkout of this package is a peer as well ("before"), of every row: its
code runs on the same Python and dependencies. No figure may be more than 5 % worse than
there, where it has no bar for that. ``--peers ours`` leaves all others out.

Ends with 1 if a bar is missed. ``--profile`` shows instead what one of our workers does, the
first of ``--peers``, during the row of ``--only``; it needs py-spy.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import psutil
from measurements import Sample, ending
from node import ask_node, bun_version
from profiling import print_profile, py_spy
from rows import (
    ASYNCIO,
    BEFORE,
    BUN,
    GUNICORN,
    NODE,
    ORJSON,
    OURS,
    PM2,
    ROWS,
    STOCK,
    THREADING,
    UVICORN,
    Bar,
    Figure,
    Row,
    beside_a_checkout,
)
from servers import Server
from uvicorn_peer import uvicorn_version

#: What ratios and bars are of.
ALL_OURS = (OURS, ASYNCIO, ORJSON, THREADING)
PEERS = (*ALL_OURS, PM2, STOCK, NODE, BUN, UVICORN, GUNICORN)
Samples = dict[str, list[Sample]]


@contextlib.contextmanager
def measuring(row: Row, peer: str, seconds: float) -> Iterator[tuple[Server, Callable[[], Sample]]]:
    with row.servers[peer]() as server, row.measuring(server, seconds) as measure:
        yield server, measure


def rounds(row: Row, peers: list[str], runs: int, seconds: float) -> Samples:
    samples: Samples = {peer: [] for peer in peers}

    def add(number: int, peer: str, sample: Sample) -> None:
        samples[peer].append(sample)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in sample.items())
        print(f"  {number + 1}/{runs} {peer}: {shown}", file=sys.stderr, flush=True)

    def with_a_fresh_server(peer: str) -> Sample:
        with measuring(row, peer, seconds) as (_, measure):
            return measure()

    if row.fresh:
        with ThreadPoolExecutor(len(peers)) as pool:
            for number in range(runs):
                for peer, sample in zip(peers, pool.map(with_a_fresh_server, peers)):
                    add(number, peer, sample)
        return samples

    with contextlib.ExitStack() as stack:
        measures = {peer: stack.enter_context(measuring(row, peer, seconds))[1] for peer in peers}
        for number in range(runs):
            turn = number % len(peers)
            for peer in peers[turn:] + peers[:turn]:
                add(number, peer, measures[peer]())
    return samples


def values(figure: Figure, samples: Samples, peer: str) -> list[float]:
    return [sample[figure.key] for sample in samples[peer]]


def ratio(figure: Figure, samples: Samples, ours: str, peer: str) -> float:
    """Within each round, so that a machine that gets slower or faster does not show."""
    return statistics.median(
        mine / other if other else float("inf")
        for mine, other in zip(values(figure, samples, ours), values(figure, samples, peer))
    )


def verdict(bar: Bar, figure: Figure, samples: Samples) -> bool | None:
    """Whether our figure is as the bar wants it; None if its peer was not measured."""
    if bar.peer and bar.peer not in samples:
        return None
    if bar.peer:
        return bar.is_met(ratio(figure, samples, bar.of, bar.peer))
    return bar.is_met(figure.over(values(figure, samples, bar.of)))


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def print_row(row: Row, samples: Samples, peers: Sequence[str]) -> bool:
    """Whether no bar is missed."""
    all_met = True
    widths = {peer: max(10, len(peer) + 2) for peer in peers}
    ours = [peer for peer in peers if peer in ALL_OURS]
    others = [peer for peer in peers if peer not in ALL_OURS]
    print(f"\n{row.title}")
    print(f"{'':38}" + "".join(f"{peer:>{widths[peer]}}" for peer in peers))
    for figure in row.figures:
        found = {peer: number(figure.over(values(figure, samples, peer))) for peer in peers}
        print(f"  {figure.label:36}" + "".join(f"{found[peer]:>{widths[peer]}}" for peer in peers))
        for mine in ours:
            bars = [(bar, verdict(bar, figure, samples)) for bar in figure.bars if bar.of == mine]
            comparable = figure.over is statistics.median and others
            if comparable or bars:
                print_comparison(figure, samples, mine, widths, bool(comparable), bars)
            all_met = all_met and all(met is not False for _, met in bars)
    sys.stdout.flush()
    return all_met


def print_comparison(
    figure: Figure,
    samples: Samples,
    mine: str,
    widths: Mapping[str, int],
    comparable: bool,
    bars: Sequence[tuple[Bar, bool | None]],
) -> None:
    """One of ours divided by each that is not ours, and its bars."""
    line = f"    {f'{mine} / …':34}"
    for peer, width in widths.items():
        other = comparable and peer not in ALL_OURS
        line += f"{f'{ratio(figure, samples, mine, peer):.2f}' if other else '':>{width}}"
    words = {True: "met", False: "MISSED", None: "not measured"}
    print(line + "  " + ", ".join(f"{bar}: {words[met]}" for bar, met in bars))


def end(*_: Any) -> None:
    """A signal ends the bench as an error does: with all that it has started."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ending.set()
    sys.exit("ended by a signal")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="This package beside its peers")
    parser.add_argument("--only", metavar="ROW,…", help=f"of these: {', '.join(ROWS)}")
    parser.add_argument("--peers", default=",".join(PEERS), help="of these: %(default)s")
    parser.add_argument("--ours", type=Path, metavar="CHECKOUT", help="one more peer")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--profile", action="store_true", help="the first of ours of --peers")
    options = parser.parse_args()
    options.peers = options.peers.split(",")
    options.only = options.only.split(",") if options.only else list(ROWS)
    if not set(options.only) <= set(ROWS):
        parser.error(f"--only: expected some of {', '.join(ROWS)}")
    if not set(options.peers) <= set(PEERS):
        parser.error(f"--peers: expected some of {', '.join(PEERS)}")
    if options.ours and not (options.ours / "supervisor_sio" / "cli.py").is_file():
        parser.error(f"--ours: {options.ours} is not a checkout of this package")
    if options.ours:
        options.peers.insert(1, BEFORE)
    if options.profile and not set(options.peers) & set(ALL_OURS):
        parser.error("--profile needs one of ours among --peers")
    if options.profile and (len(options.only) > 1 or ROWS[options.only[0]].fresh):
        parser.error("--profile needs --only, with a row that is not about memory")
    return options


def compare(options: argparse.Namespace) -> bool:
    """Whether no bar is missed."""
    print(f"{versions(options.peers)}, {os.cpu_count()} cores")
    all_met = True
    for name in options.only:
        row = ROWS[name]
        if options.ours:
            row = beside_a_checkout(row, options.ours.resolve())
        peers = [peer for peer in options.peers if peer in row.servers]
        if peers:
            print(f"{name}: {row.title}", file=sys.stderr, flush=True)
            samples = rounds(row, peers, options.runs, options.seconds)
            all_met &= print_row(row, samples, peers)
    return all_met


def versions(peers: Sequence[str]) -> str:
    found = [f"Python {sys.version.split()[0]}"]
    if {PM2, NODE} & set(peers):
        found.append(f"Node {ask_node('process.version')}")
    if BUN in peers:
        found.append(f"Bun {bun_version()}")
    if UVICORN in peers:
        found.append(f"uvicorn {uvicorn_version()}")
    return ", ".join(found)


def profile(options: argparse.Namespace) -> None:
    program = py_spy()
    peer = next(peer for peer in options.peers if peer in ALL_OURS)
    with measuring(ROWS[options.only[0]], peer, options.seconds) as (server, measure):
        print_profile(program, server.parts["workers"][0], measure)


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, end)
    try:
        if options.profile:
            profile(options)
        elif not compare(options):
            sys.exit("a bar is missed")
    except (RuntimeError, psutil.NoSuchProcess) as error:
        sys.exit(f"failed: {error}")


if __name__ == "__main__":
    main()
