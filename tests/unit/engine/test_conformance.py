"""The engine and a stock ``engineio.Server`` get the same requests, and have to answer the same.

:data:`DIFFERENCES` lists the exceptions, with their reasons.
"""

from __future__ import annotations

import gzip
import io
import json
import queue
import re
import zlib
from typing import Any, Callable, NamedTuple, Optional
from urllib.parse import urlencode

import engineio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor_sio.engine.session import Session
from unit.engine.fakes import FakeExchange, Payload, World
from unit.examples import examples

HOST = "example.org"


class Asked(NamedTuple):
    """A request."""

    method: str = "GET"
    query: dict[str, str] = {}
    fields: dict[str, str] = {}
    body: str = ""
    #: Which of the sessions it is for; ``-1`` for one that is not known.
    session: Optional[int] = None


class Answer(NamedTuple):
    """The parts of a response that are compared."""

    status: int
    kind: str
    body: str
    #: Those that make an answer visible to a page, the cookie and the encoding.
    fields: dict[str, str]


COMPARED = ("access-control-", "set-cookie", "content-encoding")


def answer_of(status: int, fields: list[tuple[str, str]], body: bytes) -> Answer:
    found = {name.lower(): value for name, value in fields}
    encoding = found.get("content-encoding")
    if encoding is not None:
        body = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
    compared = {name: value for name, value in found.items() if name.startswith(COMPARED)}
    return Answer(status, found.get("content-type", ""), body.decode(), compared)


class Queue(queue.Queue):  # type: ignore[type-arg]
    """A queue that does not block: engineio would wait for ever when it ends a session."""

    def join(self) -> None:
        pass


class Stock:
    """engineio's own server, with an application that echoes everything."""

    def __init__(self, **options: Any) -> None:
        self.eio = engineio.Server(async_mode="threading", monitor_clients=False, **options)
        self.eio.logger.setLevel("CRITICAL")
        self.eio.async_handlers = False
        self.eio.start_background_task = lambda *args: None  # which would wait for a ping
        self.eio.create_queue = lambda *args: Queue()
        self.eio.on("message", self.eio.send)
        self.ended: list[str] = []
        self.eio.on("disconnect", lambda sid, reason: self.ended.append(sid))
        self.sids: list[str] = []

    def waiting(self, sid: str) -> int:
        return self.eio.sockets[sid].queue.qsize() if sid in self.eio.sockets else -1

    def ask(self, asked: Asked) -> Answer:
        body = asked.body.encode()
        environ = {
            "REQUEST_METHOD": asked.method,
            "PATH_INFO": "/socket.io/",
            "QUERY_STRING": query_of(asked, self.sids),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_HOST": HOST,
        }
        for name, value in asked.fields.items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        started: list[Any] = []
        data = b"".join(self.eio.handle_request(environ, lambda *args: started.extend(args)))
        status, fields = started
        return answer_of(int(status.split()[0]), fields, data)


class Ours:
    """The engine, with an echoing owner."""

    def __init__(self, **options: Any) -> None:
        self.world = World(**options)
        self.world.owner.handler = self._echo
        self.sids: list[str] = []

    def _echo(self, session: Session, data: Payload) -> None:
        session.send("4" + data if isinstance(data, str) else data)

    def ask(self, asked: Asked) -> Answer:
        world, exchange = self.world, FakeExchange()
        query = query_of(asked, self.sids)
        request = world.request(asked.method, "", "", query, **asked.fields)
        request.environ = lambda: {"HTTP_HOST": HOST}
        limit = world.engine.body_limit(request) if asked.method == "POST" else 0
        if isinstance(limit, bytes):
            exchange.answer(limit)
        elif request.sid:
            body = asked.body.encode() if asked.method == "POST" else None
            world.engine.handle(request, exchange, body)
        elif (answer := world.engine.check(request)) is not None:
            exchange.answer(answer)
        else:
            world.engine.accept(world.engine.open(request), request, exchange)
        world.turn()
        assert exchange.response is not None
        head, _, body = exchange.response.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")[1:]
        found = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        return answer_of(exchange.status, found, body)


def query_of(asked: Asked, sids: list[str]) -> str:
    query = dict(asked.query)
    if asked.session is not None:
        query["sid"] = sids[asked.session] if asked.session >= 0 else "unknown"
    return urlencode(query)


# --- the differences --------------------------------------------------------------------------


#: Bodies that are not packets, or not only.
NO_PACKETS = ("x", "4a\x1e", "7")


def refused(asked: Asked, stock: Answer) -> Answer:
    return Answer(400, "application/json", "", {})


class Difference(NamedTuple):
    """A case that the engine answers differently. ``docs/design.md`` has the same rows."""

    what: str
    why: str
    #: Whether it concerns a request that stock engineio answers like this.
    concerns: Callable[[Asked, Answer], bool]
    #: The engine's answer then.
    ours: Callable[[Asked, Answer], Answer]


#: The first one that concerns a request counts.
DIFFERENCES = [
    Difference(
        "a request that names no transport",
        "the protocol's test suite",
        lambda asked, stock: "transport" not in asked.query,
        refused,
    ),
    Difference(
        "a method that is not known",
        "the protocol's test suite",
        lambda asked, stock: stock.status == 405,
        refused,
    ),
    Difference(
        "a POST with `transport=websocket`",
        "as Node's servers",
        lambda asked, stock: asked.method == "POST" and asked.query["transport"] == "websocket",
        refused,
    ),
    Difference(
        "something in a POST is not a packet",
        "the protocol's test suite",
        lambda asked, stock: asked.method == "POST" and asked.body in NO_PACKETS,
        refused,
    ),
    Difference(
        "errors",
        "as Node's servers; a page of another origin can read why",
        lambda asked, stock: stock.status == 400,
        refused,
    ),
    Difference(
        "a POST that is accepted",
        "the protocol's test suite",
        lambda asked, stock: asked.method == "POST",
        lambda asked, stock: stock._replace(kind="text/html", body="ok"),
    ),
    Difference(
        "the answer to OPTIONS",
        "as Node's servers: a browser tells a page why a request is refused only if its preflight "
        "was accepted",
        lambda asked, stock: asked.method == "OPTIONS",
        lambda asked, stock: stock._replace(kind="text/plain; charset=UTF-8"),
    ),
    Difference(
        "the answer to JSONP",
        "as Node's servers; browsers may refuse to run plain text",
        lambda asked, stock: "j" in asked.query,
        lambda asked, stock: stock._replace(
            kind="text/javascript; charset=UTF-8", body=script(stock.body)
        ),
    ),
]


def script(body: str) -> str:
    """A JSONP script; engineio does not escape a backslash or a line end, so that it is invalid."""
    match = re.fullmatch(r'___eio\[(\d+)\]\("(.*)"\);', body, re.DOTALL)
    assert match is not None
    return f"___eio[{match[1]}]({json.dumps(match[2].replace(chr(92) + chr(34), chr(34)))});"


def expected(asked: Asked, stock: Answer) -> Answer:
    for difference in DIFFERENCES:
        if difference.concerns(asked, stock):
            return difference.ours(asked, stock)
    return stock


# --- the same requests to both --------------------------------------------------------------------


class Both:
    def __init__(self, **options: Any) -> None:
        self.stock = Stock(**options)
        eio = self.stock.eio
        options["transports"] = eio.transports
        options["ping_interval"] = eio.ping_interval
        self.ours = Ours(**options, ping_interval_grace_period=eio.ping_interval_grace_period)

    def ask(self, asked: Asked) -> bool:
        """Whether both servers have answered the request alike."""
        if self._would_wait(asked):
            return True
        before, ours = set(self.stock.eio.sockets), self.ours.ask(asked)
        asked = self._as_stock(asked)
        stock = self.stock.ask(asked)
        wanted = expected(asked, stock)
        if wanted.status == 400:
            assert (ours.status, ours.kind) == (400, "application/json"), (asked, stock, ours)
            assert set(json.loads(ours.body)) == {"code", "message"}
            if stock.status == 200 or asked.query.get("transport") != "polling":
                return False  # the stock server has looked at the body, which may end a session
            self._compare_ends()
            return True
        opened = set(self.stock.eio.sockets) - before
        if opened:
            wanted, ours = self._compare_handshake(opened.pop(), wanted, ours)
        assert ours == wanted, asked
        # A poll that crosses the client's own close: see Session.
        return asked.body != "1"

    def _would_wait(self, asked: Asked) -> bool:
        """Whether it is a poll of a session without pending packets."""
        if asked.method != "GET" or asked.session is None or asked.session < 0:
            return False
        return self.stock.waiting(self.stock.sids[asked.session]) == 0

    def _as_stock(self, asked: Asked) -> Asked:
        """engineio refuses the OPTIONS of a request that it would refuse; the engine answers it as
        any other.
        """
        if asked.method != "OPTIONS":
            return asked
        query = {"EIO": "4", "transport": self.stock.eio.transports[0]}
        return asked._replace(query=query, session=None)

    def _compare_handshake(self, sid: str, wanted: Answer, ours: Answer) -> Any:
        (our_sid,) = set(self.ours.world.engine.sessions) - set(self.ours.sids)
        self.stock.sids.append(sid)
        self.ours.sids.append(our_sid)
        hide = {sid: "SID", our_sid: "SID"}
        answers = []
        for answer, own in ((wanted, sid), (ours, our_sid)):
            fields = {name: value.replace(own, hide[own]) for name, value in answer.fields.items()}
            body = answer.body.replace(own, hide[own])
            answers.append(answer._replace(fields=fields, body=told(body)))
        return answers

    def _compare_ends(self) -> None:
        ours = {sid for sid, _ in self.ours.world.owner.closed}
        theirs = set(self.stock.ended)
        pairs = zip(self.stock.sids, self.ours.sids)
        assert [sid in theirs for sid, _ in pairs] == [sid in ours for sid in self.ours.sids]


def told(body: str) -> str:
    """The data of an open packet, in any order."""
    match = re.search(r"0\{.*\}", body.replace('\\"', '"'))
    assert match is not None
    return json.dumps(json.loads(match[0][1:]), sort_keys=True)


transports = st.sampled_from(["polling"] * 6 + ["websocket", "flash", ""])
origins = st.sampled_from(
    [
        None,
        None,
        "http://example.org",
        "https://example.org",
        "http://a.example",
        "http://b.example",
    ]
)
packets = st.sampled_from(["4hello", "4ä", "4", "b" + "AQID", 'b"', "41", "3", "4a" * 40])
bodies = st.one_of(
    st.lists(packets, max_size=8).map("\x1e".join),
    st.sampled_from(["1", *NO_PACKETS, "d=4a", "d=4a%1e4%C3%A4&x=y"]),
)


@st.composite
def requests(draw: Any) -> Asked:
    query = {}
    if draw(st.integers(0, 9)):
        query["EIO"] = draw(st.sampled_from(["4"] * 8 + ["3", "x"]))
    transport = draw(transports)
    if transport:
        query["transport"] = transport
    jsonp = draw(st.sampled_from([None] * 5 + ["0", "7", "x"]))
    if jsonp is not None:
        query["j"] = jsonp
    fields = {}
    for name, values in (
        ("Origin", origins),
        ("X-Forwarded-Proto", st.sampled_from([None, None, "https", "https, http"])),
        ("X-Forwarded-Host", st.sampled_from([None, None, "a.example", "a.example, x"])),
        ("Accept-Encoding", st.sampled_from([None, "gzip", "deflate, gzip", "br", "br, gzip;q=1"])),
        ("Access-Control-Request-Headers", st.sampled_from([None, None, "x-a, x-b"])),
    ):
        value = draw(values)
        if value is not None:
            fields[name] = value
    method = draw(st.sampled_from(["GET"] * 4 + ["POST"] * 4 + ["OPTIONS", "PUT", "DELETE"]))
    session = draw(st.sampled_from([None, None, 0, 0, 0, 0, 1, -1]))
    return Asked(method, query, fields, draw(bodies) if method == "POST" else "", session)


options = st.fixed_dictionaries(
    {
        "cors_allowed_origins": st.sampled_from(
            [
                None,
                "*",
                [],
                ["*"],
                "http://a.example",
                ["http://a.example", "http://c.example"],
                lambda origin: origin == "http://b.example",
                lambda origin, environ: environ["HTTP_HOST"] == HOST,
            ]
        ),
        "cors_credentials": st.booleans(),
        "cookie": st.sampled_from(
            [None, "io", {"name": "sid", "HttpOnly": True}, {"path": lambda: "/x", "Secure": True}]
        ),
        "http_compression": st.booleans(),
        "compression_threshold": st.sampled_from([1024, 10]),
        "allow_upgrades": st.booleans(),
        "transports": st.sampled_from([None, ["polling", "websocket"]]),
        "ping_interval": st.sampled_from([25, (25, 5), 3]),
        "ping_timeout": st.sampled_from([20, 0.5]),
        "max_http_buffer_size": st.sampled_from([1_000_000, 50]),
    }
)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(options=options, asked=st.lists(requests(), max_size=10))
def test_the_same_requests_get_the_same_answers(options: Any, asked: list[Asked]) -> None:
    both = Both(**options)
    for one in asked:
        if one.session is not None and one.session >= len(both.stock.sids):
            one = one._replace(session=None)
        if len(one.body) > options["max_http_buffer_size"]:
            one = one._replace(body="")  # see refuse_body()
        if not both.ask(one):
            return
