"""Clients in every state in which a takeover can find them.

Each case is a generator that gets a :class:`Scene`. It runs to its first ``yield`` before the
client's worker is asked to stop. After ``yield DRAINING`` it goes on while that worker waits for
its handlers, after ``yield REPLACED`` when another worker has the client.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from .harness import Cluster, async_mode, wait_until
from .recorder import deviation
from .takeover_clients import Disconnected, OverPolling, OverWebSocket, Talk
from .takeover_ledger import Ledger
from .websocket_cases import BINARY, TEXT, fragments, frame
from .wire import Closed, Request, sid_of

DRAINING, REPLACED = "draining", "replaced"

#: Sessions until one is at a given worker: those go to the worker that has the fewest.
MOST_TRIES = 100

T = TypeVar("T", OverWebSocket, OverPolling)

Case = Callable[["Scene"], Iterator[str]]

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


@dataclass
class Scene:
    """:ivar leaving: tag of the worker that is going to be stopped."""

    cluster: Cluster
    ledger: Ledger
    leaving: str
    directory: Path
    clients: list[OverWebSocket | OverPolling] = field(default_factory=list)

    def websocket(self, here: bool = True, namespace: str = "") -> OverWebSocket:
        """A connected client of the worker that is going to be stopped, or of another."""
        return self._at(here, OverWebSocket, namespace).join()

    def polling(self, namespace: str = "") -> OverPolling:
        return self._at(True, OverPolling, namespace).join()

    def close(self) -> None:
        for client in self.clients:
            client.close()

    def open_websocket(self) -> OverWebSocket:
        """The same, not connected to a namespace."""
        return self._at(True, OverWebSocket)

    def _at(self, here: bool, kind: type[T], namespace: str = "") -> T:
        for _ in range(MOST_TRIES):
            client = kind(self.cluster.port, namespace)
            self.clients.append(client)
            if client.session.startswith(self.leaving + ".") is here:
                return client
        raise AssertionError("no session came to that worker")

    def is_taken_over(self, sid: str) -> None:
        """It was neither connected again nor disconnected; in each worker it came to,
        ``on_takeover`` was called before all else."""
        parts: list[list[dict[str, Any]]] = [[]]
        for line in self.ledger.lines(sid):
            if line["what"] == "takeover":
                parts.append([])
            parts[-1].append(line)
        what = self.ledger.of(sid)
        assert what.count("connect") == 1 and what[0] == "connect", what
        assert "disconnect" not in what and len(parts) > 1, what
        pids = [{line["pid"] for line in part} for part in parts]
        assert all(len(found) == 1 for found in pids), parts
        assert len(set.union(*pids)) == len(parts), parts

    def handlers(self, sid: str) -> list[str]:
        """Those that were called, but for ``on_takeover``."""
        return [name for name in self.ledger.of(sid) if name != "takeover"]

    def handled_once(self, client: Talk, count: int) -> None:
        """Each number, in order; threads that begin in that order may write in another."""
        numbers = self.ledger.numbers(client.sid)
        fault = deviation(sorted(numbers) if async_mode() == "threading" else numbers, count)
        assert not fault, fault

    def goes_on(self, client: Talk, *handlers: str) -> None:
        """It talks, and these handlers were called for it, before or after it was taken over."""
        assert client.call("echo", "still here") == "still here"
        self.is_taken_over(client.sid)
        assert self.handlers(client.sid) == ["connect", *handlers]


# --- nothing under way --------------------------------------------------------------------


def _knows_the_same(scene: Scene, client: Talk) -> Iterator[str]:
    room = f"red of {client.sid}"
    client.call("join", room)
    client.call("remember", "cart", ["ü", {"n": 1.5}])
    before = client.call("about")
    other = scene.websocket(here=False)
    yield REPLACED
    assert client.call("about") == before
    assert before["session"]["cart"] == ["ü", {"n": 1.5}]
    assert set(before["rooms"]) == {client.sid, room}
    for to in (room, client.sid):
        other.call("emit_to", to, f"by {to}", 1)
        assert client.wait_for(f"by {to}") == [1]
    client.call("remember", "cart", "other")
    assert client.call("about")["session"]["cart"] == "other"
    scene.goes_on(client)


@case
def websocket(scene: Scene) -> Iterator[str]:
    """Else: a reconnect, or rooms, session data or the environ of the handshake are lost."""
    yield from _knows_the_same(scene, scene.websocket())


@case
def polling(scene: Scene) -> Iterator[str]:
    """Else: the next request is answered with "unknown session"."""
    yield from _knows_the_same(scene, scene.polling())


@case
def two_namespaces(scene: Scene) -> Iterator[str]:
    """Else: only the client's first sid is known, or handlers of one namespace are forgotten."""
    client = scene.websocket()
    other_sid = client.wire.join("/room")
    yield REPLACED
    client.transmit('42/room,["number",7]', '42["number",8]')
    scene.ledger.wait_for(other_sid, "number")
    scene.is_taken_over(other_sid)
    scene.goes_on(client, "number")
    assert (scene.ledger.numbers(other_sid), scene.ledger.numbers(client.sid)) == ([7], [8])


@case
def no_namespace_yet(scene: Scene) -> Iterator[str]:
    """Else: who is open and not connected hangs, or is connected without the handler."""
    client = scene.open_websocket()
    yield REPLACED
    client.join()
    assert client.call("echo", 1) == 1
    scene.ledger.expect(client.sid, "connect")


@case
def disconnected_by_another_worker(scene: Scene) -> Iterator[str]:
    """Else: others do not find the client where it is now."""
    client = scene.websocket()
    other = scene.websocket(here=False)
    yield REPLACED
    other.call("disconnect_sid", client.sid)
    with pytest.raises((Disconnected, Closed)):
        client.wait_for("nothing")
    scene.ledger.wait_for(client.sid, "disconnect")
    assert scene.handlers(client.sid) == ["connect", "disconnect"]


# --- parts of what clients send -------------------------------------------------------------


def _split(scene: Scene, pieces: Callable[[bytes], tuple[bytes, bytes]]) -> Iterator[str]:
    """An event of which one piece comes before, and one after."""
    client = scene.websocket()
    first, rest = pieces(b'4277["number",77]')
    client.wire.sock.sendall(first)
    yield REPLACED
    client.wire.sock.sendall(rest)
    assert client.answer(77) == 77
    scene.goes_on(client, "number")


@case
def half_a_frame(scene: Scene) -> Iterator[str]:
    """Else: the adopter takes the rest of a frame for the head of one: 1002."""

    def pieces(packet: bytes) -> tuple[bytes, bytes]:
        data = frame(TEXT, packet)
        return data[:9], data[9:]

    yield from _split(scene, pieces)


@case
def half_a_head_of_a_frame(scene: Scene) -> Iterator[str]:
    """The same, without any of its payload."""

    def pieces(packet: bytes) -> tuple[bytes, bytes]:
        data = frame(TEXT, packet)
        return data[:1], data[1:]

    yield from _split(scene, pieces)


@case
def a_fragmented_message(scene: Scene) -> Iterator[str]:
    """Else: a continuation without a begin, 1002, or half a packet."""

    def pieces(packet: bytes) -> tuple[bytes, bytes]:
        first, rest = fragments(TEXT, packet[:6], packet[6:])
        return first, rest

    yield from _split(scene, pieces)


@case
def half_an_attachment(scene: Scene) -> Iterator[str]:
    """Else: the event is lost, or the attachment is taken for an event."""
    client = scene.websocket()
    head = '451-77["size",{"_placeholder":true,"num":0}]'
    attachment = frame(BINARY, b"\x00\xff" * 500)
    client.wire.sock.sendall(frame(TEXT, head.encode()) + attachment[:100])
    yield REPLACED
    client.wire.sock.sendall(attachment[100:])
    assert client.answer(77) == 1000
    scene.goes_on(client, "size")


@case
def two_posts_for_an_event(scene: Scene) -> Iterator[str]:
    """Else: an attachment that comes with the next POST finds no event."""
    client = scene.polling()
    client.transmit('451-77["size",{"_placeholder":true,"num":0}]')
    yield REPLACED
    client.transmit("b" + base64.b64encode(bytes(1000)).decode())
    assert client.answer(77) == 1000
    scene.goes_on(client, "size")


@case
def half_a_post(scene: Scene) -> Iterator[str]:
    """Else: an upload over a slow line ends with the worker."""
    client = scene.polling()
    body = '4277["number",77]'
    post = Request(scene.cluster.port, "POST", client.wire.target, body[:9], length=len(body))
    yield REPLACED
    post.sock.sendall(body[9:].encode())
    assert post.answer().text == "ok"
    assert client.answer(77) == 77
    scene.goes_on(client, "number")


@case
def half_a_head_of_a_post(scene: Scene) -> Iterator[str]:
    """Else: a kept connection with the begin of a request ends with the worker."""
    client = scene.polling()
    sock = socket.create_connection(("127.0.0.1", scene.cluster.port), timeout=20)
    request = (
        f"POST {client.wire.target} HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n".encode()
    )
    sock.sendall(request + b'4276["number",76]')
    while b"ok" not in sock.recv(65536):
        pass
    assert client.answer(76) == 76
    sock.sendall(request[:30])
    yield REPLACED
    sock.sendall(request[30:] + b'4277["number",77]')
    while b"ok" not in (data := sock.recv(65536)):
        assert data
    sock.close()
    assert client.answer(77) == 77
    scene.goes_on(client, "number", "number")


@case
def a_flood(scene: Scene) -> Iterator[str]:
    """Else: what the worker had read and not handled, or not read yet, is lost or doubled."""
    client = scene.websocket()
    packets = [f'421{n:03}["number",{n}]' for n in range(300)]
    client.transmit(*packets[:200])
    yield DRAINING
    client.transmit(*packets[200:])
    yield REPLACED
    for number in range(300):
        assert client.answer(1000 + number) == number
    scene.handled_once(client, 300)
    scene.is_taken_over(client.sid)


@case
def a_flood_by_polling(scene: Scene) -> Iterator[str]:
    """The same, with a POST whose packets were accepted, and wait for their handlers."""
    client = scene.polling()
    packets = [f'421{n:03}["number",{n}]' for n in range(150)]
    client.transmit(*packets[:100])
    client.start_poll()
    yield DRAINING
    client.transmit(*packets[100:])
    yield REPLACED
    for number in range(150):
        assert client.answer(1000 + number) == number
    scene.handled_once(client, 150)
    scene.is_taken_over(client.sid)


# --- polls and upgrades ---------------------------------------------------------------------


@case
def a_waiting_poll(scene: Scene) -> Iterator[str]:
    """Else: it ends with an error, or what is emitted later does not wake it."""
    client = scene.polling()
    client.start_poll()
    other = scene.websocket(here=False)
    yield REPLACED
    other.call("emit_to", client.sid, "here", 1)
    assert client.poll is not None
    assert client.poll.answer().packets == ['42["here",1]']
    client.poll = None
    scene.goes_on(client)


def _upgrade(scene: Scene, sent: int) -> Iterator[str]:
    """The client has sent so much of what it sends to upgrade: nothing, the probe, all."""
    client = scene.polling()
    upgraded = client.wire.websocket()
    if sent > 0:
        upgraded.send("2probe")
        assert upgraded.receive() == "3probe"
    yield REPLACED
    if sent == 0:
        upgraded.send("2probe")
        assert upgraded.receive() == "3probe"
    upgraded.send("5")
    upgraded.talks()
    scene.is_taken_over(client.sid)
    upgraded.send('42["number",1]')
    scene.ledger.wait_for(client.sid, "number")


@case
def an_upgrade_before_the_probe(scene: Scene) -> Iterator[str]:
    """Else: a websocket that belongs to a polling session is forgotten."""
    yield from _upgrade(scene, 0)


@case
def an_upgrade_after_the_probe(scene: Scene) -> Iterator[str]:
    """Else: the adopter does not know that the probe was answered."""
    yield from _upgrade(scene, 1)


@case
def an_upgrade_with_a_waiting_poll(scene: Scene) -> Iterator[str]:
    """Else: the poll of an upgrade, which a NOOP must end, hangs; or is answered twice."""
    client = scene.polling()
    client.start_poll()
    upgraded = client.wire.websocket()
    upgraded.send("2probe")
    assert upgraded.receive() == "3probe"
    yield REPLACED
    assert client.poll is not None
    assert client.poll.answer().packets == ["6"]
    upgraded.send("5")
    upgraded.talks()
    scene.is_taken_over(client.sid)


@case
def an_upgrade_that_ends_while_draining(scene: Scene) -> Iterator[str]:
    """Else: the session has two transports, or none."""
    client = scene.polling()
    upgraded = client.wire.websocket()
    upgraded.send("2probe")
    assert upgraded.receive() == "3probe"
    yield DRAINING
    upgraded.send("5", '4277["number",77]')
    yield REPLACED
    upgraded.expect("4377[77]")
    upgraded.talks()
    scene.is_taken_over(client.sid)


# --- what servers send -----------------------------------------------------------------------


@case
def megabytes_that_wait(scene: Scene) -> Iterator[str]:
    """Else: a slow client loses what its worker could not send yet, or gets a frame cut in two."""
    client = scene.websocket()
    client.ask("count", client.sid, "backlog", 60, 65536)
    scene.ledger.wait_for(client.sid, "counted")
    yield REPLACED
    got = client.wait_for("backlog", 60)
    assert [(number, len(text)) for number, text in got] == [(n, 65536) for n in range(60)]
    scene.goes_on(client, "counted")


@case
def packets_for_the_next_poll(scene: Scene) -> Iterator[str]:
    """Else: what no poll has fetched yet is lost."""
    client = scene.polling()
    client.ask("count", client.sid, "backlog", 20, 1000)
    scene.ledger.wait_for(client.sid, "counted")
    yield REPLACED
    assert [number for number, _ in client.wait_for("backlog", 20)] == [*range(20)]
    scene.goes_on(client, "counted")


def _hears_all(scene: Scene, client: Talk, event: str) -> Iterator[str]:
    """In a namespace of its own: the others do not hear it."""
    client.call("join", event)
    other = scene.websocket(here=False, namespace="/room")
    counting = other.ask("count_slowly", event)
    client.wait_for(f"{event}-room", 5)
    yield REPLACED
    other.call("over", event)
    numbers = other.answer(counting)
    for name in (event, f"{event}-room"):
        assert client.wait_for(name, numbers) == [*range(numbers)]
    scene.goes_on(client)


@case
def emits_all_the_time(scene: Scene) -> Iterator[str]:
    """Else: what others emit meanwhile is lost, doubled or out of order."""
    yield from _hears_all(scene, scene.websocket(namespace="/room"), "to-websocket")


@case
def emits_all_the_time_by_polling(scene: Scene) -> Iterator[str]:
    """The same, with polls."""
    yield from _hears_all(scene, scene.polling(namespace="/room"), "to-polling")


# --- handlers and acknowledgements -----------------------------------------------------------


@case
def a_handler_that_runs_on(scene: Scene) -> Iterator[str]:
    """Else: it is cut off, or runs again; or later events run before it has ended."""
    client = scene.websocket()
    flag = scene.directory / "go"
    waits = client.ask("wait", str(flag))
    wait_until(Path(f"{flag}.begun").exists, 10, "the handler")
    yield DRAINING
    numbers = [client.ask("number", n) for n in range(3)]
    flag.touch()
    yield REPLACED
    assert client.answer(waits) == "waited"
    assert [client.answer(number) for number in numbers] == [0, 1, 2]
    scene.goes_on(client, "waits", "waited", "number", "number", "number")


@case
def a_handler_that_asks_its_client(scene: Scene) -> Iterator[str]:
    """Else: a handler in ``call()`` waits for an answer that nobody reads any more."""
    client = scene.websocket()
    asked = client.ask("ask_me", "?")
    question = client.wait_for_question()
    yield DRAINING
    client.reply(question, "fine")
    yield REPLACED
    assert client.answer(asked) == "fine"
    scene.goes_on(client)


@case
def an_answer_for_another_worker(scene: Scene) -> Iterator[str]:
    """Else: another worker's ``call()`` times out, though the client has answered."""
    client = scene.websocket()
    other = scene.websocket(here=False)
    asked = other.ask("ask", client.sid, "?")
    question = client.wait_for_question()
    yield REPLACED
    client.reply(question, "fine")
    assert other.answer(asked) == "fine"
    scene.goes_on(client)


@case
def an_answer_for_another_workers_callback(scene: Scene) -> Iterator[str]:
    """The same, of an emit with a callback."""
    client = scene.polling()
    other = scene.websocket(here=False)
    other.call("ask_in_passing", client.sid, "?")
    question = client.wait_for_question()
    yield REPLACED
    client.reply(question, "fine")
    assert other.wait_for("answered") == ["fine"]
    scene.goes_on(client)


@case
def answers_of_all_that_are_asked(scene: Scene) -> Iterator[str]:
    """Else: ``emit_with_acks()`` of another worker misses the answers of clients that move."""
    clients = [scene.websocket(), scene.polling()]
    other, stays = scene.websocket(here=False), scene.websocket(here=False)
    room = f"asked by {other.sid}"  # polling clients of the replacement before may be in others
    for client in (*clients, stays):
        client.call("join", room)
    asked = other.ask("ask_all", room, "?")
    questions = [client.wait_for_question() for client in clients]
    before = stays.wait_for_question()
    stays.reply(before, "stays")
    yield REPLACED
    for number, (client, question) in enumerate(zip(clients, questions)):
        client.reply(question, number)
    answers, timed_out, missing = other.answer(asked)
    assert (sorted(map(str, answers)), timed_out, missing) == (["0", "1", "stays"], False, 0)
    for client in clients:
        scene.goes_on(client)


@case
def rooms_that_another_worker_changes(scene: Scene) -> Iterator[str]:
    """Else: a client is not in the room, or gets what was emitted before it was or after."""
    clients = [scene.websocket(), scene.polling()]
    other = scene.websocket(here=False)
    sids = [client.sid for client in clients]
    expected = []
    for room in ("first", "second", "third"):
        if room == "second":
            yield DRAINING
        if room == "third":
            yield REPLACED
        other.call("move", sids, room)
        expected += [room, f"{room}-all"]
    for client in clients:
        assert client.wait_for("moved", len(expected)) == expected
        about = client.call("about")
        assert set(about["rooms"]) == {client.sid, "first", "second", "third"}
        scene.goes_on(client)


@case
def an_answer_for_nobody(scene: Scene) -> Iterator[str]:
    """Else: an answer to a callback that went with its worker harms the client."""
    client = scene.websocket()
    client.call("ask_in_passing", client.sid, "?")
    question = client.wait_for_question()
    yield REPLACED
    client.reply(question, "late")
    scene.goes_on(client)


# --- who comes and goes meanwhile -------------------------------------------------------------


@case
def connects_while_draining(scene: Scene) -> Iterator[str]:
    """Else: the connect handler runs in a worker that ends, or twice."""
    client = scene.open_websocket()
    yield DRAINING
    client.transmit("40")
    yield REPLACED
    client.sid = sid_of(client.wire.receive_text())
    assert client.call("echo", 1) == 1
    assert scene.ledger.of(client.sid).count("connect") == 1


@case
def leaves_while_draining(scene: Scene) -> Iterator[str]:
    """Else: who disconnects is never told of, or twice."""
    client = scene.websocket()
    yield DRAINING
    client.transmit("41")
    yield REPLACED
    scene.ledger.wait_for(client.sid, "disconnect")
    what = scene.ledger.of(client.sid)
    assert what.count("connect") == what.count("disconnect") == 1 and what[-1] == "disconnect"


@case
def vanishes_while_draining(scene: Scene) -> Iterator[str]:
    """The same for a connection that ends."""
    client = scene.websocket()
    yield DRAINING
    client.close()
    yield REPLACED
    scene.ledger.wait_for(client.sid, "disconnect")
    what = scene.ledger.of(client.sid)
    assert what.count("connect") == what.count("disconnect") == 1 and what[-1] == "disconnect"


@case
def session_data_that_is_not_json(scene: Scene) -> Iterator[str]:
    """It is closed as without takeover; else: it stops the others, or loses its data silently."""
    client = scene.websocket()
    client.call("remember_nonsense", "socket_of_mine")
    yield REPLACED
    with pytest.raises((Disconnected, Closed)):
        client.wait_for("nothing")
    scene.ledger.expect(client.sid, "connect", "disconnect")
