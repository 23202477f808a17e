"""Emits of several threads where clients get offsets; and the kept state of clients."""

from __future__ import annotations

import errno
import random
import threading
import time
from typing import Any, List

import pytest

from supervisor_sio import ZmqManager
from supervisor_sio.cluster import forwarding, keeping
from supervisor_sio.cluster.lost import Client, Moved, Times, decode
from supervisor_sio.cluster.offsets import Asked
from supervisor_sio.common.limits import CLIENT_ROOMS
from supervisor_sio.common.reasons import NOT_SAVED
from supervisor_sio.relay import journal_log
from supervisor_sio.relay.message import RelayMessage
from unit.polling import make_server

ABLE = Asked(True, None, None, None)


class Outlet:
    """An outlet whose handlers run in threads; one thread sends."""

    concurrent = True

    def __init__(self) -> None:
        self.threads = self
        self.sent: List[str] = []
        self.calls: List[Any] = []
        self.loop = 0

    @property
    def here(self) -> bool:
        return threading.get_ident() == self.loop

    def run(self, size: int, call: Any, *args: Any) -> None:
        time.sleep(random.random() / 1000)  # it waits for room
        self.calls.append((call, args))

    def work(self) -> None:
        self.loop = threading.get_ident()
        while self.calls:
            call, args = self.calls.pop(0)
            call(*args)
        self.loop = 0

    def fan_out(self, eio_sids: Any, packets: Any) -> None:
        self.sent += packets * len(eio_sids)

    fan_out_volatile = fan_out

    def is_behind(self) -> bool:
        return False

    def proven(self, eio_sid: str) -> tuple[float, bool]:
        return time.monotonic(), False

    def close_connection(self, eio_sid: str) -> None:
        pass

    def ask_client(self, eio_sid: str, answered: Any) -> None:
        answered(False)


def make_manager() -> Any:
    manager = ZmqManager(recovery=60)
    make_server(client_manager=manager)
    manager._send_through(Outlet())
    return manager


def connect(manager: Any, eio_sid: str, asked: Asked = ABLE) -> str:
    sid = manager._pre_connect(eio_sid, "/")
    manager.begin(sid, "/", asked)
    manager.connect(sid, "/")
    manager._outlet.work()
    return str(sid)


def test_threads_emit_in_the_order_of_their_numbers() -> None:
    manager = make_manager()
    connect(manager, "one")

    def emit() -> None:
        for number in range(50):
            manager.emit("n", number)
            manager.emit("v", number, volatile=True)

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outlet = manager._outlet
    outlet.work()
    offsets = [int(text.rpartition(".")[2][:-2], 16) for text in outlet.sent]
    assert offsets == sorted(offsets) and len(offsets) == 400
    assert [o for o, text in zip(offsets, outlet.sent) if '"n"' in text] == list(range(1, 201))


def test_what_a_connect_handler_emits_has_offsets() -> None:
    manager = make_manager()
    sid = manager._pre_connect("one", "/")
    manager.emit("early", 1, room=sid)
    manager.emit("to all", 1)
    manager.begin(sid, "/", ABLE)
    manager.connect(sid, "/")
    manager.emit("late", 1)
    manager._outlet.work()
    names = [text.split('"')[1] for text in manager._outlet.sent]
    assert names == ["early", "to all", "late"]
    offsets = [int(text.rpartition(".")[2][:-2], 16) for text in manager._outlet.sent]
    assert offsets == sorted(set(offsets))


def test_events_that_are_acknowledged_have_none() -> None:
    manager = make_manager()
    manager._check_caller = lambda *args: None
    sid = connect(manager, "one")
    manager.emit("q", 1, room=sid, callback=lambda: None)
    manager._outlet.work()
    (text,) = manager._outlet.sent
    assert text.endswith('["q",1]') and manager.journal.last == 0


def test_what_is_passed_on_to_all_gives_no_event_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client has moved to a worker that this one does not know yet: the emit goes to all."""
    manager = make_manager()
    connect(manager, "one")
    fields = {"method": "emit", "namespace": "/", "room": "elsewhere"}

    class Relay:
        def check(self, *args: Any) -> None:
            pass

        def publish(self, tag: Any, fields: Any, packets: Any) -> Any:
            data = RelayMessage("aaaaaaaa", 7, fields, packets).pack()
            return 1, None, 7, data

    monkeypatch.setattr(manager, "_join_relay", Relay)
    manager._send_to([None], fields, ['2["of another"]'])
    manager.emit("own", None, local=True)
    (event,) = manager.journal.since(0)
    assert (event.message.packets, event.number) == (['2["own"]'], 0)
    assert manager.journal.position().numbers == {manager.host_id: 7}


def test_what_a_thread_has_queued_is_sent_in_its_turn() -> None:
    """Behind what the thread has sent before, such as an acknowledgement."""
    manager = make_manager()
    connect(manager, "one")
    manager._outlet.sent.clear()
    manager.emit("n", 1)
    manager.send_collected()
    assert not manager._outlet.sent
    manager._outlet.work()
    assert len(manager._outlet.sent) == 1


def test_the_state_of_a_client_is_as_short_as_it_can_be() -> None:
    manager = make_manager()
    sid = connect(manager, "one")
    client = manager._known[sid]
    state = client.encode()
    assert len(state) < 4 * len(sid)
    assert Client.restored(decode(state), "one").save() == client.save()
    client.stay.enter("room", 3)
    client.moves_to("bbbbbbbb", 5)
    client.namespace, client.stay.floor = "/chat", 2
    assert Client.restored(decode(client.encode()), "one").save() == client.save()


@pytest.mark.parametrize("kind", ["many", "long"])
def test_a_client_in_too_many_rooms_does_not_come_back(kind: str) -> None:
    """All rooms of a client are saved at each change; for this client only a short state is."""
    manager = make_manager()
    sid = connect(manager, "one")
    client = manager._known[sid]
    count = CLIENT_ROOMS // 24
    names = [f"{number:08}" for number in range(count)]
    if kind == "long":
        names = ["x" * (CLIENT_ROOMS - 16)]
    for name in names:
        manager.enter_room(sid, "/", name)
    before = manager.journal._live_bytes
    assert before > CLIENT_ROOMS / 2 and not client.cannot_come_back
    manager.enter_room(sid, "/", "one more")
    assert client.cannot_come_back and manager.journal._live_bytes < before / 10
    manager.leave_room(sid, "/", "one more")
    assert not client.cannot_come_back and manager.journal._live_bytes == before
    assert client.stay.size == Client.restored(decode(client.encode()), "one").stay.size
    manager.enter_room(sid, "/", "one more")
    assert not manager.lose(sid, "/", "transport close")
    assert manager._gone[client.pid] == NOT_SAVED


def test_without_the_option_nothing_is_kept() -> None:
    manager = ZmqManager()
    make_server(client_manager=manager)
    manager._send_through(Outlet())  # type: ignore[arg-type]
    sid = manager._pre_connect("one", "/")
    assert sid is not None and manager.begin(sid, "/", ABLE) is None
    manager.connect(sid, "/")
    assert manager.journal is None and not manager._known
    assert not manager.lose(sid, "/", "transport close")


def test_why_it_has_no_effect_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    manager: Any = ZmqManager(recovery=60)
    make_server(client_manager=manager, serializer="msgpack")
    manager._send_through(Outlet())
    for number in range(5):
        connect(manager, f"e{number}")
    (line,) = caplog.messages
    assert "are not JSON" in line and manager.journal is None


def test_a_journal_for_which_there_is_no_descriptor_begins_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients that connected before know no offsets, and get none."""

    def fail(size: int) -> Any:
        raise OSError(errno.EMFILE, "no descriptor")

    manager = make_manager()
    with monkeypatch.context() as patch:
        patch.setattr(journal_log, "make_memory", fail)
        early = [connect(manager, f"e{number}") for number in range(5)]
    connect(manager, "within a minute")
    assert len(caplog.messages) == 1 and manager.journal is None
    manager._begin_again -= keeping._AGAIN
    sid = connect(manager, "late")
    assert manager.journal is not None and manager._plain == set(manager._known) - {sid}
    assert manager._plain > set(early) and len(manager._known) == 7
    manager.emit("n", 1)
    manager._outlet.work()
    plain, numbered = '2["n",1]', [text for text in manager._outlet.sent if ',"' in text]
    assert manager._outlet.sent.count(plain) == 6 and len(numbered) == 1
    assert not manager.lose(early[0], "/", "transport close")
    assert manager.lose(sid, "/", "transport close")


def test_those_who_cannot_come_back_are_known_for_the_end_of_their_worker() -> None:
    manager = make_manager()
    connect(manager, "able")
    sid = connect(manager, "plain", Asked(False, None, None, None))
    assert set(manager._known) > manager._plain == {sid}
    assert manager.journal is not None and sid in manager.journal._clients
    manager.disconnect(sid, "/", ignore_queue=True)
    assert sid not in manager._known and not manager._plain


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "CLIENTS_MOVED", 3)
    manager = make_manager()
    connect(manager, "one")
    for number in range(5):
        manager._note_moved(Moved(f"s{number}", "/", f"p{number}", "bbbbbbbb", "aaaaaaaa"))
    assert list(manager._moved) == ["s2", "s3", "s4"] and "p0" not in manager._sid_of


def test_times() -> None:
    times = Times()
    for number in range(200):
        times.add(f"{number}", number)
    times.add("5", 500)
    for number in range(10, 200):
        times.discard(f"{number}")
    due = ["0", "1", "2", "3", "4", "6", "7", "8", "9"]
    assert list(times.pop_due(100)) == [(sid, True) for sid in due]
    assert len(times) == 1 and "5" in times
    assert len(times._heap) < 100


def test_as_many_times_as_there_may_be() -> None:
    times = Times()
    for number in range(5):
        times.add(f"{number}", number)
    times.add("0", 9)
    assert list(times.pop_due(1, 2)) == [("1", True), ("2", False), ("3", False)]
    assert "4" in times and "0" in times
