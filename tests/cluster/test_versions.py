"""Two versions of supervisor-sio side by side, as while an upgrade is in progress."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import supervisor_sio
from supervisor_sio.common import channel

from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .recovery_clients import Returning
from .takeover_cases import MOST_TRIES, Scene
from .takeover_clients import OverWebSocket
from .takeover_ledger import Ledger
from .test_takeover_failures import expect_closed

OLD, NEW = "1.0.0", "1.0.1"
FIRST, SECOND = "workers:workers_00", "workers:workers_01"

#: What a process says that another one does not take for its channel.
CHANNEL = (
    f"speaks version {channel.VERSION + 1} of the channel, this process {channel.VERSION}: after "
    "an upgrade of supervisor-sio, restart supervisord"
)

#: By what :meth:`Host.upgrade` calls it, where the number of a format stands.
FORMATS = {
    "channel": ("common/channel.py", "VERSION"),
    "relay": ("relay/message.py", "_VERSION"),
    "position": ("relay/position.py", "_VERSION"),
    "takeover": ("common/takeover.py", "FORMAT"),
    "recovery": ("common/recovery.py", "FORMAT"),
    "journal": ("relay/journal_format.py", "VERSION"),
}


class Host:
    """A cluster whose processes import the package from a directory into which a test puts another
    version of it, as pip does."""

    def __init__(
        self,
        make: ClusterFactory,
        directory: Path,
        patch: pytest.MonkeyPatch,
        variables: str = "",
        **options: Any,
    ) -> None:
        self.directory = directory
        self._installed = directory / "site" / "supervisor_sio"
        self.upgrade(OLD)
        before = os.environ.get("PYTHONPATH")
        paths = [str(self._installed.parent), *([before] if before else [])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        self.ledger = Ledger(directory / "happened")
        command = self.ledger.command(variables=variables)
        self.cluster: Cluster = make(command=command, **options).start()

    def upgrade(self, version: str, *formats: str) -> None:
        """Install this version, with other numbers of these formats."""
        shutil.rmtree(self._installed, ignore_errors=True)
        shutil.copytree(Path(supervisor_sio.__file__).parent, self._installed)
        (self._installed / "_version.py").write_text(f'__version__ = "{version}"\n')
        for kind in formats:
            name, constant = FORMATS[kind]
            path = self._installed / name
            before = path.read_text()
            found = re.search(rf"^{constant} = (\d+)$", before, re.MULTILINE)
            assert found is not None, name
            line = f"{constant} = {int(found[1]) + 1}"
            path.write_text(before.replace(found[0], line))

    def scene(self, name: str) -> Scene:
        """For clients of this worker."""
        return Scene(self.cluster, self.ledger, self._tag(name), self.directory)

    def _tag(self, name: str) -> str:
        """Of the worker of this name, once it is ready."""

        def tag() -> str:
            return next(row["tag"] for row in self.cluster.workers() if row["name"] == name)

        return wait_until(tag, 20, name)

    def returning(self, name: str) -> Returning:
        """A client of this worker that can come back, and has an offset."""
        tag = self._tag(name)
        for _ in range(MOST_TRIES):
            client = Returning(self.cluster.port).join()
            if client.sid.startswith(f"{tag}."):
                client.call("emit_to", client.sid, "first", 1)
                client.wait_for("first")
                return client
            client.leave()
        raise AssertionError("no session came to that worker")

    def comes_back(self, client: Returning, name: str) -> Returning:
        """When this worker, which is its own, was killed, and the next one is ready."""
        tag = self._tag(name)
        os.kill(next(r["pid"] for r in self.cluster.workers() if r["name"] == name), signal.SIGKILL)
        self.cluster.wait_ready()
        wait_until(lambda: self._tag(name) != tag, 20, "the next one")
        return client.again(self.cluster.port)

    def reload(self, *names: str) -> None:
        done = self.cluster.ctl("sio", "reload", *names)
        assert done.returncode == 0, done.stdout

    def restart_supervisord(self) -> None:
        self.cluster.stop()
        self.cluster.start()

    def versions(self) -> list[str]:
        """What ``sio status`` says of them."""
        return [line for line in self.status().splitlines() if line.startswith("version")]

    def status(self) -> str:
        return self.cluster.ctl("sio", "status").stdout

    def said(self, name: str, what: str) -> list[str]:
        """The lines of a log with this text."""
        return [line for line in self.cluster.log(name).splitlines() if what in line]

    def no_traceback(self) -> None:
        for name, text in self.cluster.logs().items():
            assert "Traceback" not in text, name

    def the_line(self, name: str, what: str) -> str:
        """The only one of a log with this text, once it is there."""
        wait_until(lambda: self.said(name, what), 20, f"{what!r} in {name}.log")
        (line,) = self.said(name, what)
        return line

    def not_moved(self) -> dict[str, float]:
        found: dict[str, float] = self.cluster.status()["takeover"]["not_moved"]
        return found

    def wait_not_moved(self, other_format: int) -> None:
        """So many, which is counted when their adopter has refused them."""
        expected = {"other-format": other_format}
        with contextlib.suppress(AssertionError):  # what there is says more
            wait_until(lambda: self.not_moved() == expected, 10, "their count")
        assert self.not_moved() == expected


@pytest.fixture
def host(make_cluster: ClusterFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(make_cluster, tmp_path, monkeypatch)


def talk(*clients: OverWebSocket) -> None:
    """Each gets what each other's worker emits, and one answers what another one is asked."""
    for number, one in enumerate(clients):
        for other in clients:
            event = f"from {number}"
            one.call("emit_to", other.sid, event, number)
            assert other.wait_for(event)[-1] == number


def echo(*clients: OverWebSocket) -> None:
    for client in clients:
        assert client.call("echo", 1) == 1


# --- equal formats ----------------------------------------------------------------------------


@pytest.mark.long
def test_another_version_with_equal_formats(host: Host) -> None:
    """Processes of both talk, in whatever order they are restarted; status says what is left."""
    cluster = host.cluster
    first, second = host.scene(FIRST), host.scene(SECOND)
    one, two = first.websocket(), second.websocket()
    assert host.versions() == []
    host.upgrade(NEW)

    host.reload(FIRST)
    talk(one, two)
    assert host.versions() == [
        f"version  supervisord runs {OLD}, others {NEW}: restart supervisord if the changelog "
        "says so",
        f"version  the router runs {OLD}, others {NEW}: supervisorctl restart sio",
        f"version  {SECOND} runs {OLD}, others {NEW}: supervisorctl sio reload {SECOND}",
    ]
    rows = {row["name"]: row["version"] for row in cluster.status()["workers"]}
    assert rows == {FIRST: NEW, SECOND: OLD}

    cluster.end_router("restart")
    cluster.wait_ready()
    talk(one, two)
    assert cluster.status()["router"]["version"] == NEW

    host.reload(SECOND)
    talk(one, two)
    assert len(host.versions()) == 1

    first.is_taken_over(one.sid)
    second.is_taken_over(two.sid)
    assert host.not_moved() == {}
    assert cluster.status()["relay"]["malformed"] == 0
    host.restart_supervisord()
    assert host.versions() == []
    host.no_traceback()


# --- another format -----------------------------------------------------------------------------


@pytest.mark.long
def test_another_channel(
    make_cluster: ClusterFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new process is refused, and says why; those that run go on; a restart of supervisord is
    what it takes."""
    host = Host(make_cluster, tmp_path, monkeypatch, hold_timeout="5")
    cluster = host.cluster
    one, two = host.scene(FIRST).websocket(), host.scene(SECOND).websocket()
    host.upgrade(NEW, "channel")
    assert cluster.ctl("sio", "reload").returncode != 0
    # Its sessions wait for it in vain, and go to the other one.
    talk(one, two)
    assert host.not_moved() == {}
    assert f"supervisor-sio worker: error: the worker {CHANNEL}" in host.status()

    cluster.ctl("restart", "sio")
    refused = f"the router {CHANNEL}"
    wait_until(lambda: refused in cluster.log("router"), 20, "the router says why it ends")
    wait_until(lambda: cluster.status()["router"]["state"] == "down", 20, "no router")
    echo(one, two)
    assert f"is refused: {refused}" in cluster.log("supervisord")
    # It is not started again and again, as fast as that goes.
    assert cluster.log("router").count(refused) <= 5
    assert cluster.log("workers_00").count(CHANNEL) <= 10

    host.restart_supervisord()
    assert host.versions() == []
    talk(host.scene(FIRST).websocket(), host.scene(SECOND).websocket())
    host.no_traceback()


@pytest.mark.long
def test_another_format_of_the_relay(host: Host) -> None:
    """Each worker serves its clients; what others emit is counted, and the log says what to
    restart."""
    cluster = host.cluster
    first = host.scene(FIRST)
    one, two = first.websocket(), host.scene(SECOND).websocket()
    host.upgrade(NEW, "relay")
    host.reload(FIRST)
    for client, other in ((one, two), (two, one)):
        client.call("emit_to", other.sid, "lost", 1)
        echo(one, two)
    wait_until(lambda: cluster.status()["relay"]["malformed"], 20, "malformed")
    assert "lost" not in one.events and "lost" not in two.events
    first.is_taken_over(one.sid)
    line = host.the_line("workers_01", "are ignored")
    assert line.endswith("version 4 of the format, not 3: restart this process")
    assert len(host.said("router", "are ignored")) <= 1
    assert not host.said("router", "bad-question")
    line = host.the_line("workers_00", "are ignored")
    assert "version 3 of the format, not 4: restart the process" in line

    cluster.end_router("restart")
    cluster.wait_ready()
    host.reload(SECOND)
    talk(one, two)
    assert host.not_moved() == {}
    host.no_traceback()


@pytest.mark.long
def test_another_format_of_sessions(host: Host) -> None:
    """They go to a worker that knows it; where there is none they end, and are counted."""
    cluster = host.cluster
    one, two = host.scene(FIRST).websocket(), host.scene(SECOND).websocket()
    host.upgrade(NEW, "takeover")
    host.reload(FIRST)
    talk(one, two)  # both are at the second one
    assert host.not_moved() == {}
    host.reload(SECOND)
    host.wait_not_moved(2)
    expect_closed(one, two)
    again = host.scene(FIRST)
    one, two = again.websocket(), again.websocket(here=False)
    talk(one, two)
    host.reload()
    talk(one, two)  # both workers know the new one
    host.no_traceback()
    assert cluster.status()["relay"]["malformed"] == 0


@pytest.mark.long
def test_another_format_of_places_in_the_relay(host: Host) -> None:
    """It passes through the router, which reads it as well: restarted in time, it does not lose
    sessions of a new worker."""
    one, two = host.scene(FIRST).websocket(), host.scene(SECOND).websocket()
    host.upgrade(NEW, "position")
    host.reload(FIRST)
    talk(one, two)  # both are at the second one
    assert host.not_moved() == {}
    fresh = host.scene(FIRST).websocket()
    host.reload(FIRST)
    host.wait_not_moved(1)
    expect_closed(fresh)
    talk(one, two)
    host.cluster.end_router("restart")
    host.cluster.wait_ready()
    host.reload(SECOND)
    # The router reads the new one now.
    host.wait_not_moved(2)
    expect_closed(one, two)
    one, two = host.scene(FIRST).websocket(), host.scene(SECOND).websocket()
    host.reload()
    talk(one, two)
    host.no_traceback()


@pytest.mark.long
def test_another_format_of_journals(
    make_cluster: ClusterFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients of a worker that is killed come back to one that knows it; to others as new ones."""
    host = Host(make_cluster, tmp_path, monkeypatch, "RECOVERY=60", workers=3)
    second, third = (host.returning(name) for name in (SECOND, "workers:workers_02"))
    host.upgrade(NEW, "recovery", "journal")
    host.reload(FIRST)
    back = host.comes_back(second, SECOND)  # the third one knows it
    assert back.recovered and back.sid == second.sid
    new = host.comes_back(third, "workers:workers_02")
    assert not new.recovered and new.sid != third.sid
    wait_until(lambda: host.cluster.status()["recovery"]["not_recovered"], 10, "its count")
    talk(new, host.returning(SECOND))
    # The router reads them as well, until a worker inherits them.
    assert not host.comes_back(host.returning(FIRST), FIRST).recovered
    line = host.the_line("router", "of the format")
    assert line.endswith("journal: version 3 of the format, not 2: restart this process")
    host.cluster.end_router("restart")
    host.cluster.wait_ready()
    assert host.comes_back(host.returning(FIRST), FIRST).recovered
    host.no_traceback()
