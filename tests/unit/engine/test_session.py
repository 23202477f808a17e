"""Engine.IO sessions: polling, the upgrade, websockets, pings, and every way to an end."""

from __future__ import annotations

import base64
from typing import Any, Optional

import pytest

from supervisor_sio.common.limits import (
    ABANDONED_POLL_SECONDS,
    CROSSED_POLL_SECONDS,
    LAST_POLL_SECONDS,
    MESSAGES_AT_ONCE,
    OUTPUT_CEILING,
    POLL_BYTES,
    POLL_PACKETS,
    READING_STOPS,
    SLOW_OUTPUT,
    SLOW_OUTPUT_PATIENCE,
    UPGRADE_POLL_SECONDS,
    UPGRADE_SECONDS,
)
from supervisor_sio.engine.frames import BINARY, CLOSE, TEXT
from supervisor_sio.engine.session import Session, State
from unit.client_frames import masked
from unit.engine.fakes import UPGRADE, FakeExchange, FakeLink, World


@pytest.fixture
def world() -> World:
    return World()


def upgraded(world: World) -> tuple[Session, FakeLink]:
    session = world.open()
    link = world.upgrade(session.sid)
    link.text("2probe", "5")
    assert session.state is State.WEBSOCKET and link.got == ["3probe"]
    return session, link


# --- polling ----------------------------------------------------------------------------


def test_messages_both_ways(world: World) -> None:
    session = world.open()
    assert world.post(session.sid, "4one", "4two", "bAQID").body == "ok"
    assert world.owner.messages == ["one", "two", b"\x01\x02\x03"]
    session.send("4three")
    session.send(b"\x04")
    assert world.poll(session.sid) == ["4three", "bBA=="]
    assert session.waiting == 0 and session.transport == "polling"


def test_a_poll_that_waits_gets_all_of_one_turn(world: World) -> None:
    session = world.open()
    poll = world.get(session.sid)
    assert poll.response is None and poll.session is session
    session.send("4one")
    session.send("4two")
    assert poll.response is None
    world.turn()
    assert poll.packets == ["4one", "4two"] and poll.session is None
    assert not poll.closes


def test_an_empty_post(world: World) -> None:
    session = world.open()
    assert world.post(session.sid, body=b"").body == "ok"
    assert not session.closed


def test_a_poll_has_no_more_packets_than_a_client_takes(world: World) -> None:
    session = world.open()
    sent = [f"4{number}" for number in range(3 * POLL_PACKETS)]
    for packet in sent:
        session.send(packet)
    before = session.waiting
    got = world.poll(session.sid)
    assert len(got) == POLL_PACKETS and 0 < session.waiting < before
    got += world.poll(session.sid) + world.poll(session.sid)
    assert got == sent and session.waiting == 0


def test_a_poll_is_not_longer_than_is_good(world: World) -> None:
    session = world.open()
    for number in range(3):
        session.send(f"4{number}" + "x" * (POLL_BYTES // 2))
    assert [packet[:2] for packet in world.poll(session.sid)] == ["40", "41"]
    session.send("4" + "y" * 2 * POLL_BYTES)
    assert [packet[:2] for packet in world.poll(session.sid)] == ["42", "4y"]
    session.send("4" + "z" * 2 * POLL_BYTES)
    assert [packet[:2] for packet in world.poll(session.sid)] == ["4z"]
    assert session.waiting == 0


def test_a_second_poll_at_the_same_time_ends_the_session(world: World) -> None:
    session = world.open()
    first, second = world.get(session.sid), world.get(session.sid)
    assert first.packets == ["1"] and second.error == 3
    assert world.reason == "transport error"
    assert world.get(session.sid).error == 1


def test_a_client_whose_poll_is_cancelled_has_a_moment_for_the_next_one(world: World) -> None:
    session = world.open()
    poll = world.get(session.sid)
    world.engine.gone(poll)
    world.engine.gone(poll)
    assert poll.response is None and poll.session is None
    world.wait(ABANDONED_POLL_SECONDS - 0.1)
    assert not world.owner.closed
    world.wait(0.1)
    assert world.reason == "transport close"
    assert world.get(session.sid).error == 1


@pytest.mark.parametrize("noticed", [True, False], ids=["its end is read", "it is not yet"])
def test_a_poll_that_is_cancelled_takes_no_message(world: World, noticed: bool) -> None:
    """Five times, like a client that repeats each poll."""
    session = world.open()
    for number in range(5):
        poll = world.get(session.sid)
        poll.left = True
        if noticed:
            world.engine.gone(poll)
        session.send(f"4{number}")
        world.turn()
        assert poll.response is None
        assert world.poll(session.sid) == [f"4{number}"]
        world.engine.gone(poll)
    world.wait(2 * ABANDONED_POLL_SECONDS)
    assert not session.closed


def test_the_poll_of_a_client_that_has_left_is_not_another_one(world: World) -> None:
    session = world.open()
    world.get(session.sid).left = True
    again = world.get(session.sid)
    session.send("4x")
    world.turn()
    assert again.packets == ["4x"] and not session.closed


def test_a_poll_that_comes_when_its_client_has_left_takes_no_message(world: World) -> None:
    """The poll may arrive later than the next one."""
    session = world.open()
    session.send("4one")
    left = FakeExchange()
    left.left = True
    world.engine.handle(world.request(sid=session.sid), left, None)
    world.engine.gone(left)
    assert world.poll(session.sid) == ["4one"]
    next_one = world.get(session.sid)
    world.engine.handle(world.request(sid=session.sid), left, None)
    session.send("4two")
    world.turn()
    assert next_one.packets == ["4two"] and left.response is None and not session.closed


def test_what_a_client_has_not_read_of_an_answer_comes_again(world: World) -> None:
    session = world.open()
    poll = world.get(session.sid)
    poll.reads = False
    world.wait(25)
    assert poll.packets == ["2"]
    world.engine.gone(poll)
    session.send("4one")
    session.send(b"\2")
    poll = FakeExchange()
    poll.reads = False
    world.engine.handle(world.request(sid=session.sid), poll, None)
    assert poll.packets == ["2", "4one", "bAg=="]
    session.send("4three")
    world.turn()
    world.engine.gone(poll)
    world.engine.gone(poll)
    assert session.waiting > 0
    assert world.poll(session.sid) == ["2", "4one", "bAg==", "4three"] and session.waiting == 0
    assert world.post(session.sid, "3").body == "ok"
    world.wait(ABANDONED_POLL_SECONDS)
    assert not session.closed


def test_a_poll_that_comes_while_an_answer_is_written_gets_it_again(world: World) -> None:
    """The old connection may be dead without the server knowing."""
    session = world.open()
    first = world.get(session.sid)
    first.reads = False
    world.wait(25)
    session.send("4one")
    assert first.packets == ["2"]
    second = world.get(session.sid)
    assert second.packets == ["2", "4one"] and first.session is second.session is None
    assert world.post(session.sid, "3").body == "ok"
    first.read()
    world.engine.gone(first)
    world.wait(ABANDONED_POLL_SECONDS)
    assert not session.closed
    third = world.get(session.sid)
    session.send("4two")
    world.turn()
    assert third.packets == ["4two"]


def test_what_an_answer_had_that_nobody_has_read_comes_again(world: World) -> None:
    session = world.open()
    first = world.get(session.sid)
    first.reads = False
    session.send("4one")
    world.turn()
    world.engine.gone(first)
    session.taken(first)  # too late
    assert world.poll(session.sid) == ["4one"]


def test_a_ping_that_is_answered_is_not_sent_again(world: World) -> None:
    """The pong arrived on another connection; the poll's has not confirmed the response."""
    session = world.open()
    first = world.get(session.sid)
    first.reads = False
    world.wait(25)
    assert first.packets == ["2"]
    assert world.post(session.sid, "3").body == "ok"
    world.engine.gone(first)
    second = world.get(session.sid)
    session.send("4one")
    world.turn()
    assert second.packets == ["4one"]


def test_a_session_ends_whose_answer_nobody_has_read(world: World) -> None:
    session = world.open()
    first = world.get(session.sid)
    first.reads = False
    session.send("4one")
    world.turn()
    assert first.session is session
    session.close("transport error")
    assert session.closed and first.session is None


def test_a_poll_whose_client_has_left_ends_no_answer(world: World) -> None:
    """The poll may arrive later than the one that is being answered."""
    session = world.open()
    first = world.get(session.sid)
    first.reads = False
    session.send("4one")
    world.turn()
    left = FakeExchange()
    left.left = True
    world.engine.handle(world.request(sid=session.sid), left, None)
    session.send("4two")
    world.turn()
    world.engine.gone(left)
    world.wait(ABANDONED_POLL_SECONDS)
    assert left.response is None and not session.closed
    first.read()
    assert world.poll(session.sid) == ["4two"]


def test_a_client_that_has_not_read_the_last_answer_gets_it_with_the_next(world: World) -> None:
    session = world.open()
    for number in range(POLL_PACKETS + 1):
        session.send(f"4{number}")
    poll = FakeExchange()
    poll.reads = False
    world.engine.handle(world.request(sid=session.sid), poll, None)
    session.close()
    world.engine.gone(poll)
    assert session.state is State.CLOSING
    world.wait(ABANDONED_POLL_SECONDS)
    got = world.poll(session.sid) + world.poll(session.sid)
    assert got == [*(f"4{number}" for number in range(POLL_PACKETS + 1)), "1"]


def test_a_client_whose_poll_broke_is_gone_when_somebody_asks(world: World) -> None:
    session = world.open()
    answers: list[bool] = []
    world.engine.gone(world.get(session.sid))
    world.engine.ask(session.sid, answers.append)
    assert answers == [False] and world.reason == "transport close"


def test_a_ping_that_waits_for_a_poll_goes_by_the_websocket(world: World) -> None:
    session = world.open()
    world.wait(25)
    link = world.upgrade(session.sid)
    link.text("2probe", "5")
    assert session.state is State.WEBSOCKET and link.got == ["3probe", "2"]
    link.text("3")
    world.wait(24)
    assert not session.closed


def test_an_upgrade_ends_the_wait_for_a_poll(world: World) -> None:
    session = world.open()
    world.engine.gone(world.get(session.sid))
    link = world.upgrade(session.sid)
    link.text("2probe", "5")
    world.wait(ABANDONED_POLL_SECONDS)
    assert session.state is State.WEBSOCKET and not session.closed


def test_the_end_of_a_connection_whose_poll_has_been_answered_is_none(world: World) -> None:
    session = world.open()
    poll = world.get(session.sid)
    session.send("4x")
    world.turn()
    world.engine.gone(poll)
    session.gone(poll)
    assert not session.closed


def test_two_posts_at_the_same_time_end_the_session(world: World) -> None:
    world.owner.handler = lambda session, data: False
    session = world.open()
    first = world.post(session.sid, "4one", "4two")
    assert first.response is None
    second = world.post(session.sid, "4three")
    assert second.error == 3 and first.body == "ok"
    assert world.reason == "transport error"
    session.proceed()
    assert world.owner.messages == ["one"]


def test_the_client_closes(world: World) -> None:
    session = world.open()
    poll = world.get(session.sid)
    post = world.post(session.sid, "4last", "1", "4too late")
    assert poll.packets == ["6"] and post.body == "ok"
    assert world.reason == "client disconnect" and world.owner.messages == ["last"]
    assert session.state is State.CLOSED
    session.send("4ignored")
    session.close()
    assert len(world.owner.closed) == 1 and session.waiting == 0


def test_a_poll_that_comes_behind_the_close_that_it_was_sent_before(world: World) -> None:
    crossed, late = world.open(), world.open()
    for session in (crossed, late):
        session.send("4not for anybody")
        assert world.post(session.sid, "1").body == "ok"
    assert world.poll(crossed.sid) == ["6"]
    assert world.get(crossed.sid).error == 1
    world.wait(CROSSED_POLL_SECONDS)
    assert world.get(late.sid).error == 1
    assert [reason for _, reason in world.owner.closed] == ["client disconnect"] * 2


def test_a_client_that_goes_on_with_a_session_that_it_has_closed(world: World) -> None:
    for next_one in ("post", "upgrade"):
        session = world.open()
        assert world.post(session.sid, "1").body == "ok"
        assert session.state is State.LEFT
        if next_one == "post":
            assert world.post(session.sid, "3").error == 1
        else:
            assert world.get(session.sid, transport="websocket", **UPGRADE).error == 1
        assert session.state is State.CLOSED and world.get(session.sid).error == 1


@pytest.mark.parametrize("packet", ["x", "", "7", "9", "ä", "40\x1e\x1e", "bQ", "b\xff"])
def test_what_is_no_packet_ends_the_session(world: World, packet: str) -> None:
    session = world.open()
    poll = world.get(session.sid)
    post = world.post(session.sid, "4first", packet, "4never")
    assert post.error == 3 and poll.packets == ["1"]
    assert world.reason == "transport error" and world.owner.counted == ["protocol error"]
    assert "never" not in world.owner.messages


def test_a_post_that_is_not_text(world: World) -> None:
    session = world.open()
    assert world.post(session.sid, body=b"4\xff").error == 3
    assert world.reason == "transport error" and world.owner.counted == ["protocol error"]


def test_packets_that_a_client_need_not_send_do_no_harm(world: World) -> None:
    session, link = world.open_websocket()
    polling = world.open()
    link.text("0", "5", "6", "4x")
    assert world.post(polling.sid, "0", "5", "6", "4y").body == "ok"
    assert world.owner.messages == ["x", "y"] and not world.owner.closed
    assert not session.closed


def test_a_post_that_is_too_long(world: World) -> None:
    session = world.open()
    request, exchange = world.request("POST", session.sid), FakeExchange()
    assert world.engine.body_limit(request) == 1_000_000
    world.engine.refuse_body(request, exchange)
    assert exchange.error == 3 and exchange.closes
    assert world.reason == "transport error" and world.owner.counted == ["protocol error"]
    again = FakeExchange()
    world.engine.refuse_body(request, again)
    assert again.error == 1


def test_a_post_of_many_packets_leaves_others_a_turn(world: World) -> None:
    session = world.open()
    count = 2 * MESSAGES_AT_ONCE + 1
    post = world.post(session.sid, *["4x"] * count)
    assert len(world.owner.messages) == MESSAGES_AT_ONCE and post.response is None
    session.proceed()  # it is not the owner that it waits for
    assert len(world.owner.messages) == MESSAGES_AT_ONCE
    world.owner.tasks.popleft()()
    assert len(world.owner.messages) == 2 * MESSAGES_AT_ONCE
    world.turn()
    assert len(world.owner.messages) == count and post.body == "ok"


def test_a_form_of_jsonp_leaves_others_a_turn(world: World) -> None:
    session = world.open()
    post = world.post(session.sid, body=b"d=4" + b"%41" * 100_000)
    assert post.response is None and not world.owner.messages
    world.turn()
    assert post.body == "ok" and world.owner.messages == ["A" * 100_000]


def test_a_session_that_ends_between_two_turns_of_its_post(world: World) -> None:
    session = world.open()
    post = world.post(session.sid, *["4x"] * 100)
    session.close()
    assert post.body == "ok"
    world.turn()
    assert len(world.owner.messages) == MESSAGES_AT_ONCE


def test_an_owner_that_is_busy_holds_up_the_post(world: World) -> None:
    world.owner.handler = lambda session, data: data != "two"
    session = world.open()
    post = world.post(session.sid, "4one", "4two", "4three")
    assert world.owner.messages == ["one", "two"] and post.response is None
    world.turn()
    assert post.response is None
    session.proceed()
    assert world.owner.messages == ["one", "two", "three"] and post.body == "ok"
    session.proceed()  # there is nothing to go on with


def test_an_owner_that_fails(world: World) -> None:
    def fail(session: Session, data: Any) -> None:
        raise KeyError("a mistake of ours")

    world.owner.handler = fail
    session, other = world.open(), world.open()
    with pytest.raises(KeyError):
        world.post(session.sid, "4x")
    assert world.owner.closed == [(session.sid, "transport error")]
    world.owner.handler = lambda session, data: True
    assert world.post(other.sid, "4x").body == "ok"


def test_an_owner_that_closes_and_fails(world: World) -> None:
    def fail(session: Session, data: Any) -> None:
        session.close()
        raise KeyError("a mistake of ours")

    world.owner.handler = fail
    session = world.open()
    request, post = world.request("POST", session.sid), FakeExchange()
    with pytest.raises(KeyError):
        world.engine.handle(request, post, b"4x")
    assert post.body == "ok" and world.reason == "server disconnect"


def test_a_message_that_the_owner_refuses_ends_the_session(world: World) -> None:
    world.owner.handler = lambda session, data: session.refuse() if data == "bad" else True
    session = world.open()
    poll = world.get(session.sid)
    post = world.post(session.sid, "4good", "4bad", "4never")
    assert post.error == 3 and poll.packets == ["1"] and world.reason == "transport error"
    assert world.owner.messages == ["good", "bad"] and world.owner.counted == ["protocol error"]
    assert world.get(session.sid).error == 1
    session.refuse()
    assert len(world.owner.counted) == 1


def test_a_message_of_a_websocket_that_the_owner_refuses_ends_the_session(world: World) -> None:
    world.owner.handler = lambda session, data: session.refuse() if data == "bad" else True
    session, link = world.open_websocket()
    link.text("4good", "4bad", "4never")
    assert world.owner.messages == ["good", "bad"] and world.owner.counted == ["protocol error"]
    assert world.reason == "transport error" and link.closing
    assert [opcode for opcode, _ in link.frames][-1] == CLOSE


# --- what a client does not take ------------------------------------------------------------


def test_a_client_that_does_not_poll_asks_no_more(world: World) -> None:
    long = "4" + "x" * (READING_STOPS // 2)
    world.owner.handler = lambda session, data: session.send(long)
    session = world.open()
    post = world.post(session.sid, *["4x"] * 5)
    world.turn()
    assert len(world.owner.messages) == 2 and post.response is None
    world.wait(SLOW_OUTPUT_PATIENCE / 2)
    assert len(world.poll(session.sid)) == 2
    world.turn()
    assert len(world.owner.messages) == 4 and post.response is None
    world.wait(SLOW_OUTPUT_PATIENCE - 1)
    assert len(world.poll(session.sid)) == 2
    world.turn()
    assert len(world.owner.messages) == 5 and post.body == "ok"
    world.wait(SLOW_OUTPUT_PATIENCE - 1)
    assert not session.closed


def test_a_poll_that_takes_too_little_changes_nothing(world: World) -> None:
    session = world.open()
    for _ in range(3):
        session.send("4" + "x" * READING_STOPS)
    post = world.post(session.sid, "4x")
    world.poll(session.sid)
    world.turn()
    assert post.response is None
    world.wait(SLOW_OUTPUT_PATIENCE + 1)
    assert post.body == "ok" and not world.owner.messages
    assert world.reason == "transport error" and world.owner.counted == ["too slow"]


def test_what_is_much_too_much_ends_the_session_at_once(world: World) -> None:
    session = world.open()
    for _ in range(OUTPUT_CEILING // 1_000_000 + 1):
        session.send("4" + "x" * 1_000_000)
    assert world.owner.closed == [(session.sid, "transport error")]
    assert world.owner.counted == ["too slow"] and session.waiting == 0
    session.send("4ignored")
    assert session.waiting == 0


def test_also_when_a_poll_waits(world: World) -> None:
    session = world.open()
    poll = world.get(session.sid)
    for _ in range(OUTPUT_CEILING // 1_000_000 + 1):
        session.send("4" + "x" * 1_000_000)
    world.turn()
    assert poll.packets == ["6"] and world.owner.counted == ["too slow"]


def test_much_that_waits_for_long_ends_the_session(world: World) -> None:
    session = world.open()
    long = "4" + "x" * 1_000_000
    for _ in range(SLOW_OUTPUT // 1_000_000 + 2):
        session.send(long)
    world.now += SLOW_OUTPUT_PATIENCE - 1
    world.poll(session.sid)
    world.now += SLOW_OUTPUT_PATIENCE - 1
    session.send(long)
    assert not session.closed, "it polls"
    world.now += 2
    session.send(long)
    assert session.closed and world.owner.counted == ["too slow"]


# --- closing ------------------------------------------------------------------------------


def test_the_server_closes_while_a_poll_waits(world: World) -> None:
    session = world.open()
    poll = world.get(session.sid)
    session.send("4bye")
    session.close()
    assert poll.packets == ["4bye", "1"] and session.state is State.CLOSED
    assert world.reason == "server disconnect"
    world.turn()


def test_what_waits_when_the_server_closes_can_be_fetched(world: World) -> None:
    session = world.open()
    for number in range(POLL_PACKETS):
        session.send(f"4{number}")
    session.close()
    assert session.state is State.CLOSING and session.closed
    session.send("4too late")
    assert world.post(session.sid, "4ignored").body == "ok"
    assert world.poll(session.sid) == [f"4{number}" for number in range(POLL_PACKETS)]
    world.engine.forget(session.sid)
    assert session.sid in world.engine.sessions
    assert world.poll(session.sid) == ["1"]
    assert not world.engine.sessions and world.reason == "server disconnect"
    assert not world.owner.messages


def test_but_not_for_ever(world: World) -> None:
    session = world.open()
    world.engine.forget("unknown")
    session.close()
    world.wait(LAST_POLL_SECONDS - 1)
    assert session.state is State.CLOSING
    world.wait(1)
    assert session.state is State.CLOSED
    world.engine.forget(session.sid)
    assert not world.engine.sessions and world.deadlines.next() is None


def test_a_session_that_is_closed_in_the_middle_of_a_post(world: World) -> None:
    world.owner.handler = lambda session, data: session.close()
    session = world.open()
    post = world.post(session.sid, "4one", "4two")
    assert post.body == "ok" and world.owner.messages == ["one"]
    assert world.poll(session.sid) == ["1"]


@pytest.mark.parametrize("abort", [True, False])
def test_a_websocket_that_the_server_closes(world: World, abort: bool) -> None:
    session, link = world.open_websocket()
    session.send("4bye")
    session.close("server disconnect", abort)
    session.send("4too late")
    assert link.got[1:] == ["4bye"] + ["1"] * (not abort)
    assert link.frames[-1] == (CLOSE, b"\x03\xe8") and not link.ended
    assert session.live is None and session.state is State.CLOSED
    link.receive(masked(TEXT, b"4ignored") + masked(CLOSE, b"\x03\xe8"))
    assert link.ended and not world.owner.messages
    assert world.reason == "server disconnect"


def test_a_session_that_is_closed_by_its_own_message(world: World) -> None:
    world.owner.handler = lambda session, data: session.close()
    session, link = world.open_websocket()
    link.receive(masked(TEXT, b"4one") + masked(TEXT, b"4two"))
    assert world.owner.messages == ["one"] and link.got[-1] == "1"


def test_the_client_closes_its_websocket(world: World) -> None:
    session, link = world.open_websocket()
    link.text("1", "4too late")
    assert world.reason == "client disconnect" and not world.owner.messages
    assert "1" not in link.got and link.frames[-1][0] == CLOSE
    link.end()
    assert len(world.owner.closed) == 1


def test_a_connection_that_ends(world: World) -> None:
    session, link = world.open_websocket()
    link.end()
    assert world.reason == "transport close"
    session.send("4ignored")


@pytest.mark.parametrize("data", [masked(TEXT, b"x"), masked(TEXT, b""), b"GET / HTTP/1.1\r\n\r\n"])
def test_a_websocket_that_breaks_the_protocol(world: World, data: bytes) -> None:
    session, link = world.open_websocket()
    link.receive(data)
    assert world.reason == "transport close" and world.owner.counted == ["protocol error"]
    assert link.frames[-1][0] == CLOSE
    link.end()


# --- handshakes ----------------------------------------------------------------------------


def test_what_is_sent_while_the_application_decides(world: World) -> None:
    for transport in ("polling", "websocket"):
        request, exchange = handshake(world, transport)
        session = world.engine.open(request)
        assert session.state is State.OPENING and session.transport == "polling"
        session.send("4early")
        world.engine.accept(session, request, exchange)
        got = exchange.packets if exchange.link is None else exchange.link.got
        assert str(got[0]).startswith("0{") and got[1:] == ["4early"]


def handshake(world: World, transport: str) -> tuple[Any, FakeExchange]:
    from unit.engine.fakes import UPGRADE

    fields = UPGRADE if transport == "websocket" else {}
    return world.request(transport=transport, **fields), FakeExchange()


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize("abort", [True, False])
def test_a_session_that_is_closed_while_the_application_decides(
    world: World, transport: str, abort: bool
) -> None:
    request, exchange = handshake(world, transport)
    session = world.engine.open(request)
    session.close("server disconnect", abort)
    world.engine.accept(session, request, exchange)
    if abort:
        assert exchange.error == 1
    else:
        got = exchange.packets if exchange.link is None else exchange.link.got
        assert str(got[0]).startswith("0{") and got[1:] == ["1"]
    assert world.reason == "server disconnect" and session.state is State.CLOSED
    assert world.deadlines.next() is None or exchange.link is not None or not abort


def test_more_than_a_poll_takes_while_the_application_decides(world: World) -> None:
    request, exchange = handshake(world, "polling")
    session = world.engine.open(request)
    for number in range(POLL_PACKETS):
        session.send(f"4{number}")
    session.close()
    world.engine.accept(session, request, exchange)
    assert len(exchange.packets) == POLL_PACKETS and session.state is State.CLOSING
    assert world.poll(session.sid) == [f"4{POLL_PACKETS - 1}", "1"]
    assert session.state is State.CLOSED


# --- the upgrade ------------------------------------------------------------------------------


def test_upgrade(world: World) -> None:
    session = world.open()
    poll = world.get(session.sid)
    link = world.upgrade(session.sid)
    assert session.state is State.PROBING and poll.response is None
    session.send("4still by polling")
    world.turn()
    assert poll.packets == ["4still by polling"] and not poll.closes
    poll = world.get(session.sid)
    link.text("2probe")
    assert session.state is State.UPGRADING and link.got == ["3probe"]
    world.wait(UPGRADE_POLL_SECONDS)
    assert poll.packets == ["6"] and poll.closes
    assert world.post(session.sid, "4posted").body == "ok"
    session.send("4by websocket")
    assert session.transport == "polling" and session.live is None and not session.upgraded
    link.text("5", "4hello")
    assert session.transport == "websocket" and session.live is link and session.upgraded
    assert link.got == ["3probe", "4by websocket"]
    assert world.owner.messages == ["posted", "hello"] and world.owner.upgraded == [session.sid]
    assert world.get(session.sid).error == 3 and world.post(session.sid, "4x").error == 3
    session.send(b"\x00\x01")
    link.receive(masked(BINARY, b"\x02"))
    assert link.got[-1] == b"\x00\x01" and world.owner.messages[-1] == b"\x02"
    link.waiting = 7
    assert session.waiting == 7


def test_a_poll_gets_what_waits_when_the_upgrade_begins(world: World) -> None:
    session = world.open()
    link = world.upgrade(session.sid)
    poll = world.get(session.sid)
    session.send("4one")
    link.text("2probe")
    world.turn()
    assert poll.packets == ["4one"] and poll.closes
    session.send("4two")
    late = world.get(session.sid)
    assert late.packets == ["4two"] and late.closes


def test_a_poll_during_the_upgrade_is_answered_soon(world: World) -> None:
    session = world.open()
    link = world.upgrade(session.sid)
    link.text("2probe")
    poll = world.get(session.sid)
    assert poll.response is None
    world.wait(UPGRADE_POLL_SECONDS)
    assert poll.packets == ["6"] and poll.closes
    poll = world.get(session.sid)
    session.send("4x")
    world.turn()
    assert poll.packets == ["4x"]
    world.wait(UPGRADE_POLL_SECONDS)
    poll = world.get(session.sid)
    link.text("5")
    assert poll.packets == ["6"] and poll.closes and session.state is State.WEBSOCKET
    world.wait(UPGRADE_SECONDS + 1)
    assert not session.closed and not link.closing


@pytest.mark.parametrize("texts", [["5"], ["2probe", "2probe"], ["40"], ["2probe", ""]])
def test_an_upgrade_that_fails_leaves_the_session_with_polling(
    world: World, texts: list[str]
) -> None:
    session = world.open()
    link = world.upgrade(session.sid)
    link.text(*texts, "4ignored")
    assert link.frames[-1] == (CLOSE, b"\x03\xe8") and session.state is State.POLLING
    assert not world.owner.messages
    session.send("4x")
    assert world.poll(session.sid) == ["4x"]
    again = world.upgrade(session.sid)
    link.end()
    again.text("2probe", "5", "4y")
    assert world.owner.messages == ["y"] and session.live is again
    assert not world.owner.closed


@pytest.mark.parametrize("texts", [[], ["2probe"]])
@pytest.mark.parametrize("how", ["end", "time", "garbage"])
def test_an_upgrade_that_does_not_end(world: World, texts: list[str], how: str) -> None:
    session = world.open()
    poll: Optional[FakeExchange] = None
    link = world.upgrade(session.sid)
    link.text(*texts)
    poll = world.get(session.sid)
    if how == "end":
        link.end()
    elif how == "garbage":
        link.receive(b"\xff\xff")
        assert world.owner.counted == ["protocol error"]
    else:
        world.wait(UPGRADE_SECONDS - 1)
        assert session.state is not State.POLLING
        if texts:
            assert poll.packets == ["6"]
            poll = world.get(session.sid)
        world.wait(1)
        assert link.frames[-1][0] == CLOSE
    assert session.state is State.POLLING
    session.send("4x")
    world.turn()
    if poll.body != "6":
        assert poll.packets == ["4x"] and not poll.closes
    assert not world.owner.closed


def test_a_websocket_beside_another_one_is_closed(world: World) -> None:
    session = world.open()
    link = world.upgrade(session.sid)
    second = world.upgrade(session.sid)
    assert second.frames == [(CLOSE, b"\x03\xe8")]
    second.text("2probe")
    second.end()
    link.text("2probe", "5")
    third = world.upgrade(session.sid)
    assert third.frames == [(CLOSE, b"\x03\xe8")]
    third.end()
    link.text("4x")
    assert world.owner.messages == ["x"] and not world.owner.closed
    session.close()


def test_a_websocket_for_a_session_that_closes(world: World) -> None:
    session = world.open()
    session.close()
    assert world.upgrade(session.sid).frames == [(CLOSE, b"\x03\xe8")]
    assert world.poll(session.sid) == ["1"]


@pytest.mark.parametrize("texts", [[], ["2probe"]])
def test_a_session_that_ends_while_it_upgrades(world: World, texts: list[str]) -> None:
    session = world.open()
    link = world.upgrade(session.sid)
    link.text(*texts)
    session.send("4bye")
    session.close()
    link.text("5")
    assert link.frames[-1] == (CLOSE, b"\x03\xe8")
    assert world.poll(session.sid) == ["4bye", "1"]
    link.end()
    assert world.reason == "server disconnect"


def test_what_was_posted_comes_before_what_the_websocket_sends(world: World) -> None:
    busy: list[bool] = [True]
    world.owner.handler = lambda session, data: not busy[0]
    session = world.open()
    link = world.upgrade(session.sid)
    link.text("2probe")
    post = world.post(session.sid, "4one", "4two")
    link.text("5", "4three")
    assert session.state is State.WEBSOCKET and world.owner.messages == ["one"]
    busy[0] = False
    session.proceed()
    link.turn()
    assert post.body == "ok" and world.owner.messages == ["one", "two", "three"]


def test_a_client_that_leaves_does_not_wait_for_its_pending_output(world: World) -> None:
    session = world.open()
    session.send("4" + "x" * READING_STOPS)
    assert world.post(session.sid, "1").body == "ok"
    assert world.reason == "client disconnect" and world.owner.counted == []


def test_a_post_that_waited_for_polls_goes_on_after_the_upgrade(world: World) -> None:
    session = world.open()
    link = world.upgrade(session.sid)
    link.text("2probe")
    session.send("4" + "x" * READING_STOPS)
    post = world.post(session.sid, "4one")
    link.text("5", "4two")
    assert post.response is None
    world.turn()
    link.turn()
    assert post.body == "ok" and world.owner.messages == ["one", "two"]
    world.wait(SLOW_OUTPUT_PATIENCE + 1)
    assert not session.closed


def test_an_owner_that_is_busy_holds_up_the_websocket(world: World) -> None:
    busy: list[bool] = [True]
    world.owner.handler = lambda session, data: not busy[0]
    session, link = world.open_websocket()
    link.text("4one", "4two")
    assert world.owner.messages == ["one"] and not link.reading
    busy[0] = False
    session.proceed()
    link.turn()
    assert world.owner.messages == ["one", "two"]
    session.proceed()
    world.post(session.sid, "4x")


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_who_is_held_up_need_not_answer_pings(transport: str) -> None:
    """While reading is paused a pong cannot arrive; afterwards it is awaited as before."""
    world = World(ping_interval=10, ping_timeout=5)
    busy: list[bool] = [True]
    world.owner.handler = lambda session, data: not busy[0]
    if transport == "websocket":
        session, link = world.open_websocket()
        link.text("4one", "3")
    else:
        session = world.open()
        world.post(session.sid, "4one\x1e3")
    for _ in range(10):
        world.wait(10)
        assert not session.closed and not session.overdue
    busy[0] = False
    session.proceed()
    world.wait(30)
    assert session.closed


def test_who_was_held_up_has_time_for_the_next_request() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    busy: list[bool] = [True]
    world.owner.handler = lambda session, data: not busy[0]
    session = world.open()
    world.post(session.sid, "4one")
    for _ in range(3):
        world.wait(10)
    busy[0] = False
    session.proceed()
    world.wait(1)
    assert world.get(session.sid).packets == ["2"]  # the ping that was due meanwhile
    world.post(session.sid, "3")
    world.wait(9)
    assert not session.closed


# --- pings --------------------------------------------------------------------------------------


def test_pings_of_a_websocket() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session, link = world.open_websocket()
    for count in range(1, 4):
        world.wait(10)
        assert link.got[1:] == ["2"] * count
        world.wait(2)
        link.text("3")
    link.text("3")  # without a ping
    world.wait(10)
    world.wait(5)
    assert world.reason == "ping timeout" and link.got[-1] == "1"


def test_a_client_that_takes_what_waits_for_it_is_there() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session, link = world.open_websocket()
    link.takes_output = True
    world.wait(30)
    assert not session.closed and link.got.count("2") == 1
    link.takes_output = False
    world.wait(5)
    assert world.reason == "ping timeout"


def test_an_answer_proves_what_was_sent_before_its_ping() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session, link = world.open_websocket()
    assert session.proven == 0
    world.wait(10)
    sent = world.now
    world.wait(4)
    assert session.proven == 0
    link.text("3")
    assert session.proven == sent and not world.owner.behind


def test_a_late_answer_proves_nothing() -> None:
    """The owner is told that a client is behind, until it answers in time again."""
    world = World(ping_interval=10, ping_timeout=5)
    session, link = world.open_websocket()
    world.wait(10)
    proven = world.now
    link.text("3")
    world.wait(10)
    link.takes_output = True
    world.wait(20)
    assert world.owner.behind == [True] and session.behind
    link.text("3")
    assert session.proven == proven and session.behind
    world.wait(10)
    sent = world.now
    link.text("3")
    assert session.proven == sent
    assert world.owner.behind == [True, False] and not session.behind


@pytest.mark.parametrize("many", [False, True])
def test_a_ping_ahead_of_what_is_left_for_the_next_poll_proves_nothing(many: bool) -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session = world.open()
    for _ in range(POLL_PACKETS if many else 2):
        session.send("4x")
    world.wait(10)
    sent = world.now
    assert world.get(session.sid).packets[0] == "2"
    world.post(session.sid, "3")
    assert (session.proven == sent) is not many
    assert session.behind is many


def test_a_ping_before_a_pause_of_the_server() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session, link = world.open_websocket()
    world.wait(3)
    for _ in range(2):  # one is enough
        session.ping_early()
    assert link.got[-1] == "2" and link.got.count("2") == 1
    assert session.deadline == world.now + 5
    link.text("3")
    assert session.deadline == world.now + 10
    session.close("server disconnect")
    session.ping_early()
    assert link.got.count("2") == 1


def test_a_poll_that_waits_gets_no_ping_early() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session = world.open()
    poll = world.get(session.sid)
    session.ping_early()
    world.wait(0)
    assert poll.response is None


def test_a_client_is_asked_whether_it_is_there() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session, link = world.open_websocket()
    answers: list[bool] = []
    for _ in range(2):  # they share a ping
        world.engine.ask(session.sid, answers.append)
    assert link.got[-1] == "2" and link.got.count("2") == 1 and not answers
    link.text("3")
    assert answers == [True, True] and session.deadline == world.now + 10
    link.text("3")
    world.engine.ask(session.sid, answers.append)
    world.wait(5)
    assert session.closed and answers == [True, True, False]
    world.engine.ask(session.sid, answers.append)
    assert answers.pop() is False


def test_a_client_that_polls_is_asked_whether_it_is_there() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session = world.open()
    answers: list[bool] = []
    poll = world.get(session.sid)
    world.engine.ask(session.sid, answers.append)
    world.wait(0)
    assert poll.packets == ["2"]
    world.post(session.sid, "3")
    assert answers == [True]
    world.engine.ask(session.sid, answers.append)
    world.post(session.sid, "3")  # not to this ping, which nobody has fetched
    assert answers == [True]
    session.close("server disconnect")
    assert answers == [True, False]


def test_pings_of_polling() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session = world.open()
    for _ in range(3):
        poll = world.get(session.sid)
        world.wait(10)
        assert poll.packets == ["2"]
        world.wait(4)
        assert world.post(session.sid, "3").body == "ok"
    world.wait(10)
    for number in range(POLL_PACKETS):
        session.send(f"4{number}")
    assert world.poll(session.sid)[0] == "2"  # ahead of what waits
    assert world.poll(session.sid) == [f"4{POLL_PACKETS - 1}"]
    poll = world.get(session.sid)
    world.wait(5)
    assert world.reason == "ping timeout" and poll.packets == ["1"]
    assert world.post(session.sid, "3").error == 1, "too late"
    assert world.get(session.sid).error == 1


def test_a_session_is_overdue_though_nobody_has_looked_yet() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session = world.open()
    world.wait(10.05)  # the ping is a little late, and its answer is due all the same
    world.now = session.deadline - 0.01
    assert world.get(session.sid).packets == ["2"]
    world.now += 0.02
    assert world.get(session.sid).error == 1
    assert world.reason == "ping timeout" and session.state is State.CLOSED


def test_who_was_not_pinged_in_time_has_all_the_time_to_answer() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session = world.open()
    world.now += 30  # this process was busy
    world.wait(0)
    assert world.get(session.sid).packets == ["2"]
    world.now += 4.8
    assert world.post(session.sid, "3").body == "ok"
    assert not session.closed


def test_a_pong_without_its_ping_keeps_no_session() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session = world.open()
    world.wait(10)
    assert world.post(session.sid, "3").body == "ok"
    world.wait(5)
    assert world.reason == "ping timeout" and session.state is State.CLOSED


def test_a_ping_that_nobody_has_fetched_goes_out_by_the_websocket() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session = world.open()
    session.send("4news")
    world.wait(10)
    link = world.upgrade(session.sid)
    link.text("2probe", "5")
    assert link.got == ["3probe", "2", "4news"]
    link.text("3")
    world.wait(9)
    assert not session.closed


def test_a_ping_that_was_fetched_is_answered_by_the_websocket() -> None:
    world = World(ping_interval=10, ping_timeout=5)
    session = world.open()
    world.wait(10)
    assert world.poll(session.sid) == ["2"]
    link = world.upgrade(session.sid)
    link.text("2probe", "5", "3")
    world.wait(9)
    assert not session.closed and link.got == ["3probe"]
    world.wait(6)
    assert world.reason == "ping timeout" and world.owner.closed[0][0] == session.sid


def test_binary_messages_both_ways(world: World) -> None:
    session = world.open()
    data = bytes(range(256))
    session.send(data)
    (packet,) = world.poll(session.sid)
    assert packet == "b" + base64.b64encode(data).decode()
    world.post(session.sid, packet)
    assert world.owner.messages == [data]


def test_an_upgrade_and_its_session_that_expire_together(world: World) -> None:
    session = world.open()
    ends = session.deadline + world.options.ping_timeout
    world.wait(ends - UPGRADE_SECONDS - world.now)
    link = world.upgrade(session.sid)
    world.now = ends + 1
    for item in world.deadlines.expired(world.now):
        item.on_deadline(world.now)
    assert world.reason == "ping timeout" and session.state is State.CLOSED
    world.engine.forget(session.sid)
    link.end()
    assert not world.engine.sessions
    world.wait(100)
    assert world.deadlines.next() is None


def test_a_websocket_that_its_client_has_closed_says_no_more(world: World) -> None:
    """Pending output is still being sent at that time."""
    session, link = upgraded(world)
    link.close = lambda read_on: None  # type: ignore[method-assign]
    link.receive(masked(CLOSE, b""))
    session.close()
    assert world.reason == "server disconnect"
    link.end()
    assert world.reason == "server disconnect"


def test_a_candidate_that_its_client_has_closed_is_not_the_next_one(world: World) -> None:
    session = world.open()
    link = world.upgrade(session.sid)
    link.close = lambda read_on: None  # type: ignore[method-assign]
    world.wait(UPGRADE_SECONDS - 1)
    link.receive(masked(CLOSE, b""))
    world.wait(1)
    following = world.upgrade(session.sid)
    link.end()
    following.text("2probe", "5")
    assert session.state is State.WEBSOCKET


# --- whether something is under way ------------------------------------------------------


def test_at_rest_with_polling(world: World) -> None:
    session = world.open()
    assert session.at_rest
    poll = world.get(session.sid)
    assert session.at_rest, "that waits for what will be sent"
    session.send("4one")
    assert not session.at_rest
    poll.reads = False
    world.turn()
    assert not session.at_rest, "the client has yet to take the answer"
    poll.read()
    assert session.at_rest
    world.owner.handler = lambda session, data: False
    world.post(session.sid, "4one", "4two")
    assert not session.at_rest
    session.proceed()
    session.proceed()
    assert session.at_rest
    session.running = [None]
    assert not session.at_rest
    session.running = []
    assert session.at_rest
    session.close()
    assert not session.at_rest


def test_at_rest_with_a_websocket(world: World) -> None:
    session = world.open()
    link = world.upgrade(session.sid)
    assert not session.at_rest, "it changes to the websocket"
    link.text("2probe")
    assert not session.at_rest
    link.text("5")
    assert session.at_rest
    link.waiting = 10
    assert not session.at_rest
