"""``conf.d/supervisord.service``: systemd reads it, and its commands do what it says."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import ClusterFactory
from .harness import BIN, wait_until
from .modes import NO_WORKER

pytestmark = NO_WORKER

CONF_D = Path(__file__).parent.parent.parent / "conf.d"


class Unit:
    """The unit, of a deployment in ``directory`` instead of the example's."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "supervisord.service"
        shutil.copytree(CONF_D, directory / "conf.d", ignore=shutil.ignore_patterns("*.sock"))
        text = (CONF_D / "supervisord.service").read_text()
        text = text.replace("/opt/chat/venv/bin", str(BIN)).replace("/opt/chat", str(directory))
        self.path.write_text(text)
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment]
        parser.read(self.path)
        self.service = parser["Service"]
        assert parser["Install"]["WantedBy"] == "multi-user.target"
        name, _, value = self.service["Environment"].partition("=")
        self.environment = {name: value}

    def command(self, key: str) -> list[str]:
        return shlex.split(self.service[key])


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(tmp_path)


def test_systemd_reads_it(unit: Unit) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on the PATH")
    verify = ["systemd-analyze", "verify", "--man=no", unit.path]
    done = subprocess.run(verify, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    ours = [line for line in done.stdout.decode().splitlines() if unit.path.name in line]
    assert (done.returncode, ours) == (0, []), done.stdout.decode()


@pytest.mark.long
def test_its_commands(unit: Unit, tmp_path: Path, make_cluster: ClusterFactory) -> None:
    """As systemd runs them: with no other environment, and output to a file."""
    cluster = make_cluster()
    conf = tmp_path / "conf.d" / "supervisord.conf"
    text = conf.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{cluster.port}")
    # Paths of Unix sockets are short, pytest's directories are not.
    conf.write_text(text.replace("%(here)s/supervisor.sock", str(cluster.socket)))
    log = cluster.directory / "supervisord.out"

    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "env": unit.environment, "cwd": "/"}
    with open(log, "ab") as output:
        start = unit.command("ExecStart")
        process = subprocess.Popen(
            start, stdout=output, stderr=output, start_new_session=True, **options
        )
    cluster.adopt(process)
    cluster.wait_ready(2)
    before = {row["pid"] for row in cluster.workers()}
    reload = subprocess.run(unit.command("ExecReload"), timeout=90, **options)
    assert reload.returncode == 0
    after = {row["pid"] for row in cluster.workers()}
    assert len(after) == 2 and not before & after

    # KillMode=mixed: to supervisord alone.
    children = psutil.Process(cluster.pid).children(recursive=True)
    os.kill(cluster.pid, signal.SIGTERM)
    assert process.wait(float(unit.service["TimeoutStopSec"])) == 0
    wait_until(lambda: not any(map(psutil.Process.is_running, children)), 5, "all have ended")
    text = log.read_text()
    assert text.index("stopped: workers_00") < text.index("stopped: sio")
    assert "not expected" not in text and "ready (tag" in text, text
