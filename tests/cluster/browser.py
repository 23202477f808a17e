"""A headless Chromium, driven through its DevTools protocol."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import websocket

from .harness import wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # which root may not have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--no-proxy-server",
    # Pages behind others go on as if they were seen.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--remote-debugging-port=0",
)


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser with a profile of its own; :meth:`close` leaves nothing of it."""

    def __init__(self, program: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="sio-chromium-"))
        self._ids = itertools.count(1)
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
            with open(self._directory / "chromium.out", "wb") as output:
                self._process = subprocess.Popen(
                    [program, *OPTIONS, f"--user-data-dir={self._directory}", "about:blank"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # What it keeps outside of its profile, too.
                    env={
                        **os.environ,
                        "HOME": str(self._directory),
                        "TMPDIR": str(self._directory),
                    },
                    start_new_session=True,
                )
            stack.callback(self._end_processes)
            port, path = wait_until(self._address, 30, "chromium").split()
            # A socket of our own goes past a proxy that the environment may name.
            sock = socket.create_connection(("127.0.0.1", int(port)))
            # Chromium accepts no page's origin here.
            self._devtools = websocket.create_connection(
                f"ws://127.0.0.1:{port}{path}", timeout=20, socket=sock, suppress_origin=True
            )
            stack.callback(self._devtools.shutdown)
            self.close = stack.pop_all().close

    def _address(self) -> str:
        """Port and path, once Chromium has written them down."""
        code = self._process.poll()
        said = (self._directory / "chromium.out").read_text(errors="replace")
        assert code is None, f"chromium has ended with exit code {code}: {said[-2000:]}"
        file = self._directory / "DevToolsActivePort"
        text = file.read_text() if file.exists() else ""
        return text if len(text.split()) == 2 else ""

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """What a method of the protocol returns."""
        number = next(self._ids)
        command = {"id": number, "method": method, "params": params}
        if session:
            command["sessionId"] = session
        self._devtools.send(json.dumps(command))
        while True:
            message = json.loads(self._devtools.recv())
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result

    def open(self, url: str) -> Page:
        target = self.call("Target.createTarget", url=url)["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        return Page(self, attached["sessionId"])

    def _end_processes(self) -> None:
        """Its whole session, whatever of it has lost its parent."""
        os.killpg(self._process.pid, signal.SIGKILL)
        left = [p for p in psutil.process_iter() if self._is_ours(p.pid)]
        for process in left:
            process.kill()
        self._process.wait()
        psutil.wait_procs(left, 10)

    def _is_ours(self, pid: int) -> bool:
        try:
            return os.getsid(pid) == self._process.pid
        except OSError:
            return False


class Page:
    """A page with a document, for JavaScript to look at and to act on."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What a method of the protocol returns for this page."""
        return self._browser.call(method, self._session, **params)

    def go(self, url: str) -> None:
        """To another page; its scripts may have yet to run."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        outcome = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in outcome, outcome
        return outcome["result"].get("value")

    def text(self, element: str) -> str:
        """The text of the element of this id; empty while there is none."""
        return self.evaluate(f"document.getElementById({element!r})?.textContent") or ""
