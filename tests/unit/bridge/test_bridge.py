from __future__ import annotations

import json
import logging
import os
import time
from typing import Any, Callable, ClassVar, Iterator, Optional, Sequence

import pytest

from supervisor_sio.bridge import bridge as module
from supervisor_sio.bridge import stream as stream_module
from supervisor_sio.bridge.bridge import Bridge, Member
from supervisor_sio.bridge.format import JSON_PACKET
from supervisor_sio.bridge.stream import HostStream
from supervisor_sio.cluster.asking import TIMEOUT
from supervisor_sio.common import memory_file
from supervisor_sio.common.limits import (
    BRIDGE_BEAT,
    BRIDGE_MOST_HELD,
    BRIDGE_PATIENCE,
    BRIDGE_SILENCE,
)
from supervisor_sio.common.refusals import Untold
from supervisor_sio.common.rundir import ClusterInfo, RunDir
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.methods import BRIDGE
from supervisor_sio.relay.passed import NOTE
from unit.in_the_middle import Other

HERE, ALSO_HERE, ELSEWHERE = "0a1b2c3d", "1a1b2c3d", "2a1b2c3d"


class Relay:
    """In place of publisher and subscriber: keeps what is sent to the workers here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.options = kwargs
        self.sender = args[-1]
        self.joined = True
        self.dropped = 0
        self.said: list[tuple[Optional[str], dict[str, Any]]] = []
        self.volatile: list[tuple[Optional[str], str, list[Any]]] = []
        self.direct: list[tuple[str, dict[str, Any]]] = []

    def tell(self, receiver: str, fields: dict[str, Any], packets: Any) -> None:
        self.direct.append((receiver, fields))

    def publish(self, tag: Optional[str], fields: dict[str, Any], packets: Any) -> None:
        self.said.append((tag, fields))

    def publish_volatile(self, tag: Optional[str], fields: dict[str, Any], packets: Any) -> None:
        self.volatile.append((tag, fields["room"], list(packets)))

    def ask_all(self, fields: dict[str, Any]) -> None: ...

    def start(self, deliver: Callable[[RelayMessage], None]) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Queue:
    """In place of Redis: keeps what is published, as it arrives."""

    connected, connections, sent, refused = True, 1, 0, 0

    def __init__(
        self, url: str, channel: str, stream: HostStream, received: Any, rests: Any
    ) -> None:
        self._stream = stream
        self.published: list[dict[str, Any]] = []
        self.returned: list[int] = []

    def say(self, data: bytes) -> None:
        self.published.append(json.loads(data))
        one = self.published[-1]
        assert one["method"] in ("members", "question", "again") or "volatile" in one

    def wake(self) -> None:
        if self.connected:
            self.published += map(json.loads, self._stream.take(100))

    def came_back(self, number: int) -> None:
        self.returned.append(number)

    def start(self) -> None: ...

    def close(self) -> None: ...


class BridgeAlone(Bridge):
    """The code of a bridge, without sockets and threads.

    :param files: of the bridge before it on this host.
    """

    _publisher: Any
    _queue: Any
    _subscriber: Any
    #: Of all bridges of a test, some of which have the same.
    open_files: ClassVar[set[int]] = set()

    def __init__(self, files: Sequence[int] = ()) -> None:
        self.told: list[list[Member]] = []
        self.files = files or [memory_file.write(name, b"") for name in memory_file.HOST_FILES]
        self.open_files.update(self.files)
        run_dir, cluster = RunDir("/nowhere"), ClusterInfo()
        super().__init__("redis://", run_dir, cluster, self.files, self.told.append)
        self.set_members([[tag, False, ["socketio"], False] for tag in (HERE, ALSO_HERE)])

    def hear(self, *messages: Any) -> None:
        for message in messages:
            self._from_queue(
                message if isinstance(message, bytes) else json.dumps(message).encode()
            )

    @property
    def said(self) -> list[str]:
        """The rooms of the emits that it has passed on to the workers here."""
        assert all(tag is None for tag, _ in self._publisher.said)
        return [fields["room"] for _, fields in self._publisher.said]

    @property
    def elsewhere(self) -> list[str]:
        """The workers of other hosts, as reported last."""
        return [tag for tag, *_ in self.told[-1]]


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Iterator[BridgeAlone]:
    monkeypatch.setattr(module, "Publisher", Relay)
    monkeypatch.setattr(module, "ThreadSubscriber", Relay)
    monkeypatch.setattr(module, "RedisQueue", Queue)
    yield BridgeAlone()
    while BridgeAlone.open_files:
        os.close(BridgeAlone.open_files.pop())


def emit(number: int, via: str = "bridge-2", origin: Any = None, room: str = "") -> dict[str, Any]:
    return {
        "method": "emit",
        "event": "news",
        "data": [None],
        "room": room or str(number),
        "host_id": f"{via}:{ELSEWHERE}",
        "via": via,
        "seq": number,
        "origin": origin or [f"worker-of-{via}", False, number],
    }


def again(bridge: Bridge, asked: int, *messages: Any, first: int = 0) -> dict[str, Any]:
    """The answer of ``bridge-2`` to this bridge."""
    return {
        "method": "again",
        "of": "bridge-2",
        "asker": bridge._id,
        "asked": asked,
        "first": first or asked,
        "messages": [json.dumps(message) for message in messages],
    }


def members(number: int, *tags: str, via: str = "bridge-2") -> dict[str, Any]:
    """Lists of workers have no number of their own: they have the last one."""
    workers = [[tag, True, ["socketio"]] for tag in tags]
    return {"method": "members", "via": via, "seq": number, "members": workers}


def from_worker(number: int = 1, **fields: Any) -> RelayMessage:
    fields = {"method": "emit", "namespace": "/", "packet": "p", **fields}
    packets = ['2["news"]'] if fields["method"] == "emit" else ["31[]"]
    message = RelayMessage(HERE, number, fields, packets)
    is_alone = ("to" in fields or fields["method"] == "callback") and "only" not in fields
    return alone(message) if is_alone else message


def alone(message: RelayMessage) -> RelayMessage:
    """A message that a worker has sent to the bridge alone."""
    message.stream = BRIDGE
    return message


def look_on(bridge: Bridge, now: float, seconds: float) -> None:
    """Look each second, as the router's process runs all the time."""
    for second in range(round(seconds) + 1):
        bridge._look(now + second)


# --- what it hears of other hosts ---------------------------------------------------


def test_what_comes_is_passed_on_in_order(bridge: BridgeAlone) -> None:
    bridge.hear(*(emit(number) for number in range(5, 9)))
    assert bridge.said == ["5", "6", "7", "8"]
    assert (bridge.received, bridge.missed) == (4, 0)


def test_what_is_missing_is_asked_for(bridge: BridgeAlone) -> None:
    bridge.hear(emit(1), emit(2), emit(5))
    assert bridge.said == ["1", "2"]  # what comes later waits
    (question,) = bridge._queue.published
    assert question == {
        "method": "question",
        "of": "bridge-2",
        "asker": bridge._id,
        "first": 3,
        "last": 4,
    }
    bridge.hear(again(bridge, 3, emit(3), emit(4)))
    assert bridge.said == ["1", "2", "3", "4", "5"]
    bridge.hear(again(bridge, 3, emit(3), emit(4)), emit(4), emit(6))
    assert bridge.said == ["1", "2", "3", "4", "5", "6"]
    assert bridge.missed == 0


def test_a_question_is_asked_again_after_a_while(bridge: BridgeAlone) -> None:
    bridge.hear(emit(1), emit(3))
    assert len(bridge._queue.published) == 1
    bridge._look(bridge._heard["bridge-2"] + module._ASK_AGAIN - 0.1)
    assert len(bridge._queue.published) == 1
    bridge._look(time.monotonic() + module._ASK_AGAIN)
    assert len(bridge._queue.published) == 2


def test_what_was_too_much_to_hold_is_asked_for(bridge: BridgeAlone) -> None:
    assert bridge._inbox._most_held == BRIDGE_MOST_HELD
    bridge._inbox._most_held = 50
    bridge.hear(emit(1), *(emit(number) for number in range(3, 60)))
    bridge.hear(again(bridge, 2, emit(2)))
    assert len(bridge.said) == 2 + 50
    question = bridge._queue.published[-1]
    assert (question["first"], question["last"]) == (53, 59)


def test_an_answer_that_comes_twice_is_not_looked_at(bridge: BridgeAlone) -> None:
    bridge.hear(emit(1), emit(3))
    answer = again(bridge, 2, emit(2))
    bridge.hear(answer, {**answer, "messages": ["nonsense"]})
    assert bridge.said == ["1", "2", "3"] and bridge.malformed == 0


def test_missed_messages_are_counted_exactly(
    bridge: BridgeAlone, caplog: pytest.LogCaptureFixture
) -> None:
    bridge.hear(emit(1), emit(2), emit(5), emit(6), emit(10))
    bridge.hear(again(bridge, 3, first=5), again(bridge, 7, emit(9), first=9))
    assert bridge.said == ["1", "2", "5", "6", "9", "10"]
    for number in (7, 9):
        bridge.hear(emit(number, via="bridge-3", origin=["w3", False, number]))
    bridge._heard["bridge-3"] += 11
    look_on(bridge, time.monotonic(), 11)  # it does not answer
    assert bridge.said[6:] == ["7", "9"]
    assert bridge.missed == 2 + 2 + 1
    assert [record.getMessage() for record in caplog.records] == [
        "4 messages of another host were lost"
    ]


def test_redis_away_is_nobodys_silence(bridge: BridgeAlone) -> None:
    bridge.hear(emit(1), emit(3))
    bridge._queue.connected = False
    now = time.monotonic()
    bridge._look(now + 20)
    bridge._queue.connected = True
    bridge._queue.connections += 1
    bridge._look(now + 21)
    bridge._look(now + 30)
    assert bridge.missed == 0
    bridge.hear(again(bridge, 2, emit(2)))
    assert bridge.said == ["1", "2", "3"]


def test_a_router_that_was_stopped_reads_the_answer_before_it_gives_up(
    bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that has arrived meanwhile is in its socket, the answer after other messages."""
    bridge.hear(emit(1), emit(3))
    now = time.monotonic()
    bridge._look(now)
    now += 20
    monkeypatch.setattr(time, "monotonic", lambda: now)
    bridge.hear(emit(4))
    bridge._look(now)
    assert bridge.missed == 0
    bridge.hear(again(bridge, 2, emit(2)))
    assert bridge.said == ["1", "2", "3", "4"] and bridge.missed == 0


def test_of_the_time_to_come_back_only_that_counts_in_which_the_router_runs(
    bridge: BridgeAlone,
) -> None:
    bridge.hear(emit(1), emit(3))
    now = bridge._heard["bridge-2"] + BRIDGE_SILENCE + 1
    bridge._look(now)
    now += BRIDGE_PATIENCE + 20  # it is stopped
    look_on(bridge, now, BRIDGE_PATIENCE - 1)
    assert bridge.missed == 0 and bridge._lost
    look_on(bridge, now + BRIDGE_PATIENCE, 1)
    assert bridge.missed == 1 and not bridge._lost


def test_a_host_that_is_away_for_long_is_waited_for(bridge: BridgeAlone) -> None:
    """Its router restarts, say; it keeps what it sent, and gets time to answer then."""
    bridge.hear(emit(1), emit(3), members(3, "a"))
    now = bridge._heard["bridge-2"]
    bridge._look(now + BRIDGE_SILENCE + 1)
    assert bridge.elsewhere == []
    bridge._look(now + BRIDGE_SILENCE + BRIDGE_PATIENCE)
    assert bridge.said == ["1"]
    bridge.hear(members(3, "a"))
    bridge._look(time.monotonic() + 1)
    assert bridge.said == ["1"] and bridge._queue.published[-1]["method"] == "question"
    bridge.hear(again(bridge, 2, emit(2)))
    assert bridge.said == ["1", "2", "3"] and bridge.missed == 0


def test_a_host_that_does_not_come_back_is_not_waited_for_for_ever(bridge: BridgeAlone) -> None:
    bridge.hear(emit(1), emit(3))
    now = bridge._heard["bridge-2"]
    look_on(bridge, now, BRIDGE_SILENCE + BRIDGE_PATIENCE + 2)
    assert bridge.said == ["1", "3"] and bridge.missed == 1
    assert not bridge._lost


def test_a_host_that_leaves_is_not_waited_for(bridge: BridgeAlone) -> None:
    bridge.hear(emit(1), emit(3), {**members(3), "leaves": True})
    assert bridge.said == ["1", "3"] and bridge.missed == 1
    assert not bridge._heard and not bridge._placed and not bridge._inbox.waits


def test_a_host_that_leaves_before_its_place_is_known_loses_nothing(bridge: BridgeAlone) -> None:
    bridge._stream.note_passed({"bridge-2": 4})
    bridge._resumed = False
    bridge.hear(emit(5), emit(6), {**members(6), "leaves": True})
    assert bridge.said == []
    for tag in (HERE, ALSO_HERE):
        bridge._take_passed(tag, {"bridge-2": 4})
    bridge._resume()
    assert bridge.said == ["5", "6"] and bridge.missed == 0


def test_a_host_without_workers_is_asked_for_what_is_missing(bridge: BridgeAlone) -> None:
    """It may have other emitters, and its workers may just be starting."""
    bridge.hear(members(0), emit(1), members(2))
    bridge._look(time.monotonic() + module._ASK_AGAIN)
    asked = [(one["first"], one["last"]) for one in bridge._queue.published]
    assert asked == [(2, 2)] * 2
    bridge.hear(again(bridge, 2, emit(2)), members(2))
    assert bridge.said == ["1", "2"] and bridge.missed == 0
    assert not bridge.told and bridge._placed == {"bridge-2"}


def test_what_cannot_be_asked_now_is_not_waited_for_in_vain(bridge: BridgeAlone) -> None:
    """Redis was away for long; hosts that were silent meanwhile get their time anew."""
    bridge.hear(emit(1), emit(3), members(3, "a"))
    now = bridge._heard["bridge-2"]
    bridge._look(now + BRIDGE_SILENCE + 1)
    bridge._queue.connected = False
    now += BRIDGE_SILENCE + BRIDGE_PATIENCE + 100
    bridge._look(now)
    bridge._queue.connected = True
    bridge._queue.connections += 1
    look_on(bridge, now, BRIDGE_PATIENCE - 1)
    assert bridge.said == ["1"] and bridge.missed == 0
    look_on(bridge, now + BRIDGE_PATIENCE, 1)
    assert bridge.said == ["1", "3"] and bridge.missed == 1


def test_what_it_has_sent_it_sends_again(bridge: BridgeAlone) -> None:
    other = BridgeAlone()
    for number in (1, 2, 3):
        bridge._from_relay(from_worker(number, room=f"{number}"))
    sent = list(bridge._queue.published)
    other.hear(sent[0], sent[2])
    bridge.hear(other._queue.published[-1])
    assert bridge._queue.published[-1]["method"] == "again"
    other.hear(bridge._queue.published[-1])
    assert other.said == ["1", "2", "3"]
    answers = len(bridge._queue.published)
    for first, last in ((1, 4), (0, 1), (3, 2), ("1", 2)):
        question = {"method": "question", "asker": "x", "first": first, "last": last}
        bridge.hear({**question, "of": bridge._id}, {**question, "of": "bridge-7"})
    assert len(bridge._queue.published) == answers


def test_it_goes_on_where_the_workers_are(bridge: BridgeAlone) -> None:
    """Messages that came while there was no router are asked for."""
    successor = BridgeAlone(bridge.files)
    successor._subscriber.on_passed = successor._take_passed
    successor.hear(emit(20), members(20, "a"))
    assert successor.said == []
    successor._subscriber.on_passed(HERE, {"bridge-2": 17, "bridge-9": 4})
    successor._subscriber.on_passed(ALSO_HERE, {"bridge-2": 18})
    successor._resume()
    successor._ask(time.monotonic() + module._ASK_AGAIN)
    (question,) = (said for said in successor._queue.published if said["method"] == "question")
    assert (question["first"], question["last"]) == (18, 19)
    successor.hear(again(successor, 18, emit(18), emit(19)))
    assert successor.said == ["18", "19", "20"]
    vias = [fields["via"] for _, fields in successor._publisher.said]
    assert vias == [["bridge-2", 18], ["bridge-2", 19], ["bridge-2", 20]]


def passed(bridge: BridgeAlone, **numbers: int) -> None:
    """What the workers here answer about messages of other hosts, by tag."""
    for tag, number in numbers.items():
        bridge._take_passed(tag[1:], {"bridge-2": number})


def test_a_worker_that_does_not_answer_in_time_misses_nothing(bridge: BridgeAlone) -> None:
    """It has at least what all workers had at the last question, and gets nothing twice."""
    bridge.hear(*(emit(number) for number in range(5, 9)))
    passed(bridge, **{f"_{HERE}": 7, f"_{ALSO_HERE}": 6})
    bridge._note_passed()
    bridge._save()
    successor = BridgeAlone(bridge.files)
    successor.hear(emit(20))
    passed(successor, **{f"_{HERE}": 9})
    with successor._lock:
        successor._resumed = True
        successor._place("bridge-2", None)
    successor._ask(time.monotonic())
    question = successor._queue.published[-1]
    assert (question["first"], question["last"]) == (7, 19)


def test_what_all_have_is_known_of_all_that_are_here(bridge: BridgeAlone) -> None:
    bridge.hear(emit(5))
    bridge._note_passed()
    assert bridge._stream.passed == {"bridge-2": 4}, "from there on it was heard"
    passed(bridge, **{f"_{HERE}": 7})
    bridge._note_passed()
    assert bridge._stream.passed == {"bridge-2": 4}, "the other one may have less"
    passed(bridge, **{f"_{ALSO_HERE}": 6})
    bridge._note_passed()
    assert bridge._stream.passed == {"bridge-2": 6}
    bridge._take_passed(ALSO_HERE, {})  # it is new, say
    bridge._note_passed()
    assert bridge._stream.passed == {"bridge-2": 7}
    bridge.set_members([])
    bridge._note_passed()
    assert bridge._stream.passed == {"bridge-2": 7} and not bridge._passed


def test_workers_that_do_not_receive_its_channel_are_not_waited_for(bridge: BridgeAlone) -> None:
    """They never say what they have; the next router would ask other hosts for all again."""
    rows = [[HERE, False, ["socketio", "chat"], False], [ALSO_HERE, False, ["chat"], False]]
    bridge.set_members(rows)
    bridge.hear(*(emit(number) for number in range(1, 9)))
    passed(bridge, **{f"_{HERE}": 8})
    bridge._note_passed()
    assert bridge._stream.passed == {"bridge-2": 8}


def test_workers_that_got_nothing_lately_are_told_how_far_others_are(bridge: BridgeAlone) -> None:
    relay = {"method": "relay", "fields": {"method": "callback", "ack": 1}, "packets": []}
    bridge.hear(members(0, ELSEWHERE, via="bridge-3"))
    bridge.hear({**relay, "via": "bridge-2", "seq": 1, "origin": ["w", True, 1], "to": ELSEWHERE})
    bridge._tell_workers()
    bridge._tell_workers()
    assert bridge._publisher.said == [(None, {"method": "via", "via": ["bridge-2", 1]})]


def test_new_workers_are_told_how_far_those_before_them_were(bridge: BridgeAlone) -> None:
    """Else the next router would send them what was emitted before they began, maybe long ago."""
    bridge.hear(*(emit(number) for number in range(1, 6)))
    passed(bridge, **{f"_{HERE}": 3, f"_{ALSO_HERE}": 3})
    bridge._note_passed()
    bridge._tell_workers()
    bridge.set_members([[ELSEWHERE, False, ["socketio"], False]])
    del bridge._publisher.said[:]
    for _ in range(2):
        bridge._tell_workers()
    assert bridge._publisher.said == [(None, {"method": NOTE, "via": ["bridge-2", 5]})]
    passed(bridge, **{f"_{ELSEWHERE}": 5})
    bridge._note_passed()
    assert bridge._stream.passed == {"bridge-2": 5}


def test_a_name_that_is_too_long_is_not_saved(bridge: BridgeAlone) -> None:
    bridge.hear(emit(1))
    bridge._note_passed()
    bridge._save()
    long = "b" * 3_000_000
    bridge.hear(*(emit(number, via=f"{long}{number}") for number in (1, 2)), members(3, via=long))
    bridge._note_passed()
    bridge._save()
    bridge._save()
    successor = BridgeAlone(bridge.files)
    assert successor._id == bridge._id and successor._stream.passed == {"bridge-2": 0}


def test_what_comes_twice_is_passed_on_once(bridge: BridgeAlone) -> None:
    for number in (1, 2, 2, 1, 3):
        bridge.hear(emit(number))
    assert bridge.said == ["1", "2", "3"]
    assert bridge.missed == 0


def test_what_the_bridge_before_passed_on_is_not_repeated(bridge: BridgeAlone) -> None:
    bridge.hear(*(emit(n, origin=["w", False, n]) for n in (1, 2, 3)))
    # Its successor begins with what the workers said before its time.
    bridge.hear(*(emit(n, "bridge-2b", ["w", False, n + 1], f"again-{n + 1}") for n in (1, 2, 3)))
    assert bridge.said == ["1", "2", "3", "again-4"]
    assert bridge.missed == 0


def test_the_streams_of_a_worker_have_numbers_of_their_own(bridge: BridgeAlone) -> None:
    bridge.hear(emit(1, origin=["w", False, 5]), emit(2, origin=["w", True, 1]))
    bridge.hear(emit(3, origin=["v", False, 1]), emit(4, origin=["w", True, 1]))
    assert bridge.said == ["1", "2", "3"]


def test_streams_not_heard_for_long_are_forgotten(
    bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BRIDGE_MOST_ORIGINS", 2)
    for number, worker in enumerate("abacacb", 1):
        bridge.hear(emit(number, origin=[worker, False, number]))
    assert set(bridge._origins) == {("b", False), ("c", False)}
    assert len(bridge.said) == 7


def test_its_own_messages_are_ignored(bridge: BridgeAlone) -> None:
    bridge._from_relay(from_worker())
    (own,) = bridge._queue.published
    bridge.hear(own)
    assert bridge.said == [] and (bridge.received, bridge.malformed) == (0, 0)
    assert bridge._queue.returned == [1]


def test_its_own_messages_are_not_decoded(
    bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each host receives its own as well: with two hosts, half of all."""
    raw: list[bytes] = []
    monkeypatch.setattr(bridge._queue, "say", raw.append)
    monkeypatch.setattr(bridge._queue, "wake", lambda: raw.extend(bridge._stream.take(100)))
    bridge._from_relay(from_worker())
    bridge._send_members([])
    monkeypatch.setattr(module, "parse", lambda raw: pytest.fail("it is decoded"))
    bridge.hear(*raw)
    assert bridge._queue.returned == [1, 1] and bridge._publisher.turn() is None


def test_what_arrives_together_is_sent_to_the_workers_together(bridge: BridgeAlone) -> None:
    ends: list[str] = []
    for number in (1, 2, 3):
        bridge.hear(emit(number))
        call_soon = bridge._publisher.turn()
        assert call_soon is not None
    call_soon(lambda: ends.append("end"))
    assert not ends
    bridge._turn.end()
    assert ends == ["end"] and bridge._publisher.turn() is None


def test_stock_servers_have_no_numbers(bridge: BridgeAlone) -> None:
    message = {"method": "emit", "event": "x", "data": [1], "room": "r", "host_id": "stock"}
    bridge.hear(message, message)
    assert bridge.said == ["r", "r"]


def test_what_is_for_a_worker_of_another_host_goes_no_further(bridge: BridgeAlone) -> None:
    bridge.hear(members(0, ELSEWHERE, HERE, via="bridge-3"))
    relay = {"method": "relay", "fields": {"method": "callback", "ack": 1}, "packets": []}
    for number, tag in enumerate((HERE, ELSEWHERE, ALSO_HERE), 1):
        numbers = {"via": "bridge-2", "seq": number, "origin": ["w", True, number]}
        bridge.hear({**relay, **numbers, "to": tag})
    assert [tag for tag, _ in bridge._publisher.said] == [HERE, ALSO_HERE]
    assert bridge.received == 2


def test_a_worker_that_connects_late_to_the_router_gets_what_is_for_it(
    bridge: BridgeAlone,
) -> None:
    """A worker that is busy when its router is killed gets the acknowledgements that it awaits."""
    answer = {"method": "callback", "host_id": f"{bridge._id}:{ALSO_HERE}", "id": 7, "args": [1]}
    successor = BridgeAlone(bridge.files)
    successor.set_members([[HERE, False, ["socketio"], False]])
    successor.hear(answer)
    assert [(tag, fields["ack"]) for tag, fields in successor._publisher.said] == [(ALSO_HERE, 7)]


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        b'{"method": "emit"}',
        emit(1, origin=["w"]),
        {**emit(1), "data": [], "binary": True},
        members(1) | {"members": 5},
        members(1) | {"members": [1, 2]},
        members(1) | {"members": [["tag", True]]},
        members(1) | {"members": [["tag", True, None]]},
        {"method": "relay", "to": {}, "fields": {"method": "callback", "ack": 1}, "packets": []},
    ],
    ids=lambda message: str(message)[:60],
)
def test_malformed_messages_are_counted_and_told_of_each_second(
    bridge: BridgeAlone, message: Any, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    bridge._untold = Untold(lambda: now)
    bridge.hear(message, b"{}", emit(2))
    assert bridge.malformed == 2 and bridge.said == ["2"]
    (record,) = caplog.records
    assert record.getMessage().startswith("a malformed message on the message queue is ignored: ")
    assert bridge.told == []
    now = 1.0
    bridge.hear(b"[]", b"[]")
    assert caplog.records[1:] == caplog.records[-1:]
    assert caplog.records[-1].getMessage() == (
        "2 malformed messages on the message queue are ignored, last: not an object with a method"
    )


def test_a_line_about_a_malformed_message_is_short(
    bridge: BridgeAlone, caplog: pytest.LogCaptureFixture
) -> None:
    bridge._from_relay(from_worker(method="x" * 100_000))
    bridge.hear(b"{}")
    ours, others = caplog.records
    assert len(ours.getMessage()) < 300
    assert "on the message queue" in others.getMessage(), "it hides none of other hosts"


# --- who is where -------------------------------------------------------------------


def test_members_of_other_hosts_are_told(bridge: BridgeAlone) -> None:
    bridge.hear(members(1, "a", "b"))
    assert bridge.told == [[["a", True, ["socketio"], False], ["b", True, ["socketio"], False]]]
    bridge.hear(members(2, "a", "b"))
    assert len(bridge.told) == 1
    bridge.hear(members(1, "c", via="bridge-3"), members(3, "b"))
    assert bridge.elsewhere == ["b", "c"]
    assert bridge.figures()["hosts"] == 2
    assert bridge.said == [] and bridge.received == 0


def test_aliases_of_other_hosts_are_told_as_such(bridge: BridgeAlone) -> None:
    """Bridges that know no aliases ignore them."""
    bridge.set_members([[HERE, False, ["socketio"], False], [ALSO_HERE, False, ["socketio"], True]])
    assert bridge._lives(HERE) and not bridge._lives(ALSO_HERE)
    bridge._send_members(bridge._here)
    told = bridge._queue.published[-1]
    assert told["members"] == [[HERE, True, ["socketio"]]]
    assert told["aliases"] == [[ALSO_HERE, True, ["socketio"]]]
    bridge.hear({**members(1, "a"), "aliases": [["b", True, ["socketio"]]]})
    assert bridge.told == [[["a", True, ["socketio"], False], ["b", True, ["socketio"], True]]]
    bridge.hear({**members(2, "a"), "aliases": ["b"]})
    assert bridge.malformed == 1 and len(bridge.told) == 1


def test_a_host_that_says_it_leaves_is_gone(bridge: BridgeAlone) -> None:
    bridge.hear(members(1, "a"), members(1, "c", via="bridge-3"), members(2))
    assert bridge.elsewhere == ["c"] and bridge.figures()["hosts"] == 1
    bridge.hear(members(3))
    assert len(bridge.told) == 3


def test_members_tell_of_what_was_missed_last(bridge: BridgeAlone) -> None:
    bridge.hear(members(0, "a"), emit(1), members(1, "a"), members(1, "a"), emit(2))
    assert bridge.missed == 0
    bridge.hear(members(4, "a"), members(4, "a"), emit(6), members(6, "a"))
    assert bridge._inbox.waits
    bridge.hear(again(bridge, 3, first=6))
    assert bridge.missed == 2 + 1
    assert bridge.said == ["1", "2", "6"]


def test_what_a_host_sent_before_it_was_known_is_not_missed(bridge: BridgeAlone) -> None:
    bridge.hear(members(50, "a"), emit(51), members(51, "a"))
    assert bridge.missed == 0 and bridge.said == ["51"]


def wait_until(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_silent_host_is_gone(bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BRIDGE_BEAT", 0.02)
    monkeypatch.setattr(module, "BRIDGE_SILENCE", 0.3)
    bridge.start()
    bridge.hear(members(1, "a"), members(1, "c", via="bridge-3"))
    number = 1

    def only_one_is_left() -> bool:
        nonlocal number
        number += 1
        bridge.hear(emit(number, via="bridge-3"))  # any word will do
        return bridge.elsewhere == ["c"]

    wait_until(only_one_is_left)
    bridge.close(leaves=True)
    assert bridge.missed == 0


def test_a_host_is_known_to_be_gone_after_a_stated_time(bridge: BridgeAlone) -> None:
    bridge.hear(members(1, "a"))
    (heard,) = bridge._heard.values()
    bridge._look(heard + BRIDGE_SILENCE)
    assert bridge.elsewhere == ["a"]
    bridge._look(heard + BRIDGE_SILENCE + 0.001)
    assert bridge.elsewhere == []
    assert BRIDGE_SILENCE > 3 * BRIDGE_BEAT, "some words may get lost"
    assert BRIDGE_SILENCE + 2 * module._TICK < TIMEOUT, "no call need wait for all of its time"


def test_it_tells_who_is_here_and_at_its_end_that_nobody_is(bridge: BridgeAlone) -> None:
    bridge.start()
    wait_until(lambda: bridge._queue.published)
    bridge.set_members([[HERE, False, ["chat"], False]])
    wait_until(lambda: len(bridge._queue.published) > 1)
    bridge.hear(members(1, "new"))  # is answered at once
    wait_until(lambda: len(bridge._queue.published) > 2)
    bridge.close(leaves=True)
    told = bridge._queue.published
    workers = [[HERE, True, ["socketio"]], [ALSO_HERE, True, ["socketio"]]]
    less = [[HERE, True, ["chat"]]]
    assert [message["members"] for message in told] == [workers, less, less, []]
    assert [message["seq"] for message in told] == [0, 0, 0, 0]
    assert [message.get("leaves") for message in told] == [None, None, None, True]
    assert {message["via"] for message in told} == {bridge._id}


def test_when_its_router_ends_the_host_is_still_there(bridge: BridgeAlone) -> None:
    bridge.start()
    wait_until(lambda: bridge._queue.published)
    bridge.close(leaves=False)
    assert all(message["members"] for message in bridge._queue.published)
    assert not any("leaves" in message for message in bridge._queue.published)


# --- what it tells other hosts --------------------------------------------------------


def test_what_the_workers_say_is_numbered(bridge: BridgeAlone) -> None:
    bridge._from_relay(from_worker(7))
    bridge._from_relay(from_worker(8, method="sockets_join", rooms="red"))
    bridge._from_relay(from_worker(1, room=f"{ELSEWHERE}.AbCdEfGhIjKlMnOpQrSt", to=ELSEWHERE))
    first, second, third = bridge._queue.published
    assert [message["seq"] for message in (first, second, third)] == [1, 2, 3]
    assert [message["method"] for message in (first, second, third)] == ["emit", "relay", "emit"]
    bridge._send_members([])
    assert bridge._queue.published[-1]["seq"] == 3
    origins = [message["origin"] for message in (first, second, third)]
    assert origins == [[HERE, False, 7], [HERE, False, 8], [HERE, True, 1]]


def test_what_is_volatile_has_no_number(bridge: BridgeAlone) -> None:
    """A lost one is not missed, and stock servers get it like any emit."""
    packet = '2["news",1]'
    fields = {"method": "volatile", "namespace": "/", "packet": JSON_PACKET, "room": "red"}
    bridge._from_relay(RelayMessage(HERE, 0, fields, [packet]))
    (sent,) = bridge._queue.published
    assert sent["method"] == "emit" and sent["data"] == [1] and "seq" not in sent
    other = BridgeAlone()
    other.hear(sent, sent)
    assert other._publisher.volatile == [(None, "red", [packet])] * 2 and other.said == []
    bridge.hear(sent)
    assert bridge._publisher.volatile == []  # it is its own


def test_a_process_that_serves_nobody_asks_another_host(
    bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers come to it alone, without a number; those of workers here stay on this host."""
    monkeypatch.setattr(module, "BRIDGE_MOST_ASKERS", 2)
    other = BridgeAlone()
    other.set_members([[ELSEWHERE, False, ["socketio"], False]])
    asked = {"method": "request", "operation": "fetch_rooms", "request": 7, "namespace": "/"}
    bridge._from_relay(RelayMessage("asker-1", 1, asked))
    other.hear(bridge._queue.published[-1])
    ((tag, fields),) = other._publisher.said
    assert tag is None and fields["reply_to"] == "asker-1"
    answer = {"method": "answer", "request": 7, "worker": ELSEWHERE, "to": "asker-1"}
    other._from_relay(alone(RelayMessage(ELSEWHERE, 1, answer)))
    bridge.hear(other._queue.published[-1])
    ((receiver, fields),) = bridge._publisher.direct
    assert (receiver, fields["method"], fields["request"]) == ("asker-1", "answer", 7)
    assert bridge._publisher.said == []

    count = len(bridge._queue.published)
    bridge._from_relay(alone(RelayMessage(HERE, 1, {**answer, "worker": HERE})))
    assert len(bridge._queue.published) == count
    # Whoever has not asked here is on a third host; of too many the first are forgotten.
    for number in (2, 3):
        bridge._from_relay(RelayMessage(f"asker-{number}", 1, asked))
    other._from_relay(alone(RelayMessage(ELSEWHERE, 2, answer)))
    bridge.hear(other._queue.published[-1])
    assert len(bridge._publisher.direct) == 1 and bridge._publisher.said == []


def test_an_asker_of_its_predecessor_gets_its_answer(bridge: BridgeAlone) -> None:
    asked = {"method": "request", "operation": "fetch_rooms", "request": 7, "namespace": "/"}
    bridge._from_relay(RelayMessage("asker-1", 1, asked))
    fields = {"method": "answer", "request": 7, "worker": ELSEWHERE, "reply_to": ELSEWHERE}
    answer = {"method": "relay", "to": "asker-1", "fields": fields, "packets": []}
    successor = BridgeAlone(bridge.files)
    successor.set_members([])
    successor.hear({**answer, "via": "bridge-2", "seq": 1, "origin": [ELSEWHERE, True, 1]})
    assert [receiver for receiver, _ in successor._publisher.direct] == ["asker-1"]
    nobody = {**answer, "to": "asker-\ud800"}
    successor.hear({**nobody, "via": "bridge-2", "seq": 2, "origin": [ELSEWHERE, True, 2]})
    assert successor.malformed == 1 and len(successor._publisher.direct) == 1


def test_what_is_for_a_worker_here_stays_here(bridge: BridgeAlone) -> None:
    bridge._from_relay(from_worker(1, to=ALSO_HERE))
    bridge._from_relay(from_worker(2, method="callback", ack=5))  # nobody asked
    assert bridge._queue.published == []


@pytest.mark.parametrize(
    "message",
    [
        from_worker(method="position"),
        from_worker(namespace=None),
        RelayMessage(HERE, 1, {"method": "emit", "namespace": "/", "packet": "p"}, ["garbage"]),
        RelayMessage(HERE, 1, {"method": "emit", "namespace": "/", "packet": "p"}, ["2[]"]),
    ],
    ids=repr,
)
def test_what_a_worker_says_may_be_malformed(bridge: BridgeAlone, message: RelayMessage) -> None:
    bridge._from_relay(message)
    assert bridge._queue.published == [] and bridge.malformed == 1
    bridge._from_relay(from_worker(2))
    assert bridge._queue.published[0]["seq"] == 1


def test_what_cannot_be_encoded_is_malformed(bridge: BridgeAlone) -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    bridge._from_relay(from_worker(1, method="sockets_join", rooms="red", more=nested))
    assert bridge._queue.published == [] and bridge.malformed == 1
    assert bridge._stream.part().senders[HERE][1] == 2, "it is not read again"
    bridge._from_relay(from_worker(2))
    assert bridge._queue.published[0]["seq"] == 1


def test_what_the_relay_cannot_encode_holds_up_no_other(
    bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = bridge._publisher.publish

    def fail_of_one(tag: Optional[str], fields: dict[str, Any], packets: Any) -> None:
        if fields["room"] == "2":
            raise RecursionError("as the test wants it")
        publish(tag, fields, packets)

    monkeypatch.setattr(bridge._publisher, "publish", fail_of_one)
    bridge.hear(emit(1), emit(4), again(bridge, 2, emit(2), emit(3)))
    assert bridge.said == ["1", "3", "4"] and bridge.malformed == 1


def test_a_question_and_its_answer_between_two_bridges(bridge: BridgeAlone) -> None:
    """Both routers may have been killed in between."""
    other = BridgeAlone()
    question = from_worker(1, room=f"{ELSEWHERE}.x", ack=77, to=ELSEWHERE)
    bridge._from_relay(question)
    other.hear(bridge._queue.published[-1])
    ((tag, fields),) = other._publisher.said
    assert tag is None and (fields["ack"], fields["reply_to"]) == (77, HERE)
    answer = {"method": "callback", "ack": 77, "packet": "p", "to": HERE}
    other, bridge = BridgeAlone(other.files), BridgeAlone(bridge.files)
    other.set_members([[ELSEWHERE, False, ["socketio"], False]])
    other._from_relay(alone(RelayMessage(ELSEWHERE, 1, answer, ["3[1]"])))
    assert other._queue.published[-1]["origin"] == [ELSEWHERE, True, 1]
    bridge.hear(other._queue.published[-1])
    ((tag, fields),) = bridge._publisher.said
    assert (tag, fields["method"], fields["ack"]) == (HERE, "callback", 77)


def test_a_question_of_a_stock_server_and_its_answer(bridge: BridgeAlone) -> None:
    asked = {"method": "emit", "event": "x", "data": [1], "room": "r", "host_id": "stock"}
    bridge.hear({**asked, "callback": ["r", "/", 5]})
    ((tag, fields),) = bridge._publisher.said
    assert tag is None and fields["reply_to"] == BRIDGE
    answer = {"method": "callback", "ack": fields["ack"], "packet": "p"}
    bridge._from_relay(alone(RelayMessage(HERE, 1, answer, ["3[1]"])))
    answered = bridge._queue.published[-1]
    assert (answered["host_id"], answered["id"], answered["args"]) == ("stock", 5, [1])


def test_it_reads_the_workers_on_where_its_predecessor_was(bridge: BridgeAlone) -> None:
    bridge._from_relay(from_worker(7))
    bridge._from_relay(from_worker(2, method="callback", ack=5))  # nobody asked
    bridge._from_relay(RelayMessage(ALSO_HERE, 3, {"method": "nothing"}, []))
    bridge._from_relay(from_worker(8, only=BRIDGE, to=ELSEWHERE, room=f"{ELSEWHERE}.x"))
    bridge._stream.save()
    successor = BridgeAlone(bridge.files)
    options = successor._subscriber.options
    assert options["tag"] == BRIDGE and options["lives"](HERE) and not options["lives"](ELSEWHERE)
    part = options["part"]
    assert part.tags == (BRIDGE,) and part.since == bridge._stream.part().since
    assert part.senders[HERE] == [True, 9, 8, {BRIDGE: [3, 2]}, False]
    assert part.senders[ALSO_HERE] == [True, 4, 3, {BRIDGE: [1, 0]}, False]


def test_to_others_it_is_the_same_bridge(bridge: BridgeAlone) -> None:
    other = BridgeAlone()
    bridge._from_relay(from_worker(1, room="1"))
    other.hear(*bridge._queue.published)
    bridge._queue.connected = False
    bridge._from_relay(from_worker(2, room="2"))
    successor = BridgeAlone(bridge.files)
    assert successor._id == bridge._id
    assert successor._publisher.sender != bridge._publisher.sender
    successor._from_relay(from_worker(3, room="3"))
    successor._from_relay(from_worker(3, room="3"))
    other.hear(*successor._queue.published)
    assert other.said == ["1", "2", "3"] and other.missed == 0


def test_an_answer_to_a_question_of_its_predecessor_comes(bridge: BridgeAlone) -> None:
    question = from_worker(1, room=f"{ELSEWHERE}.x", ack=77, to=ELSEWHERE)
    bridge._from_relay(question)
    successor = BridgeAlone(bridge.files)
    answer = {"method": "callback", "host_id": f"{bridge._id}:{HERE}", "id": 77, "args": [1]}
    successor.hear(answer)
    ((tag, fields),) = successor._publisher.said
    assert (tag, fields["method"], fields["ack"]) == (HERE, "callback", 77)


def test_what_there_was_no_room_for_is_counted_on_both_sides(
    bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream_module, "BRIDGE_MOST_WAITING", 5)
    others = [BridgeAlone(), BridgeAlone()]
    for number in range(1, 31):
        bridge._queue.connected = not 3 <= number % 15
        bridge._from_relay(from_worker(number, room=f"{number}"))
        bridge._queue.wake()
    bridge._queue.connected = True
    bridge._queue.wake()
    bridge._send_members(bridge._here)
    said = bridge._queue.published
    for other in others:
        other.hear(*said)
        while other._inbox.waits:
            other._ask(time.monotonic() + module._ASK_AGAIN)
            bridge._queue.published = []
            bridge.hear(other._queue.published[-1])
            other.hear(*bridge._queue.published)
        assert other.said == sorted(set(other.said), key=int)
        assert other.missed == bridge.figures()["unsent"] == 30 - len(other.said) > 0
    (record,) = [record for record in caplog.records if "are lost" in record.getMessage()]
    assert record.getMessage().startswith("emits for other hosts are lost: Redis is away too long")


def test_what_is_lost_on_its_way_to_the_bridge_is_counted_on_both_sides(
    bridge: BridgeAlone,
) -> None:
    """A worker emits more than it keeps while its router is stopped, say."""
    other = BridgeAlone()
    bridge._from_relay(from_worker(1, room="1"))
    bridge._subscriber.dropped = 3  # of these it was told that nobody has them any more
    bridge._from_relay(from_worker(5, room="5"))
    for _ in range(2):
        bridge._count_unread()
    bridge._send_members(bridge._here)
    other.hear(*bridge._queue.published)
    question = other._queue.published[-1]
    assert (question["method"], question["first"], question["last"]) == ("question", 3, 5)
    bridge.hear(question)
    other.hear(bridge._queue.published[-1])
    assert other.said == ["1", "5"] and not other._inbox.waits
    assert other.missed == bridge.figures()["unsent"] == 3
    bridge._save()
    assert BridgeAlone(bridge.files).figures()["unsent"] == 3


def test_before_it_knows_who_is_here_anybody_may_be(bridge: BridgeAlone) -> None:
    bridge._members_known = False
    relay = {"method": "relay", "fields": {"method": "callback", "ack": 1}, "packets": []}
    bridge.hear({**relay, "to": ELSEWHERE})
    assert [tag for tag, _ in bridge._publisher.said] == [ELSEWHERE]


def test_figures(bridge: BridgeAlone, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    bridge.hear(emit(1), emit(3), b"", members(3, "a"), again(bridge, 2, first=3))
    assert bridge.figures() == {
        "connected": True,
        "sent": 0,
        "received": 2,
        "waiting": 0,
        "unsent": 0,
        "refused": 0,
        "missed": 1,
        "malformed": 1,
        "hosts": 1,
    }


def test_a_host_is_not_given_up_at_the_moment_of_a_reconnect(
    bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that subscribes may be done while this one looks who is there."""
    bridge.hear(emit(1), emit(3), members(3, "a"))
    now = bridge._heard["bridge-2"]
    bridge._look(now + BRIDGE_SILENCE + 1)
    bridge._queue.connections += 1
    answers = iter([False])
    connected = property(lambda queue: next(answers, True))
    monkeypatch.setattr(Queue, "connected", connected)
    now += BRIDGE_SILENCE + BRIDGE_PATIENCE + 100
    bridge._look(now)
    bridge._look(now + 0.25)
    assert bridge.said == ["1"] and bridge.missed == 0


# --- in several threads --------------------------------------------------------------


def test_a_host_that_is_gone_is_not_told_as_there(
    bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread forgets the host while another receives from it: the last report is the latest."""
    late = time.monotonic() + BRIDGE_SILENCE + 1
    other = Other(bridge, bridge._look, late)
    other.interrupt(monkeypatch, bridge, "_changed")
    bridge.hear(members(1, "a"))
    other.result()
    assert bridge.elsewhere == [] != bridge.told[0]


class Numbers(dict[str, int]):
    """What a worker has of other bridges' messages; another thread calls when it is looked at."""

    def __init__(self, other: Other, **numbers: int) -> None:
        super().__init__(numbers)
        self._other = other

    def __contains__(self, bridge: object) -> bool:
        self._other.call()
        return super().__contains__(bridge)


def test_a_worker_says_what_it_has_while_a_bridge_begins(bridge: BridgeAlone) -> None:
    other = Other(bridge, bridge._take_passed, ALSO_HERE, {})
    bridge._take_passed(HERE, Numbers(other))
    bridge.hear(emit(1))
    other.result()
    assert bridge.said == ["1"] and not bridge.malformed


def test_a_worker_says_what_it_has_while_that_of_all_is_noted(bridge: BridgeAlone) -> None:
    bridge.hear(emit(5))
    other = Other(bridge, bridge._take_passed, "another worker", {})
    for tag in (HERE, ALSO_HERE):
        bridge._take_passed(tag, Numbers(other, **{"bridge-2": 5}))
    bridge._note_passed()
    other.result()
    assert bridge._stream.passed == {"bridge-2": 5}


def test_the_workers_have_a_message_before_they_are_told_its_number(
    bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the router were killed in between, nobody would ask for the message."""
    other = Other(bridge, bridge._tell_workers)
    other.interrupt(monkeypatch, bridge._publisher, "publish")
    bridge.hear(emit(1))
    other.result()
    assert [fields["method"] for _, fields in bridge._publisher.said] == ["emit", NOTE]


def test_what_arrives_while_earlier_messages_are_passed_on_comes_after_them(
    bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TICK", 0.001)
    bridge._resumed = False
    bridge.hear(emit(5))
    for tag in (HERE, ALSO_HERE):
        bridge._take_passed(tag, {"bridge-2": 4})
    other = Other(bridge, bridge.hear, emit(6))
    other.interrupt(monkeypatch, bridge._publisher, "publish")
    bridge._resume()
    other.result()
    assert bridge.said == ["5", "6"]


# --- failures ------------------------------------------------------------------------


def test_what_fails_does_not_stop_it(bridge: BridgeAlone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICK", 0.001)
    monkeypatch.setattr(module, "BRIDGE_BEAT", 0.001)
    failures = iter([ArithmeticError("as the test wants it")] * 3)

    def fail_at_first() -> None:
        for failure in failures:
            raise failure

    monkeypatch.setattr(bridge, "_tell_workers", fail_at_first)
    bridge.start()
    wait_until(lambda: len(bridge._queue.published) > 5)
    bridge.close(leaves=True)
    assert bridge._queue.published[-1]["members"] == []
