"""Mistakes are told in one line; what strangers send harms nobody else."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from .conftest import Clients, ClusterFactory
from .harness import BIN, HERE, Cluster, server_environment, wait_until
from .modes import ANY_MODE, NO_WORKER
from .raw import exchange

SECTION = "[rpcinterface:sio]"


def the_error(cluster: Cluster) -> str:
    """The one line with which a supervisord refuses to start."""
    code, output = cluster.run_to_its_end()
    assert code == 2, output
    for name, text in cluster.logs().items():
        assert "Traceback" not in text, name
    (line,) = [line for line in output.splitlines() if SECTION in line]
    assert output.splitlines()[-1] == line
    assert not cluster.processes()
    return line


@NO_WORKER
@pytest.mark.parametrize(
    "option, value, reason",
    [
        ("lisen", "127.0.0.1:8000", "unknown option"),
        ("balance", "fair", "least-connection"),
        ("listen", "8000", "host:port"),
        ("listen", "127.0.0.1:99999", "99999"),
        ("hold_timeout", "soon", "soon"),
        ("max_pending", "-1", "-1"),
        ("chmod", "rwx", "rwx"),
        ("chown", "nobody-of-that-name", "nobody-of-that-name"),
        ("run_dir", "/dev/null/run", "/dev/null/run"),
        ("tls_certfile", "server.pem", ""),
    ],
)
def test_supervisord_refuses_to_start(
    make_cluster: ClusterFactory, option: str, value: str, reason: str
) -> None:
    line = the_error(make_cluster(**{option: value}))
    assert f"{SECTION} {option}:" in line and reason in line


@NO_WORKER
def test_a_port_in_use(make_cluster: ClusterFactory) -> None:
    cluster = make_cluster()
    with socket.create_server(("127.0.0.1", cluster.port)):
        line = the_error(cluster)
    assert f"{SECTION} listen: 127.0.0.1:{cluster.port}" in line and "in use" in line


@NO_WORKER
def test_two_supervisords_with_one_run_dir(make_cluster: ClusterFactory, clients: Clients) -> None:
    cluster = make_cluster(workers=1).start()
    client = clients.connect(cluster)
    line = the_error(make_cluster(run_dir=str(cluster.run_dir)))
    assert f"{SECTION} run_dir:" in line and str(cluster.pid) in line
    assert client.call("echo", 1) == 1
    assert clients.connect(cluster).call("echo", 2) == 2
    assert not client.disconnects


@NO_WORKER
def test_no_rpcinterface_section(make_cluster: ClusterFactory) -> None:
    """supervisord cannot know; the router, the workers and ``sio status`` say so."""
    cluster = make_cluster(plugin=False, workers=1, startsecs=20, startretries=0)
    cluster.spawn()
    names = ("router", "workers_00")
    wait_until(lambda: all(SECTION in cluster.log(name) for name in names), 20, "their lines")
    for name in names:
        (line,) = set(cluster.log(name).splitlines())  # the same again at each try
        assert "error: " in line
    done = cluster.ctl("sio", "status")
    assert done.returncode not in (0, 3) and SECTION in done.stdout
    assert "Traceback" not in done.stdout


def complaint(*arguments: str) -> str:
    """The one line with which ``supervisor-sio``, started by hand, ends."""
    done = subprocess.run(
        [BIN / "supervisor-sio", *arguments],
        check=False,
        cwd=HERE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=server_environment(),
    )
    assert done.returncode != 0 and not done.stdout
    (line,) = done.stderr.splitlines()
    return line


@NO_WORKER
def test_the_router_by_hand() -> None:
    line = complaint("router")
    assert "supervisor-sio router: error:" in line and "[eventlistener:sio]" in line


@pytest.mark.parametrize(
    "spec, reason",
    [
        ("no_such_module:app", "no_such_module"),
        ("cluster_app:nothing", "nothing"),
        ("cluster_app:sio.eio.sockets", "sio.eio.sockets"),
        ("cluster_app", "cluster_app"),
    ],
)
def test_an_application_that_is_not_there(spec: str, reason: str) -> None:
    line = complaint("worker", spec)
    assert line.startswith("supervisor-sio worker: error: ") and reason in line


def test_an_unknown_application_under_supervisord(make_cluster: ClusterFactory) -> None:
    command = "supervisor-sio worker no_such_module:app"
    # However slow the host is, it ends within startsecs: no second try.
    cluster = make_cluster(workers=1, command=command, startsecs=20, startretries=0)
    cluster.spawn()
    wait_until(lambda: cluster.workers("fatal"), 20, "fatal")
    (line,) = cluster.log("workers_00").splitlines()
    assert line.startswith("supervisor-sio worker: error: ") and "no_such_module" in line


@ANY_MODE
def test_a_new_supervisord_after_kill_9(make_cluster: ClusterFactory, clients: Clients) -> None:
    """What the killed one left in the run directory is in nobody's way."""
    cluster = make_cluster(workers=1).start()
    client = clients.connect(cluster)
    assert cluster.process is not None
    cluster.process.kill()
    cluster.process.wait()
    assert (cluster.run_dir / "supervisord.sock").exists()
    wait_until(lambda: not cluster.processes(), 20, "router and workers leave by themselves")
    cluster.start()
    client.wait_talking()
    assert clients.connect(cluster).call("echo", 1) == 1


TLS_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(range(256))


@NO_WORKER
@pytest.mark.parametrize(
    "data, answer",
    [
        (b"\x00\xff\xfe garbage \r\n\r\n", b"HTTP/1.1 400 "),
        (TLS_HELLO, b"HTTP/1.1 400 "),
        (b"hello\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", b"HTTP/1.1 414 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 505 "),
    ],
    ids=["garbage", "tls", "no-http", "long-line", "http2"],
)
def test_garbage_is_refused_and_counted(
    shared_cluster: Cluster, clients: Clients, data: bytes, answer: bytes
) -> None:
    client = clients.connect(shared_cluster, "python", ["websocket"])

    def refused() -> float:
        return float(sum(shared_cluster.status()["router"]["refused"].values()))

    before = refused()
    assert exchange(shared_cluster.port, data).startswith(answer)
    wait_until(lambda: refused() == before + 1, 5, "counted")
    assert client.call("echo", 1) == 1 and not client.disconnects


def test_headers_without_end_harm_only_their_sender(
    shared_cluster: Cluster, clients: Clients
) -> None:
    """The request line is fine, so a worker gets to see the rest."""
    made = [clients.connect(shared_cluster, "python", ["websocket"]) for _ in range(4)]
    head = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n"
    exchange(shared_cluster.port, head + b"X: " + b"a" * 1_000_000)
    exchange(shared_cluster.port, head + b"Connection: close\r\nno colon\r\n\r\n")
    exchange(shared_cluster.port, b"POST /pid HTTP/1.1\r\nContent-Length: x\r\n\r\n")
    for client in made:
        assert client.call("echo", 1) == 1 and not client.disconnects


@NO_WORKER
def test_forged_control_messages_harm_only_their_sender(
    shared_cluster: Cluster, clients: Clients
) -> None:
    client = clients.connect(shared_cluster, "python", ["websocket"])
    for name in ("router.sock", "supervisord.sock"):
        for data in (b"{", b"\xff" * 9, b"[]", b'{"type": "hello"}', b'{"type": "load"}'):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.settimeout(20)
                sock.connect(str(shared_cluster.run_dir / name))
                with contextlib.suppress(ConnectionError):  # supervisord closes at once
                    sock.send(data)
                    while sock.recv(65536):
                        pass
    assert client.call("echo", 1) == 1 and not client.disconnects
    assert clients.connect(shared_cluster).call("echo", 2) == 2


@NO_WORKER
def test_supervisord_keeps_no_connections_of_strangers(
    shared_cluster: Cluster, clients: Clients
) -> None:
    descriptors = Path(f"/proc/{shared_cluster.pid}/fd")
    before = len(list(descriptors.iterdir()))
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            sock.settimeout(20)
            sock.connect(str(shared_cluster.run_dir / "supervisord.sock"))
        assert shared_cluster.ctl("sio", "status").returncode == 0
        wait_until(lambda: len(list(descriptors.iterdir())) <= before, 10, "closed")
    lines = [line for line in shared_cluster.log("supervisord").splitlines() if "refused" in line]
    assert 1 <= len(lines) < 20


ASK_FOR_THE_PORTS = """\
import os, socket, time
path = os.environ["SUPERVISOR_SIO_RUN_DIR"] + "/supervisord.sock"
while True:
    made = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(20)]
    for sock in made:
        sock.connect(path)
        try:
            if {hello}:
                sock.send(b'{{"type": "hello", "version": 1, "role": "router"}}')
                print(sock.recv(65536).decode(), flush=True)
        except OSError:
            pass
    print("asked", flush=True)
    time.sleep({pause})
"""


@NO_WORKER
def test_a_worker_is_no_router(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """Not even while there is none, though supervisord has started it."""
    script = tmp_path / "ask.py"
    script.write_text(ASK_FOR_THE_PORTS.format(hello=True, pause=0.1))
    asks = f"command = {sys.executable} {script}\nstdout_logfile = {tmp_path}/asks.log\n"
    cluster = make_cluster(workers=1, extra=f"[program:asks]\n{asks}").start()
    assert cluster.ctl("stop", "sio").returncode == 0
    text = (tmp_path / "asks.log").read_text()
    wait_until(
        lambda: "asked" in (tmp_path / "asks.log").read_text()[len(text) :], 10, "asked again"
    )
    assert cluster.ctl("start", "sio").returncode == 0
    cluster.wait_ready()
    text = (tmp_path / "asks.log").read_text()
    assert "welcome" not in text
    assert (
        "only an event listener of this supervisord with command = supervisor-sio router gets"
        in text
    )


@NO_WORKER
def test_a_silent_event_listener_keeps_no_router_out(
    make_cluster: ClusterFactory, tmp_path: Path
) -> None:
    script = tmp_path / "ask.py"
    script.write_text(ASK_FOR_THE_PORTS.format(hello=False, pause=60))
    extra = f"[eventlistener:asks]\ncommand = {sys.executable} {script}\nevents = TICK_3600\n"
    cluster = make_cluster(workers=1, extra=extra).start()
    cluster.end_router("kill")
    cluster.wait_ready()
    # The listening socket, the router, and of the 20 that are silent as many as may wait.
    ends = Path("/proc/net/unix").read_text().count(f" {cluster.run_dir}/supervisord.sock\n")
    assert ends <= 10


@NO_WORKER
def test_a_frozen_worker_does_not_stop_the_others(
    shared_cluster: Cluster, clients: Clients
) -> None:
    frozen = psutil.Process(shared_cluster.workers()[0]["pid"])
    made = [clients.connect(shared_cluster, "python", ["websocket"]) for _ in range(8)]
    others = [client for client in made if client.whoami()["pid"] != frozen.pid]
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        for client in others:
            assert client.call("echo", 1) == 1
        assert shared_cluster.ctl("sio", "status").returncode == 0
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    for client in made:
        assert client.call("echo", 2) == 2 and not client.disconnects
