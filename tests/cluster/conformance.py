"""Two servers, the same requests: what of the answers differs, and whether it may.

Pure but for :class:`Talk`, which asks one server. An answer is a dictionary of text; a
:class:`Difference` says which of them may differ, and how.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from .wire import PATH, Answer, Closed, Refused, Request, WebSocket, sid_of

#: What of an answer is looked at, beside its status and body.
HEADERS = (
    "content-type",
    "content-encoding",
    "set-cookie",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-allow-credentials",
)

#: Seconds after which stock engineio is taken not to answer at all.
PATIENCE = 5.0

#: The fields of an answer, or of another outcome; a field that is not there is empty.
Fields = Mapping[str, str]

#: With JSONP the quotes have a backslash.
_SID = re.compile(r'(sid\\*":\\*")([^"\\]+)')


@dataclass(frozen=True)
class Difference:
    """Fields of ``stock`` may be those of ``ours`` instead: patterns of whole values.

    :ivar asked: a pattern of what has been asked, see :attr:`Outcome.asked`.
    """

    what: str
    why: str
    stock: Fields
    ours: Fields
    asked: str = ""

    def explains(self, outcome: Outcome) -> bool:
        return (
            re.search(self.asked, outcome.asked) is not None
            and _matches(self.stock, outcome.stock)
            and _matches(self.ours, outcome.ours)
        )


def _matches(patterns: Fields, values: Fields) -> bool:
    return all(
        re.fullmatch(pattern, values.get(name, ""), re.DOTALL) for name, pattern in patterns.items()
    )


@dataclass(frozen=True)
class Outcome:
    """What both have answered.

    :ivar asked: method and target, or the step's name and argument, with the server's path.
    """

    asked: str
    stock: Fields
    ours: Fields

    def different(self) -> set[str]:
        """The fields that differ."""
        names = {*self.stock, *self.ours}
        return {name for name in names if self.stock.get(name, "") != self.ours.get(name, "")}

    def unexplained(self, differences: Sequence[Difference], seen: set[str]) -> set[str]:
        """The fields that differ and may not.

        :param seen: gets ``what`` of the differences that were needed.
        """
        left = self.different()
        for difference in differences:
            covered = {*difference.stock, *difference.ours} & left
            if covered and difference.explains(self):
                left -= covered
                seen.add(difference.what)
        return left

    def __str__(self) -> str:
        lines = [self.asked]
        for name in sorted(self.different()):
            lines.append(f"  {name}: stock {self.stock.get(name, '')!r}")
            lines.append(f"  {' ' * len(name)}   ours {self.ours.get(name, '')!r}")
        return "\n".join(lines)


def table(differences: Sequence[Difference]) -> str:
    """As in docs/design.md."""
    rows = [f"| {one.what} | {one.why} |" for one in differences]
    return "\n".join(["| here, other than engineio | because |", "|---|---|", *rows])


def without_sids(text: str) -> str:
    return _SID.sub(r"\1SID", text)


def fields(answer: Answer, sid: str = "") -> dict[str, str]:
    """What two servers should answer alike; session ids are left out."""
    body = answer.body
    encoding = answer.headers.get("content-encoding", "")
    if encoding == "gzip":
        body = gzip.decompress(body)
    elif encoding == "deflate":
        body = zlib.decompress(body)
    found = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
    found["status"] = str(answer.status)
    found["body"] = body.decode()
    if answer.status == 200:
        own = _SID.search(found["body"])
        sid = sid or (own[2] if own else "")
        found["body"] = without_sids(found["body"])
    return {k: v.replace(sid, "SID") if sid else v for k, v in found.items()}


def ask(
    port: int, method: str, path: str, query: str, headers: Mapping[str, str], body: str = ""
) -> dict[str, str]:
    """A request on a connection of its own."""
    asking = {"Connection": "close", **headers}
    return fields(Request(port, method, f"{path}?{query}", body, asking).answer())


#: A step of a conversation: what is done, and with what.
Step = tuple[str, str]


@dataclass
class Talk:
    """A conversation with one server: each step has an outcome, until one ends it.

    ``open`` a session by polling, with a query; ``connect`` one by websocket; ``post`` packets;
    ``drain``: poll until all is there that was asked for; ``poll`` once; ``OPTIONS``, ``PUT`` …;
    ``websocket``: begin the upgrade; ``send`` a message by it; ``receive`` one; ``event``: have one
    acknowledged; ``end``: wait until the server closes it.
    """

    port: int
    path: str = PATH
    headers: Mapping[str, str] = field(default_factory=dict)
    sid: str = ""
    query: str = "EIO=4&transport=polling"
    _websockets: list[WebSocket] = field(default_factory=list)

    def run(self, steps: Sequence[Step]) -> Iterator[dict[str, str]]:
        try:
            for kind, argument in steps:
                try:
                    yield self._step(kind, argument)
                except TimeoutError:
                    yield {"status": "no answer"}
        finally:
            for websocket in self._websockets:
                websocket.close()

    def _step(self, kind: str, argument: str) -> dict[str, str]:
        if kind == "open":
            self.query = argument or self.query
            answer = self._ask("GET")
            own = _SID.search(answer.text)
            assert own, answer
            self.sid = own[2]
            return fields(answer, self.sid)
        if kind == "post":
            return fields(self._ask("POST", argument), self.sid)
        if kind == "drain":
            return self._drain(argument)
        if kind in ("connect", "websocket"):
            return self._connect(kind == "websocket")
        if kind == "poll":
            return fields(self._ask("GET"), self.sid)
        if kind.isupper():
            return fields(self._ask(kind, argument), self.sid)
        return self._step_of_websocket(kind, argument)

    def _ask(self, method: str, body: str = "") -> Answer:
        query = f"{self.query}&{urlencode({'sid': self.sid})}" if self.sid else self.query
        asking = {"Connection": "close", **self.headers}
        where = f"{self.path}?{query}"
        return Request(self.port, method, where, body, asking, timeout=PATIENCE).answer()

    def _drain(self, last: str) -> dict[str, str]:
        """Poll until what is asked for last has come; how it was split does not count."""
        first = fields(self._ask("POST", last), self.sid)
        if first["status"] != "200":
            return first
        wanted, packets = "44/nobody," if last.startswith("40") else "43999", list[str]()
        while not packets or not packets[-1].startswith(wanted):
            answer = self._ask("GET")
            found = fields(answer, self.sid)
            if answer.status != 200:
                break
            packets += found["body"].split("\x1e")
        found["body"] = "\n".join(packets)
        return found

    def _connect(self, upgrade: bool) -> dict[str, str]:
        try:
            websocket = WebSocket(self.port, self.path, self.sid if upgrade else "")
        except Refused as refused:
            return {"status": str(refused).split()[1]}
        self._websockets.append(websocket)
        found = {"status": "101"}
        if not upgrade:
            self.sid = websocket.sid
            found["body"] = str({**websocket.handshake, "sid": "SID"})
        return found

    def _step_of_websocket(self, kind: str, argument: str) -> dict[str, str]:
        websocket = self._websockets[-1]
        if kind == "send":
            websocket.send(argument.encode("latin-1") if argument[:1] == "\0" else argument)
            return {}
        if kind == "event":
            websocket.send('427["echo",1]')
            while (message := websocket.receive()) == "6":
                pass
            return {"message": str(message)}
        if kind == "end":
            try:
                websocket.expect_end()
            except AssertionError:
                return {"end": "not with a frame"}
            return {"end": "yes"}
        try:
            message = websocket.receive()
        except Closed as closed:
            return {"end": str(closed.code)}
        if isinstance(message, bytes):
            return {"bytes": message.hex()}
        if message.startswith("40"):
            sid_of(message)
        return {"message": without_sids(message)}
