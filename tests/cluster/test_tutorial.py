"""The first commands of the README, docs/tutorial.md and docs/howto/frameworks.md, as they say."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.request import urlopen
from xmlrpc.client import Fault, ServerProxy

import psutil
import pytest
import socketio
from supervisor.xmlrpc import SupervisorTransport

from .browser import Browser, Page
from .harness import environment, free_port, wait_until
from .modes import OWN_MODES

pytestmark = [OWN_MODES, pytest.mark.long]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
FRAMEWORKS = DOCS / "howto" / "frameworks.md"


class Reader:
    """A reader in a new directory, who does what the tutorial says."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        text = TUTORIAL.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        self._steps = re.split(r"^## (?=\d)", text, flags=re.MULTILINE)
        # Paths of Unix sockets are short, pytest's directories are not.
        self.directory = Path(tempfile.mkdtemp(prefix="sio-"))
        self._environment = environment(TMPDIR=str(self.directory))

    def blocks(self, step: int, language: str) -> list[str]:
        return re.findall(rf"```{language}\n(.*?)```", self._steps[step], re.DOTALL)

    def type(self, commands: str) -> str:
        """What the commands print."""
        typed = subprocess.run(
            ["sh", "-ec", commands],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert typed.returncode == 0, typed.stdout
        return typed.stdout

    def wait_ready(self, workers: int) -> None:
        transport = SupervisorTransport(None, None, f"unix://{self.directory}/supervisor.sock")
        supervisord: Any = ServerProxy("http://127.0.0.1", transport=transport)

        def ready() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException, Fault):
                rows = supervisord.sio.getStatus()["workers"]
                return [row["state"] for row in rows] == ["ready"] * workers
            return False

        wait_until(ready, 30, f"{workers} workers are ready")

    @property
    def supervisord(self) -> int:
        pid = self.directory / "supervisord.pid"
        return int(pid.read_text()) if pid.exists() else 0

    def clean_up(self) -> None:
        pid = self.supervisord
        left = [
            process for process in psutil.process_iter() if pid and _session(process.pid) == pid
        ]
        for process in left:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(left, 10)
        shutil.rmtree(self.directory, ignore_errors=True)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


class Tab:
    def __init__(self, page: Page) -> None:
        self._page = page
        wait_until(lambda: self.workers, 20, "it says which worker it is at")

    def lines(self) -> list[str]:
        found: list[str] = self.evaluate(
            "[...document.querySelectorAll('li')].map((item) => item.textContent)"
        )
        return found

    def evaluate(self, expression: str) -> Any:
        return self._page.evaluate(expression)

    @property
    def workers(self) -> list[str]:
        return [line[len("you are at ") :] for line in self.lines() if line.startswith("you are")]

    @property
    def disconnected(self) -> int:
        return sum(line.startswith("disconnected") for line in self.lines())

    def say(self, text: str) -> None:
        self.evaluate(
            f"document.querySelector('input').value = {text!r};"
            "document.querySelector('button').click()"
        )

    def wait_for(self, text: str) -> None:
        wait_until(lambda: any(text in line for line in self.lines()), 20, f"it shows {text!r}")


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader(free_port())
    yield made
    made.clean_up()


def test_as_it_says(reader: Reader, browser: Browser) -> None:
    assert "pip install 'supervisor-sio[asyncio]'" in reader.blocks(1, "sh")[0]
    (program,), (page,) = reader.blocks(2, "python"), reader.blocks(2, "html")
    (reader.directory / "myapp.py").write_text(program)
    (reader.directory / "index.html").write_text(page)
    reader.type(*reader.blocks(3, "sh"))
    reader.wait_ready(2)

    first, second = tabs = [Tab(browser.open(reader.url)) for _ in range(2)]
    assert sorted(first.workers + second.workers) == ["workers_00", "workers_01"]
    first.say("good morning")
    for tab in tabs:
        tab.wait_for(f"good morning (by way of {first.workers[0]})")

    reader.type(*reader.blocks(4, "sh"))
    for tab in tabs:
        tab.wait_for("hello from the shell")

    (kill,) = reader.blocks(5, "sh")
    assert "workers_00" in kill
    killed, other = sorted(tabs, key=lambda tab: tab.workers[0])
    reader.type(kill)
    wait_until(lambda: len(killed.workers) == 2, 20, "it is back, and a new client")
    assert (killed.disconnected, other.disconnected) == (1, 0)
    reader.wait_ready(2)

    (changed,), (reload, again) = reader.blocks(6, "python"), reader.blocks(6, "sh")
    assert program.count("manager = AsyncZmqManager()\n") == 1
    changed = program.replace("manager = AsyncZmqManager()\n", changed)
    (reader.directory / "myapp.py").write_text(changed)
    known = {tab: len(tab.workers) for tab in tabs}
    reader.type(reload)
    for tab in tabs:
        wait_until(
            lambda tab=tab: len(tab.workers) > known[tab], 20, "it is a client of the new code"
        )
    shown = [tab.lines() for tab in tabs]
    reader.type(again)
    first.say("still here")
    for tab, lines in zip(tabs, shown):
        tab.wait_for("still here")
        assert tab.lines()[:-1] == lines

    sockets = json.loads(reader.type("supervisorctl sio sockets --json"))["sockets"]
    sid = first.evaluate("socket.id")
    (worker,) = {row["worker"] for row in sockets if row["sid"] == sid}
    reader.type(kill.replace("workers:workers_00", worker))
    wait_until(lambda: first.evaluate("socket.recovered"), 20, "it is back")
    assert first.evaluate("socket.id") == sid
    reader.wait_ready(2)

    reader.type(*reader.blocks(7, "sh"))
    reader.wait_ready(3)
    pid = reader.supervisord
    reader.type(*reader.blocks(8, "sh"))
    wait_until(lambda: not psutil.pid_exists(pid), 30, "supervisord has ended")


def test_fastapi_on_two_workers(reader: Reader) -> None:
    pytest.importorskip("fastapi")
    page = FRAMEWORKS.read_text()
    program = next(
        text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "fastapi" in text
    )
    commands = next(
        text for text in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "--full" in text
    )
    (reader.directory / "myapp.py").write_text(program)
    at_once, last = commands.rstrip().rsplit("\n", 1)
    reader.type(at_once.replace("init --full", f"init --full --listen 127.0.0.1:{reader.port}"))
    reader.wait_ready(2)
    assert reader.type(last).count("ready") == 2

    heard: Queue[Any] = Queue()
    one, other = (socketio.Client(reconnection=False) for _ in range(2))
    other.on("message", heard.put)
    other.on("news", heard.put)
    try:
        for client in (one, other):
            client.connect(reader.url)
        one.emit("message", "hello")
        assert heard.get(timeout=20) == "hello"
        with urlopen(f"{reader.url}/news?text=x", data=b"", timeout=20):
            assert heard.get(timeout=20) == {"text": "x"}
    finally:
        for client in (one, other):
            client.disconnect()
    pid = reader.supervisord
    reader.type("supervisorctl shutdown")
    wait_until(lambda: not psutil.pid_exists(pid), 30, "supervisord has ended")


def test_the_first_commands_of_the_readme(reader: Reader) -> None:
    shutil.copytree(ROOT / "conf.d", reader.directory / "conf.d")
    conf = reader.directory / "conf.d" / "supervisord.conf"
    conf.write_text(conf.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{reader.port}"))
    install, look = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[:2]
    start = install.rpartition("pip install . && ")[2]
    supervisord = subprocess.Popen(
        ["sh", "-c", f"exec {start}"],
        cwd=reader.directory,
        env=environment(TMPDIR=str(reader.directory)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: reader.type(f"{look.rstrip()} || :").count(" ready ") == 2, 60, "ready")
    finally:
        supervisord.terminate()
        supervisord.wait(60)
