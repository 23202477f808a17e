"""A client at a Unix listener chooses its own name, of any bytes: nobody else may suffer."""

from __future__ import annotations

import json
import os
import secrets
import socket
from pathlib import Path

from cluster.conftest import ClusterFactory
from cluster.harness import wait_until
from cluster.modes import NO_WORKER
from cluster.raw import Poller

pytestmark = NO_WORKER

GET = b"GET /environ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def get(path: Path, name: bytes | str) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.bind(name)
        sock.connect(str(path))
        sock.sendall(GET)
        answer = b""
        while more := sock.recv(65536):
            answer += more
        return answer


def test_a_client_with_an_abstract_name_stops_nobody(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster()
    path = cluster.short / "public.sock"
    cluster.settings["listen"] += f", unix:{path}"
    cluster.start()
    names: list[bytes | str] = [
        b"\0" + secrets.token_hex(8).encode(),
        b"\0" + bytes(range(1, 9)) + b"\n\x1b[2J\xff" + secrets.token_bytes(8),
        f"{cluster.short}/line\nfeed\x1b",
        os.fsdecode(bytes(cluster.short) + b"/\xff\xfe"),
    ]
    for name in names:
        for _ in range(4):  # each worker twice
            answer = get(path, name)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            environ = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert environ["REMOTE_ADDR"].isprintable()
            if isinstance(name, str):
                os.unlink(name)
        poller = Poller(cluster.port)
        poller.open()
        poller.join()
        assert poller.call("echo", "there") == "there"
    assert "Traceback" not in cluster.log("router")
    wait_until(lambda: cluster.status()["router"]["waiting"] == 0, 5, "nobody waits")
    assert not cluster.status()["router"]["refused"]
    for line in cluster.log("router").splitlines():
        assert line.isprintable()
