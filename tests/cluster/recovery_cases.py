"""Clients that are lost and come back, in all ways that matter.

Each case is a generator that gets a :class:`Scene`. It runs to its first ``yield`` while all is
well. After ``yield LOST`` it goes on when its connections have ended, and maybe its worker as well;
after ``yield BACK`` when clients may come back, and workers are there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .conftest import Clients
from .harness import Cluster, wait_until
from .jsclient import NodeClient
from .network import Network
from .recorder import TestClient
from .recovery_clients import MOST_TRIES, Connect, Returning
from .takeover_ledger import Ledger

LOST, BACK = "lost", "back"

#: Of clients without a session for a moment; a worker that has died needs a moment to be known.
TIMEOUT = 20

Case = Callable[["Scene"], Iterator[str]]

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


@dataclass
class Scene:
    """:ivar tag: of the worker whose clients are lost.
    :ivar apart: whether they can come back no sooner than at ``BACK``.
    :ivar dies: whether that worker is killed.
    """

    cluster: Cluster
    network: Network
    ledger: Ledger
    clients: Clients
    tag: str
    apart: bool
    dies: bool
    _others: dict[str, Returning] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connect = Connect(self.cluster.port)

    def node(self, *transports: str, namespaces: tuple[str, ...] = ("/",)) -> NodeClient:
        client = self._here("node", transports, namespaces)
        assert isinstance(client, NodeClient)
        return client

    def python(self, *transports: str) -> TestClient:
        return self._here("python", transports, ("/",))

    def _here(
        self, kind: str, transports: tuple[str, ...], namespaces: tuple[str, ...]
    ) -> TestClient:
        others: list[TestClient] = []
        try:
            for _ in range(MOST_TRIES):
                client = self.clients.connect(
                    self.network, kind, list(transports) or None, namespaces
                )
                if client.sid(namespaces[0]).startswith(f"{self.tag}."):
                    return client
                others.append(client)  # while they are there, it is not always that worker's turn
            raise AssertionError("no session came to that worker")
        finally:
            sids = [client.sid(namespaces[0]) for client in others]
            # One in Python, on this network, may take half a minute to close its connection.
            closing = [threading.Thread(target=client.close) for client in others]
            for thread in closing:
                thread.start()
                if kind == "node":
                    thread.join()
            for sid in sids:  # else the network may fail before, and they are lost ones
                self.wait_told(sid)
            for thread in closing:
                thread.join()

    def other(self, namespace: str = "") -> Returning:
        """One at another worker, on a network that does not fail. Cases share it: it talks so
        often that it answers pings in time."""
        if namespace not in self._others:
            self._others[namespace] = self.connect(namespace, apart_from=self.tag)
        return self._others[namespace]

    def _answer_pings(self) -> None:
        for other in self._others.values():
            other.call("echo", "waits")

    def wait_told(self, sid: str) -> dict[str, Any]:
        """The end of a client; until then those who only emit answer pings."""

        def is_told() -> bool:
            self._answer_pings()
            return "disconnect" in self.ledger.of(sid)

        wait_until(is_told, 60, f"the end of {sid}")
        return self.ledger.wait_for(sid, "disconnect")

    def close(self) -> None:
        self.clients.close()
        self.connect.close()

    def is_recovered(self, client: NodeClient, sid: str, namespace: str = "/") -> None:
        """It goes on with its session, and talks; of the handlers only ``on_recovery`` ran."""
        client.wait(lambda: len(client.recovered[namespace]) > 1, "come-back", TIMEOUT)
        recovered = client.recovered[namespace]
        assert recovered == [False, True], f"{recovered}, {self.ledger.of(sid)}"
        assert client.sid(namespace) == sid
        client.wait_connected()  # to its other namespaces, too
        assert client.call("echo", "here", namespace=namespace, timeout=TIMEOUT) == "here"
        self.ledger.expect(sid, "connect", "recovery")


def _numbers(other: Returning, event: str, *targets: str | None) -> None:
    """Numbered events from 0, to each of these, three times in turn."""
    for number in range(3 * len(targets)):
        other.call("emit_to", targets[number % len(targets)], event, number)


def _misses_nothing(scene: Scene, client: NodeClient) -> Iterator[str]:
    sid, event = client.sid(), f"to {client.name}"
    client.call("join", f"room of {sid}")
    client.call("remember", "cart", ["ü", {"n": 1.5}])
    other = scene.other()
    other.call("emit_to", sid, "first", 1)
    client.wait_for("first")
    before = client.call("about")
    yield LOST
    _numbers(other, event, sid, f"room of {sid}", None)
    yield BACK
    scene.is_recovered(client, sid)
    after = client.call("about")
    assert (after["session"], after["rooms"]) == (before["session"], before["rooms"])
    assert after["session"]["cart"] == ["ü", {"n": 1.5}]
    client.expect_numbers(event, 9)
    _numbers(other, f"live {event}", None, sid, f"room of {sid}")
    client.expect_numbers(f"live {event}", 9)
    assert client.received("first") == [[1]] and len(client.received(event)) == 9


@case
def over_websocket(scene: Scene) -> Iterator[str]:
    yield from _misses_nothing(scene, scene.node("websocket"))


@case
def over_polling(scene: Scene) -> Iterator[str]:
    yield from _misses_nothing(scene, scene.node("polling"))


@case
def upgraded(scene: Scene) -> Iterator[str]:
    yield from _misses_nothing(scene, scene.node())


@case
def no_event_received_yet(scene: Scene) -> Iterator[str]:
    """Else: without an offset nothing is found, and it is a new session."""
    client = scene.node("websocket")
    sid, event = client.sid(), f"to {client.name}"
    other = scene.other()
    assert not client.offsets
    yield LOST
    _numbers(other, event, sid)
    yield BACK
    scene.is_recovered(client, sid)
    client.expect_numbers(event, 3)


@case
def nothing_missed(scene: Scene) -> Iterator[str]:
    client = scene.node("websocket")
    sid = client.sid()
    yield LOST
    yield BACK
    scene.is_recovered(client, sid)


@case
def events_come_all_the_time(scene: Scene) -> Iterator[str]:
    """Else: what is emitted in the very moment in which it comes back is lost or doubled."""
    client = scene.node("websocket", namespaces=("/room",))
    sid, event = client.sid("/room"), f"to {client.name}"
    client.call("join", event, namespace="/room")
    other = scene.other("/room")
    counting = other.ask("count_slowly", event)
    client.wait_for(f"{event}-room", 5, "/room")
    yield LOST
    yield BACK
    scene.is_recovered(client, sid, "/room")
    other.call("over", event)
    numbers = other.answer(counting)
    for name in (event, f"{event}-room"):
        client.expect_numbers(name, numbers, "/room", TIMEOUT)


@case
def two_namespaces(scene: Scene) -> Iterator[str]:
    """Else: one ``pid`` for a client, and the other namespace is a new session."""
    client = scene.node("websocket", namespaces=("/", "/room"))
    sids = {namespace: client.sid(namespace) for namespace in ("/", "/room")}
    others = {"/": scene.other(), "/room": scene.other("/room")}
    yield LOST
    for namespace, other in others.items():
        _numbers(other, f"in {namespace}", sids[namespace])
    yield BACK
    for namespace, sid in sids.items():
        scene.is_recovered(client, sid, namespace)
        client.expect_numbers(f"in {namespace}", 3, namespace)


@case
def binary_events(scene: Scene) -> Iterator[str]:
    """Else: the offset is put where there is no text, or attachments are lost."""
    client = scene.node("websocket")
    sid = client.sid()
    client.call("join", "bytes")
    other = scene.other()
    yield LOST
    other.call("emit_bytes", sid, "bytes", 70_000)
    other.call("emit_bytes", "bytes", f"bytes for {client.name}", 3)
    yield BACK
    scene.is_recovered(client, sid)
    assert client.wait_for("bytes") == [[{"bytes": bytes(70_000)}]]
    assert client.wait_for(f"bytes for {client.name}") == [[{"bytes": bytes(3)}]]


@case
def volatile_events(scene: Scene) -> Iterator[str]:
    """They are not kept; an offset that one of them brought is as good as another."""
    client = scene.node("websocket")
    sid = client.sid()
    other = scene.other()
    other.call("emit_volatile", sid, "volatile", "before")
    client.wait_for("volatile")
    yield LOST
    other.call("emit_volatile", sid, "volatile", "meanwhile")
    _numbers(other, f"to {client.name}", sid)
    yield BACK
    scene.is_recovered(client, sid)
    client.expect_numbers(f"to {client.name}", 3)
    if scene.apart:
        assert client.received("volatile") == [["before"]]


@case
def rooms_that_change_meanwhile(scene: Scene) -> Iterator[str]:
    """Else: it gets what was emitted before it was in a room, or not what was emitted after."""
    client = scene.node("websocket")
    sid = client.sid()
    other = scene.other()
    other.call("move", [sid], "one")
    yield LOST
    other.call("move", [sid], "two")
    yield BACK
    scene.is_recovered(client, sid)
    other.call("move", [sid], "three")
    rooms = ("one", "two", "three")
    expected = [[name] for room in rooms for name in (room, f"{room}-all")]
    assert client.wait_for("moved", len(expected)) == expected
    assert set(client.call("about")["rooms"]) == {sid, *rooms}


@case
def disconnected_by_the_server_meanwhile(scene: Scene) -> Iterator[str]:
    """Else: who was thrown out comes back to his session."""
    client = scene.node("websocket")
    sid = client.sid()
    other = scene.other()
    yield LOST
    other.call("disconnect_sid", sid)
    scene.ledger.wait_for(sid, "disconnect")
    yield BACK
    if scene.apart:
        client.wait(lambda: len(client.recovered["/"]) > 1, "come-back", TIMEOUT)
        assert client.recovered["/"] == [False, False] and client.sid() != sid
        scene.ledger.expect(sid, "connect", "disconnect")


@case
def a_python_client(scene: Scene) -> Iterator[str]:
    """It learns nothing of it: no other arguments, a new session, and its handlers are called."""
    client = scene.python("websocket")
    sid = client.sid()
    other = scene.other()
    for data in ("text", None, ["a", "list"]):
        other.call("emit_to", sid, "data", data)
    assert client.wait_for("data", 3) == [["text"], [], [["a", "list"]]]
    yield LOST
    yield BACK
    client.wait_talking(TIMEOUT)
    assert client.sid() != sid
    line = scene.wait_told(sid)
    scene.ledger.expect(sid, "connect", "disconnect")
    if scene.dies and not scene.apart:  # else it was lost before its worker
        assert line["reason"] == "server error"


@case
def an_acknowledgement_for_nobody(scene: Scene) -> Iterator[str]:
    """Else: an event that wants an answer is kept, and answered to nobody."""
    client = scene.node("websocket")
    sid = client.sid()
    other = scene.other()
    yield LOST
    other.call("ask_in_passing", sid, "?")
    yield BACK
    scene.is_recovered(client, sid)
    if scene.apart:
        assert not client.received("question")
