"""How far ``sio reload`` and ``sio scale`` are, on a real terminal of 80 columns."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from .conftest import ClusterFactory
from .harness import BIN, environment, wait_until
from .modes import NO_WORKER


@pytest.mark.long
@pytest.mark.tries(3)  # on a machine that stands still for a second there is none
@NO_WORKER
def test_a_line_each_second(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    if shutil.which("tmux") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no tmux: install Debian's")
    seconds = tmp_path / "seconds"
    seconds.write_text("0")
    cluster = make_cluster(
        workers=1, command=f"env SECONDS_TO_START={seconds} supervisor-sio worker slow_app:app"
    ).start()
    seconds.write_text("2")
    sio = f"{BIN}/supervisorctl -c {cluster.conf} sio"
    tmux = ["tmux", "-L", f"sio-{os.getpid()}-progress", "-f", "/dev/null"]
    script = f"{sio} reload; {sio} scale workers 2; read enter"
    started = [*tmux, "new-session", "-d", "-x", "80", "-y", "24", "sh", "-c", script]
    subprocess.run(started, check=True, env=environment(LANG="C.UTF-8"))
    try:

        def screen() -> list[str]:
            shown = subprocess.run([*tmux, "capture-pane", "-p"], check=True, capture_output=True)
            text = shown.stdout.decode()
            return text.splitlines() if "configuration file" in text else []

        lines = wait_until(screen, 30, "both commands")
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    print("\n".join(lines))
    #: What is said while each of these is waited for, after how many seconds.
    waits: dict[str, list[int]] = defaultdict(list)
    for line in lines:
        if match := re.fullmatch(r"(\S+: 1 of 1|workers)(?:, (\d+) s)?: (.*)", line):
            waits[f"{match[1]} {match[3]}"].append(int(match[2] or 0))
    new = "workers:workers_00: 1 of 1 waiting for the new process to be ready"
    added = "workers 0 of 1 ready, waiting for workers:workers_01"
    for what in (new, added):
        times = waits[what]
        assert times[:1] == [0] and len(times) >= 3, waits
        assert times == sorted(times), "for how long"
    for line in (
        r"workers:workers_00: reloaded \(pid \d+ -> \d+, [\d.]+ s\)",
        "ready: 1 of 1 worker",
        "workers:workers_01: added",
        r"workers:workers_01: ready \(1 of 1, [\d.]+ s\)",
        "ready: 2 of 2 workers",
    ):
        assert [one for one in lines if re.fullmatch(line, one)], line
