"""Autobahn's websocket test suite against a worker, in sections 1 to 7, 9 and 10.

    python tests/bench/autobahn_suite.py [--wstest PATH] [--cache DIR] [--report DIR]

The suite needs Python 2.7. Without a `wstest` it is installed into a virtual environment:
in the directory of `--cache`, where later runs find it, or else for this run alone.

Messages over the worker's limit must be refused with 1009, which the suite calls failed;
which cases send such messages is told by their descriptions. Ends with 1 if any other
case fails.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cluster.harness import Cluster
from cluster.websocket_cases import LIMIT, TOO_BIG

SECTIONS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "closing",
    "9": "limits, performance",
    "10": "auto-fragmentation",
}
CASES = 301
AGENT = "worker"
SUITE_TIMEOUT = 900.0

# Our verdicts.
OK, NON_STRICT, INFORMATIONAL, FAILED = "ok", "non-strict", "informational", "failed"
OVER = f"over the limit, {TOO_BIG}"
VERDICTS = (OK, NON_STRICT, INFORMATIONAL, OVER, FAILED)

#: What the suite says of a case and of how it was closed.
GOOD = {
    ("OK", "OK"): OK,
    ("NON-STRICT", "OK"): NON_STRICT,
    ("INFORMATIONAL", "OK"): INFORMATIONAL,
    ("INFORMATIONAL", "INFORMATIONAL"): INFORMATIONAL,
}
_SIZE = re.compile(r"payload of length (\d+)(?: \* 2\*\*(\d+))?")


# --- the suite ----------------------------------------------------------------


def output(*command: str | Path) -> str | None:
    """What a command prints; ``None`` if it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError:
        return None
    return None if done.returncode else done.stdout


def python2_candidates() -> Iterator[str]:
    on_path = shutil.which("python2.7")
    if on_path is not None:
        yield on_path
    for version in (output("pyenv", "versions", "--bare") or "").split():
        if version.startswith("2.7"):
            yield f"{(output('pyenv', 'prefix', version) or '').strip()}/bin/python2.7"


def find_python2() -> str:
    """One that runs: what pyenv puts on the PATH may not."""
    for candidate in python2_candidates():
        if output(candidate, "-c", "") is not None:
            return candidate
    sys.exit("no wstest and no python2.7, neither on the PATH nor under pyenv: see --wstest")


def is_wstest(program: str | Path) -> bool:
    return output(program, "--autobahnversion") is not None


def find_wstest(given: str | None, cache: Path) -> str:
    """The one given, that on the PATH, or one installed into the directory ``cache``."""
    if given is not None:
        if not is_wstest(given):
            sys.exit(f"{given} is no wstest that runs")
        return given
    on_path = shutil.which("wstest")
    if on_path is not None and is_wstest(on_path):
        return on_path
    installed = cache / "python2" / "bin" / "wstest"
    if not is_wstest(installed):
        install(find_python2(), cache)
    return str(installed)


def install(python2: str, cache: Path) -> None:
    tool, environment = cache / "virtualenv", cache / "python2"
    print(f"installing the suite for {python2}", flush=True)
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", "--clear", tool],
        [tool / "bin" / "pip", "install", "virtualenv<20.22"],  # the last for Python 2.7
        [tool / "bin" / "virtualenv", "--clear", "--python", python2, environment],
        [environment / "bin" / "pip", "install", "autobahntestsuite"],
    ]
    for command in commands:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{done.stdout}\nfailed: {' '.join(map(str, command))}")


def run_suite(wstest: str, port: int, report: Path) -> dict[str, dict[str, Any]]:
    """The suite's index: what it says of each case."""
    index, log = report / "index.json", report / "wstest.log"
    index.unlink(missing_ok=True)
    spec = report / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(report),
                "servers": [{"agent": AGENT, "url": f"ws://127.0.0.1:{port}/echo"}],
                "cases": [f"{section}.*" for section in SECTIONS],
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    with log.open("wb") as stream:
        try:
            done = subprocess.run(
                [wstest, "--mode", "fuzzingclient", "--spec", spec],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=SUITE_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"wstest took over {SUITE_TIMEOUT:g} s")
    if done.returncode or not index.exists():
        sys.exit(f"{log.read_text(errors='replace')[-2000:]}\nwstest ended with {done.returncode}")
    cases: dict[str, dict[str, Any]] = json.loads(index.read_text())[AGENT]
    return cases


# --- what it found ------------------------------------------------------------


def verdict(case: dict[str, Any]) -> str:
    """Of a case's own report."""
    size = _SIZE.search(case["description"])
    if size is None or int(size[1]) << int(size[2] or 0) <= LIMIT:
        return GOOD.get((case["behavior"], case["behaviorClose"]), FAILED)
    # Our close frame is all that came.
    refused = case["remoteCloseCode"] == TOO_BIG and case["rxFrameStats"] == {"8": 1}
    return OVER if refused and case["wasClean"] else FAILED


def print_table(verdicts: dict[str, str]) -> None:
    counts = Counter((name.split(".")[0], kind) for name, kind in verdicts.items())
    print(f"{'':25}{'cases':>6}" + "".join(f"{kind:>{len(kind) + 2}}" for kind in VERDICTS))
    for section, title in SECTIONS.items():
        row = {kind: counts[section, kind] for kind in VERDICTS}
        print(
            f"{section:>2} {title:22}{sum(row.values()):6}"
            + "".join(f"{count or '-':>{len(kind) + 2}}" for kind, count in row.items())
        )
    total = Counter(verdicts.values())
    print(
        f"   {'all':22}{len(verdicts):6}"
        + "".join(f"{total[kind] or '-':>{len(kind) + 2}}" for kind in VERDICTS)
    )


def run(wstest: str, report: Path, directory: Path) -> bool:
    """Whether all is as it should be."""
    command = "supervisor-sio worker websocket_app:app"
    cluster = Cluster(directory, workers=1, command=command)
    try:
        (before,) = cluster.start().workers()
        began = time.monotonic()
        index = run_suite(wstest, cluster.port, report)
        seconds = time.monotonic() - began
        survived = [row["pid"] for row in cluster.workers()] == [before["pid"]]
    finally:
        cluster.clean_up()
    cases = {
        name: json.loads((report / row["reportfile"]).read_text()) for name, row in index.items()
    }
    verdicts = {name: verdict({**cases[name], **index[name]}) for name in index}
    print_table(verdicts)
    print(f"in {seconds:.1f} s")
    complete = len(index) == CASES
    if not complete:
        print(f"{len(index)} cases, not {CASES}")
    if not survived:
        print("the worker did not survive")
    failed = [name for name, kind in verdicts.items() if kind == FAILED]
    for name in failed:
        case = cases[name]
        print(
            f"{name}: {case['behavior']}, close {case['behaviorClose']} {case['remoteCloseCode']}:"
            f" {case['description']} {case['result']} {case['resultClose']}"
        )
    return complete and survived and not failed


def main() -> None:
    parser = argparse.ArgumentParser(description="Autobahn's test suite against a worker")
    parser.add_argument("--wstest", help="the suite's program")
    parser.add_argument("--cache", type=Path, help="where to install the suite, to stay")
    parser.add_argument("--report", type=Path, help="where the suite's report is to stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sio-autobahn-") as name:
        here = Path(name)
        cache = (options.cache or here / "suite").resolve()
        report = (options.report or here / "report").resolve()
        directory = here / "cluster"
        for path in (cache, report, directory):
            path.mkdir(parents=True, exist_ok=True)
        if not run(find_wstest(options.wstest, cache), report, directory):
            sys.exit("Autobahn's test suite failed")


if __name__ == "__main__":
    main()
