"""Sessions that move from one worker to another at any time: their clients notice nothing."""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Any, Callable, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor_sio.common.limits import READING_STOPS, SLOW_OUTPUT
from supervisor_sio.common.not_movable import NotMovable
from supervisor_sio.common.reasons import HANDLER_RUNNING, MID_REQUEST, TOO_SLOW
from supervisor_sio.engine.frames import BINARY, CLOSE, PING, PONG, TEXT, close_frame
from supervisor_sio.engine.session import State
from supervisor_sio.worker import movable, output, patience
from supervisor_sio.worker.connection import Connection
from supervisor_sio.worker.moved_sessions import Leaving, Role, restore
from supervisor_sio.worker.refused import refusals
from unit.client_frames import masked
from unit.examples import examples
from unit.worker.moving import KINDS, Client, Pair, frames, pass_on, workers

SID = "tag.1"

#: What the server of a websocket says first.
_OPENED = b'"maxPayload":1000000}'


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def pair(kind: str) -> Iterator[Pair]:
    with workers(kind) as made:
        yield made


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources of all refusals as too slow."""
    found: list[str] = []
    counted = refusals.counted

    def note(reason: str, source: str, times: int = 1) -> str:
        if reason == TOO_SLOW:
            found.append(source)
        return counted(reason, source, times)

    monkeypatch.setattr(refusals, "counted", note)
    return found


def get(sid: str = "") -> bytes:
    extra = f"&sid={sid}" if sid else ""
    return f"GET /s/?EIO=4&transport=polling{extra} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def post_head(length: int, sid: str = SID) -> bytes:
    return (
        f"POST /s/?transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def post(*packets: str) -> bytes:
    body = "\x1e".join(packets).encode()
    return post_head(len(body)) + body


def handshake(sid: str = "") -> bytes:
    extra = f"&sid={sid}" if sid else ""
    return (
        f"GET /s/?EIO=4&transport=websocket{extra} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def text(*messages: str) -> bytes:
    return b"".join(masked(TEXT, message.encode()) for message in messages)


def open_polling(pair: Pair) -> Client:
    client = pair.connect()
    client.send(get())
    pair.until(client, _OPENED)
    return client


def open_websocket(pair: Pair) -> Client:
    client = pair.connect()
    client.send(handshake())
    pair.until(client, _OPENED)
    return client


# --- at any byte ------------------------------------------------------------------------

_E_ACUTE = "é".encode()

#: Which client sends what; whatever is answered comes before the next step.
CONVERSATIONS = {
    "polling and its upgrade": [
        (0, get()),
        (0, post("4a")),
        (0, get(SID)),
        (1, get(SID)),
        (0, post("4b", "bAQI=")),
        (0, post("4" + "c" * 20) + get(SID)),
        (1, get(SID)),
        (2, handshake(SID)),
        (2, text("2probe")),
        (2, text("5")),
        (2, masked(TEXT, b"4" + _E_ACUTE[:1], final=False) + masked(PING, b"p")),
        (2, masked(0, _E_ACUTE[1:]) + masked(BINARY, b"\x00\xff") + text("4end")),
        (2, masked(CLOSE, b"\x03\xe8")),
    ],
    "a websocket": [
        (0, handshake() + text("4early")),
        (0, text("4a", "3", "4b") + masked(BINARY, bytes(200))),
        (0, masked(BINARY, b"ab", final=False) + masked(0, b"", final=False)),
        (0, masked(PING, b"") + masked(0, b"cd") + text("1")),
    ],
    "polling that ends": [
        (0, get()),
        (0, get(SID) + post("4behind")),
        (1, post("4a")),
        (0, get(SID)),
        (1, get(SID)),
        (0, post("4b", "4c", "1")),
        (0, get(SID)),
    ],
}


class Conversation:
    """One run of the conversation.

    :param moves: the numbers of the clients' bytes after which the sessions move.
    :param turns: turns of the loops between the last of these bytes and the move.
    """

    def __init__(self, kind: str, name: str, moves: list[int], turns: int) -> None:
        self._pair = Pair(kind)
        self._steps = CONVERSATIONS[name]
        self._moves = sorted(moves)
        self._turns = turns
        self._sent = 0
        self.clients = [self._pair.connect() for _ in range(1 + max(n for n, _ in self._steps))]

    def run(self, expected: Optional[list[Any]] = None) -> list[Any]:
        """What the clients have received after each step, and the calls of the owner.

        :param expected: the result of another run.
        """
        with closing(self._pair):
            return self._run(expected)

    def _run(self, expected: Optional[list[Any]]) -> list[Any]:
        seen: list[Any] = []
        for number, (index, data) in enumerate(self._steps):
            self._send(self.clients[index], data)
            if expected is None:
                self._settle()
            else:
                wanted = expected[number]
                self._pair.wait(lambda wanted=wanted: self._got() == wanted, "the same answers")
            seen.append(self._got())
        self._pair.turn()
        owners = self._pair.owners
        messages = [message for owner in owners for message in owner.messages]
        seen.append(sorted(messages, key=str))
        seen.append([sum((getattr(o, n) for o in owners), []) for n in ("closed", "counted")])
        seen.append(sum(owner.upgraded for owner in owners))
        return seen

    def _got(self) -> list[tuple[bytes, bool]]:
        return [(client.data, client.ended) for client in self.clients]

    def _send(self, client: Client, data: bytes) -> None:
        while self._moves and self._moves[0] <= self._sent + len(data):
            size = self._moves.pop(0) - self._sent
            assert not client.send(data[:size])
            data, self._sent = data[size:], self._sent + size
            self._pair.turn(self._turns)
            self._pair.move()
        assert not client.send(data)
        self._sent += len(data)

    def _settle(self) -> None:
        quiet = 0
        while quiet < 20:
            before = self._got()
            self._pair.turn(1)
            for client in self.clients:
                client.read()
            quiet = quiet + 1 if self._got() == before else 0


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_move_at_every_byte_of_a_conversation(kind: str, name: str) -> None:
    """Reading is the same in all modes: with the first one, test every byte."""
    expected = Conversation(kind, name, [], 0).run()
    assert len(expected[-3]) >= 2, "messages of the client"
    size = sum(len(data) for _, data in CONVERSATIONS[name])
    for place in range(0, size + 1, 1 if kind == next(iter(KINDS)) else 5):
        seen = Conversation(kind, name, [place], place % 3).run(expected)
        assert seen == expected, f"moved after {place} bytes"


@settings(
    max_examples=examples(30),
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(list(CONVERSATIONS)),
    moves=st.lists(st.integers(0, 900), max_size=12),
    turns=st.integers(0, 3),
)
def test_any_number_of_moves(kind: str, name: str, moves: list[int], turns: int) -> None:
    expected = Conversation(kind, name, [], 0).run()
    assert Conversation(kind, name, moves, turns).run(expected) == expected


# --- websockets -------------------------------------------------------------------------

_STEPS = "say say push push emit emit-much read turn busy move move".split()

messages = st.one_of(
    st.text(max_size=10).map(lambda said: (TEXT, b"4" + said.encode("utf-8", "replace"))),
    st.binary(max_size=10).map(lambda data: (BINARY, data)),
    st.integers(100, 100_000).map(lambda size: (BINARY, os.urandom(1) * size)),
)


@settings(
    max_examples=examples(40),
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_nothing_is_lost_of_what_goes_through_a_websocket(kind: str, data: st.DataObject) -> None:
    with workers(kind) as pair:
        for owner in pair.owners:
            owner.answers = False
        client = open_websocket(pair)
        client.data = b""
        stream, said, sent = b"", [], []
        for _ in range(data.draw(st.integers(1, 30))):
            step = data.draw(st.sampled_from(_STEPS))
            if step == "say":
                opcode, payload = data.draw(messages)
                cut = data.draw(st.integers(0, len(payload)))
                parts = [payload[:cut], payload[cut:]]
                if data.draw(st.booleans()):
                    stream += masked(opcode, parts[0], final=False) + masked(0, parts[1])
                else:
                    stream += masked(opcode, payload)
                said.append(payload[1:].decode() if opcode == TEXT else payload)
            elif step == "push":
                size = data.draw(st.integers(0, min(len(stream), 300)))
                if data.draw(st.booleans()):
                    size = len(stream)
                stream = client.send(stream[:size]) + stream[size:]
            elif step == "read":
                client.read(data.draw(st.integers(1, 300_000)))
            elif step == "turn":
                pair.turn(data.draw(st.integers(1, 3)))
            elif step == "busy":
                busy = pair.here.owner.busy
                for owner in pair.owners:
                    owner.busy = not busy
                if busy:
                    pair.session.proceed()
            elif step == "move":
                pair.move()
            else:
                size = data.draw(st.integers(0, 10) if step == "emit" else st.integers(1, 400_000))
                sent.append(b"%d:" % len(sent) + b"x" * size)
                pair.session.send("4" + sent[-1].decode())
        for owner in pair.owners:
            owner.busy = False
        pair.session.proceed()

        def has_all() -> bool:
            nonlocal stream
            stream = client.send(stream)
            return len([m for owner in pair.owners for m in owner.messages]) >= len(said)

        pair.session.send("4the end")
        pair.wait(has_all, "all messages")
        pair.wait(lambda: client.data.endswith(b"4the end"), "end")
        assert frames(client.data) == [(TEXT, b"4" + one) for one in [*sent, b"the end"]]
        one, other = (owner.messages for owner in pair.owners)
        assert sorted([*one, *other], key=repr) == sorted(said, key=repr)
        assert not any(owner.closed or owner.counted for owner in pair.owners)


def test_an_idle_websocket(pair: Pair) -> None:
    client = open_websocket(pair)
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        pair.move()
        assert pair.there.is_left() and pair.here.server.connections == 1
        client.send(text(f"4{number}"))
        pair.until(client, b"4%d" % number)
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert pair.session.state is State.WEBSOCKET
    assert not any(owner.closed or owner.counted for owner in pair.owners)


def test_bytes_that_nobody_has_read(pair: Pair) -> None:
    client = open_websocket(pair)
    whole = text("4one") + text("4two", "4" + "x" * 100_000)
    client.send(whole[:-5])
    pair.move()
    client.send(whole[-5:])
    pair.until(client, b"4one\x81\x054two".replace(b"\x05", b"\x04"))
    pair.until(client, b"x" * 100_000)
    assert pair.there.is_left()


def test_messages_that_wait_for_the_owner(pair: Pair) -> None:
    client = open_websocket(pair)
    for owner in pair.owners:
        owner.busy = True
    client.send(text("4one", "4two", "4three"))
    pair.wait(lambda: pair.here.owner.messages, "message")
    pair.move()
    assert pair.session.held and pair.here.owner.messages == []
    pair.here.owner.busy = False
    pair.session.proceed()
    pair.until(client, b"4three")
    assert pair.here.owner.messages == ["two", "three"]


def fill(pair: Pair, client: Client, size: int) -> bytes:
    """Send so much that output is pending, with the first piece partly written."""
    number = 0
    sent = b""
    while pair.session.waiting < size:
        packet = f"4{number}:" + "x" * 50_000
        pair.session.send(packet)
        sent += packet.encode()
        number += 1
        pair.turn(1)
    return sent


def test_a_backlog_of_megabytes(pair: Pair) -> None:
    client = open_websocket(pair)
    sent = fill(pair, client, 3_000_000)
    waiting = pair.session.waiting
    for number in range(5):
        pair.move()
        assert pair.there.is_left()
        assert waiting - 200_000 <= pair.session.waiting <= waiting + 10_000
        packet = f"4{number}:more"
        pair.session.send(packet)
        sent += packet.encode()
        client.read(65536)
        pair.turn()
        waiting = pair.session.waiting
    pair.wait(lambda: client.data.endswith(b"4:more"), "all of it")
    assert b"".join(payload for _, payload in frames(client.data)) == sent
    pair.wait(lambda: not pair.session.waiting, "end of the backlog")


def test_messages_that_wait_for_the_owner_while_output_waits(pair: Pair) -> None:
    client = open_websocket(pair)
    for owner in pair.owners:
        owner.busy, owner.answers = True, False
    client.send(text("4one", "4two"))
    pair.wait(lambda: pair.here.owner.messages, "message")
    fill(pair, client, 500_000)
    pair.move()
    client.send(text("4three"))
    pair.session.send("4end")
    pair.wait(lambda: client.data.endswith(b"4end"), "all output")
    pair.turn()
    assert not pair.here.owner.messages
    pair.here.owner.busy = False
    pair.session.proceed()
    pair.wait(lambda: pair.here.owner.messages == ["two", "three"], "messages")


def test_nothing_is_read_while_much_waits(pair: Pair) -> None:
    client = open_websocket(pair)
    fill(pair, client, READING_STOPS + 100_000)
    pair.move()
    client.send(text("4later"))
    pair.turn(20)
    assert not pair.here.owner.messages
    pair.until(client, b"4later")
    assert pair.here.owner.messages == ["later"]


def test_who_takes_nothing_is_cut_off_elsewhere(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, sources: list[str]
) -> None:
    monkeypatch.setattr(output, "SLOW_OUTPUT_PATIENCE", 0.2)
    client = open_websocket(pair)
    fill(pair, client, SLOW_OUTPUT + 100_000)

    def before_start() -> None:
        (session,) = pair.there.engine.sessions.values()
        session.send("4more")
        assert not pair.there.due
        time.sleep(0.3)

    pair.move(before_start)
    pair.wait(lambda: not pair.here.server.connections, "end", read=False)
    assert len(sources) == 1
    assert (pair.there.owner.closed, pair.here.owner.closed) == ([], ["transport close"])


def test_a_pong_that_is_owed(pair: Pair) -> None:
    client = open_websocket(pair)
    fill(pair, client, 500_000)
    client.send(masked(PING, b"first") + masked(PING, b"last"))
    pair.turn()
    pair.move()
    pair.session.send("4end")
    pair.wait(lambda: client.data.endswith(b"last"), "pong")
    found = frames(client.data)
    assert found[-2:] == [(TEXT, b"4end"), (PONG, b"last")]
    assert sum(opcode == PONG for opcode, _ in found) == 1


def test_pings_go_on(kind: str) -> None:
    with workers(kind, ping_interval=0.3, ping_timeout=0.5) as pair:
        client = pair.connect()
        client.send(handshake())
        pair.until(client, _OPENED)

        def wait() -> None:
            pair.idle(0.15)

        for _ in range(2):
            pair.move(wait)
            pair.until(client, b"\x81\x012")
            pair.move(wait)
            client.send(text("3"))
        pair.move()
        pair.wait(lambda: pair.here.owner.closed, "end of who does not answer")
        assert pair.here.owner.closed == ["ping timeout"] and not pair.there.owner.closed


def test_a_client_that_goes_in_between(pair: Pair) -> None:
    client = open_websocket(pair)
    client.sock.close()
    pair.clients.remove(client)
    pair.move()
    pair.wait(lambda: pair.here.is_left(), "end")
    assert (pair.there.owner.closed, pair.here.owner.closed) == ([], ["transport close"])


# --- polling ------------------------------------------------------------------------------


def test_a_poll_that_waits(pair: Pair) -> None:
    client = open_polling(pair)
    client.send(get(SID))
    pair.turn()
    for _ in range(3):
        pair.move()
        assert pair.there.is_left()
    pair.session.send("4news")
    assert b"\r\nDate: a date of HTTP\r\n" in pair.until(client, b"\r\n\r\n4news")
    client.send(post("4x"))  # on the same connection
    pair.until(client, b"\r\n\r\nok")
    client.send(get(SID))
    pair.until(client, b"\r\n\r\n4x")


def test_the_next_request_may_be_for_another_worker(pair: Pair) -> None:
    client = open_polling(pair)
    client.send(get(SID))
    pair.turn()
    pair.move()
    here = pair.here
    here.server.keeps = lambda request: request.tag != "other"
    pair.session.send("4news")
    pair.until(client, b"4news")
    client.send(get("other.1"))
    pair.wait(lambda: here.handed_back, "connection that goes back")
    assert here.handed_back[0][1] == get("other.1")
    os.close(here.handed_back.pop()[0])


def test_no_poll(pair: Pair) -> None:
    client = open_polling(pair)
    pair.session.send("4one")
    pair.move()
    pair.session.send("4two")
    client.send(get(SID))
    pair.until(client, b"\r\n\r\n4one\x1e4two")


def test_a_poll_that_its_client_cancels(pair: Pair) -> None:
    client = open_polling(pair)
    poll = pair.connect()
    poll.send(get(SID))
    pair.turn()
    poll.sock.close()
    pair.clients.remove(poll)
    pair.move()
    pair.wait(lambda: pair.here.owner.closed, "end")
    assert pair.here.owner.closed == ["transport close"] and not pair.there.owner.closed
    client.send(get(SID))
    pair.until(client, b"400 Bad Request")


@pytest.mark.parametrize("behind", [b"", get(SID), get(SID) + b"GET /s/?EI"])
def test_a_post_that_waits_for_the_owner(pair: Pair, behind: bytes) -> None:
    client = open_polling(pair)
    for owner in pair.owners:
        owner.busy = True
    client.send(post("4one", "4two") + behind)
    pair.wait(lambda: pair.here.owner.messages, "message")
    pair.turn()
    for _ in range(2):
        pair.move()
        assert pair.there.is_left()
        pair.session.proceed()
        pair.turn()
    assert [owner.messages for owner in pair.owners] in ([["one"], ["two"]], [["two"], ["one"]])
    pair.until(client, b"\r\n\r\nok")
    if behind:
        pair.until(client, b"\r\n\r\n4one\x1e4two")


def test_a_post_that_waits_for_polls(pair: Pair) -> None:
    client = open_polling(pair)
    pair.session.send("4" + "x" * READING_STOPS)
    client.send(post("4one", "4two"))
    pair.turn()
    pair.move()
    pair.turn()
    assert not pair.here.owner.messages and pair.there.is_left()
    poll = pair.connect()
    poll.send(get(SID))
    pair.until(poll, b"x" * READING_STOPS)
    pair.until(client, b"\r\n\r\nok")
    assert pair.here.owner.messages == ["one", "two"]


def test_a_post_in_the_middle_of_its_packets(pair: Pair) -> None:
    client = open_polling(pair)
    client.send(post(*(f"4{number}" for number in range(200)), "bQ"))
    while not pair.here.owner.messages:
        pair.turn(1)
    pair.move()
    pair.until(client, b"400 Bad Request")
    one, other = (owner.messages for owner in pair.owners)
    assert sorted(map(int, [*one, *other])) == list(range(200))


def test_a_post_whose_client_did_not_wait_for_the_answer(pair: Pair) -> None:
    open_polling(pair)
    for owner in pair.owners:
        owner.busy = True
    client = pair.connect()
    client.send(post("4one", "4two"))
    pair.wait(lambda: pair.here.owner.messages, "message")
    client.sock.close()
    pair.clients.remove(client)
    pair.wait(lambda: pair.here.server.connections == 1, "end of the connection")
    pair.move()
    pair.session.proceed()
    pair.session.proceed()
    assert pair.here.owner.messages == ["two"] and not pair.session.closed


@pytest.mark.parametrize("size", [1, 100, 200_000, 999_990])
def test_a_body_that_has_not_all_come(pair: Pair, size: int) -> None:
    client = open_polling(pair)
    data = post("4" + "x" * 999_990)
    data += get(SID)
    head = data.index(b"\r\n\r\n") + 4
    rest = data[: head + size]
    while rest:
        rest = client.send(rest)
        pair.turn(1)
    pair.turn()
    for _ in range(3):
        pair.move()
        assert pair.there.is_left()
        rest = client.send(data[head + size : head + size + 1])
        size += 1
        assert not rest
        pair.turn()
    rest = data[head + size :]
    while rest:
        rest = client.send(rest)
        pair.turn(1)
    pair.until(client, b"\r\n\r\nok")
    pair.until(client, b"x" * 999_990)
    assert [len(m) for owner in pair.owners for m in owner.messages] == [999_990]


def test_who_sends_a_body_too_slowly_is_cut_off_elsewhere(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, sources: list[str]
) -> None:
    monkeypatch.setattr(patience, "BODY_GRACE_SECONDS", 0.2)
    client = open_polling(pair)
    client.send(post_head(10) + b"4")
    pair.turn()
    pair.move(lambda: time.sleep(0.3))
    assert pair.here.server.connections == 1, "it has its time anew"
    pair.wait(lambda: client.ended, "end")
    assert len(sources) == 1


def test_a_body_in_chunks_is_waited_for(pair: Pair) -> None:
    client = open_polling(pair)
    other = pair.connect()
    other.send(get(SID))
    head = post_head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    client.send(head + b"3\r\n4x")
    pair.turn()
    cannot(pair, MID_REQUEST, "a chunked body")
    client.send(b"y\r\n0\r\n\r\n")
    pair.until(client, b"\r\n\r\nok")
    pair.until(other, b"\r\n\r\n4xy")
    pair.move()
    client.send(get(SID) + post("4z"))


def cannot(pair: Pair, reason: str, detail: str = "") -> None:
    here, sid = pair.here, pair.session.sid
    before = pair.session.state
    leaving = Leaving(here.server)
    for call in (leaving.check, leaving.take_out):
        with pytest.raises(NotMovable) as caught:
            call(here.engine, sid)
        assert (caught.value.reason, caught.value.detail) == (reason, detail)
    assert pair.session.state is before


def test_a_long_answer_that_its_client_has_yet_to_take(pair: Pair) -> None:
    client = open_polling(pair)
    for _ in range(12):
        pair.session.send("4" + "x" * 100_000)
    client.send(get(SID) + post("4next"))
    while not Leaving(pair.here.server)._requests:
        pair.turn(1)
    for _ in range(3):
        pair.move()
        assert pair.there.is_left()
        client.read(65536)
        pair.turn()
    pair.until(client, b"\r\n\r\nok")
    assert pair.here.owner.messages == ["next"]


def test_who_takes_nothing_of_an_answer_is_cut_off_elsewhere(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, sources: list[str]
) -> None:
    from supervisor_sio.worker import connection

    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.2)
    client = open_polling(pair)
    for _ in range(40):
        pair.session.send("4" + "x" * 100_000)
    client.send(get(SID))
    while not Leaving(pair.here.server)._requests:
        pair.turn(1)
    pair.move(lambda: time.sleep(0.3))
    pair.wait(lambda: not pair.here.server.connections, "end", read=False)
    assert len(sources) == 1


def test_the_last_poll_of_a_session_that_the_application_has_closed(pair: Pair) -> None:
    client = open_polling(pair)
    pair.session.send("4last")
    session = pair.session
    session.close()
    assert session.state is State.CLOSING
    cannot(pair, HANDLER_RUNNING)
    pair.turn()
    pair.move()
    client.send(get(SID))
    pair.until(client, b"\r\n\r\n4last\x1e1")
    pair.wait(lambda: not pair.here.engine.sessions, "end")
    assert [owner.closed for owner in pair.owners] == [[], ["server disconnect"]]


def test_an_idle_connection_goes_back_to_the_router(pair: Pair) -> None:
    client = open_polling(pair)
    pair.here.server.draining = True
    pair.here.server.release_idle()
    pair.turn()
    assert len(pair.here.handed_back) == 1 and not pair.here.server.connections
    pair.move()
    client.send(post("4x"))
    pair.wait(lambda: pair.here.handed_back or b"\r\n\r\nok" in client.data, "answer")
    pair.until(client, b"\r\n\r\nok")


def test_a_request_of_the_session_that_the_application_has(pair: Pair) -> None:
    client = open_polling(pair)
    client.send(get(SID))
    pair.turn()
    worker = pair.here
    worker.engine.paths.clear()
    other = pair.connect()
    kept: list[Connection] = []
    worker.runtime.serve = lambda connection, head: kept.append(connection)
    other.send(post("4x"))
    pair.wait(lambda: kept, "request")
    cannot(pair, MID_REQUEST, "the application is handling a request of it")
    kept[0].leave_to_engine(False)
    cannot(pair, MID_REQUEST, "the application is handling a request of it")
    kept[0].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    pair.until(other, b"200 OK")
    worker.runtime.serve = worker._serve
    worker.engine.add_path("/s/")
    pair.move()
    pair.session.send("4news")
    pair.until(client, b"4news")


# --- an upgrade ---------------------------------------------------------------------------


@pytest.mark.parametrize("polls", [True, False])
@pytest.mark.parametrize("probed", [True, False])
def test_in_the_middle_of_an_upgrade(pair: Pair, polls: bool, probed: bool) -> None:
    polling, websocket = open_polling(pair), pair.connect()
    if polls:
        polling.send(get(SID))
    websocket.send(handshake(SID))
    pair.until(websocket, b"\r\n\r\n")
    websocket.send(text("2probe")[: None if probed else 5])
    if probed:
        pair.until(websocket, b"3probe")
    pair.move()
    assert pair.there.is_left()
    if not probed:
        websocket.send(text("2probe")[5:])
        pair.until(websocket, b"3probe")
    if polls:
        pair.until(polling, b"\r\n\r\n6")  # soon, as the client waits for that
    pair.session.send("4while it upgrades")
    pair.move()
    websocket.send(text("5", "4x"))
    pair.until(websocket, b"4while it upgrades")
    pair.until(websocket, b"4x")
    assert pair.session.state is State.WEBSOCKET and pair.here.owner.upgraded == 1


def test_a_post_that_is_before_the_websocket(pair: Pair) -> None:
    polling, websocket = open_polling(pair), pair.connect()
    for owner in pair.owners:
        owner.busy = True
    websocket.send(handshake(SID))
    pair.until(websocket, b"\r\n\r\n")
    websocket.send(text("2probe"))
    pair.until(websocket, b"3probe")
    polling.send(post("4one", "4two"))
    pair.wait(lambda: pair.here.owner.messages, "message")
    websocket.send(text("5", "4three"))
    pair.wait(lambda: pair.session.state is State.WEBSOCKET, "upgrade")
    pair.move()
    assert pair.there.is_left()
    pair.here.owner.busy = False
    pair.session.proceed()
    pair.until(polling, b"\r\n\r\nok")
    pair.until(websocket, b"4three")
    assert pair.here.owner.messages == ["two", "three"]


def test_a_websocket_that_closes(pair: Pair) -> None:
    client = open_websocket(pair)
    fill(pair, client, 500_000)
    client.send(masked(CLOSE, b"\x03\xe8"))
    pair.turn()
    cannot(pair, MID_REQUEST, "its websocket is closing")
    pair.wait(lambda: client.ended, "end")
    assert client.data.endswith(close_frame(1000))


# --- between restore and start -------------------------------------------------------------


def leave(pair: Pair) -> tuple[Any, list[int]]:
    sid = pair.session.sid
    taken = Leaving(pair.here.server).take_out(pair.here.engine, sid)
    return pass_on(json.dumps(taken.state), taken.descriptors)


def test_what_is_restored_does_nothing_before_its_start(pair: Pair) -> None:
    polling, poll = open_polling(pair), pair.connect()
    poll.send(get(SID))
    websocket = pair.connect()
    websocket.send(handshake(SID))
    pair.until(websocket, b"\r\n\r\n")
    websocket.send(text("2probe"))
    pair.until(websocket, b"3probe")
    body = post("4posted")
    polling.send(body[:-3])
    pair.turn()
    there = pair.there

    def before() -> None:
        polling.send(body[-3:])
        websocket.send(text("5", "4said"))
        (session,) = there.engine.sessions.values()
        session.send("4sent")
        there.runtime.deadlines.clock = lambda: time.monotonic() + 1000
        for _ in range(2):  # the first check finds that the loop was blocked
            there.runtime._check()
            pair.turn(20)
        there.runtime.deadlines.clock = time.monotonic
        for client in pair.clients:
            client.read()
            assert not client.data and not client.ended
        assert not there.due and not there.owner.messages and session.state is State.UPGRADING
        assert there.server.connections == 3

    pair.move(before)
    pair.until(polling, b"\r\n\r\nok")
    pair.until(websocket, b"4said")
    assert sorted(there.owner.messages) == ["posted", "said"]
    assert b"4sent" in poll.data + websocket.data or b"4sent" in polling.data


def test_a_poll_before_the_start_that_takes_a_ping_along(kind: str) -> None:
    """The session continues afterwards."""
    with workers(kind, ping_interval=0.1) as pair:
        polling = open_polling(pair)
        pair.wait(lambda: pair.session.state_as_dict()["next_ping"] is None, "ping that waits")
        ours, client = socket.socketpair()
        with client:

            def before() -> None:
                pair.there.take(ours.detach())
                client.send(get(SID))
                pair.turn(20)
                assert client.recv(1000).endswith(b"\r\n\r\n2")

            pair.move(before)
            polling.send(post("4still here"))
            pair.until(polling, b"\r\n\r\nok")
            assert pair.here.owner.messages == ["still here"]
            pair.wait(lambda: pair.session.state_as_dict()["next_ping"] is None, "next ping")


def test_what_was_sent_to_a_websocket_before_its_start(pair: Pair) -> None:
    client = open_websocket(pair)
    pair.session.send("4one")

    def before() -> None:
        (session,) = pair.there.engine.sessions.values()
        for number in range(1000):
            session.send(f"4{number:06}")
        pair.turn(20)
        client.read()
        assert not client.data

    pair.move(before)
    pair.wait(lambda: client.data.endswith(b"4000999"), "messages")
    expected = [b"4one", *(b"4%06d" % number for number in range(1000))]
    assert [payload for _, payload in frames(client.data)] == expected


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_session_that_is_closed_before_its_start(pair: Pair, transport: str) -> None:
    if transport == "websocket":
        client = open_websocket(pair)
    else:
        client = open_polling(pair)
        client.send(get(SID))
        pair.turn()

    def before() -> None:
        (session,) = pair.there.engine.sessions.values()
        session.close()
        pair.turn()
        client.read()
        assert not client.data

    pair.move(before)
    assert pair.here.owner.closed == ["server disconnect"] and not pair.there.owner.closed
    if transport == "websocket":
        pair.until(client, b"\x81\x011" + close_frame(1000))
        client.send(masked(CLOSE, b"\x03\xe8"))
        pair.wait(lambda: client.ended, "end")
    else:
        pair.until(client, b"\r\n\r\n1")


def test_what_is_discarded_goes_on_elsewhere(pair: Pair) -> None:
    client, _ = open_websocket(pair), open_polling(pair)
    there = pair.there
    leaving = Leaving(pair.here.server)
    for taken in [leaving.take_out(pair.here.engine, sid) for sid in ("tag.1", "tag.2")]:
        copies = [os.dup(descriptor) for descriptor in taken.descriptors]
        state, descriptors = pass_on(json.dumps(taken.state), taken.descriptors)
        before = (list(there.engine.sessions), there.server.connections)
        arrived = restore(there.server, there.engine, state, descriptors)
        arrived.session.send("4lost")
        arrived.discard()
        assert before == (list(there.engine.sessions), there.server.connections)
        assert not there.owner.closed
        restore(there.server, there.engine, state, copies).start()
    pair.here, pair.there = there, pair.here
    client.send(text("4x"))
    assert b"lost" not in pair.until(client, b"4x")


# --- states that are wrong -----------------------------------------------------------------


def full(pair: Pair) -> tuple[Any, list[int]]:
    """A session with connections in as many roles as can be combined."""
    polling, poll, websocket, posting = (open_polling(pair), *(pair.connect() for _ in range(3)))
    for owner in pair.owners:
        owner.busy, owner.answers = True, False
    poll.send(get(SID))
    websocket.send(handshake(SID))
    pair.until(websocket, b"\r\n\r\n")
    posting.send(post("4one", "4two"))
    pair.wait(lambda: pair.here.owner.messages, "message")
    polling.send(post_head(10).replace(b"Host: x", b"Host: x\r\nCookie: secret") + b"4th")
    pair.turn()
    return leave(pair)


def test_roles(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    state, descriptors = full(pair)
    roles = [connection["role"] for connection in state["connections"]]
    assert sorted(roles) == ["body", "candidate", "poll", "post"] and len(descriptors) == 4
    assert "secret" not in json.dumps(state)
    for connection in state["connections"]:
        assert connection["peer"] == ["192.0.2.1", 5]
        is_http = connection["role"] != Role.CANDIDATE.value
        assert connection["scheme"] == ("http" if is_http else None)
    there = pair.there
    opened: list[int] = []
    monkeypatch.setattr(there.runtime, "descriptor_opened", opened.append)
    arrived = restore(there.server, there.engine, state, descriptors)
    assert opened == descriptors
    for one in arrived._connections:
        assert one.peer == ("192.0.2.1", 5) and one.address == "192.0.2.1"
        if one.state is not movable.State.WEBSOCKET:
            assert one.local == ("192.0.2.2", 80) and one.scheme == "http"
    arrived.start()
    assert len(there.due) == 3, "session, candidate and body"


@pytest.mark.parametrize(
    ("path", "value", "wrong"),
    [
        ("connections", {}, "connections is not a list"),
        ("connections", [], "connections is not a list of 4"),
        ("connections.0", 5, r"connections\[0\] is not an object"),
        ("connections.poll.role", "cook", r"connections\[0\].role is not one of poll, post, "),
        ("connections.poll.role", "websocket", r"connections\[0\].role is not that of a connec"),
        (
            "connections.poll.role",
            "answer",
            r"connections\[0\].role is not that of a connection in state",
        ),
        ("connections.post.role", "poll", r"connections\[1\].role is not a role that no other "),
        ("connections.poll.role", "post", r"connections\[1\].role is not a role that no other "),
        (
            "connections.poll.answered",
            True,
            r"connections\[0\].role is not that of a connection in state",
        ),
        ("connections.poll.state", "linger", r"connections\[0\].state is not one of body, wait"),
        ("connections.poll.state", "website", r"connections\[0\].state is not one of "),
        ("connections.poll.peer", 5, r"connections\[0\].peer is not a list"),
        ("connections.poll.peer", ["a"], r"connections\[0\].peer\[1\] is missing"),
        ("connections.poll.local", None, r"connections\[0\].local is not a list"),
        ("connections.poll.scheme", None, r"connections\[0\].scheme is not a text"),
        ("connections.poll.data", 5, r"connections\[0\].data is not base64"),
        ("connections.poll.out", None, r"connections\[0\].out is not a list"),
        ("connections.poll.out", ["b§"], r"connections\[0\].out\[0\] is not base64"),
        ("connections.poll.pong", 5, r"connections\[0\].pong is not base64"),
        ("connections.poll.close", 0, r"connections\[0\].close is not true or false"),
        ("connections.body.body", None, r"connections\[3\].body is not an object"),
        ("connections.body.body.left", 0, r"connections\[3\].body.left is not above 0"),
        ("connections.body.body.left", 10**9, r"connections\[3\].body.left is not above 0, or "),
        ("connections.body.body.request", None, r"connections\[3\].body.request is not an obj"),
        ("poll", None, "connections is not a list without a poll"),
        ("websocket", {}, "connections is not a list with a websocket"),
        ("at", None, "at is not a number of seconds"),
        ("state", "closing", "next_ping is not null, in state closing"),
        ("candidate.held", None, "candidate.held is not true or false"),
    ],
)
def test_a_state_that_is_wrong(
    path: str,
    value: Any,
    wrong: str,
    no_leak: Callable[[], AbstractContextManager[None]],
) -> None:
    with workers(next(iter(KINDS))) as pair:
        state, descriptors = full(pair)
        roles = [connection["role"] for connection in state["connections"]]
        target: Any = state
        *names, last = [
            roles.index(name) if name in roles and number == 1 else name
            for number, name in enumerate(path.split("."))
        ]
        for name in names:
            target = target[name]
        target[int(last) if isinstance(target, list) else last] = value
        there = pair.there
        with no_leak():
            with pytest.raises(ValueError, match=f"^session: {wrong}"):
                restore(there.server, there.engine, state, descriptors)
        assert there.is_left()
        for descriptor in descriptors:
            os.fstat(descriptor)  # they are the caller's
            os.close(descriptor)


def test_a_connection_that_was_answered_when_the_post_was_not(pair: Pair) -> None:
    """A state without the POST's connection: the client did not wait for the response."""
    state, descriptors = full(pair)
    index = [connection["role"] for connection in state["connections"]].index("post")
    del state["connections"][index]
    os.close(descriptors.pop(index))
    there = pair.there
    restore(there.server, there.engine, state, descriptors).start()
    pair.here, pair.there = there, pair.here
    pair.session.proceed()
    assert there.owner.messages == ["two"]


def test_an_address_of_a_unix_socket() -> None:
    with workers(next(iter(KINDS))) as pair:
        ours, theirs = socket.socketpair()
        made = Connection(pair.here.server, ours, "", "/run/x")
        made.state = movable.State.WAITING
        state = made.save()
        assert (state["peer"], state["local"]) == ("", "/run/x")
        made.give_away()
        for sock in (ours, theirs):
            sock.close()


_JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["AA==", "4x", "websocket", "waiting", "poll", "candidate", "sent", "later"]),
    st.lists(st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.sampled_from(["role", "state", "data"]), st.text(max_size=3), max_size=2),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    inner = value.items() if isinstance(value, dict) else ()
    found = [path] if path else []
    return found + [place for key, one in inner for place in _places(one, (*path, key))]


@pytest.mark.parametrize("upgraded", [False, True])
@settings(
    max_examples=examples(150),
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_state_is_restored_or_refused(
    caplog: pytest.LogCaptureFixture, upgraded: bool, data: st.DataObject
) -> None:
    caplog.clear()
    with workers(next(iter(KINDS))) as pair:
        if upgraded:
            client = open_websocket(pair)
            client.send(masked(TEXT, b"4a", final=False) + b"\x81")
            pair.turn()
            state, descriptors = leave(pair)
        else:
            state, descriptors = full(pair)
        for _ in range(data.draw(st.integers(1, 3))):
            *path, last = data.draw(st.sampled_from(_places(state)))
            target = state
            for key in path:
                target = target[key]
            if data.draw(st.booleans()):
                target[last] = data.draw(_JSON)
            elif isinstance(target, dict):
                del target[last]
        there = pair.there
        try:
            arrived = restore(there.server, there.engine, state, descriptors)
        except ValueError:
            assert there.is_left()
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            arrived.start()
            pair.turn()
    # A line about refused clients comes when its time has come, also with another example.
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
