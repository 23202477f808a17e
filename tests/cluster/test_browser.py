"""The chat page in a real browser: it talks across workers, stays when they restart, and finds its
way back when they are killed."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from .browser import Browser, Page
from .conftest import ClusterFactory
from .harness import wait_until
from .modes import OWN_MODES

pytestmark = OWN_MODES

CHAT = "supervisor-sio worker supervisor_sio.examples.chat:app"


class ChatPage:
    """What a person does with the page, and sees."""

    def __init__(self, page: Page, name: str) -> None:
        self._page = page
        self.name = name

    def wait_connected(self) -> None:
        def upgraded() -> bool:
            return self._page.text("transport").endswith("websocket")

        wait_until(upgraded, 20, f"{self.name} is connected by websocket")
        wait_until(lambda: self.worker, 10, f"{self.name} is welcome")
        assert self._page.text("state") == "Connected"

    @property
    def worker(self) -> str:
        return self._page.text("worker")

    @property
    def session(self) -> str:
        return self._page.text("session")

    @property
    def notes(self) -> list[str]:
        return self._lines("li.note")

    def evaluate(self, expression: str) -> Any:
        return self._page.evaluate(expression)

    def _lines(self, selector: str) -> list[str]:
        found: list[str] = self._page.evaluate(
            f"[...document.querySelectorAll({selector!r})].map((item) => item.textContent)"
        )
        return found

    def say(self, text: str) -> None:
        self._page.evaluate(
            f"byId('who').value = {json.dumps(self.name)};"
            f"byId('text').value = {json.dumps(text)};"
            "byId('send').click()"
        )

    def wait_for(self, who: ChatPage, text: str) -> None:
        """Wait until it shows, once, what somebody said by way of a worker."""
        line = f"{who.name}by way of{who.worker}{text}"
        wait_until(lambda: line in self._lines("ol > li"), 15, f"{self.name} shows {line!r}")
        assert self._lines("ol > li").count(line) == 1


def exchange(first: ChatPage, second: ChatPage, subject: str) -> None:
    for speaker in (first, second):
        text = f"{speaker.name} on {subject} <b>ü</b>"
        speaker.say(text)
        for listener in (first, second):
            listener.wait_for(speaker, text)


def test_two_pages_on_two_workers(make_cluster: ClusterFactory, browser: Browser) -> None:
    cluster = make_cluster(command=CHAT).start()
    ann, bob = (ChatPage(browser.open(cluster.url), name) for name in ("Ann", "Bob"))
    for page in (ann, bob):
        page.wait_connected()
    assert {ann.worker, bob.worker} == {"workers:workers_00", "workers:workers_01"}
    exchange(ann, bob, "workers")

    sessions = ann.session, bob.session
    old = cluster.router_pid
    os.kill(old, signal.SIGKILL)
    exchange(ann, bob, "routers")
    cluster.wait_new_router(old)
    exchange(ann, bob, "new routers")
    assert (ann.session, bob.session) == sessions
    assert not [note for page in (ann, bob) for note in page.notes if "lost" in note]

    cluster.wait_ready()
    old_workers = [row["pid"] for row in cluster.workers()]
    assert cluster.ctl("restart", "workers:*").returncode == 0
    for page in (ann, bob):
        taken_over = f"Taken over by {page.worker}"
        wait_until(lambda p=page, t=taken_over: t in p.notes, 20, taken_over)
    exchange(ann, bob, "restarts")
    assert (ann.session, bob.session) == sessions
    assert not [note for page in (ann, bob) for note in page.notes if "lost" in note]

    cluster.wait_ready()
    workers = [row["pid"] for row in cluster.workers()]
    assert not set(workers) & set(old_workers)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    for page, session in zip((ann, bob), sessions):
        wait_until(lambda p=page, s=session: p.session not in ("", s), 20, "a new session")
        page.wait_connected()
        assert page.notes[-2].startswith("Connection lost: ")
        assert page.notes[-1] == f"Connected again, to {page.worker}"
    exchange(ann, bob, "crashes")


#: From then on, all that the page shows as its state.
WATCH = """
    window.states = [];
    new MutationObserver(() => states.push(byId("state").textContent)).observe(
        byId("state"), {childList: true, characterData: true, subtree: true}
    );
"""


@pytest.mark.long
def test_two_pages_never_reconnect_over_ten_reloads(
    make_cluster: ClusterFactory, browser: Browser
) -> None:
    reloads = 10
    cluster = make_cluster(command=CHAT).start()
    ann, bob = (ChatPage(browser.open(cluster.url), name) for name in ("Ann", "Bob"))
    for page in (ann, bob):
        page.wait_connected()
        page.evaluate(WATCH)
    sessions = ann.session, bob.session
    for turn in range(reloads):
        assert cluster.ctl("sio", "reload").returncode == 0
        exchange(ann, bob, f"reload {turn}")
    for page in (ann, bob):
        assert page.evaluate("states") == []
        taken_over = [note for note in page.notes if note == f"Taken over by {page.worker}"]
        assert len(taken_over) == reloads and len(page.notes) == reloads + 1, page.notes
    assert (ann.session, bob.session) == sessions
