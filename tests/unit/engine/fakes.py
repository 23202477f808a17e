"""An engine with a clock that tests set, an owner that records calls, and fake connections."""

from __future__ import annotations

import json
from collections import deque
from typing import Any, Callable, Optional, Union

from supervisor_sio.engine.deadlines import Deadlines
from supervisor_sio.engine.engine import Engine
from supervisor_sio.engine.frames import TEXT
from supervisor_sio.engine.http import read_head
from supervisor_sio.engine.options import Options
from supervisor_sio.engine.request import Request
from supervisor_sio.engine.session import Session
from supervisor_sio.engine.websocket import WebSocket
from unit.client_frames import masked

Payload = Union[str, bytes]

#: Of a websocket's handshake.
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class FakeLink:
    """A websocket's connection that records what it sends."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.data = b""
        self.reading = True
        self.closing = False
        #: Whether the connection is gone.
        self.ended = False
        self.waiting = 0
        self.takes_output = False
        #: What the client has sent and the websocket has yet to get.
        self._unread: deque[bytes] = deque()
        self._resumed = False

    # --- the websocket's side

    def send(self, data: bytes, fan_out: bool = False) -> None:
        if not self.closing and not self.ended:
            self.data += data

    send_pong = send

    def pause(self) -> None:
        self.reading = self._resumed = False

    def resume(self) -> None:
        self._resumed = True

    def close(self, read_on: bool) -> None:
        self.closing = True
        if not read_on:
            self.end()

    def abort(self) -> None:
        self.end()

    def took_output_within(self, seconds: float) -> bool:
        return self.takes_output

    # --- the client's side

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.websocket.ended()

    def receive(self, data: bytes) -> None:
        self._unread.append(data)
        self.turn()

    def text(self, *texts: str) -> None:
        for text in texts:
            self.receive(masked(TEXT, text.encode()))

    def turn(self) -> None:
        """As a turn of the loop does."""
        if self._resumed and not self.ended:
            self._resumed = False
            self.reading = True
            self.websocket.proceed()
        while self.reading and self._unread and not self.ended:
            self.websocket.receive(self._unread.popleft())

    @property
    def frames(self) -> list[tuple[int, Payload]]:
        """The opcodes and payloads that were sent."""
        found: list[tuple[int, Payload]] = []
        data = self.data
        while data:
            opcode, length, at = data[0] & 15, data[1], 2
            if length == 126:
                length, at = int.from_bytes(data[2:4], "big"), 4
            elif length == 127:
                length, at = int.from_bytes(data[2:10], "big"), 10
            payload = data[at : at + length]
            found.append((opcode, payload.decode() if opcode == TEXT else payload))
            data = data[at + length :]
        return found

    @property
    def got(self) -> list[Payload]:
        """The messages that were sent."""
        return [payload for opcode, payload in self.frames if opcode in (1, 2)]


class FakeExchange:
    """A request that records its response."""

    def __init__(self) -> None:
        self.session: Optional[Session] = None
        self.response: Optional[bytes] = None
        self.closes = False
        self.link: Optional[FakeLink] = None
        #: Whether the client takes the answer, and whether it has closed the connection.
        self.reads, self.left = True, False

    def is_there(self) -> bool:
        return not self.left

    def answer(self, response: bytes, close: bool = False) -> None:
        assert self.response is None, "answered twice"
        assert (b"\r\nConnection: close\r\n" in response) == close
        self.response, self.closes = response, close
        if self.reads:
            self.read()

    def read(self) -> None:
        """The client reads the response."""
        if self.session is not None:
            self.session.taken(self)

    def upgrade(self, response: bytes, websocket: WebSocket) -> FakeLink:
        assert self.response is None, "answered twice"
        self.response = response
        self.link = FakeLink(websocket)
        return self.link

    @property
    def status(self) -> int:
        assert self.response is not None, "no answer"
        return int(self.response.split(b" ", 2)[1])

    @property
    def head(self) -> str:
        assert self.response is not None, "no answer"
        return self.response.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> str:
        assert self.response is not None, "no answer"
        return self.response.partition(b"\r\n\r\n")[2].decode()

    @property
    def packets(self) -> list[str]:
        assert self.status == 200, self.body
        return self.body.split("\x1e")

    @property
    def error(self) -> int:
        assert self.status == 400
        code: int = json.loads(self.body)["code"]
        return code


class FakeOwner:
    """Records the calls of the engine."""

    def __init__(self) -> None:
        self.messages: list[Payload] = []
        self.closed: list[tuple[str, str]] = []
        self.upgraded: list[str] = []
        self.behind: list[bool] = []
        self.refused: list[str] = []
        self.counted: list[str] = []
        self.tasks: deque[Callable[[], None]] = deque()
        #: Called with each message; what it returns is answered.
        self.handler: Callable[[Session, Payload], Any] = lambda session, data: True

    def on_message(self, session: Session, data: Payload) -> bool:
        self.messages.append(data)
        return self.handler(session, data) is not False

    def on_behind(self, session: Session, behind: bool) -> None:
        self.behind.append(behind)

    def on_upgrade(self, session: Session) -> None:
        self.upgraded.append(session.sid)

    def on_close(self, session: Session, reason: str) -> None:
        self.closed.append((session.sid, reason))

    def on_refusal(self, kind: str, message: str) -> None:
        self.refused.append(kind)

    def count(self, reason: str, source: str, detail: str = "") -> None:
        self.counted.append(reason)

    def soon(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)


class World:
    """One engine with everything that it needs."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.owner = FakeOwner()
        self.deadlines = Deadlines(lambda: self.now)
        self.options = Options(**options)
        self._sids = 0
        self.engine = self.make_engine()

    def make_engine(self) -> Engine:
        return Engine(
            self.options, self.owner, self.deadlines, self._new_sid, lambda: "a date of HTTP"
        )

    def _new_sid(self) -> str:
        self._sids += 1
        return f"sid{self._sids}"

    def request(
        self,
        method: str = "GET",
        sid: str = "",
        transport: str = "polling",
        query: str = "EIO=4",
        **fields: str,
    ) -> Request:
        target = f"/socket.io/?{query}"
        if transport:
            target += f"&transport={transport}"
        if sid:
            target += f"&sid={sid}"
        lines = [f"{method} {target} HTTP/1.1", "Host: example.org"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        head = read_head("".join(line + "\r\n" for line in [*lines, ""]).encode())
        return Request(head, "http", "192.0.2.1", dict)

    # --- clients

    def open(self, **more: Any) -> Session:
        """Open a session with polling."""
        request, exchange = self.request(**more), FakeExchange()
        assert self.engine.check(request) is None
        session = self.engine.open(request)
        self.engine.accept(session, request, exchange)
        assert exchange.packets[0].startswith("0{")
        return session

    def open_websocket(self, **more: Any) -> tuple[Session, FakeLink]:
        request, exchange = self.request(transport="websocket", **UPGRADE, **more), FakeExchange()
        assert self.engine.check(request) is None
        session = self.engine.open(request)
        self.engine.accept(session, request, exchange)
        assert exchange.link is not None
        return session, exchange.link

    def get(self, sid: str, **more: Any) -> FakeExchange:
        exchange = FakeExchange()
        self.engine.handle(self.request(sid=sid, **more), exchange, None)
        return exchange

    def poll(self, sid: str) -> list[str]:
        """The packets of a response that is sent at once."""
        return self.get(sid).packets

    def post(self, sid: str, *packets: str, body: Optional[bytes] = None) -> FakeExchange:
        exchange = FakeExchange()
        data = "\x1e".join(packets).encode() if body is None else body
        request = self.request("POST", sid)
        limit = self.engine.body_limit(request)
        if isinstance(limit, bytes):
            exchange.answer(limit)
        else:
            self.engine.handle(request, exchange, data)
        return exchange

    def upgrade(self, sid: str, **fields: str) -> FakeLink:
        exchange = self.get(sid, transport="websocket", **UPGRADE, **fields)
        assert exchange.status == 101, exchange.body
        assert exchange.link is not None
        return exchange.link

    # --- time

    def turn(self) -> None:
        """What was to be called soon, and what that wants to be called soon."""
        while self.owner.tasks:
            self.owner.tasks.popleft()()

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self.turn()
            due = self.deadlines.next()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            for item in self.deadlines.expired(self.now):
                item.on_deadline(self.now)
        self.now = end

    @property
    def reason(self) -> str:
        """Why the only session ended."""
        ((_, reason),) = self.owner.closed
        return reason
