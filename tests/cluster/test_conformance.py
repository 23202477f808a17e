"""A worker and stock engineio are asked the same, and answer the same, but for a list."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conformance import Difference, Outcome, Step, Talk, ask
from .conformance_differences import DIFFERENCES
from .conftest import ClusterFactory
from .harness import HERE, Cluster, environment, free_port, wait_until
from .wire import upgrade_headers

PATHS = (
    "/socket.io/",
    "/anybody.io/",
    "/friends.io/",
    "/chosen.io/",
    "/off.io/",
    "/small.io/",
)

pytestmark = pytest.mark.long

#: Requests, and conversations, that are made up in a run.
REQUESTS, CONVERSATIONS = 300, 60

#: What differed, of the list.
_seen: set[str] = set()


@pytest.fixture(scope="module")
def ours(make_module_cluster: ClusterFactory) -> Cluster:
    command = "supervisor-sio worker conformance_app:app"
    return make_module_cluster(workers=1, command=command, path=", ".join(PATHS)).start()


@pytest.fixture(scope="module")
def stock() -> Iterator[int]:
    """Its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "conformance_app.py", str(port)],
        cwd=HERE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )

    def serves() -> bool:
        assert process.poll() is None, "the stock server has ended"
        try:
            return ask(port, "GET", "/none", "", {})["status"] == "404"
        except OSError:
            return False

    try:
        wait_until(serves, 20, "the stock server")
        yield port
    finally:
        process.kill()
        process.wait()


def check(outcome: Outcome) -> None:
    left = outcome.unexplained(DIFFERENCES, _seen)
    assert not left, f"{', '.join(sorted(left))} of {outcome}"


# --- single requests -------------------------------------------------------------

_queries = st.fixed_dictionaries(
    {},
    optional={
        "EIO": st.sampled_from(["4", "4", "4", "3", "5", "", "abc"]),
        "transport": st.sampled_from(["polling", "polling", "websocket", "", "abc", "Polling"]),
        "sid": st.sampled_from(["", "none", "dead0000.none", "é"]),
        "j": st.sampled_from(["0", "7", "", "x", "-1"]),
        "t": st.sampled_from(["abc", ""]),
        "b64": st.just("1"),
    },
)
_origins = [
    "http://friend.example",
    "http://stranger.example",
    "http://other.example:8000",
    "null",
]
_headers = st.fixed_dictionaries(
    {},
    optional={
        "Origin": st.sampled_from(_origins),
        "Accept-Encoding": st.sampled_from(["gzip", "deflate, gzip", "br", "gzip;q=1.0"]),
        "Access-Control-Request-Headers": st.sampled_from(["content-type", "x-one, x-two"]),
        "Access-Control-Request-Method": st.just("POST"),
        "X-Forwarded-Host": st.sampled_from(["friend.example", "a.example, b.example"]),
        "X-Forwarded-Proto": st.sampled_from(["http", "https"]),
        "Cookie": st.just("io=old; other=1"),
    },
)
_methods = st.sampled_from(["GET"] * 6 + ["POST", "POST", "OPTIONS", "OPTIONS", "PUT", "DELETE"])


@settings(
    max_examples=REQUESTS,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(method=_methods, path=st.sampled_from(PATHS), query=_queries, headers=_headers)
def test_any_request(
    ours: Cluster,
    stock: int,
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
) -> None:
    check_request(ours.port, stock, method, path, urlencode(query), headers)


def check_request(
    ours: int, stock: int, method: str, path: str, query: str, headers: Mapping[str, str]
) -> None:
    answers = [ask(port, method, path, query, headers) for port in (stock, ours)]
    check(Outcome(f"{method} {path}?{query} {dict(headers)}", *answers))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [None, *_origins, "self"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_every_origin(
    ours: Cluster, stock: int, path: str, origin: str | None, method: str
) -> None:
    """Recorded; ``self`` is the page's own, and Host says what that is."""
    headers = {"Host": "here.example", "Access-Control-Request-Headers": "content-type"}
    if origin is not None:
        headers["Origin"] = origin.replace("self", "http://here.example")
    check_request(ours.port, stock, method, path, "EIO=4&transport=polling", headers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "query",
    [
        "",
        "EIO=4",
        "EIO=4&transport=abc",
        "EIO=4&transport=",
        "transport=polling",
        "EIO=3&transport=polling",
        "EIO=4&EIO=3&transport=polling&transport=abc",
        "EIO=4&transport=websocket",
        "EIO=4&transport=polling&sid=none",
        "EIO=4&transport=websocket&sid=none",
        "EIO=4&transport=polling&j=0",
        "EIO=4&transport=polling&j=x",
        "EIO=4&transport=%70olling",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT", "HEAD"])
def test_every_refusal(ours: Cluster, stock: int, path: str, query: str, method: str) -> None:
    check_request(ours.port, stock, method, path, query, {})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("query", ["EIO=abc&transport=websocket", "EIO=4&transport=polling&sid=x"])
@pytest.mark.parametrize("origin", ["http://stranger.example", None])
def test_every_websocket_that_is_refused(
    ours: Cluster, stock: int, path: str, query: str, origin: str | None
) -> None:
    headers = upgrade_headers()
    if origin is not None:
        headers["Origin"] = origin
    check_request(ours.port, stock, "GET", path, query, headers)


# --- conversations ---------------------------------------------------------------

#: Asked for last: the answer shows that all before it has come.
_LAST = ("drain", '42999["echo"]')
_LAST_WITHOUT_CONNECT = ("drain", "40/nobody,")
_JOINED = [("open", ""), ("post", "40"), _LAST]

_PLACEHOLDER = '{"_placeholder":true,"num":0}'
_packets = st.sampled_from(
    [
        '42["echo","one"]',
        '421["echo","two",{"three":[null]}]',
        '422["echo","€"]',
        '42["nobody"]',
        '423["nobody"]',
        '424["long",300]',
        f'451-5["echo",{_PLACEHOLDER}]\x1ebAQIDBA==',
        "40/nobody,",
        "5",
        "abc",
        "",
    ]
)


@settings(
    max_examples=CONVERSATIONS,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    path=st.sampled_from(PATHS),
    headers=_headers.filter(lambda headers: "stranger" not in headers.get("Origin", "")),
    posts=st.lists(st.lists(_packets, min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_any_conversation(
    ours: Cluster, stock: int, path: str, headers: Mapping[str, str], posts: list[list[str]]
) -> None:
    headers = {k: v for k, v in headers.items() if k != "Origin"}
    steps = list(_JOINED)
    for packets in posts:
        steps += [("post", "\x1e".join(packets)), _LAST]
    check_talk(ours.port, stock, path, steps, headers)


def check_talk(
    ours: int, stock: int, path: str, steps: list[Step], headers: Mapping[str, str] | None = None
) -> None:
    talks = [Talk(port, path, headers or {}).run(steps) for port in (stock, ours)]
    said: list[str] = []
    for step, left, right in zip(steps, *talks):
        said.append(" ".join(step))
        outcome = Outcome(f"{path} {' | '.join(said)}", left, right)
        check(outcome)
        if left.get("status") != right.get("status"):
            return  # it is on the list, but what follows is not alike any more


_UPGRADED = [
    *(*_JOINED, ("websocket", ""), ("send", "2probe"), ("receive", ""), ("poll", "")),
    ("send", "5"),
]
_BY_WEBSOCKET = [("connect", ""), ("send", "40"), ("receive", "")]

CONVERSATIONS_RECORDED: dict[str, list[Step]] = {
    "polling": [*_JOINED, ("post", '421["echo",1]'), ("poll", ""), _LAST],
    "no connect": [("open", ""), ("post", '421["echo",1]'), _LAST_WITHOUT_CONNECT],
    "refused": [("open", ""), ("post", '40{"may":false}'), ("poll", "")],
    "disconnect": [*_JOINED, ("post", "41"), ("post", "40"), _LAST],
    "close": [*_JOINED, ("post", "1"), ("poll", "")],
    "close and more": [*_JOINED, ("post", "1\x1e6"), ("post", "6")],
    "no packet": [*_JOINED, ("post", "abc"), ("poll", "")],
    "an upgrade that is posted": [*_JOINED, ("post", "5"), _LAST],
    "no text": [*_JOINED, ("post", "b!!!"), _LAST],
    "unknown type": [*_JOINED, ("post", "9"), ("poll", "")],
    "too long": [*_JOINED, ("post", f'42["echo","{"x" * 1_000_100}"]')],
    "wrong method": [*_JOINED, ("PUT", "4"), _LAST],
    "preflight": [*_JOINED, ("OPTIONS", ""), _LAST],
    "jsonp": [("open", "EIO=4&transport=polling&j=3"), ("post", "d=40"), ("poll", "")],
    "upgrade": [*_UPGRADED, ("event", "")],
    "poll after upgrade": [*_UPGRADED, ("event", ""), ("poll", "")],
    "post after upgrade": [*_UPGRADED, ("event", ""), ("post", "40")],
    "second websocket": [*_UPGRADED, ("event", ""), ("websocket", "")],
    "no probe": [*_JOINED, ("websocket", ""), ("send", "42[]"), ("end", ""), _LAST],
    "websocket": [*_BY_WEBSOCKET, ("send", '42["echo"]'), ("send", '421["echo"]'), ("receive", "")],
    "websocket closes": [*_BY_WEBSOCKET, ("send", "1"), ("end", "")],
    "websocket, no packet": [*_BY_WEBSOCKET, ("send", "abc"), ("end", "")],
    "websocket, unknown namespace": [*_BY_WEBSOCKET, ("send", "40/nobody,"), ("receive", "")],
    "websocket, refused": [("connect", ""), ("send", '40{"may":false}'), ("receive", "")],
    "websocket, bytes": [
        *(*_BY_WEBSOCKET, ("send", f'451-5["echo",{_PLACEHOLDER}]'), ("send", "\0\1\2")),
        *(("receive", ""), ("receive", "")),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS_RECORDED)
@pytest.mark.parametrize("path", ["/socket.io/", "/anybody.io/", "/friends.io/"])
def test_every_conversation(ours: Cluster, stock: int, path: str, name: str) -> None:
    check_talk(ours.port, stock, path, CONVERSATIONS_RECORDED[name])


# --- the list --------------------------------------------------------------------


def test_the_whole_list_is_needed(request: pytest.FixtureRequest) -> None:
    """Behind all others, in one process."""
    if request.config.option.keyword:
        pytest.skip("not all others ran")
    assert [one.what for one in DIFFERENCES if one.what not in _seen] == []


def test_what_is_not_on_the_list_is_told() -> None:
    outcome = Outcome("GET", {"status": "400", "body": "a"}, {"status": "401", "body": "b"})
    listed = Difference("one", "", {"status": "4.."}, {"status": "401"}, "GET")
    seen: set[str] = set()
    assert outcome.unexplained([listed], seen) == {"body"} and seen == {"one"}
    assert outcome.unexplained([], seen) == {"status", "body"}
