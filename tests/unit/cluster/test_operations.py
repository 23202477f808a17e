from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Iterator, List, Tuple

import pytest
import socketio

from supervisor_sio import ZmqManager
from supervisor_sio.cluster.gathering import Answers
from supervisor_sio.cluster.operations import RemoteSocket, RoomSizes
from supervisor_sio.common import identity
from supervisor_sio.common.rundir import ENVIRONMENT_VARIABLE
from supervisor_sio.relay.message import RelayMessage
from unit.polling import ADDRESS, PollingClient, make_server

OTHER = "ffffffff"


@pytest.fixture(autouse=True)
def outside_supervisord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def manager() -> ZmqManager:
    manager = ZmqManager()
    server = make_server(client_manager=manager)
    server.on("connect", lambda sid, environ: None, namespace="/chat")
    return manager


@pytest.fixture
def server(manager: ZmqManager) -> socketio.Server:
    return manager.server


@pytest.fixture
def clients(server: socketio.Server) -> list[PollingClient]:
    """Two in the room "even", two in "odd", two of them in "low"."""
    clients = [PollingClient(server) for _ in range(4)]
    for number, client in enumerate(clients):
        server.enter_room(client.sid, "odd" if number % 2 else "even")
    for client in clients[:2]:
        server.enter_room(client.sid, "low")
    return clients


Start = Callable[..., "Future[Any]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Calls something that waits for answers in another thread."""
    with ThreadPoolExecutor() as executor:
        yield executor.submit


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def numbers(clients: list[PollingClient], sockets: list[RemoteSocket]) -> list[int]:
    """Which of the clients these are."""
    sids = [client.sid for client in clients]
    return sorted(sids.index(socket.sid) for socket in sockets)


def heard(manager: ZmqManager, clients: list[PollingClient]) -> list[bool]:
    """Whether each client had an event, before one that all get."""
    manager.emit("last", None)
    events = [client.receive() for client in clients]
    assert all(packets[-1] == '42["last"]' for packets in events)
    return [len(packets) > 1 for packets in events]


# --- who is there ---------------------------------------------------------------


def test_a_client_as_it_is_described(manager: ZmqManager, server: socketio.Server) -> None:
    client = PollingClient(server)
    server.enter_room(client.sid, "room")
    (socket,) = manager.fetch_sockets()
    assert socket == RemoteSocket(
        sid=client.sid,
        namespace="/",
        rooms=socket.rooms,
        worker=identity.process_name(),
        transport="polling",
        address=ADDRESS,
        data={},
    )
    assert sorted(socket.rooms) == sorted([client.sid, "room"])


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    ("room", "except_room", "selected"),
    [
        (None, None, [0, 1, 2, 3]),
        ("even", None, [0, 2]),
        (["even", "low"], None, [0, 1, 2]),
        (("odd", "low"), None, [0, 1, 3]),
        ("nobody", None, []),
        ([], None, []),
        (None, "even", [1, 3]),
        (None, ["even", "low"], [3]),
        (None, [], [0, 1, 2, 3]),
        (None, "nobody", [0, 1, 2, 3]),
        ("even", "low", [2]),
        ("low", ["even", "odd"], []),
    ],
)
def test_who_is_selected(
    manager: ZmqManager,
    clients: list[PollingClient],
    room: Any,
    except_room: Any,
    selected: list[int],
    local: bool,
) -> None:
    sockets = manager.fetch_sockets(room, except_room=except_room, local=local)
    assert isinstance(sockets, Answers)
    assert numbers(clients, sockets) == selected
    assert (sockets.timed_out, sockets.missing) == (False, 0)


def test_a_room_of_one(manager: ZmqManager, clients: list[PollingClient]) -> None:
    sids = [clients[1].sid, clients[2].sid]
    assert numbers(clients, manager.fetch_sockets(sids[0])) == [1]
    assert numbers(clients, manager.fetch_sockets(sids)) == [1, 2]
    assert numbers(clients, manager.fetch_sockets(except_room=sids)) == [0, 3]


def test_namespaces_are_apart(
    manager: ZmqManager, server: socketio.Server, clients: list[PollingClient]
) -> None:
    other = PollingClient(server, "/chat")
    server.enter_room(other.sid, "low", namespace="/chat")
    (socket,) = manager.fetch_sockets(namespace="/chat")
    assert (socket.sid, socket.namespace) == (other.sid, "/chat")
    assert len(manager.fetch_sockets()) == 4
    assert manager.fetch_rooms(namespace="/chat") == {"low": 1}
    assert manager.fetch_sockets(namespace="/none") == []
    assert manager.fetch_rooms(namespace="/none") == {}


def test_only_the_shared_keys_of_a_session_are_shown(
    manager: ZmqManager, server: socketio.Server, clients: list[PollingClient]
) -> None:
    server.save_session(clients[0].sid, {"user": "ann", "secret": 1, "age": 7})
    server.save_session(clients[1].sid, {"secret": 2})
    assert all(socket.data == {} for socket in manager.fetch_sockets())
    manager.share_session_keys("user")
    manager.share_session_keys("age", "shoes")
    data = {socket.sid: socket.data for socket in manager.fetch_sockets()}
    assert [data[client.sid] for client in clients] == [{"user": "ann", "age": 7}, {}, {}, {}]


def test_rooms(manager: ZmqManager, server: socketio.Server, clients: list[PollingClient]) -> None:
    sizes = manager.fetch_rooms()
    assert isinstance(sizes, RoomSizes)
    assert sizes == {"even": 2, "odd": 2, "low": 2}
    assert sizes["nobody"] == 0
    assert (sizes.timed_out, sizes.missing) == (False, 0)
    server.leave_room(clients[0].sid, "low")
    server.close_room("odd")
    assert manager.fetch_rooms(local=True) == {"even": 2, "low": 1}


def test_any_room_that_can_be_entered_counts(
    manager: ZmqManager, server: socketio.Server, clients: list[PollingClient]
) -> None:
    for room in ("", 0, 7):
        server.enter_room(clients[0].sid, room)
    sizes = manager.fetch_rooms()
    assert (sizes[""], sizes[0], sizes[7], sizes[clients[0].sid]) == (1, 1, 1, 0)


def test_this_worker_counts(manager: ZmqManager) -> None:
    assert manager.server_count() == 1
    manager.set_members({manager.host_id: False, OTHER: True})
    assert manager.server_count() == 2
    assert [manager.lives(tag) for tag in (OTHER, "other")] == [True, False]
    assert [manager.is_remote(tag) for tag in (OTHER, manager.host_id)] == [True, False]
    assert [manager.is_local(tag) for tag in (OTHER, manager.host_id)] == [False, True]
    manager.set_members({})
    assert manager.server_count() == 1


# --- what is done with all of a room --------------------------------------------


@pytest.mark.parametrize("rooms", ["new", ["new", "newer"], ("newer", "new")])
@pytest.mark.parametrize("local", [False, True])
def test_sockets_join_and_leave(
    manager: ZmqManager, clients: list[PollingClient], rooms: Any, local: bool
) -> None:
    manager.sockets_join(rooms, room="even", except_room=clients[0].sid, local=local)
    assert numbers(clients, manager.fetch_sockets("new")) == [2]
    manager.sockets_join(rooms, local=local)
    manager.sockets_join(rooms)
    assert numbers(clients, manager.fetch_sockets("new")) == [0, 1, 2, 3]
    manager.sockets_leave(rooms, room="odd", local=local)
    manager.sockets_leave(rooms, room=["odd", "nobody"])
    assert numbers(clients, manager.fetch_sockets("new")) == [0, 2]
    expected = {"even": 2, "odd": 2, "low": 2, "new": 2}
    assert manager.fetch_rooms() == {**expected, **({} if rooms == "new" else {"newer": 2})}
    manager.sockets_leave(rooms, except_room="nobody")
    assert manager.fetch_sockets("new") == []


def test_nobody_is_selected(manager: ZmqManager, clients: list[PollingClient]) -> None:
    before = manager.fetch_rooms()
    manager.sockets_join("new", room=[])
    manager.sockets_join("new", room="nobody")
    manager.sockets_join([])
    manager.sockets_leave("even", room=[])
    manager.disconnect_sockets(room=[])
    manager.disconnect_sockets(room="nobody")
    time.sleep(0.05)
    assert manager.fetch_rooms() == before


def test_disconnect_sockets(
    manager: ZmqManager, server: socketio.Server, clients: list[PollingClient]
) -> None:
    gone: list[str] = []
    server.on("disconnect", lambda sid, reason: gone.append(sid))
    manager.disconnect_sockets("even", except_room="low")
    eventually(lambda: gone == [clients[2].sid])
    assert numbers(clients, manager.fetch_sockets()) == [0, 1, 3]
    manager.disconnect_sockets(local=True)
    eventually(lambda: len(gone) == 4)
    assert set(gone) == {client.sid for client in clients}
    assert manager.fetch_sockets() == [] and manager.fetch_rooms() == {}


# --- emits ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "except_room", "expected"),
    [
        (None, "even", [1, 3]),
        (None, ["even", "low"], [3]),
        ("even", "low", [2]),
        (["even", "odd"], ["nobody"], [0, 1, 2, 3]),
        ([], None, []),
        ((), None, []),
        (["nobody"], None, []),
        (None, [], [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_whom_an_emit_reaches(
    manager: ZmqManager,
    clients: list[PollingClient],
    room: Any,
    except_room: Any,
    expected: list[int],
    local: bool,
) -> None:
    manager.emit("news", 1, room=room, except_room=except_room, local=local)
    reached = [number for number, yes in enumerate(heard(manager, clients)) if yes]
    assert reached == expected


def test_skipped_and_excepted(manager: ZmqManager, clients: list[PollingClient]) -> None:
    manager.emit("news", 1, except_room="low", skip_sid=clients[3].sid)
    assert heard(manager, clients) == [False, False, True, False]


# --- acknowledgements of many ---------------------------------------------------


def test_all_answer(manager: ZmqManager, clients: list[PollingClient], start: Start) -> None:
    future = start(manager.emit_with_acks, "ask", {"n": 1}, timeout=10)
    for number, client in enumerate(clients):
        ack_id, event = client.question()
        assert event == ["ask", {"n": 1}] and not future.done()
        client.answer(ack_id, number)
    answers = future.result(5)
    assert isinstance(answers, Answers)
    assert sorted(answers) == [0, 1, 2, 3]
    assert (answers.timed_out, answers.missing) == (False, 0)


@pytest.mark.parametrize(
    ("values", "answer"), [((), None), ((1,), 1), ((1, "b"), (1, "b")), (([1],), [1])]
)
def test_an_answer_is_as_that_of_a_call(
    manager: ZmqManager, server: socketio.Server, start: Start, values: Any, answer: Any
) -> None:
    client = PollingClient(server)
    future = start(manager.emit_with_acks, "ask", timeout=10)
    ack_id, event = client.question()
    assert event == ["ask"]
    client.answer(ack_id, *values)
    assert future.result(5) == [answer]


def test_only_those_who_are_asked_are_waited_for(
    manager: ZmqManager, clients: list[PollingClient], start: Start
) -> None:
    future = start(
        manager.emit_with_acks,
        "ask",
        (1, 2),
        room=["even", "low"],
        except_room=clients[2].sid,
        skip_sid=[clients[1].sid],
        timeout=10,
    )
    ack_id, event = clients[0].question()
    assert event == ["ask", 1, 2]
    clients[0].answer(ack_id, "yes")
    assert future.result(5) == ["yes"]
    assert heard(manager, clients) == [False] * 4


@pytest.mark.parametrize("room", [None, [], "nobody"])
def test_nobody_to_ask(manager: ZmqManager, room: Any) -> None:
    before = time.monotonic()
    answers = manager.emit_with_acks("ask", room=room, timeout=10)
    assert (answers, answers.timed_out, answers.missing) == ([], False, 0)
    assert time.monotonic() - before < 5


def test_the_time_is_up(manager: ZmqManager, clients: list[PollingClient], start: Start) -> None:
    future = start(manager.emit_with_acks, "ask", timeout=0.5)
    questions = [client.question()[0] for client in clients]
    clients[1].answer(questions[1], "in time")
    answers = future.result(5)
    assert (answers, answers.timed_out, answers.missing) == (["in time"], True, 3)
    clients[2].answer(questions[2], "too late")
    assert answers == ["in time"] and manager._calls == {}


def test_an_answer_that_comes_twice(
    manager: ZmqManager, clients: list[PollingClient], start: Start
) -> None:
    future = start(manager.emit_with_acks, "ask", room="low", timeout=0.3)
    ack_id, _ = clients[0].question()
    clients[0].answer(ack_id, 1)
    clients[0].answer(ack_id, 2)
    answers = future.result(5)
    assert (answers, answers.timed_out, answers.missing) == ([1], True, 1)


@pytest.mark.parametrize("how", ["it leaves", "it is told to"])
def test_a_client_that_disconnects_is_not_waited_for(
    manager: ZmqManager,
    server: socketio.Server,
    clients: list[PollingClient],
    start: Start,
    how: str,
) -> None:
    future = start(manager.emit_with_acks, "ask", room="low", timeout=60)
    ack_id, _ = clients[0].question()
    clients[1].question()
    clients[0].answer(ack_id, "yes")
    if how == "it leaves":
        clients[1].close()
    else:
        server.disconnect(clients[1].sid)
    answers = future.result(5)
    assert (answers, answers.timed_out, answers.missing) == (["yes"], False, 1)


def test_two_questions_at_a_time(
    manager: ZmqManager, server: socketio.Server, start: Start
) -> None:
    client = PollingClient(server)
    first = start(manager.emit_with_acks, "first", timeout=10)
    first_id, _ = client.question()
    second = start(manager.emit_with_acks, "second", timeout=10)
    second_id, _ = client.question()
    client.answer(second_id, 2)
    assert second.result(5) == [2] and not first.done()
    client.answer(first_id, 1)
    assert first.result(5) == [1]


def test_a_question_that_cannot_be_encoded(
    manager: ZmqManager, clients: list[PollingClient]
) -> None:
    with pytest.raises(TypeError):
        manager.emit_with_acks("ask", object())
    assert heard(manager, clients) == [False] * 4
    assert manager._calls == {}


# --- other workers --------------------------------------------------------------


def test_alone_nobody_answers_a_server_side_call(manager: ZmqManager) -> None:
    manager.on("ask", lambda *args: pytest.fail("it asks itself"))
    before = time.monotonic()
    answers = manager.server_side_call("ask", 1, timeout=10)
    assert (answers, answers.timed_out, answers.missing) == ([], False, 0)
    manager.server_side_emit("ask", 1)
    assert time.monotonic() - before < 5


def test_arguments_that_cannot_be_encoded(manager: ZmqManager) -> None:
    with pytest.raises(TypeError):
        manager.server_side_emit("tell", object())
    with pytest.raises(TypeError):
        manager.server_side_call("ask", object())


class Sent(List[Tuple[Any, Any, Any]]):
    """What a manager sends to other workers: to whom, fields, arguments."""

    def __init__(self, manager: ZmqManager, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()

        def send_to(tags: Any, fields: Any, packets: Any = (), what: str = "") -> None:
            message = RelayMessage.unpack(RelayMessage("x", 1, fields, packets).pack())
            arguments = manager._decode(message) if packets else None
            self.extend((tag, message.fields, arguments) for tag in tags)

        monkeypatch.setattr(manager, "_send_to", send_to)

    def wait(self, count: int) -> None:
        eventually(lambda: len(self) == count)


@pytest.fixture
def sent(manager: ZmqManager, monkeypatch: pytest.MonkeyPatch) -> Sent:
    return Sent(manager, monkeypatch)


def from_another(manager: ZmqManager, *arguments: Any, **fields: Any) -> None:
    """A message of another worker comes."""
    packets = manager._encode(3, "/", list(arguments), 0)
    fields = {"namespace": "/", "packet": manager._packet_format(), **fields}
    message = RelayMessage(OTHER, 1, fields, packets)
    ZmqManager._HANDLERS[fields["method"]](manager, message)


def test_a_server_side_event_of_another(manager: ZmqManager, sent: Sent) -> None:
    got: list[Any] = []

    @manager.on("tell")
    def tell(*args: Any) -> None:
        got.append(args)

    manager.on("tell", lambda *args: got.append("chat"), namespace="/chat")
    from_another(manager, 1, b"\0", method="server_side_emit", event="tell")
    from_another(manager, 1, method="server_side_emit", event="unknown")
    eventually(lambda: got == [(1, b"\0")])
    assert sent == []


def test_a_server_side_call_of_another(manager: ZmqManager, sent: Sent) -> None:
    manager.on("double", lambda number: 2 * number)
    manager.on("fail", lambda: 1 / 0)
    call = {"method": "request", "operation": "server_side_call"}
    from_another(manager, b"ab", **call, event="double", request=5)
    sent.wait(1)
    from_another(manager, **call, event="fail", request=6)
    sent.wait(2)
    from_another(manager, **call, event="unknown", request=7)
    from_another(manager, method="request", operation="of a newer version", request=8)
    sent.wait(4)
    answer = {"method": "answer", "worker": manager.host_id}
    packet = manager._packet_format()
    assert sent == [
        (OTHER, {**answer, "request": 5, "packet": packet}, [b"abab"]),
        *[(OTHER, {**answer, "request": number}, None) for number in (6, 7, 8)],
    ]


def test_an_answer_that_cannot_be_encoded_is_none(manager: ZmqManager, sent: Sent) -> None:
    manager.on("ask", lambda: object())
    from_another(manager, method="request", operation="server_side_call", event="ask", request=1)
    sent.wait(1)
    assert sent[0][2] is None


def test_another_fetches(manager: ZmqManager, clients: list[PollingClient], sent: Sent) -> None:
    question = {"method": "request", "request": 1, "room": "low"}
    from_another(manager, **question, operation="fetch_sockets", except_room="even")
    from_another(manager, **question, operation="fetch_rooms", reply_to="0a1b2c3d")
    (first, _, (sockets,)), (second, _, (rooms,)) = sent
    assert (first, second) == (OTHER, "0a1b2c3d")
    assert [socket["sid"] for socket in sockets] == [clients[1].sid]
    assert RemoteSocket(**sockets[0]) in manager.fetch_sockets()
    assert sorted(rooms) == [["even", 2], ["low", 2], ["odd", 2]]


def test_another_asks_clients(
    manager: ZmqManager, clients: list[PollingClient], sent: Sent
) -> None:
    packets = manager._encode(2, "/", ["ask", 1], 77)
    fields = {"method": "emit", "namespace": "/", "packet": manager._packet_format()}
    asked = {**fields, "room": "low", "ack": 77, "request": 9, "timeout": 5}
    manager._on_emit(RelayMessage(OTHER, 1, asked, packets))
    for client in clients[:2]:
        assert client.question() == (77, ["ask", 1])
    clients[0].answer(77, "yes", 2)
    clients[1].close()
    reply = {"request": 9, "worker": manager.host_id}
    assert [(tag, {**fields, "packet": ""}, data) for tag, fields, data in sent] == [
        (OTHER, {"method": "expect", **reply, "count": 2, "packet": ""}, None),
        (OTHER, {"method": "answer", **reply, "client": True, "packet": ""}, ["yes", 2]),
        (OTHER, {"method": "answer", **reply, "packet": ""}, None),
    ]


def test_answers_of_others_are_put_together(
    manager: ZmqManager, server: socketio.Server, sent: Sent, start: Start
) -> None:
    client = PollingClient(server)
    manager.set_members({manager.host_id: False, OTHER: False, "dead": False, "mute": False})
    future = start(manager.emit_with_acks, "ask", timeout=10)
    ack_id, _ = client.question()
    eventually(lambda: len(sent) == 1)
    request = sent[0][1]["request"]
    reply = {"request": request, "worker": OTHER}
    from_another(manager, method="expect", **reply, count=3)
    from_another(manager, 1, method="answer", **reply)
    from_another(manager, 2, 3, method="answer", **reply)
    manager._on_answer(RelayMessage(OTHER, 1, {"method": "answer", **reply}))
    from_another(manager, method="expect", request=request, worker="mute", count=0)
    client.answer(ack_id, 4)
    time.sleep(0.05)
    assert not future.done()
    manager.set_members({manager.host_id: False, OTHER: False, "mute": False})
    answers = future.result(5)
    assert sorted(answers, key=str) == [(2, 3), 1, 4]
    assert (answers.timed_out, answers.missing) == (False, 2)
    from_another(manager, 1, method="answer", **reply)  # too late


def test_others_that_say_nothing(
    manager: ZmqManager, clients: list[PollingClient], sent: Sent
) -> None:
    manager.set_members({manager.host_id: False, OTHER: False})
    sockets = manager.fetch_sockets("low", timeout=0.1)
    assert (len(sockets), sockets.timed_out, sockets.missing) == (2, True, 1)
    rooms = manager.fetch_rooms(timeout=0.1)
    assert (rooms["low"], rooms.timed_out, rooms.missing) == (2, True, 1)
    answers = manager.server_side_call("ask", timeout=0.1)
    assert (answers, answers.timed_out, answers.missing) == ([], True, 1)
    assert [tag for tag, _, _ in sent] == [None] * 3
    local = manager.fetch_sockets("low", local=True)
    assert (len(local), local.timed_out, local.missing) == (2, False, 0)
    assert len(sent) == 3


def test_a_write_only_manager_hears_no_answers() -> None:
    manager = ZmqManager("zmq+ipc:///nowhere", write_only=True)
    for ask in (
        manager.fetch_sockets,
        manager.fetch_rooms,
        lambda: manager.emit_with_acks("ask"),
        lambda: manager.server_side_call("ask"),
    ):
        with pytest.raises(RuntimeError, match="work only inside a worker: this process serves no"):
            ask()
