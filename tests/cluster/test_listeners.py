"""Other ways in: the PROXY protocol, Unix sockets, IPv6, and other users' processes."""

from __future__ import annotations

import json
import os
import pwd
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Clients, ClusterFactory
from .harness import wait_until
from .modes import NO_WORKER
from .raw import exchange
from .test_sticky import Traffic, proxy

__all__ = ["proxy"]  # a fixture

GET = b"GET /environ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def body(answer: bytes) -> dict[str, str]:
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    found: dict[str, str] = json.loads(text)
    return found


def test_proxy_protocol(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, proxy_protocol="on").start()
    v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"
    addresses = socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + struct.pack("!HH", 1, 443)
    tls = b"\x20\x00\x05\x01\x00\x00\x00\x00"
    v2 = SIGNATURE + struct.pack("!BBH", 0x21, 0x21, len(addresses + tls)) + addresses + tls
    for header, client, port, scheme in (
        (v1, "192.0.2.7", "80", "http"),
        (v2, "2001:db8::7", "443", "https"),
        (SIGNATURE + b"\x20\x00\x00\x00", "127.0.0.1", str(cluster.port), "http"),
    ):
        seen = body(exchange(cluster.port, header + GET))
        assert (seen["REMOTE_ADDR"], seen["SERVER_PORT"]) == (client, port)
        assert seen["wsgi.url_scheme"] == scheme
        with socket.create_connection(("127.0.0.1", cluster.port), timeout=20) as sock:
            for byte in header + GET:
                sock.send(bytes([byte]))
            assert sock.recv(12) == b"HTTP/1.1 200"
    for header in (b"", b"PROXY TCP4 nobody 1.2.3.4 1 2\r\n", SIGNATURE + b"\x33\x00\x00\x00"):
        assert exchange(cluster.port, header + GET).startswith(b"HTTP/1.1 400 ")
    wait_until(lambda: cluster.status()["router"]["refused"] == {"proxy-header": 3}, 5, "counted")


@NO_WORKER
def test_haproxy_says_who_the_client_is(
    make_cluster: ClusterFactory, proxy: Callable[..., int]
) -> None:
    cluster = make_cluster(workers=2, proxy_protocol="on").start()
    port = proxy("haproxy", cluster.port, "send-proxy-v2")
    traffic = Traffic(port)
    traffic.open_sessions()
    traffic.run()
    assert not traffic.errors and len(traffic.pids) == 2
    assert body(exchange(port, GET))["REMOTE_ADDR"] == "127.0.0.1"


def test_unix_socket_and_ipv6(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1)
    path = cluster.short / "public.sock"
    cluster.settings["listen"] += f", unix:{path}, [::1]:{cluster.port}"
    cluster.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(GET)
        answer = b""
        while more := sock.recv(65536):
            answer += more
    assert body(answer)["REMOTE_ADDR"] == "unix"
    with socket.create_connection(("::1", cluster.port), timeout=20) as sock:
        sock.sendall(GET)
        answer = b""
        while more := sock.recv(65536):
            answer += more
    assert body(answer)["REMOTE_ADDR"] == "::1"
    assert f"unix:{path}" in cluster.ctl("sio").stdout
    cluster.stop()
    assert not path.exists()


#: A view of the file system in which everybody can reach this Python, wherever it lies.
OPEN_TO_ALL = """
stage=$(mktemp -d)
mount --bind "$1" "$stage"
mount -t tmpfs -o mode=755 tmpfs "$2"
mkdir -p "$1"
mount --bind "$stage" "$1"
shift 2
exec "$@"
"""


def view_for_all() -> list[str]:
    base = Path(sys.base_prefix).resolve()
    private = [path for path in base.parents if not path.stat().st_mode & 0o001]
    if not private:
        return []
    return ["unshare", "--mount", "sh", "-ec", OPEN_TO_ALL, "sh", str(base), str(private[-1])]


@NO_WORKER
@pytest.mark.skipif(os.getuid() != 0, reason="only root gives processes to other users")
def test_privileged_port_with_everything_else_as_nobody(
    make_cluster: ClusterFactory, clients: Clients
) -> None:
    cluster = make_cluster(chown="nobody", user="nobody", wrapper=view_for_all())
    cluster.port = next(port for port in range(700, 1024) if free(port))
    cluster.settings["listen"] = f"127.0.0.1:{cluster.port}"
    cluster.short.chmod(0o755)
    cluster.start()
    status = cluster.status()
    for pid in [status["router"]["pid"], *(row["pid"] for row in status["workers"])]:
        assert os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam("nobody").pw_uid
    for client in clients.mixed(cluster, 6):
        assert client.call("echo", 1) == 1


@NO_WORKER
@pytest.mark.skipif(os.getuid() != 0, reason="only root gives processes to other users")
def test_who_may_not_enter_the_run_dir_says_so(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster(workers=1, user="nobody", wrapper=view_for_all(), router=False)
    cluster.short.chmod(0o755)
    cluster.spawn()
    wait_until(lambda: "permission denied" in cluster.log("workers_00"), 20, "its line")
    assert str(cluster.run_dir) in cluster.log("workers_00")
    assert "Traceback" not in cluster.log("workers_00")


def free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
