"""Applications in threads, as they are written for ``async_mode="threading"``."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import socketio

from supervisor_sio import ZmqManager

from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .modes import THREADING
from .pyclient import InOrder
from .wire import TEXT, WebSocket, frame

pytestmark = THREADING

THREADS = 4
DRAIN = 2
COMMAND = f"supervisor-sio worker --threads {THREADS}"
SIZE = 100_000_000


class Client:
    """A client with a session of cookies, and a list of what it has got."""

    def __init__(self, cluster: Cluster, user: str | None = None, **options: Any) -> None:
        self.cluster = cluster
        self.http = requests.Session()
        if user is not None:
            self.http.post(f"{cluster.url}/login", data={"user": user}).raise_for_status()
        self.sio = InOrder(http_session=self.http, reconnection=False)
        self.got: list[tuple[str, Any]] = []
        self.sio.on("*", lambda event, *args: self.got.append((event, args[0] if args else None)))
        self.sio.on("question", lambda question: [question, "answered"])
        self.sio.connect(cluster.url, wait_timeout=20, **options)

    def call(self, event: str, *args: Any, timeout: float = 20) -> Any:
        return self.sio.call(event, args or None, timeout=timeout)

    def wait_for(self, event: str, count: int = 1) -> list[Any]:
        """The values of the first events of this name."""
        wait_until(lambda: self.count(event) >= count, 20, f"{count} {event}")
        return [value for name, value in list(self.got) if name == event]

    def count(self, event: str) -> int:
        return sum(name == event for name, _ in list(self.got))

    def close(self) -> None:
        self.sio.shutdown()


Connect = Callable[..., Client]


def start(make: ClusterFactory, app: str, **options: Any) -> Cluster:
    return make(command=f"{COMMAND} {app}:app", mode="threading", **options).start()


@pytest.fixture(scope="module")
def flask_cluster(make_module_cluster: ClusterFactory) -> Cluster:
    return start(make_module_cluster, "threads_flask_app")


@pytest.fixture(scope="module")
def django_cluster(make_module_cluster: ClusterFactory) -> Cluster:
    return start(make_module_cluster, "threads_django_app")


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[Client] = []

    def new(*args: Any, **options: Any) -> Client:
        made.append(Client(*args, **options))
        return made[-1]

    yield new
    for client in made:
        client.close()


# --- what an application finds ------------------------------------------------------------


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], None])
def test_the_users_of_a_session(
    flask_cluster: Cluster, connect: Connect, transports: list[str] | None
) -> None:
    one = connect(flask_cluster, "ann", transports=transports)
    two = connect(flask_cluster, transports=transports)
    for client, user in ((one, "ann"), (two, "nobody")):
        assert client.wait_for("hello") == [{"user": user, "sid": client.sio.get_sid()}]
        me = client.call("whoami")
        assert (me["user"], me["sid"]) == (user, client.sio.get_sid())
        assert me["address"] == "127.0.0.1"
        assert me["thread"]
    assert one.http.get(f"{flask_cluster.url}/whoami").text == "ann"


def test_what_is_kept_for_a_client_is_its_own(flask_cluster: Cluster, connect: Connect) -> None:
    one, two = connect(flask_cluster), connect(flask_cluster)
    one.call("remember", "colour", "red")
    two.call("remember", "colour", "blue")
    assert (one.call("recall", "colour"), two.call("recall", "colour")) == ("red", "blue")


def test_context_variables_do_not_reach_the_next_handler(
    flask_cluster: Cluster, connect: Connect
) -> None:
    client = connect(flask_cluster)
    assert [client.call("tag", str(number)) for number in range(3 * THREADS)] == [""] * (
        3 * THREADS
    )


def test_a_client_that_is_refused(flask_cluster: Cluster) -> None:
    told: list[Any] = []
    client = socketio.Client(reconnection=False)
    client.on("connect_error", told.append)
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(flask_cluster.url, auth={"refused": True}, wait_timeout=20)
    client.shutdown()
    assert told == [{"message": "not you"}]


def test_rooms_and_emits_reach_all_workers(flask_cluster: Cluster, connect: Connect) -> None:
    clients = [connect(flask_cluster) for _ in range(6)]
    assert len({client.call("whoami")["pid"] for client in clients}) == 2
    for client in clients[:5]:
        assert "yellow" in client.call("join", "yellow")
    assert "yellow" not in clients[4].call("leave", "yellow")
    clients[5].sio.emit("say", ("yellow", "hello"))
    for client in clients[:4]:
        assert client.wait_for("said") == ["hello"]
    requests.get(f"{flask_cluster.url}/announce")
    for client in clients:
        assert client.wait_for("announced") == [{"by": "nobody"}]
    assert [client.count("said") for client in clients] == [1, 1, 1, 1, 0, 0]


def test_a_client_that_leaves_is_told_of_once(flask_cluster: Cluster, connect: Connect) -> None:
    stays, leaves, is_sent_away = (connect(flask_cluster, user) for user in ("a", "b", "c"))
    leaves.sio.disconnect()
    is_sent_away.sio.emit("goodbye")
    left = {one["user"]: one["reason"] for one in stays.wait_for("left", 2)}
    # The client closes its websocket at once, sometimes before it has said so.
    assert left.pop("b") in ("client disconnect", "transport close")
    assert left == {"c": "server disconnect"}
    assert stays.count("left") == 2


def test_a_handler_that_fails_is_logged_once(flask_cluster: Cluster, connect: Connect) -> None:
    client = connect(flask_cluster)
    client.sio.emit("fails")
    assert client.call("echo", 1) == 1

    def told() -> int:
        return sum(log.count("ValueError: a handler that fails") for log in logs(flask_cluster))

    wait_until(told, 10, "the traceback")
    assert told() == 1


def logs(cluster: Cluster) -> list[str]:
    return [text for name, text in cluster.logs().items() if name.startswith("workers")]


# --- threads and emits ------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["background", "thread"])
@pytest.mark.parametrize("transports", [["polling"], ["websocket"]])
def test_what_one_thread_emits_arrives_in_its_order(
    flask_cluster: Cluster, connect: Connect, event: str, transports: list[str]
) -> None:
    client = connect(flask_cluster, transports=transports)
    client.sio.emit(event, 2500)  # more than may wait for the loop at a time
    assert client.wait_for("counted", 2500) == list(range(2500))


def test_a_handler_waits_for_its_client(flask_cluster: Cluster, connect: Connect) -> None:
    client = connect(flask_cluster)
    assert client.call("ask", "why") == ["why", "answered"]


def test_handlers_that_wait_for_their_clients_have_all_threads(
    flask_cluster: Cluster, connect: Connect
) -> None:
    """The answers must not wait for one."""
    client = connect(flask_cluster)
    answers: list[Any] = []
    for number in range(5 * THREADS):
        client.sio.emit("ask", number, callback=lambda *args: answers.append(args[0]))
    wait_until(lambda: len(answers) == 5 * THREADS, 20, "all answers")
    assert sorted(question for question, _ in answers) == list(range(5 * THREADS))


@pytest.fixture
def backend() -> Iterator[str]:
    """Another server, which answers when as many ask as there are threads."""
    all_ask = threading.Barrier(THREADS)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            all_ask.wait(10)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"an answer")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_handlers_wait_for_other_servers_beside_each_other(
    flask_cluster: Cluster, connect: Connect, backend: str
) -> None:
    client = connect(flask_cluster)
    answers: list[Any] = []
    for _ in range(THREADS):
        client.sio.emit("fetch", backend, callback=lambda *args: answers.append(args[0]))
    wait_until(lambda: len(answers) == THREADS, 20, "all answers")
    assert answers == ["an answer"] * THREADS


# --- requests ------------------------------------------------------------------------------------


def pieces(size: int) -> Iterator[bytes]:
    block = bytes(range(256)) * 1024
    for start in range(0, size, len(block)):
        yield block[: size - start]


# Django reads no more of a body than its length says.
@pytest.mark.parametrize("app, chunked", [("flask", False), ("flask", True), ("django", False)])
def test_a_long_upload(request: pytest.FixtureRequest, app: str, chunked: bool) -> None:
    cluster: Cluster = request.getfixturevalue(f"{app}_cluster")
    digest = hashlib.sha256()
    for piece in pieces(SIZE):
        digest.update(piece)
    processes = [psutil.Process(row["pid"]) for row in cluster.workers()]
    before = [process.memory_info().rss for process in processes]
    peaks = list(before)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            for number, process in enumerate(processes):
                peaks[number] = max(peaks[number], process.memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=60)
        headers = {} if chunked else {"Content-Length": str(SIZE)}
        connection.request("POST", "/upload", pieces(SIZE), headers, encode_chunked=chunked)
        answer = json.loads(connection.getresponse().read())
        connection.close()
    finally:
        ended.set()
        watcher.join()
    assert (answer["sha256"], answer["size"]) == (digest.hexdigest(), SIZE)
    grown = [peak - was for peak, was in zip(peaks, before)]
    assert max(grown) < 8_000_000, grown


def test_a_body_in_chunks_that_breaks_off_is_not_a_whole_one(flask_cluster: Cluster) -> None:
    with socket.create_connection(("127.0.0.1", flask_cluster.port), 20) as sock:
        sock.sendall(
            b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        sock.shutdown(socket.SHUT_WR)
        assert b"200 OK" not in b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_long_download(flask_cluster: Cluster) -> None:
    size = 0
    with requests.get(f"{flask_cluster.url}/download/50000000", stream=True) as answer:
        for piece in answer.iter_content(65536):
            size += len(piece)
    assert size == 50_000_000


def test_a_file(flask_cluster: Cluster) -> None:
    text = requests.get(f"{flask_cluster.url}/file").text
    assert text.startswith('"""A Flask-SocketIO application')


def test_events_of_a_stream_come_at_once_and_end_with_the_client(flask_cluster: Cluster) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", flask_cluster.port, timeout=20)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert [answer.readline(), answer.readline()] == [b"data: 0\n", b"\n"]
    assert answer.readline() == b"data: 1\n"
    connection.close()
    answer.close()

    def closed() -> int:
        # One of the two workers.
        return max(int(requests.get(f"{flask_cluster.url}/closed").text) for _ in range(4))

    wait_until(closed, 20, "the end of the generator")


def test_requests_are_kept_apart_on_one_connection(flask_cluster: Cluster) -> None:
    with socket.create_connection(("127.0.0.1", flask_cluster.port), 20) as sock:
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        got = b""
        while got.count(b"HTTP/1.1 200 OK\r\n") < 20 or not got[-1:].isdigit():
            got += sock.recv(65536)
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 20


def test_a_view_that_fails(flask_cluster: Cluster) -> None:
    assert requests.get(f"{flask_cluster.url}/broken").status_code == 500

    def told() -> int:
        return sum(log.count("ValueError: a view that fails\n") for log in logs(flask_cluster))

    wait_until(told, 10, "the traceback")
    assert told() == 1


def test_a_django_project(django_cluster: Cluster, connect: Connect) -> None:
    one, two = connect(django_cluster, "ann"), connect(django_cluster)
    assert (one.call("who")["user"], two.call("who")["user"]) == ("ann", "nobody")
    assert one.call("who")["thread"]
    assert one.http.get(f"{django_cluster.url}/whoami").json() == {
        "user": "ann",
        "address": "127.0.0.1",
    }
    one.http.get(f"{django_cluster.url}/announce")
    for client in (one, two):
        assert client.wait_for("announced") == [{"by": "ann"}]
    answer = requests.get(f"{django_cluster.url}/stream")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.text == "".join(f"{number}\n" for number in range(1000))


# --- threads that are blocked ----------------------------------------------------------------


@pytest.fixture
def one_worker(make_cluster: ClusterFactory) -> Cluster:
    return start(make_cluster, "threads_flask_app", workers=1, drain_timeout=str(DRAIN))


def test_one_free_thread_serves_all(one_worker: Cluster, connect: Connect, tmp_path: Path) -> None:
    blocked, others = connect(one_worker), [connect(one_worker) for _ in range(3)]
    block(blocked, THREADS - 1, tmp_path)
    for number in range(20):
        for client in others:
            assert client.call("echo", number) == number
    assert requests.get(f"{one_worker.url}/pid", timeout=20).ok
    assert blocked.call("echo", "also") == "also"


def test_all_threads_are_blocked(
    make_cluster: ClusterFactory, connect: Connect, tmp_path: Path
) -> None:
    """Pings, emits from outside, and sessions go on; new events wait, and then run in order."""
    command = f"env PING_INTERVAL=1 {COMMAND} threads_flask_app:app"
    cluster = make_cluster(command=command, mode="threading", workers=1).start()
    blocked, other = connect(cluster), connect(cluster)
    with WebSocket(cluster.port) as pinged:
        released = block(blocked, THREADS, tmp_path)
        answers: list[Any] = []
        for number in range(300):  # more than may wait of one client
            other.sio.emit("echo", number, callback=lambda value: answers.append(value))
        request = socket.create_connection(("127.0.0.1", cluster.port), 20)
        request.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")  # waits for a thread, too
        manager = ZmqManager(f"zmq+ipc://{cluster.run_dir}", write_only=True)
        for number in range(50):
            manager.emit("outside", number)
        for client in (blocked, other):
            assert client.wait_for("outside", 50) == list(range(50))
        manager.close()
        for _ in range(3):
            assert pinged.receive() == "2"
            pinged.send("3")
        assert not answers
        wait_until(lambda: [row["sessions"] for row in cluster.workers()] == [3], 5, "figures")
        assert all(client.sio.connected for client in (blocked, other))
        line = f"all {THREADS} threads of the application have been busy for "
        wait_until(lambda: line in logs(cluster)[0], 20, "a line in the log")
        released.touch()
        wait_until(lambda: len(answers) == 300, 30, "the answers")
        assert sorted(answers) == list(range(300))
        assert request.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        request.close()


def block(client: Client, threads: int, directory: Path) -> Path:
    """Block so many threads of a worker until there is the file that is returned."""
    released = directory / "go"
    for _ in range(threads):
        client.sio.emit("block", str(released))
    begun = f"{released.name}.begun-*"
    wait_until(lambda: len(list(directory.glob(begun))) == threads, 10, "blocked threads")
    return released


def test_what_waits_of_one_client_is_bounded(
    one_worker: Cluster, connect: Connect, tmp_path: Path
) -> None:
    client = connect(one_worker)
    with WebSocket(one_worker.port) as flood:
        flood.join()
        assert "hello" in str(flood.receive())
        released = block(client, THREADS, tmp_path)
        process = psutil.Process(one_worker.workers()[0]["pid"])
        before = process.memory_info().rss
        event = frame(TEXT, b'42["echo","%b"]' % (b"x" * 1000))
        flood.sock.settimeout(2)
        sent = 0
        with pytest.raises(socket.timeout):
            while sent < 100_000_000:
                flood.sock.sendall(event)
                sent += len(event)
        assert process.memory_info().rss - before < 10_000_000
        # Somebody else's events are behind a few of them only.
        other: list[Any] = []
        client.sio.emit("echo", 1, callback=lambda value: other.append(value))
        released.touch()
        wait_until(lambda: other, 10, "the answer")


@pytest.mark.parametrize("stuck", [1, THREADS])
def test_the_drain_lasts_no_longer_than_its_timeout(
    one_worker: Cluster, connect: Connect, tmp_path: Path, stuck: int
) -> None:
    blocked = connect(one_worker)
    block(blocked, stuck, tmp_path)
    process = psutil.Process(one_worker.workers()[0]["pid"])
    began = time.monotonic()
    process.terminate()
    process.wait(30)
    assert DRAIN - 0.5 < time.monotonic() - began


def test_the_drain_waits_for_handlers_and_requests(
    make_cluster: ClusterFactory, connect: Connect, tmp_path: Path
) -> None:
    cluster = start(make_cluster, "threads_flask_app", workers=1, drain_timeout="20")
    client = connect(cluster)
    client.sio.emit("write_later", (str(tmp_path / "written"), 2))
    process = psutil.Process(cluster.workers()[0]["pid"])
    with ThreadPoolExecutor(1) as pool:
        slow = f"{cluster.url}/slow?seconds=2&begun={tmp_path}/slow.begun"
        answer = pool.submit(requests.get, slow, timeout=30)
        for name in ("written.begun", "slow.begun"):
            wait_until((tmp_path / name).exists, 10, name)
        process.terminate()
        assert answer.result().text == "slow\n"
    process.wait(30)
    assert (tmp_path / "written").exists()


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_of_the_application_does_not_keep_the_process(
    one_worker: Cluster, connect: Connect, daemon: bool
) -> None:
    client = connect(one_worker)
    assert client.call("forever", daemon) is True
    process = psutil.Process(one_worker.workers()[0]["pid"])
    process.terminate()
    process.wait(30)


def test_hundreds_of_clients_on_a_few_threads(one_worker: Cluster, connect: Connect) -> None:
    client = connect(one_worker)
    websockets = [WebSocket(one_worker.port) for _ in range(300)]
    try:
        for websocket in websockets:
            websocket.join()
            assert "hello" in str(websocket.receive())
        for websocket in websockets:
            websocket.send('428["echo","there"]')
        for websocket in websockets:
            websocket.expect('438["there"]')
        client.call("join", "nobody else")
        requests.get(f"{one_worker.url}/announce")
        for websocket in websockets:
            websocket.expect('42["announced",{"by":"nobody"}]')
    finally:
        for websocket in websockets:
            websocket.close()
    names = {thread.id for thread in psutil.Process(one_worker.workers()[0]["pid"]).threads()}
    assert len(names) < THREADS + 10


def test_clients_that_send_no_body_keep_no_thread(one_worker: Cluster, connect: Connect) -> None:
    client = connect(one_worker)
    slow = [socket.create_connection(("127.0.0.1", one_worker.port), 20) for _ in range(20)]
    try:
        for sock in slow:
            sock.sendall(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nuser=")
        wait_until(lambda: one_worker.workers()[0]["connections"] > 20, 20, "all of them")
        for number in range(20):
            assert client.call("echo", number) == number
        assert requests.get(f"{one_worker.url}/pid", timeout=15).ok
    finally:
        for sock in slow:
            sock.close()


def test_clients_that_take_no_answer_keep_no_thread_that_others_need(
    one_worker: Cluster, connect: Connect
) -> None:
    client = connect(one_worker)
    slow = [socket.create_connection(("127.0.0.1", one_worker.port), 20) for _ in range(20)]
    try:
        for sock in slow:
            sock.sendall(b"GET /download/50000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1)
        began = time.monotonic()
        assert client.call("echo", "there", timeout=60) == "there"
        # Each has a thread for SLOW_CLIENT_SECONDS.
        assert time.monotonic() - began < 20 / THREADS * 2 + 20
    finally:
        for sock in slow:
            sock.close()
