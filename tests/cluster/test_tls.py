"""TLS at the shared port: same promises, other scheme."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import socketio
import websocket

from .conftest import ClusterFactory
from .descriptors import limit_descriptors
from .harness import Cluster, wait_until
from .jsclient import JS, find_node
from .modes import NO_HANDLER, NO_WORKER
from .raw import exchange
from .takeover_ledger import Ledger

pytestmark = NO_HANDLER


def make_certificate(directory: Path) -> tuple[Path, Path]:
    cert, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", cert],
        check=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def tls_cluster(make_cluster: ClusterFactory, files: tuple[Path, Path]) -> Cluster:
    """For a test that changes it."""
    return make_cluster(tls_certfile=str(files[0]), tls_keyfile=str(files[1])).start()


@pytest.fixture(scope="module")
def shared(make_module_cluster: ClusterFactory, files: tuple[Path, Path]) -> Cluster:
    return make_module_cluster(tls_certfile=str(files[0]), tls_keyfile=str(files[1])).start()


def request(cluster: Cluster, cert: Path, path: str) -> tuple[bytes, Any]:
    """The body, and the certificate that the server showed."""
    context = ssl.create_default_context(cafile=str(cert))
    connection = http.client.HTTPSConnection("127.0.0.1", cluster.port, timeout=20, context=context)
    connection.request("GET", path)
    body = connection.getresponse().read()
    shown = connection.sock.getpeercert()
    connection.close()
    return body, shown


def connect(cluster: Cluster, cert: Path, transports: list[str] | None) -> socketio.Client:
    import requests

    session = requests.Session()
    session.verify = str(cert)
    session.trust_env = False
    client = socketio.Client(
        http_session=session, websocket_extra_options={"sslopt": {"ca_certs": str(cert)}}
    )
    client.connect(f"https://127.0.0.1:{cluster.port}", transports=transports, wait_timeout=25)
    return client


def test_python_client(shared: Cluster, files: tuple[Path, Path]) -> None:
    # By polling: two threads of its websocket client use one SSL object, and about
    # one time in thirty that ends the connection when they meet.
    client = connect(shared, files[0], ["polling"])
    for payload in ("x", b"\0\xff" * 1000, "y" * 300_000):
        assert client.call("echo", payload) == payload
    client.disconnect()


NODE = """
const io = require("socket.io-client");
const socket = io(process.argv[1], {transports: JSON.parse(process.argv[2]), reconnection: false});
const end = setTimeout(() => process.exit(2), 60000);
socket.on("connect_error", (error) => { console.error(error); process.exit(3); });
const payloads = ["x", Buffer.alloc(2000, 255), "y".repeat(300000)];
socket.on("connect", async () => {
    for (const payload of payloads) {
        const answer = await socket.emitWithAck("echo", payload);
        console.log(answer.length, answer.toString() === payload.toString());
    }
    console.log(socket.io.engine.transport.name);
    socket.disconnect();
    clearTimeout(end);
});
"""


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], ["polling", "websocket"]])
def test_node_client(
    shared: Cluster, files: tuple[Path, Path], node: object, transports: list[str]
) -> None:
    bin_dir = find_node()
    assert bin_dir is not None
    done = subprocess.run(
        [bin_dir / "node", "-e", NODE, f"https://127.0.0.1:{shared.port}",
         json.dumps(transports)],
        cwd=JS,
        env={"NODE_EXTRA_CA_CERTS": str(files[0]), "PATH": str(bin_dir)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )  # fmt: skip
    echoed = "1 true\n2000 true\n300000 true\n"
    assert done.stdout == f"{echoed}{transports[-1]}\n"


def test_what_the_worker_sees(shared: Cluster, files: tuple[Path, Path]) -> None:
    environ = json.loads(request(shared, files[0], "/environ")[0])
    assert environ["wsgi.url_scheme"] == "https" and environ["HTTPS"] == "on"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["SERVER_PORT"] == str(shared.port)


@NO_WORKER
def test_more_clients_than_descriptors(
    make_cluster: ClusterFactory, files: tuple[Path, Path]
) -> None:
    """Each costs the router two, for as long as it is there."""
    cluster = make_cluster(
        tls_certfile=str(files[0]), tls_keyfile=str(files[1]), max_pending="32"
    ).start()
    pid = cluster.router_pid
    limit_descriptors(pid, 200)
    context = ssl.create_default_context(cafile=str(files[0]))
    clients = [socket.create_connection(("127.0.0.1", cluster.port), 20) for _ in range(150)]
    inside = []
    for number, sock in enumerate(clients):
        if "wait in the kernel" in cluster.log("router"):
            break
        try:
            inside.append(context.wrap_socket(sock, server_hostname="localhost"))
        except TimeoutError:  # the line is yet on its way
            break
        inside[-1].sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
        assert inside[-1].recv(100).startswith(b"HTTP/1.1 200"), number
    wait_until(lambda: "wait in the kernel" in cluster.log("router"), 10, "the router's line")
    assert 20 < len(inside) < 70
    for sock in [*inside, *clients]:
        sock.close()
    wait_until(lambda: request(cluster, files[0], "/pid")[0], 20, "a new client")
    assert cluster.router_pid == pid


@NO_WORKER
def test_who_waits_is_answered_when_the_router_stops(
    tls_cluster: Cluster, files: tuple[Path, Path]
) -> None:
    assert tls_cluster.ctl("stop", "workers:*").returncode == 0
    context = ssl.create_default_context(cafile=str(files[0]))
    with socket.create_connection(("127.0.0.1", tls_cluster.port), timeout=20) as sock:
        with context.wrap_socket(sock, server_hostname="localhost") as client:
            client.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: tls_cluster.status()["router"]["waiting"] == 1, 10, "it waits")
            assert tls_cluster.ctl("stop", "sio").returncode == 0
            assert client.recv(1000).startswith(b"HTTP/1.1 503 ")


@NO_WORKER
def test_old_versions_and_other_protocols_are_refused(
    tls_cluster: Cluster, files: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(cafile=str(files[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", tls_cluster.port), timeout=20) as sock:
        with pytest.raises(OSError):
            context.wrap_socket(sock, server_hostname="localhost")
    assert exchange(tls_cluster.port, b"GET /pid HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")

    def refused() -> dict[str, int]:
        reasons: dict[str, int] = tls_cluster.status()["router"]["refused"]
        return reasons

    wait_until(lambda: refused() == {"plain-on-tls": 1, "tls-handshake": 1}, 5, "counted")
    assert request(tls_cluster, files[0], "/pid")[0]


@NO_WORKER
def test_reload_tls_touches_no_connection(
    tls_cluster: Cluster, files: tuple[Path, Path], tmp_path: Path
) -> None:
    old, _ = files
    before = request(tls_cluster, old, "/pid")[1]
    client = connect(tls_cluster, old, ["websocket"])
    disconnects: list[object] = []
    client.on("disconnect", disconnects.append)

    (tmp_path / "new").mkdir()
    new = make_certificate(tmp_path / "new")
    trusted = tmp_path / "trusted.pem"
    shutil.copy(new[0], trusted)
    for source, target in zip(new, files):
        shutil.copy(source, target)
    done = tls_cluster.ctl("sio", "reload-tls")
    assert (done.returncode, done.stdout) == (0, "certificate: reloaded\n")
    after = request(tls_cluster, trusted, "/pid")[1]
    assert after["serialNumber"] != before["serialNumber"]

    files[0].write_text("no certificate")
    done = tls_cluster.ctl("sio", "reload-tls")
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1
    assert "the certificate was not changed" in done.stdout and str(files[0]) in done.stdout
    assert request(tls_cluster, trusted, "/pid")[1] == after

    assert client.call("echo", 1) == 1 and not disconnects
    client.disconnect()


@NO_WORKER
@pytest.mark.parametrize("broken", ["missing", "garbage", "foreign-key"])
def test_a_bad_certificate_stops_supervisord(
    make_cluster: ClusterFactory, files: tuple[Path, Path], tmp_path: Path, broken: str
) -> None:
    cert, key = files
    if broken == "missing":
        cert.unlink()
    elif broken == "garbage":
        cert.write_text("no certificate")
    else:
        (tmp_path / "other").mkdir()
        shutil.copy(make_certificate(tmp_path / "other")[1], key)
    cluster = make_cluster(tls_certfile=str(cert), tls_keyfile=str(key))
    code, output = cluster.run_to_its_end()
    lines = [line for line in output.splitlines() if "[rpcinterface:sio] tls_certfile: " in line]
    assert code == 2 and len(lines) == 1 and str(cert) in lines[0]
    assert "Traceback" not in output


def test_a_websocket_is_taken_over(make_cluster: ClusterFactory, tmp_path: Path) -> None:
    """The router keeps its end, and moves the inner one."""
    cert, key = make_certificate(tmp_path)  # another test has spoiled that of all
    cluster = make_cluster(
        workers=1,
        command=Ledger(tmp_path / "happened").command(),
        tls_certfile=str(cert),
        tls_keyfile=str(key),
    ).start()
    own = websocket.create_connection(
        f"wss://127.0.0.1:{cluster.port}/socket.io/?EIO=4&transport=websocket",
        sslopt={"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": str(cert)},
        timeout=20,
    )
    own.send("40")

    def receive() -> str:
        while (packet := own.recv()) == "2":
            own.send("3")
        return str(packet)

    def call(event: str, *args: Any) -> Any:
        own.send("421" + json.dumps([event, *args]))
        packet = receive()
        assert packet.startswith("431["), packet
        return json.loads(packet[3:])[0]

    assert receive().startswith("0{") and receive().startswith("40{")
    before = call("whoami")["pid"]
    text = "x" * 300_000
    own.send("422" + json.dumps(["echo", text]))
    assert cluster.ctl("sio", "reload").returncode == 0
    assert json.loads(receive()[3:]) == [text]
    assert call("whoami")["pid"] != before
    assert call("about")["environ"]["wsgi.url_scheme"] == "https"
    own.close()
