"""``supervisorctl sio``: each command for people and as JSON, its exit status, TAB and ``top``."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from .conftest import Clients, ClusterFactory
from .harness import BIN, Cluster, environment, wait_until
from .modes import NO_WORKER

FIGURES = ("status", "workers", "top", "sockets", "rooms")
CHANGES = (
    ("emit", "news"),
    ("kick", "0a1b2c3d.x"),
    ("reload",),
    ("drain", "workers"),
    ("undrain", "workers"),
    ("reload-tls",),
    ("rebalance",),
    ("scale", "workers", "2"),
)


def run(cluster: Cluster, *words: str, status: int = 0) -> str:
    """What a command prints; it is checked for its exit status."""
    done = cluster.ctl("sio", *words)
    assert done.returncode == status, (words, done.stdout)
    assert "Traceback" not in done.stdout and "error: <class" not in done.stdout
    return done.stdout


def document(cluster: Cluster, *words: str, status: int = 0) -> dict[str, Any]:
    """The one JSON document that a command prints."""
    answer: dict[str, Any] = json.loads(run(cluster, *words, "--json", status=status))
    assert ("error" in answer) == (status in (1, 2, 4)), answer
    return answer


def rows(text: str, name: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.startswith(name)]


@NO_WORKER
def test_everything_runs(make_cluster: ClusterFactory, clients: Clients) -> None:
    cluster = make_cluster(workers=2, access_log="on").start()
    red, blue = clients.connect(cluster), clients.connect(cluster, transports=["polling"])
    red.call("join", "red")
    blue.call("join", "a \x9b31m room, 部屋")
    first, second = (f"workers:workers_{number:02d}" for number in range(2))

    shown = run(cluster)
    assert [row[3] for row in rows(shown, "workers:")] == ["ready", "ready"]
    for row in cluster.workers():
        (line,) = [line for line in shown.splitlines() if row["name"] in line]
        assert str(row["pid"]) in line
    assert f"127.0.0.1:{cluster.port}" in shown and str(cluster.router_pid) in shown
    # `supervisord -n` says so, too, in its terminal.
    assert f" sio: listening on 127.0.0.1:{cluster.port}\n" in cluster.logs()["supervisord.out"]
    assert document(cluster, "status")["router"]["state"] == "running"
    assert [row[1] for row in rows(run(cluster, "workers"), "workers:")] == ["ready", "ready"]
    wait_until(
        lambda: sum(w["opened"] for w in document(cluster, "workers")["workers"]) == 2,
        10,
        "both sessions in the figures",
    )

    text = run(cluster, "sockets")
    for client, transport, room in ((red, "websocket", "red"), (blue, "polling", "31m")):
        ((sid, worker, shown, address, *rooms),) = rows(text, client.sid())
        assert (worker, shown) == (f"workers:{client.whoami()['name']}", transport)
        assert address == "127.0.0.1" and room in " ".join(rooms)
    assert "\x9b" not in text and "\\x9b31m" in text
    (socket,) = document(cluster, "sockets", "--room", "red")["sockets"]
    assert (socket["sid"], socket["rooms"]) == (red.sid(), ["red"])
    limited = document(cluster, "sockets", "--limit", "1")
    assert (len(limited["sockets"]), limited["total"], limited["missing"]) == (1, 2, 0)
    assert "1 of 2 clients" in run(cluster, "sockets", "--limit=1")
    assert run(cluster, "sockets", "--room", "green") == "no clients\n"
    assert run(cluster, "sockets", "--namespace", "chat") == "no clients\n"

    assert ["red", "1"] in rows(run(cluster, "rooms"), "red")
    assert {"room": "red", "sockets": 1} in document(cluster, "rooms")["rooms"]
    assert run(cluster, "rooms", "--namespace", "/chat") == "no rooms\n"

    assert run(cluster, "top").startswith("listen   127.0.0.1:")
    sample = document(cluster, "top")
    assert sample["sessions"] == 2 and sample["seconds"] >= 1
    assert [worker["state"] for worker in sample["workers"]] == ["ready", "ready"]

    reached = {"clients": 2, "missing": 0}
    assert document(cluster, "emit", "news", "1") == {"ok": True, "event": "news", **reached}
    assert red.wait_for("news") == blue.wait_for("news") == [[1]]

    sid = blue.sid()
    for words in (("--room", "red"), ("--to", sid)):
        assert run(cluster, "emit", "other", *words) == "other: emitted (1 client)\n"
    assert run(cluster, "emit", "other", "--room", "nobody's") == "other: emitted (0 clients)\n"
    kicked = {"ok": True, "sid": sid, "namespace": "/", "clients": 1}
    assert document(cluster, "kick", sid) == kicked
    blue.wait_disconnected()
    assert run(cluster, "kick", sid, status=1) == f"{sid}: ERROR (no client {sid} in namespace /)\n"
    assert document(cluster, "kick", sid, status=1)["error"].startswith(f"{sid}: no client")
    sid = red.sid()
    assert run(cluster, "kick", sid) == f"{sid}: disconnected (1 client)\n"
    tag = sid.partition(".")[0]
    for line in (r"opens: 127\.0\.0\.1 \w+ /socket\.io/ ", r"ends: 127\.0\.0\.1 [\d.]+ s "):
        access = re.compile(rf"INFO session {tag}\.\S+ {line}")
        logged = partial(lambda line: line.search("".join(cluster.logs().values())), access)
        wait_until(logged, 20, "a line of the access log")

    assert document(cluster, "drain", first) == {"ok": True, "workers": [first]}
    assert document(cluster, "undrain", "workers:*") == {"ok": True, "workers": [first, second]}
    assert document(cluster, "drain", "nobody", status=1) == {"error": "nobody: no such worker"}
    assert "TLS is off" in document(cluster, "reload-tls", status=1)["error"]
    (reloaded,) = document(cluster, "reload", first)["workers"]
    assert (reloaded["name"], reloaded["reloaded"]) == (first, True)
    assert reloaded["pid"] == next(w["pid"] for w in cluster.workers() if w["name"] == first)

    assert document(cluster, "stauts", status=2)["error"].endswith("did you mean sio status?")
    assert len(run(cluster, "kick", status=2).splitlines()) == 1
    assert run(cluster, "help", "top") == run(cluster, "top", "--help")
    assert "sio" in cluster.ctl("help").stdout
    assert cluster.ctl("help", "sio").stdout == run(cluster, "help") == run(cluster, "--help")
    assert cluster.ctl("help", "sio top").stdout == run(cluster, "help", "top")


@NO_WORKER
def test_what_does_not_run(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=3, startsecs=20, startretries=0)
    cluster.extra = cluster.program("broken", "supervisor-sio worker no_such_module:app")
    cluster.start()
    wait_until(lambda: cluster.workers("fatal"), 20, "a FATAL worker")
    assert cluster.ctl("stop", "workers:workers_02").returncode == 0
    states = ["fatal", "ready", "ready", "stopped"]
    for command in ("status", "workers"):
        text = run(cluster, command, status=3)
        assert all(state in text for state in states)
        assert [w["state"] for w in document(cluster, command, status=3)["workers"]] == states
    sample = document(cluster, "top")
    assert [worker["state"] for worker in sample["workers"]] == states
    assert sample["workers"][0]["sessions"] is None
    assert [row[2:] for row in rows(run(cluster, "top"), "broken")] == [["-"] * 7]
    assert document(cluster, "sockets")["missing"] == document(cluster, "rooms")["missing"] == 0
    assert document(cluster, "reload", "workers:workers_02")["workers"] == [
        {"name": "workers:workers_02", "reloaded": False, "state": "stopped"}
    ]
    assert "is connected" in document(cluster, "drain", "broken", status=1)["error"]

    assert cluster.ctl("stop", "sio").returncode == 0
    for command in ("status", "top"):
        status = 3 if command == "status" else 0
        assert "router   down (sio is STOPPED)" in run(cluster, command, status=status)
        assert document(cluster, command, status=status)["router"]["state"] == "down"
    assert document(cluster, "top")["sessions"] is None
    document(cluster, "workers", status=3)
    for words in (
        ("sockets",),
        ("rooms",),
        ("emit", "x"),
        ("kick", "0a1b2c3d.x"),
        ("drain", "all"),
    ):
        assert "no router is running" in run(cluster, *words, status=1)
        assert "no router is running" in document(cluster, *words, status=1)["error"]


@NO_WORKER
def test_supervisord_is_away(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=0)
    cluster.write_config()
    expected = f"unix://{cluster.socket} no such file"
    for words, status in [((word,), 4) for word in FIGURES] + [(words, 1) for words in CHANGES]:
        assert run(cluster, *words, status=status) == f"{expected}\n"
        assert document(cluster, *words, status=status) == {"error": expected}


@NO_WORKER
def test_supervisord_without_the_plugin(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=0, plugin=False, router=False)
    cluster.spawn()
    wait_until(lambda: cluster.ctl("pid").returncode == 0, 20, "supervisord")
    assert "[rpcinterface:sio]" in run(cluster, status=4)
    error = "supervisord runs without the sio plugin"
    assert document(cluster, "sockets", status=4) == {"error": error}
    assert document(cluster, "emit", "x", status=1) == {"error": error}


# --- on a terminal -----------------------------------------------------------------


class Terminal:
    """supervisorctl on a terminal of its own; what it writes is kept."""

    def __init__(self, cluster: Cluster, words: Sequence[str], columns: int) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(columns)
        self.mode_before = self.mode
        self.process = subprocess.Popen(
            [BIN / "supervisorctl", "-c", cluster.conf, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(TERM="xterm", LANG="C.UTF-8", INPUTRC="/dev/null"),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self._written = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # as Linux says that nobody has the other end any more
                return
            self._written += part

    @property
    def text(self) -> str:
        return self._written.decode(errors="replace")

    @property
    def mode(self) -> list[Any]:
        return termios.tcgetattr(self._ours)

    def resize(self, columns: int, lines: int = 24) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, text: str, since: int = 0) -> int:
        """Wait until that was written; where it ends."""

        def found() -> int:
            at = self.text.find(text, since)
            return at + len(text) if at >= 0 else 0

        try:
            return wait_until(found, 20, repr(text))
        except AssertionError as error:
            raise AssertionError(f"{error}; written: {self.text[-2000:]!r}") from None

    def frame(self, since: int = 0) -> list[str]:
        """The next whole screen that ``top`` draws."""
        wait_until(
            lambda: self.text.find("\x1b[J", self.text.find("\x1b[H", since)) >= 0, 20, "a screen"
        )
        begin = self.text.index("\x1b[H", since)
        screen = self.text[begin + 3 : self.text.index("\x1b[J", begin)]
        return screen.replace("\x1b[K", "").splitlines()

    def end(self) -> str:
        """Everything, when it has ended."""
        self.process.wait(60)
        self._reader.join(20)
        return self.text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(20)
        os.close(self._ours)


@contextmanager
def on_terminal(cluster: Cluster, *words: str, columns: int = 80) -> Iterator[Terminal]:
    terminal = Terminal(cluster, words, columns)
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.fixture(scope="module")
def watched(make_module_cluster: ClusterFactory, module_clients: Clients) -> Cluster:
    """Two workers with a long name, and clients in rooms with longer ones."""
    cluster = make_module_cluster(workers=0)
    cluster.extra = cluster.program("workers-of-the-shop", cluster.command, 2)
    cluster.spawn()
    cluster.wait_ready(2)
    for number in range(4):
        client = module_clients.connect(cluster)
        client.call("join", f"room {number} 部屋 " + "with a long name " * 20)
    return cluster


@NO_WORKER
@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", ["status", "workers", "sockets", "rooms", "help"])
def test_nothing_wraps(watched: Cluster, command: str, columns: int) -> None:
    with on_terminal(watched, "sio", command, columns=columns) as terminal:
        text = terminal.end()
    piped = run(watched, command)
    assert max(map(_width, text.splitlines())) <= columns
    if command in ("sockets", "rooms"):
        assert "…" in text and "…" not in piped
    if command == "sockets":  # what kick needs stays whole
        assert all(row["sid"] in text for row in document(watched, "sockets")["sockets"])
    if columns == 200 and command in ("status", "workers"):
        assert "workers-of-the-shop:workers-of-the-shop_00" in text


def _width(line: str) -> int:
    return sum(2 if char in "部屋" else 1 for char in line)


@NO_WORKER
@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("command", ["status", "top"])
def test_a_real_terminal_shows_each_line_on_one_row(
    watched: Cluster, command: str, columns: int
) -> None:
    """As tmux, which knows how wide what is written is, shows it."""
    if shutil.which("tmux") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no tmux: install Debian's")
    tmux = ["tmux", "-L", f"sio-{os.getpid()}-{command}-{columns}", "-f", "/dev/null"]
    words = [str(BIN / "supervisorctl"), "-c", str(watched.conf), "sio", command]
    keep = f"{' '.join(words)}; read enter"
    size = ["-x", str(columns), "-y", "24"]
    started = [*tmux, "new-session", "-d", *size, f"env LANG=C.UTF-8 sh -c '{keep}'"]
    subprocess.run(started, check=True, env=environment(LANG="C.UTF-8"))
    try:

        def screen() -> list[str]:
            shown = subprocess.run([*tmux, "capture-pane", "-p"], check=True, capture_output=True)
            lines = shown.stdout.decode().splitlines()
            return lines if sum("ready" in line for line in lines) == 2 else []

        lines = wait_until(screen, 20, f"two workers on the screen of sio {command}")
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    for line in lines:
        head = line[:9].strip()
        assert head in ("", "listen", "router", "relay", "clients", "cluster", "sio top:") or (
            line.startswith(("worker", "sio top"))
        ), lines


@pytest.mark.long
@NO_WORKER
def test_top_lives(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=2).start()
    with on_terminal(cluster, "sio", "top") as terminal:
        seen = terminal.wait_for("workers:workers_01  ready")
        frame = terminal.frame(terminal.text.rindex("\x1b[H"))
        assert frame[0] == "sio top: q quits"

        assert cluster.ctl("stop", "sio").returncode == 0
        seen = terminal.wait_for("router   down (sio is STOPPED)", seen)
        assert cluster.ctl("start", "sio").returncode == 0
        seen = terminal.wait_for("workers:workers_01  ready", seen)

        cluster.numprocs = 3
        cluster.write_config()
        assert cluster.ctl("update").returncode == 0
        seen = terminal.wait_for("workers:workers_02  ready", seen)

        terminal.resize(200)
        seen = terminal.wait_for("connects/s", seen)
        terminal.resize(60, 6)
        seen = terminal.wait_for(" more", seen)
        frame = terminal.frame(terminal.text.rindex("\x1b[H", 0, seen))
        assert len(frame) == 6 and max(map(len, frame)) <= 60

        terminal.resize(80)
        cluster.stop()
        seen = terminal.wait_for("no such file; retrying", seen)
        cluster.start()
        terminal.wait_for("workers:workers_02  ready", seen)

        terminal.type("q")
        text = terminal.end()
        assert terminal.mode == terminal.mode_before
    assert terminal.process.returncode == 0
    assert text.endswith("\x1b[?25h\x1b[?1049l")


@NO_WORKER
def test_top_ends_with_ctrl_c_and_the_shell_goes_on(watched: Cluster) -> None:
    with on_terminal(watched) as terminal:
        terminal.wait_for("supervisor> ")
        terminal.type("sio top\r")
        seen = terminal.wait_for("ready", terminal.wait_for("sio top: q quits"))
        terminal.type("\x03")
        seen = terminal.wait_for("supervisor> ", terminal.wait_for("\x1b[?1049l", seen))
        terminal.type("sio rooms\r")
        terminal.wait_for("room 1", seen)


@NO_WORKER
def test_tab(watched: Cluster) -> None:
    name = "workers-of-the-shop"
    with on_terminal(watched, columns=200) as terminal:
        seen = terminal.wait_for("supervisor> ")
        for typed, completed in (
            ("sio dra\t", "sio drain "),
            ("sio drain wo\t", "rkers-of-the-shop:"),
            (f"sio drain {name}:{name}_01\t", f"{name}_01 "),
            ("sio sockets --ro\t", "sio sockets --room "),
            ("sio scale wor\t", f"sio scale {name} "),
            ("help sio ki\t", "help sio kick "),
            ("sta", "sta"),  # our neighbours' completions are as they were
            ("res\t", "restart "),
            (f"restart {name}:{name}_00\t", f"restart {name}:{name}_00 "),
        ):
            terminal.type(typed)
            seen = terminal.wait_for(completed, seen)
            terminal.type("\x15")
        terminal.type("sio drain wo\t\t\t")
        for choice in (f"{name}:*", f"{name}:{name}_00", f"{name}:{name}_01"):
            terminal.wait_for(choice, seen)
        terminal.type("\x15quit\r")
        terminal.end()
    assert terminal.process.returncode == 0
