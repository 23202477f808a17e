"""docs/howto/docker/: its supervisord.conf as the first process of a container.

There is no Docker here, but what it gives a container: a PID namespace of its own, a root file
system that cannot be written, the user of the image without capabilities, SIGTERM, and SIGKILL ten
seconds later.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from unit.pythons import NEW_PYTHON

from .conftest import Clients, ClusterFactory
from .harness import BIN, Cluster, free_port, server_environment, wait_until
from .modes import OWN_MODES
from .test_listeners import view_for_all

FILES = Path(__file__).parents[2] / "docs" / "howto" / "docker"

pytestmark = [
    OWN_MODES,
    NEW_PYTHON,
    pytest.mark.skipif(os.getuid() != 0, reason="only root makes namespaces everywhere"),
]

#: Only the directory $1 can be written, which is as a tmpfs of Docker's; the rest runs as user $2.
READ_ONLY = """\
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,nosuid,nodev,noexec "$1"
mount -o remount,bind,ro /
if touch /container 2>/dev/null; then exit 99; fi
user=$2
shift 2
exec setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs \\
    --inh-caps=-all --bounding-set=-all "$@"
"""

SLOW = """

import asyncio


@api.get("/slow")
async def slow():
    print("slow begins", flush=True)
    await asyncio.sleep(2)
    return "done"
"""

#: Seconds until `docker stop` kills.
GRACE = 10.0


class Container:
    """A cluster of the files, with other paths and ports."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._metrics = free_port()
        self._output = cluster.directory / "container.out"
        self._app = cluster.short / "app"
        self._run = cluster.short / "run-app"
        for directory in (self._app, self._run):
            directory.mkdir()
        cluster.short.chmod(0o755)
        os.chown(self._run, self.uid, self.uid)
        self._run.chmod(0o700)
        (self._app / "myapp.py").write_text((FILES / "myapp.py").read_text() + SLOW)
        (self._app / "supervisord.conf").write_text(
            self._here((FILES / "supervisord.conf").read_text())
        )
        cluster.conf = self._app / "supervisord.conf"
        cluster.socket = self._run / "supervisor.sock"

    @property
    def uid(self) -> int:
        """That of the image's user, to whom compose.yaml gives the directory."""
        found = re.search(r"^RUN useradd --uid (\d+) ", (FILES / "Dockerfile").read_text(), re.M)
        assert found is not None
        assert f"- /run/app:uid={found[1]},mode=0700\n" in (FILES / "compose.yaml").read_text()
        return int(found[1])

    def _here(self, text: str) -> str:
        text = re.sub(r"(?<![\w.])/run/app\b", str(self._run), text)
        text = re.sub(r"(?<![\w./-])/app\b", str(self._app), text)
        text = text.replace("0.0.0.0:8000", f"127.0.0.1:{self._cluster.port}")
        return text.replace(":9108", f":{self._metrics}")

    def _instruction(self, name: str) -> list[str]:
        """The command of an instruction of the Dockerfile."""
        text = (FILES / "Dockerfile").read_text().replace("\\\n", "")
        line = re.search(rf"^{name}.*?\[(.*)\]$", text, re.MULTILINE)
        assert line is not None
        return shlex.split(self._here(line[1]).replace('", "', '" "'))

    def start(self) -> None:
        program, *arguments = self._instruction("CMD")
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*view_for_all(), *namespaces, "sh", "-ec", READ_ONLY, "sh"]
        with open(self._output, "ab") as output:
            os.fchown(output.fileno(), self.uid, -1)  # Docker does that, too
            process = subprocess.Popen(
                [*command, str(self._run), str(self.uid), str(BIN / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Nobody else writes byte code: the root file system is read-only.
                env=server_environment(
                    WORKERS="2", TMPDIR=str(self._run), PYTHONDONTWRITEBYTECODE="1"
                ),
                start_new_session=True,
            )
        self._cluster.adopt(process)
        self._cluster.wait_ready(2)
        (self.first,) = psutil.Process(process.pid).children()

    def processes(self) -> list[psutil.Process]:
        return [self.first, *self.first.children(recursive=True)]

    def says(self) -> str:
        return self._output.read_text()

    def is_healthy(self) -> bool:
        _, *arguments = self._instruction("HEALTHCHECK")
        done = subprocess.run([sys.executable, *arguments], stderr=subprocess.DEVNULL)
        return done.returncode == 0


@pytest.mark.long
def test_a_container_serves_and_stops_in_time(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(mode="asyncio")
    container = Container(cluster)
    container.start()
    try:
        assert container.first.name() == "supervisord"
        assert {child.uids().real for child in container.processes()} == {container.uid}
        assert container.is_healthy()
        first, second = (clients.connect(cluster) for _ in range(2))
        first.emit("message", "hello")
        assert second.wait_for("message") == [["hello"]]
        assert cluster.ctl("sio", "status").returncode == 0

        answers: list[bytes] = []

        def ask() -> None:
            with urllib.request.urlopen(f"{cluster.url}/slow", timeout=20) as answer:
                answers.append(answer.read())

        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: "slow begins" in container.says(), 10, "the request is under way")
        began = time.monotonic()
        container.first.send_signal(signal.SIGTERM)
        assert cluster.process is not None
        assert cluster.process.wait(GRACE) == 0
        print(f"docker stop: {time.monotonic() - began:.1f} s")
        asking.join(20)
        assert answers == [b'"done"']
    finally:
        assert cluster.process is not None
        if cluster.process.poll() is None:
            container.first.kill()
            cluster.process.wait(20)
    said = container.says()
    assert "Traceback" not in said and "not expected" not in said and "KILL" not in said, said
    assert not container.is_healthy()
