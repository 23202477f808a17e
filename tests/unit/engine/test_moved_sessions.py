"""Random client actions: no message is lost, doubled or reordered, whether sessions move or not."""

from __future__ import annotations

import json
from typing import Any, Optional

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor_sio.engine.frames import TEXT
from supervisor_sio.engine.payload import encode
from supervisor_sio.engine.session import Session, State
from supervisor_sio.engine.websocket import WebSocket
from unit.client_frames import masked
from unit.engine.fakes import FakeExchange, FakeLink, Payload, World
from unit.examples import examples

PINGS = {"ping_interval": 60, "ping_timeout": 40}


class Client:
    """A client and its server. Each step does nothing where it is not possible."""

    def __init__(self, websocket: bool) -> None:
        self.world = world = World(**PINGS, max_http_buffer_size=500_000)
        self.busy = False
        world.owner.handler = lambda session, data: not self.busy
        self.link: Optional[FakeLink] = None
        self.session: Session
        if websocket:
            self.session, self.link = world.open_websocket()
        else:
            self.session = world.open()
        self.poll: Optional[FakeExchange] = None
        self.post: Optional[FakeExchange] = None
        #: What was sent either way, and what the client has got.
        self.sent: list[Payload] = []
        self.posted: list[Payload] = []
        self.got: list[Payload] = []
        self.answers: list[tuple[str, int]] = []
        #: How many messages of the link are in there.
        self._seen = len(self.link.got) if self.link is not None else 0
        self._count = 0
        #: Parts of a frame that are on their way.
        self._frame = b""

    def step(self, name: str) -> None:
        getattr(self, name)()
        if self.link is not None:
            self.link.turn()
        self.collect()

    def collect(self) -> None:
        for name in ("poll", "post"):
            exchange = getattr(self, name)
            if exchange is not None and exchange.response is not None:
                self.answers.append((name, exchange.status))
                setattr(self, name, None)
                if name == "poll" and exchange.status == 200:
                    self._take(exchange.packets)
        if self.link is not None:
            got = self.link.got
            self._take(got[self._seen :])
            self._seen = len(got)

    def _take(self, packets: list[Any]) -> None:
        """Collect what the client receives; whether a close frame is among it depends on timing."""
        for packet in packets:
            if packet == "2":
                if self.link is not None and self.session.live is self.link:
                    if self._frame:
                        self.say_in_parts()
                    self.link.text("3")
                elif not self.session.closed:
                    self.world.post(self.session.sid, "3")
            elif packet not in ("6", "3probe", "1"):
                self.got.append(packet)

    def _next(self) -> str:
        self._count += 1
        return f"{self._count}"

    # --- the server

    def send(self) -> None:
        data = self._next()
        packet: Payload = data.encode() if self._count % 3 == 0 else "4" + data
        self.session.send(packet)
        if not self.session.closed:
            self.sent.append(packet)

    def send_much(self) -> None:
        packet = "4" + self._next() * 300_000
        self.session.send(packet)
        if not self.session.closed:
            self.sent.append(packet)

    def turn(self) -> None:
        self.world.turn()

    def wait_a_little(self) -> None:
        self.world.wait(0.15)

    def wait_longer(self) -> None:
        self.world.wait(6)

    def wait_for_ping(self) -> None:
        self.world.wait(60)

    def become_busy(self) -> None:
        self.busy = True

    def become_ready(self) -> None:
        if self.busy:
            self.busy = False
            self.session.proceed()

    def close(self) -> None:
        self.session.close()

    def refuse(self) -> None:
        self.session.refuse()

    # --- the client

    def get(self) -> None:
        if self.poll is None and self.session.live is None:
            self.poll = self.world.get(self.session.sid)

    def get_twice(self) -> None:
        if self.poll is not None:
            self.answers.append(("second", self.world.get(self.session.sid).status))

    def cancel(self) -> None:
        if self.poll is not None:
            self.world.engine.gone(self.poll)
            self.poll = None

    def send_post(self, count: int = 3) -> None:
        if self.post is None and self.session.live is None and not self.session.closed:
            data = [self._next() for _ in range(count)]
            self.posted += data
            self.post = self.world.post(self.session.sid, *("4" + one for one in data))

    def send_long_post(self) -> None:
        self.send_post(70)

    def send_bad_post(self) -> None:
        if self.post is None and self.session.live is None and not self.session.closed:
            data = [self._next() for _ in range(40)]
            self.posted += data
            self.post = self.world.post(self.session.sid, *("4" + one for one in data), "bQ")

    def say_goodbye(self) -> None:
        if self._can_say():
            self.link.text("1")
        elif self.session.live is None and not self.session.closed:
            self.answers.append(("close", self.world.post(self.session.sid, "1").status))

    def send_form(self) -> None:
        if self.post is None and self.session.live is None and not self.session.closed:
            self.post = self.world.post(self.session.sid, body=b"d=" + b"%34" * 30_000)
            self.posted.append("4" * 29_999)

    def open_websocket(self) -> None:
        if self.link is None and self.session.state is State.POLLING:
            self.link = self.world.upgrade(self.session.sid)
            self._seen = 0

    def probe(self) -> None:
        if self.link is not None and self.session.state is State.PROBING:
            self.link.text("2probe")

    def upgrade(self) -> None:
        if self.link is not None and self.session.state is State.UPGRADING:
            self.link.text("5")

    def say_nonsense(self) -> None:
        if self.link is not None and self.session.live is None:
            self.link.text("nonsense")

    def lose_websocket(self) -> None:
        if self.link is not None and self.session.live is None:
            self.link.end()
            self.link = None

    def say(self) -> None:
        if self._can_say():
            data = self._next()
            self.posted.append(data)
            self.link.text("4" + data)

    def say_much(self) -> None:
        if self._can_say():
            data = [self._next() for _ in range(70)]
            self.posted += data
            self.link.receive(b"".join(masked(TEXT, b"4" + one.encode()) for one in data))

    def say_in_parts(self) -> None:
        """Send half of a fragment, then the rest."""
        if not self._can_say(False):
            return
        if self._frame:
            self.link.receive(self._frame)
            self._frame = b""
            return
        data = self._next()
        self.posted.append("ä" + data)
        text = f"4ä{data}".encode()
        whole = masked(TEXT, text[:2], final=False) + masked(0, text[2:])
        self.link.receive(whole[:11])
        self._frame = whole[11:]

    def _can_say(self, whole: bool = True) -> Any:
        return self.session.live is not None and not (whole and self._frame)

    # --- another process

    def move(self) -> None:
        """Move the session; tasks that still wait in the old engine must have no effect."""
        world = self.world
        if self._is_there():
            state = json.loads(json.dumps(world.engine.take_out(self.session.sid)))
            assert not world.engine.sessions
            world.engine = world.make_engine()
            self.session = world.engine.restore(state, self.connect, self.poll, self.post)
            self.session.start()
            if self.link is not None:
                self.link.websocket.start()

    def stay(self) -> None:
        """A turn without a move, with the deadlines restarted as after one."""
        if self._is_there():
            self.session.renew()

    def _is_there(self) -> bool:
        engine, sid = self.world.engine, self.session.sid
        if self.session.closed:
            engine.forget(sid)
        return sid in engine.sessions

    def connect(self, websocket: WebSocket) -> FakeLink:
        assert self.link is not None
        self.link.websocket = websocket
        self.link.pause()
        return self.link

    def seen(self) -> Any:
        owner = self.world.owner
        return (
            self.session.state,
            self.session.waiting > 0,
            owner.messages,
            owner.closed,
            owner.upgraded,
            owner.counted,
            self.answers,
            self.got,
            self.link and (self.link.frames, self.link.ended, self.link.closing),
            self.poll is None,
            self.post is None,
        )


ORDINARY = [
    *("send", "send", "turn", "wait_a_little", "wait_longer", "become_busy", "become_ready"),
    *("get", "get", "send_post", "send_post", "send_long_post", "send_form", "wait_for_ping"),
    *("open_websocket", "open_websocket", "probe", "probe", "upgrade", "upgrade"),
    *("say_nonsense", "lose_websocket", "say", "say_much", "say_in_parts"),
]
ANY = [
    *ORDINARY,
    *("send_much", "send_much", "send_bad_post", "refuse"),
    *("close", "cancel", "get_twice", "say_goodbye"),
]


@settings(max_examples=examples(200), deadline=None)
@given(steps=st.lists(st.sampled_from(ORDINARY), max_size=60), websocket=st.booleans())
def test_nothing_is_lost_or_doubled_or_out_of_order(steps: list[str], websocket: bool) -> None:
    client = Client(websocket)
    for name in steps:
        client.step(name)
        if client.session.closed:
            return  # it took too long to answer a ping
    if client._frame:
        client.step("say_in_parts")
    for _ in range(5):
        for name in ("become_ready", "turn", "get", "turn", "wait_a_little"):
            client.step(name)
    assert client.world.owner.messages == client.posted
    assert list(map(as_text, client.got)) == list(map(as_text, client.sent))
    assert client.post is None and not client.world.owner.closed


def as_text(packet: Payload) -> str:
    """A packet as it appears in the response to a poll."""
    return encode([packet])


@settings(max_examples=examples(200), deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(ANY), st.booleans()), max_size=40),
    websocket=st.booleans(),
)
def test_a_session_that_is_moved_goes_on_the_same(
    steps: list[tuple[str, bool]], websocket: bool
) -> None:
    moved, stayed = Client(websocket), Client(websocket)
    for number, (name, move) in enumerate(steps):
        for client in (moved, stayed):
            client.step(name)
        if move:
            moved.step("move")
            stayed.step("stay")
            for client in (moved, stayed):
                client.step("turn")
        assert moved.seen() == stayed.seen(), f"step {number}, {name}"
        assert len(moved.world.owner.closed) == moved.session.closed
