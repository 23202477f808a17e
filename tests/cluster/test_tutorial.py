"""The first commands of the README, docs/tutorial.md and docs/howto/frameworks.md, as they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
import socketio

from .browser import Browser, Page
from .harness import environment, wait_until
from .modes import OWN_MODES
from .reader import Reader

pytestmark = [OWN_MODES, pytest.mark.long]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
FRAMEWORKS = DOCS / "howto" / "frameworks.md"


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


def blocks(reader: Reader, step: int, language: str) -> list[str]:
    """Of this step of the tutorial, with the reader's port."""
    text = TUTORIAL.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{reader.port}")
    steps = re.split(r"^## (?=\d)", text, flags=re.MULTILINE)
    return re.findall(rf"```{language}\n(.*?)```", steps[step], re.DOTALL)


def test_as_it_says(reader: Reader, browser: Browser) -> None:
    assert "pip install 'supervisor-sio[asyncio]'" in blocks(reader, 1, "sh")[0]
    (program,), (page,) = blocks(reader, 2, "python"), blocks(reader, 2, "html")
    (reader.directory / "myapp.py").write_text(program)
    (reader.directory / "index.html").write_text(page)
    reader.type(*blocks(reader, 3, "sh"))
    reader.wait_ready(2)

    first, second = tabs = [Tab(browser.open(reader.url)) for _ in range(2)]
    assert sorted(first.workers + second.workers) == ["workers_00", "workers_01"]
    first.say("good morning")
    for tab in tabs:
        tab.wait_for(f"good morning (by way of {first.workers[0]})")

    reader.type(*blocks(reader, 4, "sh"))
    for tab in tabs:
        tab.wait_for("hello from the shell")

    (kill,) = blocks(reader, 5, "sh")
    assert "workers_00" in kill
    killed, other = sorted(tabs, key=lambda tab: tab.workers[0])
    reader.type(kill)
    wait_until(lambda: len(killed.workers) == 2, 20, "it is back, and a new client")
    assert (killed.disconnected, other.disconnected) == (1, 0)
    reader.wait_ready(2)

    (changed,), (reload, again) = blocks(reader, 6, "python"), blocks(reader, 6, "sh")
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

    reader.type(*blocks(reader, 7, "sh"))
    reader.wait_ready(3)
    pid = reader.supervisord
    reader.type(*blocks(reader, 8, "sh"))
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
