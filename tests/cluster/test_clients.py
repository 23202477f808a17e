"""What clients of every kind notice: socket.io-client 3.1, 4.0 and 4.8, with JSON and with msgpack,
python-socketio, and Chromium; on each transport."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import socketio

from .browser import Browser, Page, find_browser
from .conftest import ClusterFactory
from .harness import Cluster, wait_until
from .jsclient import RELEASES, Node, NodeClient, find_node, install
from .raw import exchange
from .test_sticky import proxy as proxy  # a fixture
from .wire import Request

pytestmark = pytest.mark.long

VERSIONS = ["3.1", "4.0", "4.8"]
TRANSPORTS = [["polling"], ["websocket"], None]
PACKED = {"path": "/packed.io/", "parser": "socket.io-msgpack-parser"}
CHUNKS = 4


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory) -> Cluster:
    command = "supervisor-sio worker clients_app:app"
    return make_module_cluster(
        workers=1,
        command=command,
        path="/socket.io/, /packed.io/",
        head_timeout="1",
        hold_timeout="1",
    ).start()


Releases = Callable[[str], Node]


@pytest.fixture(scope="module")
def start_node() -> Iterator[Releases]:
    """Starts a process with a release of socket.io-client."""
    bin_dir = find_node()
    if bin_dir is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no node")
        raise AssertionError
    install(bin_dir, RELEASES)
    started: list[Node] = []

    def start(version: str) -> Node:
        started.append(Node(bin_dir, f"client-{version}", RELEASES))
        return started[-1]

    yield start
    for node in started:
        node.close()


@pytest.fixture(scope="module", params=VERSIONS)
def node(request: pytest.FixtureRequest, start_node: Releases) -> Node:
    return start_node(request.param)


@pytest.fixture(scope="module")
def page(cluster: Cluster) -> Iterator[Page]:
    """One of Chromium."""
    program = find_browser()
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no chromium")
        raise AssertionError
    browser = Browser(program)
    yield browser.open("about:blank")
    browser.close()


def name_of(node: Node, *parts: Any) -> str:
    return "-".join(map(str, (id(node), *parts)))


def told(cluster: Cluster, what: str, sid: str) -> Any:
    """``reasons``, ``auths`` or ``polling`` of the application."""
    return json.loads(Request(cluster.port, "GET", "/told").answer().body)[what].get(sid)


def reason_of(cluster: Cluster, sid: str) -> Any:
    """Why a client has gone; it may know before its handler is called."""
    return wait_until(lambda: told(cluster, "reasons", sid), 5, "its end")


# --- msgpack ---------------------------------------------------------------------


@pytest.mark.parametrize("transports", TRANSPORTS, ids=str)
def test_msgpack_of_javascript(cluster: Cluster, node: Node, transports: list[str] | None) -> None:
    """No ``auth`` is None, undefined is null, and a DISCONNECT ends it for good."""
    client = NodeClient(node, name_of(node, "packed", transports), **PACKED)
    client.connect(cluster.url, transports)
    sid = client.sid()
    assert told(cluster, "auths", sid) == "None"
    assert client.call("echo", {"a": [1, "ü", None]}, b"\x00\xff") == [
        {"a": [1, "ü", None]},
        b"\x00\xff",
    ]
    client.emit("leave")
    client.wait_disconnected()
    assert client.disconnects == ["io server disconnect"]
    assert reason_of(cluster, sid) == "server disconnect"
    assert node.runs and client.connects == 1


@pytest.mark.parametrize("transports", TRANSPORTS, ids=str)
def test_msgpack_of_python(cluster: Cluster, transports: list[str] | None) -> None:
    client = socketio.SimpleClient(serializer="msgpack", reconnection=False)
    with client:
        client.connect(cluster.url, socketio_path="packed.io", transports=transports)
        assert told(cluster, "auths", client.sid) == "None"
        assert client.call("echo", b"\x00\xff") == b"\x00\xff"
        client.emit("leave")
        wait_until(lambda: not client.connected, 5, "its end")


def test_msgpack_of_asyncio(cluster: Cluster) -> None:
    pytest.importorskip("aiohttp", reason="python-socketio's asyncio client is built on it")

    async def talk() -> Any:
        async with socketio.AsyncSimpleClient(serializer="msgpack", reconnection=False) as client:
            await client.connect(cluster.url, socketio_path="packed.io")
            answer = await client.call("echo", b"\x00\xff")
            await client.emit("leave")
            while client.connected:
                await asyncio.sleep(0.01)
            return answer

    assert asyncio.run(asyncio.wait_for(talk(), 30)) == b"\x00\xff"


# --- order -----------------------------------------------------------------------


@pytest.mark.parametrize("transports", TRANSPORTS, ids=str)
@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
def test_an_upload_is_complete_when_its_end_is_handled(
    cluster: Cluster, node: Node, transports: list[str] | None, packed: bool
) -> None:
    options = PACKED if packed else {}
    client = NodeClient(node, name_of(node, "upload", transports, packed), **options)
    client.connect(cluster.url, transports)
    for _ in range(10):
        for _ in range(CHUNKS):
            client.emit("chunk", bytes(1000))
        assert client.call("done") == CHUNKS * 1000
    client.close()


UPLOAD = """
new Promise((resolve, reject) => {
  const socket = io({ transports: %s, forceNew: true, reconnection: false });
  socket.on("connect_error", reject);
  const counts = [];
  const upload = () => {
    for (let i = 0; i < %d; i++) socket.emit("chunk", new Blob([new Uint8Array(1000)]));
    socket.emit("done", (count) => {
      counts.push(count);
      if (counts.length < 5) return upload();
      socket.disconnect();
      resolve(counts);
    });
  };
  socket.on("connect", upload);
})
"""


@pytest.mark.parametrize("transports", ['["polling"]', '["websocket"]', "undefined"])
@pytest.mark.parametrize("way", ["direct", "nginx", "haproxy"])
def test_an_upload_of_blobs_by_chromium(
    cluster: Cluster, page: Page, proxy: Callable[..., int], transports: str, way: str
) -> None:
    port = cluster.port if way == "direct" else proxy(way, cluster.port)
    page.go(f"http://127.0.0.1:{port}/")
    wait_until(lambda: page.evaluate("typeof io") == "function", 20, "the client is there")
    assert page.evaluate(UPLOAD % (transports, CHUNKS)) == [CHUNKS * 1000] * 5


# --- who is gone, and who is not understood --------------------------------------


@pytest.mark.parametrize(
    "way, version", [*(("direct", one) for one in VERSIONS), ("nginx", "4.8"), ("haproxy", "4.8")]
)
def test_a_polling_client_that_is_killed_is_noticed_soon(
    cluster: Cluster, start_node: Releases, proxy: Callable[..., int], version: str, way: str
) -> None:
    """And not by a ping that it does not answer, after 45 seconds."""
    port = cluster.port if way == "direct" else proxy(way, cluster.port)
    node = start_node(version)
    client = NodeClient(node, name_of(node, "killed"))
    client.connect(f"http://127.0.0.1:{port}", ["polling"])
    sid = client.sid()
    wait_until(lambda: told(cluster, "polling", sid), 5, "its poll")
    node.kill()
    assert reason_of(cluster, sid) == "transport close"


@pytest.mark.parametrize("transports", TRANSPORTS, ids=str)
def test_a_client_that_sends_what_is_not_a_packet_comes_again(
    cluster: Cluster, node: Node, transports: list[str] | None
) -> None:
    client = NodeClient(node, name_of(node, "malformed", transports))
    client.connect(cluster.url, transports)
    sid = client.sid()
    client.write("abc")
    client.wait(lambda: client.connects == 2, "another connection")
    assert reason_of(cluster, sid) == "transport error"
    assert client.call("echo", 1) == 1
    client.close()


# --- refusals that a page of another origin can read -----------------------------

FETCH = """
fetch(%s, { headers: %s }).then(
  async (answer) => [answer.status, await answer.text()], (error) => [0, `${error}`])
"""
#: Fields of socket.io-client's ``extraHeaders``; a browser sends a preflight before such a request.
HEADERS: list[dict[str, str]] = [{}, {"Authorization": "one"}]


def other_origin(cluster: Cluster, page: Page) -> None:
    """Have a page of another origin than 127.0.0.1."""
    page.go(f"http://localhost:{cluster.port}/")
    wait_until(lambda: page.evaluate("typeof io") == "function", 20, "the page is there")


def fetch(cluster: Cluster, page: Page, target: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status and text that the page gets."""
    status, text = page.evaluate(FETCH % (json.dumps(cluster.url + target), json.dumps(headers)))
    return status, text


@pytest.mark.parametrize(
    "target, status, text",
    [
        ("/socket.io/?EIO=3&transport=polling", 400, "Unsupported protocol version"),
        ("/socket.io/?EIO=4&transport=abc", 400, "Transport unknown"),
        ("/socket.io/?EIO=4&transport=polling&sid=none", 400, "Session ID unknown"),
        (f"/socket.io/?EIO=4&transport=polling&x={'x' * 9000}", 414, "414 "),
    ],
)
@pytest.mark.parametrize("headers", HEADERS, ids=["simple", "preflight"])
def test_chromium_shows_why_a_request_was_refused(
    cluster: Cluster, page: Page, headers: dict[str, str], target: str, status: int, text: str
) -> None:
    other_origin(cluster, page)
    got = fetch(cluster, page, target, headers)
    assert got[0] == status and text in got[1]


def test_chromium_shows_that_no_worker_is_there(cluster: Cluster, page: Page) -> None:
    target = "/socket.io/?EIO=4&transport=polling"
    other_origin(cluster, page)
    for headers in HEADERS:
        assert fetch(cluster, page, target, headers)[0] == 200
    cluster.ctl("stop", "workers:*")
    try:
        for headers in HEADERS:
            assert fetch(cluster, page, target, headers)[0] == 503
    finally:
        cluster.ctl("start", "workers:*")
        cluster.wait_ready()


@pytest.mark.parametrize(
    "head, status",
    [
        # Of the router, and of the worker.
        ("GET /socket.io/ HTTP/5.0\r\nOrigin: http://page.example\r\n\r\n", 400),
        ("GET /socket.io/?\xff HTTP/1.1\r\nOrigin: http://page.example\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nOrigin: http://page.example\r\nNo field\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://page.example\r\nCookie: it has no en", 408),
    ],
)
def test_a_refusal_names_the_origin_that_may_read_it(
    cluster: Cluster, head: str, status: int
) -> None:
    answer = exchange(cluster.port, head.encode("latin-1"))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"\r\nAccess-Control-Allow-Origin: http://page.example\r\n" in answer
