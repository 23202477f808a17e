"""Clients of every kind, on each transport, directly and through nginx and HAProxy: a table.

    python tests/bench/clients.py [--async-mode MODE] [--workers COUNT]

Each client connects without `auth`, has text and bytes echoed, uploads chunks of which none may
be missing when the last event is handled, and is disconnected by the server, for good. A cell has
the median of its echoes in milliseconds, or the first of these that went wrong. Ends with 1 if
any did. What is not installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import socketio
from cluster.browser import Browser, Page, find_browser
from cluster.harness import MODE, Cluster, wait_until
from cluster.jsclient import RELEASES, Node, NodeClient, find_node, install
from cluster.proxies import find, proxied

WAYS = ("direct", "nginx", "haproxy")
TRANSPORTS: dict[str, list[str] | None] = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": None,
}
ECHOES = 20
CHUNKS, CHUNK = 4, 1000
PACKED = {"path": "/packed.io/", "parser": "socket.io-msgpack-parser"}


class Client(Protocol):
    """What all of them can do; any error is the cell's."""

    def connect(self, url: str, transports: list[str] | None) -> None: ...

    def call(self, event: str, *args: Any) -> Any: ...

    def emit(self, event: str, *args: Any) -> None: ...

    def left(self) -> bool:
        """Whether it has been disconnected, and does not come again."""

    def close(self) -> None: ...


class JavaScript:
    """socket.io-client in node."""

    def __init__(self, node: Node, name: str, options: dict[str, Any]) -> None:
        self._client = NodeClient(node, name, **options)
        self.call, self.emit = self._client.call, self._client.emit
        self.connect = self._client.connect

    def left(self) -> bool:
        self._client.wait_disconnected()
        return self._client.disconnects == ["io server disconnect"]

    def close(self) -> None:
        self._client.close()


class Python:
    """socketio.SimpleClient."""

    def __init__(self, packed: bool) -> None:
        self._path = "packed.io" if packed else "socket.io"
        serializer = "msgpack" if packed else "default"
        self._client = socketio.SimpleClient(serializer=serializer, reconnection=False)
        self.close = self._client.disconnect

    def connect(self, url: str, transports: list[str] | None) -> None:
        self._client.connect(url, socketio_path=self._path, transports=transports)

    def call(self, event: str, *args: Any) -> Any:
        return self._client.call(event, args)

    def emit(self, event: str, *args: Any) -> None:
        self._client.emit(event, args)

    def left(self) -> bool:
        return wait_until(lambda: not self._client.connected, 5, "its end")


class Asyncio:
    """socketio.AsyncSimpleClient."""

    def __init__(self, packed: bool) -> None:
        self._loop = asyncio.new_event_loop()
        self._path = "packed.io" if packed else "socket.io"
        serializer = "msgpack" if packed else "default"
        self._client = socketio.AsyncSimpleClient(serializer=serializer, reconnection=False)

    def _run(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, 30))

    def connect(self, url: str, transports: list[str] | None) -> None:
        self._run(self._client.connect(url, socketio_path=self._path, transports=transports))

    def call(self, event: str, *args: Any) -> Any:
        return self._run(self._client.call(event, args))

    def emit(self, event: str, *args: Any) -> None:
        self._run(self._client.emit(event, args))

    def left(self) -> bool:
        return wait_until(self._is_over, 5, "its end")

    def _is_over(self) -> bool:
        self._run(asyncio.sleep(0.01))
        return not self._client.connected

    def close(self) -> None:
        self._run(self._client.disconnect())
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.close()


class Chromium:
    """socket.io-client in a page; what it uploads are Blobs."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def connect(self, url: str, transports: list[str] | None) -> None:
        self._page.go(url)
        wait_until(lambda: self._page.evaluate("typeof io") == "function", 20, "its page")
        options = "{}" if transports is None else f"{{transports: {transports!r}}}"
        self._page.evaluate(
            f"window.gone = []; window.socket = io({options});"
            "socket.on('disconnect', (reason) => gone.push(reason));"
            "new Promise((done, failed) => {"
            "  socket.on('connect', done); socket.on('connect_error', failed); })"
        )

    def call(self, event: str, *args: Any) -> Any:
        packed = ", ".join(_as_javascript(arg) for arg in (event, *args))
        got = self._page.evaluate(
            f"new Promise((done) => socket.emit({packed}, (...got) => done(got.map((one) =>"
            "  one instanceof ArrayBuffer ? {bytes: [...new Uint8Array(one)]} : one))))"
        )
        values = [bytes(one["bytes"]) if isinstance(one, dict) else one for one in got]
        return values[0] if len(values) == 1 else values

    def emit(self, event: str, *args: Any) -> None:
        self._page.evaluate(f"void socket.emit({', '.join(map(_as_javascript, (event, *args)))})")

    def left(self) -> bool:
        wait_until(lambda: self._page.evaluate("gone.length"), 20, "its end")
        return bool(self._page.evaluate("gone[0] === 'io server disconnect' && gone.length === 1"))

    def close(self) -> None:
        self._page.evaluate("void socket.disconnect()")


def _as_javascript(value: Any) -> str:
    return f"new Blob([new Uint8Array({list(value)})])" if isinstance(value, bytes) else repr(value)


Make = Callable[[], Client]


@contextmanager
def kinds() -> Iterator[dict[str, Make]]:
    """By the name of its row, what makes a client."""
    found: dict[str, Make] = {}
    with ExitStack() as stack:
        bin_dir = find_node()
        if bin_dir is not None:
            install(bin_dir, RELEASES)
            for version in ("3.1", "4.0", "4.8"):
                node = Node(bin_dir, f"client-{version}", RELEASES)
                stack.callback(node.close)
                for what, options in (("", {}), (", msgpack", PACKED)):
                    found[f"socket.io-client {version}{what}"] = _javascript(node, options)
        for what, packed in (("", False), (", msgpack", True)):
            found[f"python-socketio{what}"] = lambda packed=packed: Python(packed)  # type: ignore[misc]
            if find_spec("aiohttp") is not None:  # what it is built on
                found[f"python-socketio, asyncio{what}"] = lambda packed=packed: Asyncio(packed)  # type: ignore[misc]
        program = find_browser()
        if program is not None:
            browser = Browser(program)
            stack.callback(browser.close)
            page = browser.open("about:blank")
            found["Chromium, socket.io-client 4"] = lambda: Chromium(page)
        yield found


def _javascript(node: Node, options: dict[str, Any]) -> Make:
    names = iter(range(10**6))
    return lambda: JavaScript(node, f"{id(node)}-{bool(options)}-{next(names)}", options)


def try_out(client: Client, url: str, transports: list[str] | None) -> str:
    """The cell."""
    what = "connect"
    try:
        client.connect(url, transports)
        times = []
        for number in range(ECHOES):
            what, sent = "echo", ("ü", bytes([0, number, 255]))
            began = time.perf_counter()
            got = client.call("echo", *sent)
            times.append(time.perf_counter() - began)
            if list(got) != list(sent):
                return f"echo: {got!r}"
        what = "upload"
        for _ in range(5):
            for _ in range(CHUNKS):
                client.emit("chunk", bytes(CHUNK))
            count = client.call("done")
            if count != CHUNKS * CHUNK:
                return f"upload: {count}"
        what = "disconnect"
        client.emit("leave")
        if not client.left():
            return "comes again"
        return f"{statistics.median(times) * 1000:.1f}"
    except Exception as error:
        return f"{what}: {type(error).__name__}"
    finally:
        try:
            client.close()
        except Exception as error:
            print(f"close: {error!r}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--async-mode", choices=("eventlet", "asyncio", "threading"), default="eventlet"
    )
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    os.environ[MODE] = options.async_mode
    failed = 0
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = Cluster(
            directory,
            workers=options.workers,
            command="supervisor-sio worker clients_app:app",
            path="/socket.io/, /packed.io/",
        )
        stack.callback(cluster.clean_up)
        cluster.start()
        ports = {"direct": cluster.port}
        for name in WAYS[1:]:
            program = find(name)
            if program is not None:
                ports[name] = stack.enter_context(proxied(program, name, directory, cluster.port))
        made = stack.enter_context(kinds())
        columns = [f"{transport}, {way}" for way in ports for transport in TRANSPORTS]
        print(f"{options.async_mode}, {options.workers} workers: ms of an echo\n")
        print(f"| client | {' | '.join(columns)} |")
        print("|---" * (1 + len(columns)) + "|")
        for name, make in made.items():
            cells = []
            for port in ports.values():
                for transports in TRANSPORTS.values():
                    cells.append(try_out(make(), f"http://127.0.0.1:{port}", transports))
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
            failed += sum(not cell[0].isdigit() for cell in cells)
    print(f"\n{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
