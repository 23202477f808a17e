"""The websocket's half of a connection against a socket pair, in the hub of this process."""

from __future__ import annotations

import logging
import socket
import time
import warnings
from typing import Any, Iterator

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
    from eventlet import hubs, patcher

from supervisor_sio.common.limits import (
    MESSAGES_AT_ONCE,
    OUTPUT_CEILING,
    OUTPUT_OBJECT,
    READING_STOPS,
    SLOW_OUTPUT,
)
from supervisor_sio.common.reasons import PROTOCOL, TOO_SLOW
from supervisor_sio.engine.frames import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    Payload,
    close_frame,
    frame,
    message_frame,
)
from supervisor_sio.engine.websocket import WebSocket
from supervisor_sio.worker import output
from supervisor_sio.worker.connection import Connection, State
from supervisor_sio.worker.eventlet.runtime import HubRuntime
from supervisor_sio.worker.refused import refusals
from supervisor_sio.worker.server import Server
from unit.client_frames import masked
from unit.worker.turns import let_run


class Recorder:
    def __init__(self) -> None:
        self.messages: list[Payload] = []
        self.closed = 0
        self.says = True
        self.connection: Connection

    def on_message(self, payload: Payload) -> bool:
        self.messages.append(payload)
        return self.says

    def on_close(self, websocket: WebSocket) -> None:
        self.closed += 1

    def count(self, reason: str, detail: str) -> None:
        self.connection.count(reason, detail)


class Pair:
    """A websocket and the other end of its connection."""

    def __init__(self, early: bytes = b"") -> None:
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.setblocking(False)
        runtime = HubRuntime.of_this_process()
        self.server = Server(None, runtime, lambda _: True, lambda *_: None, lambda: None)
        self.handler = Recorder()
        self.link = self.handler.connection = Connection(
            self.server, ours, ("192.0.2.1", 5), ("192.0.2.2", 80), prefix=early
        )
        self.websocket = WebSocket(self.handler, runtime.deadlines, 10_000)
        self.server.opened(self.link)
        self.link.state = State.APPLICATION
        self.websocket.link = self.link.upgrade(b"", self.websocket)

    @property
    def open(self) -> bool:
        return bool(self.server.connections)

    def send(self, data: bytes) -> None:
        self.client.send(data)

    def received(self, size: int) -> bytes:
        """At least this many bytes, or all bytes before the end."""
        data = b""
        with eventlet.Timeout(20):
            while len(data) < size:
                try:
                    more = self.client.recv(1 << 20)
                except BlockingIOError:
                    eventlet.sleep(0.001)
                    continue
                if not more:
                    break
                data += more
        return data

    def wait(self, condition: Any) -> None:
        with eventlet.Timeout(20):
            while not condition():
                eventlet.sleep(0.001)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.client.close()
    made.wait(lambda: not made.open)
    refusals.by_reason.clear()


def test_messages_both_ways(pair: Pair) -> None:
    pair.send(masked(TEXT, b"one") + masked(TEXT, b"two") + masked(PING, b"?"))
    pair.link.send(message_frame("a"))
    pair.link.send(message_frame("b"))
    pair.wait(lambda: pair.handler.messages == ["one", "two"])
    expected = message_frame("a") + message_frame("b") + frame(PONG, b"?")
    assert pair.received(len(expected)) == expected


def test_what_came_behind_the_handshake() -> None:
    pair = Pair(masked(TEXT, b"early"))
    pair.wait(lambda: pair.handler.messages == ["early"])
    pair.send(masked(TEXT, b"late"))
    pair.wait(lambda: pair.handler.messages == ["early", "late"])
    pair.client.close()
    pair.wait(lambda: pair.handler.closed == 1 and not pair.open)


def test_it_reads_no_more_until_it_may(pair: Pair) -> None:
    pair.handler.says = False
    pair.send(masked(TEXT, b"one") + masked(TEXT, b"two"))
    pair.wait(lambda: pair.handler.messages)
    pair.send(masked(TEXT, b"three"))
    let_run(0.02)
    assert pair.handler.messages == ["one"]
    pair.handler.says = True
    pair.websocket.go_on()
    pair.wait(lambda: pair.handler.messages == ["one", "two", "three"])


def test_a_flood_of_messages_leaves_others_a_turn(pair: Pair) -> None:
    messages = pair.handler.messages
    turns = []

    def other() -> None:
        while len(messages) < 1000:
            turns.append(len(messages))
            eventlet.sleep(0)

    eventlet.spawn_n(other)
    pair.send(masked(TEXT, b"x") * 1000)
    pair.wait(lambda: len(messages) == 1000)
    assert any(0 < count < 1000 for count in turns)


def test_the_client_says_goodbye(pair: Pair) -> None:
    pair.send(masked(CLOSE, b"\x03\xe9why") + masked(TEXT, b"more"))
    assert pair.received(100) == close_frame(1001)
    pair.wait(lambda: pair.handler.closed == 1)
    assert pair.handler.messages == []
    assert not pair.open


def test_we_say_goodbye_and_wait_for_the_client(pair: Pair) -> None:
    pair.link.send(message_frame("last"))
    pair.websocket.close(1001)
    pair.link.send(message_frame("too late"))
    assert pair.received(100) == message_frame("last") + close_frame(1001)
    assert pair.open and pair.link._closing
    pair.send(masked(TEXT, b"not for anybody") + masked(CLOSE, b"\x03\xe9"))
    pair.wait(lambda: not pair.open)
    assert pair.handler.messages == [] and pair.handler.closed == 0  # it knows


def test_a_protocol_error_is_counted(pair: Pair) -> None:
    pair.send(b"GET / HTTP/1.1\r\n\r\n")
    assert pair.received(4) == close_frame(1002)
    assert pair.handler.closed == 1
    assert refusals.by_reason[PROTOCOL] == 1
    pair.send(b"and much more of that" * 100)
    assert pair.received(1) == b""


def test_a_handler_that_fails_ends_only_its_websocket(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    pair.handler.on_message = None  # type: ignore[assignment,method-assign]
    pair.send(masked(TEXT, b"x"))
    assert pair.received(4) == close_frame(1011)
    assert "error while handling a websocket message" in caplog.text


def test_order_and_completeness_when_the_client_is_slow(pair: Pair) -> None:
    frames = [message_frame(f"{number}" * 5000) for number in range(400)]
    for data in frames:
        pair.link.send(data)
    let_run(0.01)
    frames += [message_frame(f"later {number}") for number in range(10)]
    for data in frames[400:]:
        pair.link.send(data)
    expected = b"".join(frames)
    assert pair.received(len(expected)) == expected
    assert pair.link._backlog is None


def test_a_client_that_takes_nothing_is_cut_off(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "SLOW_OUTPUT_PATIENCE", 0.05)
    data = message_frame("x" * 100_000)
    with eventlet.Timeout(20):
        while pair.open:
            pair.link.send(data)
            eventlet.sleep(0.001)
    assert refusals.by_reason[TOO_SLOW] == 1
    assert pair.handler.closed == 1


def let_wait(pair: Pair, size: int) -> None:
    """Let at least this much output be pending, beyond what the kernel takes."""
    data = message_frame("x" * 50_000)
    while pair.link._backlog is None:
        pair.link.send(data)
        eventlet.sleep(0)
    # In one turn: on a busy machine several could take as long as a client's patience.
    while pair.link._backlog.size < size:
        pair.link.send(data)


def test_only_the_last_ping_is_answered_while_output_waits(pair: Pair) -> None:
    let_wait(pair, 1)
    for number in range(200):
        pair.send(masked(PING, b"%03d" % number))
    pair.wait(lambda: pair.link._backlog.pong == frame(PONG, b"199"))
    data = pair.received(1)
    while not data.endswith(frame(PONG, b"199")):
        data += pair.received(1)
    assert data.count(b"\x8a\x03") == 1


def test_nothing_is_read_while_much_output_waits(pair: Pair) -> None:
    let_wait(pair, READING_STOPS + 1)
    pair.send(masked(TEXT, b"one"))
    pair.wait(lambda: pair.link._reading is None)  # it shows when something comes
    pair.send(masked(TEXT, b"two"))
    let_run(0.02)
    assert not pair.handler.messages
    while pair.handler.messages != ["one", "two"]:
        pair.received(1)
    assert pair.link._backlog is None or pair.link._backlog.size <= READING_STOPS


def test_a_handler_that_wants_no_more_is_not_overruled_by_output(pair: Pair) -> None:
    pair.handler.says = False
    pair.send(masked(TEXT, b"one") + masked(TEXT, b"two"))
    pair.wait(lambda: pair.handler.messages)
    let_wait(pair, READING_STOPS + 1)
    pair.send(masked(TEXT, b"three"))
    while pair.link._backlog is not None:
        pair.received(1)
    let_run(0.02)
    assert pair.handler.messages == ["one"]
    pair.handler.says = True
    pair.websocket.go_on()
    pair.wait(lambda: pair.handler.messages == ["one", "two", "three"])


def test_what_is_much_too_much_is_cut_off_at_once(pair: Pair) -> None:
    data = message_frame("x" * 1_000_000)
    for _ in range(100):
        pair.link.send(data)
        eventlet.sleep(0)
        if not pair.open:
            break
    assert not pair.open
    assert refusals.by_reason[TOO_SLOW] == 1


def test_pieces_count_as_well_as_bytes(pair: Pair) -> None:
    let_wait(pair, 1)
    for _ in range(OUTPUT_CEILING // OUTPUT_OBJECT):
        pair.link.send(message_frame("x"))
    pair.wait(lambda: not pair.open)
    assert refusals.by_reason[TOO_SLOW] == 1


def test_who_takes_it_slowly_is_not_cut_off(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "SLOW_OUTPUT_PATIENCE", 1.0)
    let_wait(pair, 3 * SLOW_OUTPUT)
    while pair.link._backlog is not None and pair.link._backlog.size > SLOW_OUTPUT:
        pair.received(1_000_000)
        assert pair.link._backlog is None or pair.link.took_output_within(60)
        eventlet.sleep(0.3)
        assert pair.open, "cut off"
    assert not refusals.by_reason[TOO_SLOW]


def test_who_takes_nothing_does_not_count_as_there(pair: Pair) -> None:
    assert not pair.link.took_output_within(9)  # nothing waits
    let_wait(pair, 1)
    assert pair.link.took_output_within(9)
    let_run(0.05)
    assert not pair.link.took_output_within(0.05)
    pair.client.recv(200_000)
    assert pair.link.took_output_within(5)


def test_a_burst_is_not_slowness(pair: Pair) -> None:
    data = message_frame("x" * 100_000)
    count = 2 * SLOW_OUTPUT // len(data)
    for _ in range(count):
        pair.link.send(data)
    assert len(pair.received(count * len(data))) == count * len(data)
    assert refusals.by_reason[TOO_SLOW] == 0 and pair.open


def test_nobody_waits_for_a_long_fan_out() -> None:
    pairs = [Pair() for _ in range(600)]
    last, other = pairs[-2:]
    let_run(0.01)  # the answers to the handshakes leave
    for pair in pairs[:-1]:
        pair.link.send(message_frame("to all"), fan_out=True)
    other.link.send(message_frame("to one"))
    pairs[0].server.runtime.writes.flush()  # as the hub does next
    assert other.client.recv(100) == message_frame("to one")
    with pytest.raises(BlockingIOError):
        last.client.recv(1)
    for pair in pairs[:-1]:
        assert pair.received(1) == message_frame("to all")
    for pair in pairs:
        pair.client.close()
        pair.wait(lambda pair=pair: not pair.open)


def test_what_another_thread_sends_does_not_stop_what_the_hub_sends(pair: Pair) -> None:
    """``get_hub()`` in that thread would create a hub that nobody runs."""
    other = Pair()
    patcher.original("threading").Thread(target=other.link.send, args=[b"thread"]).start()
    let_run(0.05)
    pair.link.send(b"hub")
    assert pair.received(3) == b"hub"
    assert other.received(6) == b"thread"
    other.client.close()
    other.wait(lambda: not other.open)


@pytest.mark.tries(3)
def test_a_long_message_is_not_copied_for_every_write(pair: Pair) -> None:
    size, began = 32 * 1024 * 1024, time.process_time()
    pair.link.send(bytes(size))
    pair.link.send(b"behind it")
    buffer, count = bytearray(1024 * 1024), 0
    with eventlet.Timeout(20):
        while count < size + 9:
            try:
                came = pair.client.recv_into(buffer)
                count += came
            except BlockingIOError:
                eventlet.sleep()
    assert buffer[:came].endswith(b"it")
    assert time.process_time() - began < 1


def test_pieces_of_any_length_stay_in_order(pair: Pair) -> None:
    sizes = [100, 300_000, 1, 1, 200_000, 100_000, 500_000, 5]
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    for piece in pieces:
        pair.link.send(piece)
    assert pair.received(sum(sizes)) == b"".join(pieces)


def test_a_websocket_that_cannot_be_written_to_is_no_harm_to_others(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other, flush = Pair(), Connection.flush

    def fail(link: Connection) -> None:
        flush(link)
        if link is pair.link:
            raise ValueError("a mistake")

    monkeypatch.setattr(Connection, "flush", fail)
    pair.link.send(b"x")
    other.link.send(b"y")
    assert other.received(1) == b"y"
    other.client.close()
    other.wait(lambda: not other.open)
    assert "a mistake" in caplog.text


@pytest.mark.parametrize("how", ["protocol", "slow"])
def test_a_log_that_has_to_be_waited_for(pair: Pair, how: str) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            eventlet.sleep(0.2)

    handler = Handler()
    logging.getLogger("supervisor_sio.worker").addHandler(handler)
    try:
        if how == "protocol":
            pair.send(b"\xff\xff")
            assert pair.received(4) == close_frame(1002)
            pair.client.close()
        else:
            hubs.get_hub().schedule_call_global(0, pair.link.end, TOO_SLOW)
            pair.wait(lambda: pair.link._closing)
        pair.wait(lambda: not pair.open)
        assert sum(refusals.by_reason.values()) == 1
    finally:
        logging.getLogger("supervisor_sio.worker").removeHandler(handler)


def test_what_came_before_much_output_has_its_turn_when_that_is_gone(pair: Pair) -> None:
    """Also if the client does not send anything more."""
    texts = [f"{number}" for number in range(MESSAGES_AT_ONCE + 3)]
    take = pair.handler.messages.append

    def answer_much(payload: Payload) -> bool:
        take(payload)
        if len(pair.handler.messages) == 1:
            pair.link.send(message_frame("x" * (2 * READING_STOPS)))
        return True

    pair.handler.on_message = answer_much  # type: ignore[method-assign]
    pair.send(b"".join(masked(TEXT, text.encode()) for text in texts))
    pair.wait(lambda: len(pair.handler.messages) == MESSAGES_AT_ONCE)
    let_run(0.02)
    while pair.link._backlog is not None:
        pair.received(1)
    pair.wait(lambda: pair.handler.messages == texts)
