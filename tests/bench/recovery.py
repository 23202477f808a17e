"""Workers are killed under load, with ``recovery``: what clients miss, and what it costs.

    python tests/bench/recovery.py [--minutes 0.5] [--long] [--seed N] [--mode eventlet]
                                   [--js N] [--python N] [--rate N]
    python tests/bench/recovery.py many [--clients 10000] [--mode eventlet]

The first has the clients and the load of takeover.py, and kills a random worker every few seconds.
In the end all clients leave. Ends with 1 unless every client that recovered has each event once and
in order, nearly all that came back in time have recovered, and each client that was connected was
disconnected, once. ``many`` kills a worker that has all clients, and none of them comes back: how
long it takes until another worker has them, and how long others wait meanwhile. costs.py has what
recovery costs otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import takeover
from cluster.harness import Cluster
from generators import BROWSER, crowd
from recovery_oracle import FAULTS, Kill, Verdict, balance, judge
from servers import HOST, own_cpu
from swarm import set_up
from takeover import APPLICATIONS, LONG, SHORT, Plan, Run, running
from takeover_app import ROOMS
from takeover_oracle import read_directory

#: Seconds in which a lost client may come back: more than ``ping_interval`` and ``ping_timeout``,
#: after which a client of socket.io-client comes back whose worker was killed in the last step of
#: an upgrade. It has stopped to poll by then, and does not notice that its websocket has ended.
RECOVERY = 60.0

#: Seconds without anything new after which nothing more comes: such clients come back later.
SILENCE = 50.0

#: What may be said of the plan, see :class:`.takeover.Plan`.
OF_PLAN = ("js", "python", "rate")

#: Seconds between kills; and the part of those who come back that has to recover.
EVERY, SHARE = 3.0, 0.999

#: Of many: seconds in which they may come back, before and after, between echoes, between looks,
#: and at most until something has happened.
MANY_RECOVERY, CALM, ECHO_PAUSE, LOOK, PATIENCE = 15.0, 2.0, 0.005, 0.05, 60.0

#: Seconds after the time to come back in which handlers of ``disconnect`` run.
HANDLERS = 15.0


def kill_workers(run: Run, seconds: float, dice: random.Random) -> list[Kill]:
    """One of those that are ready, again and again."""
    kills: list[Kill] = []
    began = time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(EVERY, left))
        ready = run.cluster.workers()
        if ready:
            worker = dice.choice(ready)
            name = worker["name"].partition(":")[2]
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker["pid"], signal.SIGKILL)
                kills.append(Kill(f"{name}:{worker['pid']}", time.monotonic()))
    run.cluster.wait_ready()
    return kills


def kill_and_judge(run: Run, plan: Plan, seconds: float, dice: random.Random) -> Verdict:
    directory, threads = run.cluster.directory, run.cluster.mode == "threading"
    kills = kill_workers(run, seconds, dice)
    for reports, at_last in run.stop(SILENCE):
        clients = [c for report in reports for c in (*report["clients"], *report["visits"])]
        (directory / "clients.json").write_text(json.dumps(clients))
        sent, handled = read_directory(directory, threads)
        verdict = judge(clients, sent, handled, kills, ROOMS, plan.js, RECOVERY, threads)
        if verdict.right or at_last:
            break
    run.leave()
    deadline = time.monotonic() + RECOVERY + HANDLERS
    while True:
        time.sleep(0.5)
        _, handled = read_directory(directory, threads)
        ledger = Verdict()
        balance(ledger, handled, kills)
        if not any(ledger.faults.values()) or time.monotonic() > deadline:
            break
    balance(verdict, handled, kills)
    return verdict


def report(verdict: Verdict, status: dict[str, Any]) -> str:
    recovery = status["recovery"]
    rows: list[tuple[str, Any]] = [
        ("emits", verdict.emitted),
        ("events that clients have", verdict.heard),
        ("events that clients sent", verdict.sent),
        ("of them lost with workers", verdict.with_workers),
        ("clients that came back", verdict.came_back),
        (f"of them after more than {RECOVERY:.0f} s", verdict.late),
        ("of the others to their session", f"{verdict.recovered} ({verdict.share:.2%})"),
        *((f"not recovered, {why}", n) for why, n in sorted(recovery["not_recovered"].items())),
        ("Python clients that came back", verdict.anew),
        ("sessions in the ledger", verdict.clients),
        ("cut off in a handler", verdict.cut_off),
        *((name, verdict.faults[name]) for name in FAULTS),
        ("dropped by the relay", status["relay"]["dropped"]),
    ]
    return "\n".join([*verdict.examples[:20], *(f"{name:32}{value:>18}" for name, value in rows)])


def kill(options: argparse.Namespace) -> None:
    given = {name: getattr(options, name) for name in OF_PLAN if getattr(options, name) is not None}
    plan = replace(LONG if options.long else SHORT, workers=options.workers, **given)
    seconds = options.minutes * 60
    print(f"seed {options.seed}, {options.mode}, {plan}, {seconds:.0f} s")
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="sio-recovery-"))
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        run = stack.enter_context(running(directory, plan, options.mode, options.seed, RECOVERY))
        time.sleep(2)
        verdict = kill_and_judge(run, plan, seconds, random.Random(options.seed))
        print(f"{run.seconds:.0f} s")
        print(report(verdict, run.cluster.status()))
    if not verdict.right or verdict.share < SHARE:
        sys.exit(1)


# --- many clients are lost ----------------------------------------------------------------


async def time_echoes(port: int, ended: asyncio.Event) -> list[tuple[float, float]]:
    """When each echo of a client began, and how many seconds it took."""
    session, _ = await set_up(HOST, port, BROWSER)
    took = []
    while not ended.is_set():
        began = time.monotonic()
        await session.ask("echo", "hello")
        took.append((began, time.monotonic() - began))
        await asyncio.sleep(ECHO_PAUSE)
    session.close()
    return took


async def lose(cluster: Cluster, clients: int) -> None:
    """The worker that has all clients is killed, beside another one."""
    (first,) = cluster.workers()
    cluster.ctl("sio", "scale", "workers", "2")
    cluster.wait_ready(2)
    (heir,) = [row["pid"] for row in cluster.workers() if row["pid"] != first["pid"]]
    ended = asyncio.Event()
    echoes = asyncio.create_task(time_echoes(cluster.port, ended))
    await asyncio.sleep(CALM)
    cpu = own_cpu(psutil.Process(heir))
    os.kill(first["pid"], signal.SIGKILL)
    killed = time.monotonic()

    async def wait_for(what: str, number: int, seconds: float) -> float:
        while (await asyncio.to_thread(cluster.status))["recovery"][what] != number:
            if time.monotonic() > killed + seconds:
                raise RuntimeError(f"{what} is not {number} in {seconds:g} s")
            await asyncio.sleep(LOOK)
        return time.monotonic()

    all_lost = await wait_for("lost", clients, PATIENCE)
    cpu = own_cpu(psutil.Process(heir)) - cpu
    over = await wait_for("lost", 0, MANY_RECOVERY + PATIENCE)
    await asyncio.sleep(CALM)
    ended.set()
    took = await echoes

    def worst(begin: float, end: float) -> str:
        return f"{max(seconds for at, seconds in took if begin <= at < end) * 1000:.0f} ms"

    print(
        f"all are lost clients of another worker after {all_lost - killed:.1f} s, "
        f"of which it took {cpu:.1f} s CPU; "
        f"their handlers of disconnect have run {over - killed - MANY_RECOVERY:.1f} s after their "
        "time to come back\n"
        f"worst echo at that worker: before {worst(0, killed)}, "
        f"while they come {worst(killed, all_lost + CALM)}, "
        f"while their handlers run {worst(all_lost + CALM, math.inf)}"
    )


def many(options: argparse.Namespace) -> None:
    """One worker has all of them, and is killed; they do not come back."""
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="sio-recovery-"))
        command = f"env BENCH_MANAGER=zmq BENCH_RECOVERY={MANY_RECOVERY:g}"
        command += f" BENCH_TAKEOVER=1 BENCH_ASYNC_MODE={options.mode}"
        cluster = Cluster(
            Path(temporary),
            workers=1,
            command=f"{command} supervisor-sio worker {APPLICATIONS[options.mode]}",
            here=takeover.HERE,
            mode=options.mode,
        )
        stack.callback(cluster.clean_up)
        cluster.start()
        clients = stack.enter_context(crowd(cluster.port, options.clients, "websocket", 16))
        stack.enter_context(clients.paused())
        print(f"{options.clients} websockets, {options.mode}")
        asyncio.run(lose(cluster, options.clients))


def main() -> None:
    parser = argparse.ArgumentParser(description="Workers are killed, and nobody misses anything")
    parser.add_argument("what", nargs="?", choices=("kill", "many"), default="kill")
    parser.add_argument("--mode", choices=("eventlet", "asyncio", "threading"), default="eventlet")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--keep", type=Path, help="directory for journals and logs")
    parser.add_argument("--minutes", type=float, default=0.5, help="of kills")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--long", action="store_true", help=f"{LONG}")
    for name in OF_PLAN:
        parser.add_argument(f"--{name}", type=type(vars(SHORT)[name]))
    parser.add_argument("--clients", type=int, default=10_000, help="of many")
    options = parser.parse_args()
    {"kill": kill, "many": many}[options.what](options)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, takeover.end)
    main()
