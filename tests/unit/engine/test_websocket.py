"""A websocket without a connection: its handshake, messages, and every way to its end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common.limits import CLOSE_SECONDS, END_SECONDS, MESSAGES_AT_ONCE
from supervisor_sio.engine.deadlines import Deadlines
from supervisor_sio.engine.frames import BINARY, CLOSE, PING, PONG, TEXT, ProtocolError
from supervisor_sio.engine.saved import Saved
from supervisor_sio.engine.websocket import HandshakeError, State, WebSocket, accept, check
from unit.client_frames import masked
from unit.engine.fakes import UPGRADE, FakeLink, Payload, World


class Recorder:
    """A handler that records its calls."""

    def __init__(self) -> None:
        self.messages: list[Payload] = []
        self.counted: list[str] = []
        self.closed = 0
        self.answer: Any = True

    def on_message(self, payload: Payload) -> bool:
        self.messages.append(payload)
        if isinstance(self.answer, Exception):
            raise self.answer
        return bool(self.answer)

    def on_close(self, websocket: WebSocket) -> None:
        self.closed += 1

    def count(self, reason: str, detail: str) -> None:
        self.counted.append(reason)


class Pair:
    """A websocket and its client."""

    def __init__(self) -> None:
        self.now = 0.0
        self.deadlines = Deadlines(lambda: self.now)
        self.handler = Recorder()
        self.websocket = WebSocket(self.handler, self.deadlines, 10_000)
        self.link = self.websocket.link = FakeLink(self.websocket)

    def receive(self, *frames: bytes) -> None:
        self.link.receive(b"".join(frames))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for item in self.deadlines.expired(self.now):
            item.on_deadline(self.now)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_messages_both_ways(pair: Pair) -> None:
    pair.receive(masked(TEXT, b"one"), masked(BINARY, b"two"), masked(PING, b"?"))
    assert pair.handler.messages == ["one", b"two"]
    assert pair.link.frames == [(PONG, b"?")]
    pair.receive(masked(TEXT, b"th", final=False), masked(PONG, b""), masked(0, b"ree"))
    assert pair.handler.messages[2:] == ["three"]


def test_it_reads_no_more_until_it_may(pair: Pair) -> None:
    pair.handler.answer = False
    pair.receive(masked(TEXT, b"one"), masked(TEXT, b"two"))
    pair.websocket.proceed()  # the output is gone, say
    assert pair.handler.messages == ["one"] and not pair.link.reading
    pair.handler.answer = True
    pair.websocket.go_on()
    pair.receive(masked(TEXT, b"three"))
    assert pair.handler.messages == ["one", "two", "three"] and pair.link.reading
    pair.websocket.go_on()


def test_a_flood_of_messages_leaves_others_a_turn(pair: Pair) -> None:
    count = 2 * MESSAGES_AT_ONCE
    pair.receive(masked(TEXT, b"x") * count)
    assert len(pair.handler.messages) == MESSAGES_AT_ONCE and not pair.link.reading
    pair.link.turn()
    assert len(pair.handler.messages) == count and pair.link.reading


def test_the_client_closes(pair: Pair) -> None:
    pair.receive(masked(CLOSE, b"\x03\xe9why"), masked(TEXT, b"more"))
    assert pair.link.frames == [(CLOSE, b"\x03\xe9")] and pair.link.ended
    assert pair.handler.messages == [] and pair.handler.closed == 1
    assert pair.websocket.state is State.ENDED
    assert list(pair.deadlines.expired(100)) == []


def test_the_client_closes_without_a_code(pair: Pair) -> None:
    pair.receive(masked(CLOSE, b""))
    assert pair.link.frames == [(CLOSE, b"")]


def test_a_client_that_closes_and_takes_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair.link, "close", lambda read_on: None)
    pair.receive(masked(CLOSE, b""))
    assert pair.websocket.state is State.ANSWERED and not pair.link.ended
    pair.receive(masked(TEXT, b"not for anybody"))
    pair.websocket.end()
    pair.wait(CLOSE_SECONDS)
    assert pair.link.ended and pair.handler.closed == 1 and pair.handler.messages == []


def test_we_close_and_wait_for_the_client(pair: Pair) -> None:
    pair.websocket.close(1001)
    assert pair.link.frames == [(CLOSE, b"\x03\xe9")] and not pair.link.ended
    pair.receive(masked(TEXT, b"not for anybody"), masked(PING, b""), masked(CLOSE, b"\x03\xe9"))
    assert pair.link.ended and pair.handler.messages == [] and pair.handler.closed == 0


def test_but_not_for_long(pair: Pair) -> None:
    pair.websocket.close()
    pair.wait(CLOSE_SECONDS - 1)
    assert not pair.link.ended
    pair.wait(1)
    assert pair.link.ended


def test_a_client_whose_messages_waited_when_we_closed(pair: Pair) -> None:
    pair.handler.answer = False
    pair.receive(masked(TEXT, b"one"), masked(TEXT, b"two"), masked(CLOSE, b"\x03\xe8"))
    pair.websocket.close()
    pair.link.turn()
    assert pair.link.ended and pair.handler.messages == ["one"]


def test_a_handler_that_closes_and_wants_no_more(pair: Pair) -> None:
    def close(payload: Payload) -> bool:
        pair.websocket.close()
        return False

    pair.handler.on_message = close  # type: ignore[method-assign]
    pair.receive(masked(TEXT, b"one"), masked(CLOSE, b"\x03\xe8"))
    assert pair.link.ended


def test_end_does_not_wait_long(pair: Pair) -> None:
    pair.websocket.end()
    assert pair.link.frames == [(CLOSE, b"\x03\xe9")] and pair.handler.closed == 1
    pair.wait(END_SECONDS)
    assert pair.link.ended and pair.handler.closed == 1


def test_end_after_a_close_does_not_wait_long_either(pair: Pair) -> None:
    pair.websocket.close()
    pair.websocket.end()
    assert pair.link.frames == [(CLOSE, b"\x03\xe8")] and pair.handler.closed == 0
    pair.wait(END_SECONDS)
    assert pair.link.ended
    pair.websocket.end()
    assert pair.handler.closed == 0


def test_without_a_handler() -> None:
    deadlines = Deadlines(lambda: 0.0)
    for end in ("end", "close"):
        websocket = WebSocket(None, deadlines, 100)
        link = websocket.link = FakeLink(websocket)
        if end == "end":
            websocket.end()
        else:
            websocket.close()
        link.receive(masked(TEXT, b"x") + b"\xff\xff")
        assert link.frames[0][0] == CLOSE
        link.end()


def test_a_protocol_error(pair: Pair) -> None:
    pair.receive(b"GET / HTTP/1.1\r\n\r\n")
    assert pair.link.frames == [(CLOSE, b"\x03\xea")]
    assert pair.handler.counted == ["protocol error"] and pair.handler.closed == 1
    pair.receive(b"and much more of that" * 100)
    pair.websocket.proceed()
    assert not pair.link.ended
    pair.wait(CLOSE_SECONDS)
    assert pair.link.ended and pair.handler.closed == 1


def test_a_message_that_may_not_come(pair: Pair) -> None:
    pair.handler.answer = ProtocolError(1008, "not this one")
    pair.receive(masked(TEXT, b"x"), masked(TEXT, b"y"))
    assert pair.link.frames == [(CLOSE, b"\x03\xf0")] and pair.handler.messages == ["x"]
    assert pair.handler.counted == ["protocol error"] and pair.handler.closed == 1


def test_a_handler_that_fails(pair: Pair) -> None:
    pair.handler.answer = KeyError("a mistake of ours")
    with pytest.raises(KeyError):
        pair.receive(masked(TEXT, b"x"), masked(TEXT, b"y"))
    assert pair.link.frames == [(CLOSE, b"\x03\xf3")]
    assert pair.handler.counted == ["internal error"] and pair.handler.closed == 1


def test_a_connection_that_ends_in_the_middle_of_a_message(pair: Pair) -> None:
    def lose(payload: Payload) -> bool:
        pair.link.end()
        return True

    pair.handler.on_message = lose  # type: ignore[method-assign]
    pair.receive(masked(TEXT, b"one"), masked(TEXT, b"two"))
    assert pair.handler.closed == 1


# --- handshakes ---------------------------------------------------------------------------


def request(**changes: str) -> Any:
    method = changes.pop("method", "GET")
    fields = {name: value for name, value in {**UPGRADE, **changes}.items() if value}
    return World().request(method, "", "websocket", **fields)


def test_the_handshake_of_the_rfc() -> None:
    check(request())
    answer = accept(request())
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert answer.endswith(b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


@pytest.mark.parametrize("offered", ["chat", "chat, superchat", " chat ,x"])
def test_of_the_sub_protocols_the_first_is_chosen(offered: str) -> None:
    answer = accept(request(**{"Sec-WebSocket-Protocol": offered}))
    assert answer.endswith(b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Sec-WebSocket-Key": ""}, "Sec-WebSocket-Key"),
        ({"Sec-WebSocket-Key": "c2hvcnQ="}, "Sec-WebSocket-Key"),
        ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==!"}, "Sec-WebSocket-Key"),
        ({"Sec-WebSocket-Key": "é"}, "Sec-WebSocket-Key"),
        ({"Sec-WebSocket-Version": "8"}, "Sec-WebSocket-Version"),
        ({"Sec-WebSocket-Version": ""}, "Sec-WebSocket-Version"),
        ({"Upgrade": ""}, "Upgrade: websocket"),
        ({"Upgrade": "h2c"}, "Upgrade: websocket"),
        ({"Connection": "keep-alive"}, "Connection: Upgrade"),
        ({"method": "POST"}, "method"),
    ],
)
def test_what_is_no_handshake(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(HandshakeError, match=reason):
        check(request(**changes))


# --- to another process --------------------------------------------------------------------------

frames = st.lists(
    st.one_of(
        st.text(max_size=5).map(lambda text: masked(TEXT, text.encode())),
        st.binary(max_size=5).map(lambda data: masked(BINARY, data)),
        st.lists(st.text(max_size=3), min_size=2, max_size=4).map(
            lambda parts: b"".join(
                masked(0 if n else TEXT, part.encode(), n == len(parts) - 1)
                for n, part in enumerate(parts)
            )
        ),
        st.binary(min_size=200, max_size=300).map(lambda data: masked(BINARY, data)),
    ),
    max_size=5,
).map(b"".join)


@given(data=frames, cuts=st.lists(st.integers(0, 400)), moves=st.sets(st.integers(0, 10)))
def test_moved_between_any_two_bytes(data: bytes, cuts: list[int], moves: set[int]) -> None:
    moved, stayed = Pair(), Pair()
    start = 0
    for number, cut in enumerate([*sorted(cuts), len(data)]):
        piece, start = data[start:cut], max(start, cut)
        for pair in (moved, stayed):
            if piece:
                pair.receive(piece)
        if number in moves:
            move(moved)
    assert moved.handler.messages == stayed.handler.messages
    assert not stayed.handler.counted


def move(pair: Pair) -> None:
    state = json.loads(json.dumps(pair.websocket.state_as_dict()))
    pair.websocket = WebSocket(pair.handler, pair.deadlines, 10_000)
    pair.websocket.restore(Saved(state, "websocket"))
    pair.websocket.link = pair.link
    pair.link.websocket = pair.websocket
    pair.link.pause()
    pair.websocket.start()
    pair.link.turn()


@pytest.mark.parametrize("cut", [1, 9, 15])
def test_moved_with_what_came_behind_the_handshake(pair: Pair, cut: int) -> None:
    data = masked(TEXT, b"one") + masked(TEXT, b"two")
    pair.websocket.keep(data[:cut])
    assert not pair.handler.messages
    move(pair)
    pair.receive(data[cut:])
    assert pair.handler.messages == ["one", "two"]


def test_moved_with_messages_that_wait(pair: Pair) -> None:
    pair.handler.answer = False
    pair.receive(masked(TEXT, b"one"), masked(TEXT, b"two"))
    move(pair)
    assert pair.handler.messages == ["one"]
    pair.handler.answer = True
    pair.websocket.go_on()
    pair.link.turn()
    assert pair.handler.messages == ["one", "two"]


@pytest.mark.parametrize("cut", [1, 7, 12, 15])
def test_moved_in_the_middle_of_a_frame(pair: Pair, cut: int) -> None:
    data = masked(TEXT, "aé".encode()[:2], final=False) + masked(0, "é".encode()[1:])
    pair.receive(data[:cut])
    move(pair)
    pair.receive(data[cut:], masked(TEXT, b"more"))
    assert pair.handler.messages == ["aé", "more"]


@pytest.mark.parametrize("text", [True, False])
def test_text_that_was_changed_by_hand(pair: Pair, text: bool) -> None:
    pair.receive(masked(TEXT, b"o", final=False))
    state = pair.websocket.state_as_dict()
    state["received"]["parts"] = "/w=="
    state["received"]["text"] = text
    websocket = WebSocket(pair.handler, pair.deadlines, 10_000)
    if not text:
        websocket.restore(Saved(state, "websocket"))
        return
    with pytest.raises(ValueError, match="websocket: received.parts is not text"):
        websocket.restore(Saved(state, "websocket"))
