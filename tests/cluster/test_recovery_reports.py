"""What has been reported of connection state recovery elsewhere, and what clients may make up."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Clients, ClusterFactory, Server
from .harness import Cluster, wait_until
from .jsclient import NodeClient
from .network import Network
from .recovery_clients import Connect, Returning, Tab, tag_of
from .takeover_ledger import Ledger
from .test_recovery_ends import FIRST, SECOND, kill, tag
from .wire import Request, Session, target


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(tmp_path_factory.mktemp("ledger") / "happened")


@pytest.fixture(scope="module")
def cluster(make_module_cluster: ClusterFactory, ledger: Ledger) -> Cluster:
    command = ledger.command(variables="RECOVERY=60 PING_INTERVAL=0.5 PING_TIMEOUT=60")
    made = make_module_cluster(workers=0)
    made.extra = made.program("workers", command, 2) + "autorestart = true\n"
    made.spawn()
    made.wait_ready(2)
    return made


@pytest.fixture(scope="module")
def network(cluster: Cluster) -> Iterator[Network]:
    made = Network(cluster.port)
    yield made
    made.close()


@pytest.fixture
def connect(cluster: Cluster) -> Iterator[Connect]:
    made = Connect(cluster.port)
    yield made
    made.close()


class Counts:
    """Clients that were not recovered, by reason, as the tests have it. Workers take a second to
    tell their router: the last test looks, for all of them."""

    def __init__(self) -> None:
        self.expected: Counter[str] = Counter()

    def add(self, **reasons: int) -> None:
        self.expected.update({name.replace("_", "-"): n for name, n in reasons.items() if n})


@pytest.fixture(scope="module")
def not_recovered() -> Counts:
    return Counts()


def is_new(client: Returning, former: Returning, ledger: Ledger) -> None:
    """It has a session of its own, connected as ever."""
    assert not client.recovered and client.sid != former.sid
    assert client.pid and client.pid != former.pid
    assert client.call("echo", 1) == 1
    ledger.expect(client.sid, "connect")


def still_recovers(former: Returning, cluster: Cluster, ledger: Ledger) -> None:
    """Nobody else's attempts have harmed it."""
    again = former.again(cluster.port)
    assert again.recovered and again.sid == former.sid
    assert again.call("echo", 1) == 1
    ledger.expect(former.sid, "connect", "recovery")
    again.close()


def polled(port: int, path: str) -> list[str]:
    """The packets of the next poll that has not only a ping."""
    while True:
        packets = [one for one in Request(port, "GET", path).answer().packets if one != "2"]
        if packets:
            return packets


def node_client(clients: Clients, network: Server, *transports: str) -> NodeClient:
    client = clients.connect(network, "node", list(transports) or None)
    assert isinstance(client, NodeClient)
    return client


# --- public reports ------------------------------------------------------------------------------


def test_no_event_received_yet(cluster: Cluster, connect: Connect, ledger: Ledger) -> None:
    client, other = connect(), connect()
    client.close()
    other.call("emit_to", client.sid, "missed", 1)
    again = client.again_with(cluster.port, pid=client.pid)
    assert again.recovered and again.sid == client.sid
    assert again.wait_for("missed") == [1]
    ledger.expect(client.sid, "connect", "recovery")


@pytest.mark.parametrize("events", [True, False])
def test_again_and_again(
    clients: Clients, network: Network, connect: Connect, ledger: Ledger, events: bool
) -> None:
    """Recovers a second and a third time, whether or not it has got an event in between."""
    client, other = node_client(clients, network, "websocket"), connect()
    sid = client.sid()
    for number in range(1, 4):
        if events:
            other.call("emit_to", sid, "number", 2 * number - 2)
            client.wait_for("number", 2 * number - 1)
        network.cut()
        if events:
            other.call("emit_to", sid, "number", 2 * number - 1)
        client.wait(lambda: len(client.recovered["/"]) > number, "come-back")  # noqa: B023
    assert client.recovered["/"] == [False, True, True, True]
    assert client.sid() == sid
    client.expect_numbers("number", 6 * events)
    ledger.expect(sid, "connect", *["recovery"] * 3)


def test_idle_longer_than_a_ping(cluster: Cluster, connect: Connect, ledger: Ledger) -> None:
    """Pings bring no offset; what was emitted before them is not forgotten."""
    client, other = connect(), connect()
    other.call("emit_to", client.sid, "first", 1)
    client.wait_for("first")
    for _ in range(4):
        assert client.wire.receive() == "2"
        client.transmit("3")
    client.close()
    other.call("emit_to", client.sid, "missed", 2)
    again = client.again(cluster.port)
    assert again.recovered and again.wait_for("missed") == [2]
    assert not again.events["first"]
    ledger.expect(client.sid, "connect", "recovery")


def test_the_server_is_gone(
    cluster: Cluster, connect: Connect, clients: Clients, ledger: Ledger
) -> None:
    """Its state does not die with the process that had it; here with both of them, in turn."""
    client = node_client(clients, cluster, "websocket")
    sid = client.sid()
    for number, name in enumerate((FIRST, SECOND)):
        (row,) = (row for row in cluster.workers() if row["name"] == name)
        connects = len(client.recovered["/"])
        here = client.whoami()["pid"] == row["pid"]
        kill(cluster, name)
        cluster.wait_ready(2)
        if here:
            client.wait(lambda: len(client.recovered["/"]) > connects, "come-back")  # noqa: B023
        connect().call("emit_to", sid, "number", number)
    client.expect_numbers("number", 2)
    assert client.sid() == sid and False not in client.recovered["/"][1:]
    ledger.wait_for(sid, "recovery")
    assert set(ledger.of(sid)) == {"connect", "recovery"}


def test_the_server_is_gone_again(cluster: Cluster, connect: Connect, ledger: Ledger) -> None:
    """It is at a worker whose tag is not in its sid, and that one is killed."""
    client = connect(at=tag(cluster, FIRST))
    client.close()
    client = client.again(cluster.port)
    assert client.recovered
    for name in (FIRST, SECOND):
        kill(cluster, name)
        cluster.wait_ready(2)
    again = client.again(cluster.port)
    assert again.recovered and again.sid == client.sid
    assert again.call("echo", 1) == 1  # its handler has run before that
    ledger.expect(client.sid, "connect", "recovery", "recovery")
    again.close()


@pytest.mark.parametrize(
    "forge",
    [
        lambda offset: f"{tag_of(offset)}.ffffff",
        lambda offset: f"{tag_of(offset)}.{'f' * 100}",
        lambda offset: f"{tag_of(offset)}.-1",
        lambda offset: f"{tag_of(offset)}.",
        lambda offset: f"00000000.{offset.partition('.')[2]}",
        lambda offset: "",
        lambda offset: "x" * 10_000,
        lambda offset: "\u0000.ü",
        lambda offset: 7,
        lambda offset: [offset],
        lambda offset: {"offset": offset},
    ],
)
def test_an_offset_that_was_never_given_out(
    cluster: Cluster,
    connect: Connect,
    ledger: Ledger,
    not_recovered: Counts,
    forge: Callable[[str], Any],
) -> None:
    client, other = connect(), connect()
    other.call("emit_to", client.sid, "first", 1)
    client.wait_for("first")
    client.close()
    assert client.offset is not None
    wrong = client.again_with(cluster.port, pid=client.pid, offset=forge(client.offset))
    is_new(wrong, client, ledger)
    not_recovered.add(unknown_offset=1)
    still_recovers(client, cluster, ledger)


def test_an_offset_of_another_client(
    cluster: Cluster, connect: Connect, ledger: Ledger, not_recovered: Counts
) -> None:
    """Of another worker's: it says nothing of what this one has got."""
    client = connect()
    other = connect(apart_from=tag_of(client.session))
    client.call("emit_to", client.sid, "first", 1)
    other.call("emit_to", other.sid, "first", 1)
    client.wait_for("first")
    other.wait_for("first")
    client.close()
    wrong = client.again_with(cluster.port, pid=client.pid, offset=other.offset)
    is_new(wrong, client, ledger)
    not_recovered.add(unknown_offset=1)
    still_recovers(client, cluster, ledger)


def test_an_offset_of_a_client_beside_it(
    cluster: Cluster, connect: Connect, not_recovered: Counts
) -> None:
    """Whatever it is taken for, nothing of the other one comes to light."""
    client = connect()
    other = connect(at=tag_of(client.session))
    for number in range(3):
        other.call("emit_to", other.sid, "private", number)
    other.wait_for("private", 3)
    client.close()
    again = client.again_with(cluster.port, pid=client.pid, offset=other.offset)
    assert again.call("echo", 1) == 1
    assert not again.events
    not_recovered.add(unknown_offset=not again.recovered)


@pytest.mark.parametrize("lost", [False, True], ids=["connected", "lost"])
def test_two_tabs_with_one_pid(
    cluster: Cluster, connect: Connect, ledger: Ledger, not_recovered: Counts, lost: bool
) -> None:
    """One has the session, the other one gets a new one; that stays so.

    :param lost: both come at the same time. Otherwise the second comes when the first is there.
    """
    client, other = connect(), connect()
    client.close()
    tabs = [Tab(cluster.port, client)]
    if not lost:
        wait_until(lambda: tabs[0].calls, 20, "the first tab")
    tabs.append(Tab(cluster.port, client))
    try:

        def are_apart() -> bool:
            calls = min(tab.calls for tab in tabs)
            return calls > 50 and len({tab.client.sid for tab in tabs}) == 2

        wait_until(are_apart, 30, "a session of its own for each")
        # More than one of them has come back only if the first did not answer in time.
        assert 1 <= sum(tab.new for tab in tabs) <= 2
        other.call("emit_to", client.sid, "number", 1)
        has_it = [tab for tab in tabs if tab.client.sid == client.sid]
        assert len(has_it) == 1
        wait_until(lambda: has_it[0].client.events["number"] == [1], 10, "the number")
        assert sum(len(tab.client.events["number"]) for tab in tabs) == 1
        ledger.wait_for(client.sid, "recovery")
        assert set(ledger.of(client.sid)) == {"connect", "recovery"}
        assert ledger.of(client.sid).count("connect") == 1
    finally:
        for tab in tabs:
            tab.close()
    not_recovered.add(in_use=sum(tab.new for tab in tabs))


# --- what is made up -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forge",
    [
        lambda pid: f"{tag_of(pid)}.{'A' * 20}",
        lambda pid: pid[:-1],
        lambda pid: pid + "A",
        lambda pid: f"00000000.{pid.partition('.')[2]}",
        lambda pid: pid.partition(".")[2],
        lambda pid: "",
        lambda pid: None,
        lambda pid: "x" * 10_000,
        lambda pid: "\u0000.ü",
        lambda pid: 7,
        lambda pid: [pid],
        lambda pid: {"pid": pid},
    ],
)
def test_a_forged_pid(
    cluster: Cluster,
    connect: Connect,
    ledger: Ledger,
    not_recovered: Counts,
    forge: Callable[[str], Any],
) -> None:
    client = connect()
    client.close()
    assert client.pid is not None
    pid = forge(client.pid)
    is_new(client.again_with(cluster.port, pid=pid), client, ledger)
    not_recovered.add(unknown_pid=pid is not None)
    still_recovers(client, cluster, ledger)


def test_another_namespaces_pid(
    cluster: Cluster, connect: Connect, ledger: Ledger, not_recovered: Counts
) -> None:
    client = connect()
    client.close()
    room = Returning(cluster.port, "/room").join(pid=client.pid)
    is_new(room, client, ledger)
    not_recovered.add(unknown_pid=1)
    still_recovers(client, cluster, ledger)
    room.close()


@pytest.mark.parametrize("by", ["client", "server"])
def test_the_pid_of_who_has_left(
    cluster: Cluster,
    connect: Connect,
    ledger: Ledger,
    not_recovered: Counts,
    by: str,
) -> None:
    """An orderly end is an end, and told at once."""
    client, other = connect(), connect()
    if by == "client":
        client.transmit("41")
    else:
        other.call("disconnect_sid", client.sid)
    ledger.wait_for(client.sid, "disconnect")
    client.close()
    is_new(client.again(cluster.port), client, ledger)
    not_recovered.add(unknown_pid=1)
    ledger.expect(client.sid, "connect", "disconnect")


def test_handlers_do_not_see_it(
    cluster: Cluster, connect: Connect, ledger: Ledger, not_recovered: Counts
) -> None:
    """Of the data of a client, the application gets what is the application's."""
    pid = f"{tag_of(connect().session)}.{'A' * 20}"
    for data, auth in (
        ({"pid": pid, "offset": "x", "token": "t"}, {"token": "t"}),
        ({"pid": pid, "offset": "x"}, None),
        ({"token": "t"}, {"token": "t"}),
    ):
        client = Returning(cluster.port).join(**data)
        (line,) = ledger.lines(client.sid)
        assert not (line["auth"] or auth) or line["auth"] == auth, line
        client.close()
    not_recovered.add(unknown_pid=2)


# --- and what users would trip over --------------------------------------------------------------


def test_the_offset_of_a_session_that_was_not_recovered(
    cluster: Cluster, connect: Connect, ledger: Ledger, not_recovered: Counts
) -> None:
    """socket.io-client keeps it, and has no other until the next event of its new session."""
    client, other = connect(), connect()
    other.call("emit_to", client.sid, "first", 1)
    client.wait_for("first")
    client.close()
    new = client.again_with(cluster.port, pid=f"{client.pid}x", offset=client.offset)
    is_new(new, client, ledger)
    not_recovered.add(unknown_pid=1)
    new.close()
    other.call("emit_to", new.sid, "missed", 2)
    again = new.again_with(cluster.port, pid=new.pid, offset=client.offset)
    assert again.recovered and again.wait_for("missed") == [2]


def test_arguments_stay_as_they_are(clients: Clients, network: Network, connect: Connect) -> None:
    client, other = node_client(clients, network, "websocket"), connect()
    for data in ("text", None, "", {"offset": "x"}):
        other.call("emit_to", client.sid(), "data", data)
    assert client.wait_for("data", 4) == [["text"], [], [""], [{"offset": "x"}]]
    assert len(set(client.offsets)) == 4


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_as_the_documentation_of_socket_io_has_it(
    clients: Clients, network: Network, transport: str
) -> None:
    """It ends the transport to try recovery."""
    client = node_client(clients, network, transport)
    sid = client.sid()
    client.drop()
    client.wait(lambda: len(client.recovered["/"]) > 1, "come-back")
    assert client.recovered["/"] == [False, True] and client.sid() == sid


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_the_network_is_gone_for_a_moment(
    clients: Clients, network: Network, ledger: Ledger, transport: str
) -> None:
    """Else: a client whose poll fails ends its session, which is told as its end."""
    client = node_client(clients, network, transport)
    sid = client.sid()

    def notices() -> bool:  # not if it was just between two polls
        network.cut()
        with contextlib.suppress(AssertionError):
            client.wait(lambda: client.disconnects, "disconnect", 1)
        return bool(client.disconnects)

    wait_until(notices, 20, "disconnect")
    client.wait(lambda: len(client.recovered["/"]) > 1, "come-back")
    assert client.recovered["/"] == [False, True] and client.sid() == sid
    ledger.expect(sid, "connect", "recovery")


def test_session_data_that_is_not_json(
    cluster: Cluster, connect: Connect, ledger: Ledger, not_recovered: Counts
) -> None:
    """It does not recover, and the key is named once; nobody else is harmed."""
    client, other = connect(), connect()
    logged = [len(cluster.log(f"workers_0{number}")) for number in range(2)]
    client.call("remember_nonsense", "socket_of_mine")
    client.call("remember_nonsense", "socket_of_mine")
    client.close()
    is_new(client.again(cluster.port), client, ledger)
    not_recovered.add(not_saved=1)

    def told() -> int:
        return sum(
            cluster.log(f"workers_0{number}")[start:].count("socket_of_mine")
            for number, start in enumerate(logged)
        )

    wait_until(told, 10, "the key is named")
    assert told() == 1
    other.close()
    still_recovers(other, cluster, ledger)


@pytest.mark.parametrize("asks", [False, True])
def test_who_does_not_ask_is_served_as_ever(cluster: Cluster, connect: Connect, asks: bool) -> None:
    """python-engineio writes the query of a handshake in another order than JavaScript does."""
    path = target(transport="polling", EIO="4")
    sid = Request(cluster.port, "GET", path).answer().text.split('"')[3]
    path = target(transport="polling", EIO="4", sid=sid)
    packet = '40{"pid":null,"token":"t"}' if asks else '40{"token":"t"}'
    assert Request(cluster.port, "POST", path, packet).answer().text == "ok"
    (answer,) = polled(cluster.port, path)
    client = answer.partition('"sid":"')[2].partition('"')[0]
    assert (answer == f'40{{"sid":"{client}"}}') is not asks
    connect().call("emit_to", client, "data", "text")
    (event,) = polled(cluster.port, path)
    assert (event == '42["data","text"]') is not asks
    assert event.startswith('42["data","text"')


def test_a_session_by_polling(cluster: Cluster, connect: Connect, ledger: Ledger) -> None:
    """The answer, what was missed, and what comes now, are in this order in the first polls."""
    client, other = connect(), connect()
    client.close()
    for number in range(3):
        other.call("emit_to", client.sid, "number", number)
    session = Session(cluster.port)
    assert session.post(f'40{{"pid":"{client.pid}"}}').status == 200
    packets: list[str] = []
    while len(packets) < 4:
        packets += polled(cluster.port, session.target)
    assert packets[0] == f'40{{"sid":"{client.sid}","pid":"{client.pid}"}}'
    assert [packet[:13] for packet in packets[1:4]] == [f'42["number",{n}' for n in range(3)]
    ledger.expect(client.sid, "connect", "recovery")


# --- of all of them ------------------------------------------------------------------------------


def test_each_is_counted_by_its_reason(cluster: Cluster, not_recovered: Counts) -> None:
    """Else: an operator does not see why clients do not come back to their sessions."""

    def counted() -> dict[str, int]:
        return dict(cluster.status()["recovery"]["not_recovered"])

    expected = dict(not_recovered.expected)
    with contextlib.suppress(AssertionError):  # what there is says more
        wait_until(lambda: counted() == expected, 10, "its count")
    assert counted() == expected
