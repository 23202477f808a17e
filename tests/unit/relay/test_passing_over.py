"""A message that is for no client here is counted, and not handled otherwise."""

from __future__ import annotations

import logging
import struct
from typing import Any, Iterator, Optional

import pytest

from supervisor_sio.common.limits import RELAY_MOST_OUTDATED
from supervisor_sio.common.rundir import ClusterInfo
from supervisor_sio.relay import hearing as hearing_module
from supervisor_sio.relay import other_versions
from supervisor_sio.relay.hearing import Hearing
from supervisor_sio.relay.message import (
    MessageError,
    OtherVersion,
    RelayMessage,
    pack_bundle,
    topic_for_all,
    topic_for_one,
)
from supervisor_sio.relay.position import Part
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.relay.rooms import room_hash
from supervisor_sio.relay.subscriber import Subscriber

from .network import RUN_DIR, Network

TO_ALL = topic_for_all("socketio")
EMIT = {"method": "emit", "namespace": "/", "packet": "p"}


class Heard:
    """A process with a client in the room "red"."""

    def __init__(self) -> None:
        self.publisher = Publisher(RUN_DIR, ClusterInfo(), "here")
        self.subscriber = Subscriber(self.publisher, RUN_DIR, since=0.0)
        self.rooms = {room_hash("/", "red"): 1}
        self.subscriber.rooms = self.rooms
        self.texts: list[Any] = []
        self.hear(emit(1, "red"))
        assert self.texts == ["1"]
        self.texts.clear()

    def hear(self, *messages: bytes, topic: bytes = TO_ALL) -> None:
        data = messages[0] if len(messages) == 1 else pack_bundle(messages)
        for message in self.subscriber._take_frame(topic + data, 1.0):
            self.deliver(message)
        for piece in self.subscriber._pieces:
            for message in piece(1.0):
                self.deliver(message)

    def deliver(self, message: RelayMessage) -> None:
        self.texts += message.packets
        if message.fields["method"] == "sockets_join":
            self.rooms[room_hash("/", message.fields["rooms"])] = 1

    @property
    def numbers(self) -> Any:
        """The next number of the other process, and the highest known."""
        return self.subscriber.save()[0].senders["other"][1:3]


def emit(number: int, room: Any, **more: Any) -> bytes:
    fields = {**EMIT, "room": room, **more}
    return RelayMessage("other", number, fields, [str(number)], time=1.0).pack()


@pytest.fixture
def heard() -> Iterator[Heard]:
    network = Network()
    with network.installed():
        yield Heard()


@pytest.fixture
def unread(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no message may be decoded."""

    def unpack(*args: Any) -> Any:
        raise AssertionError("it is read")

    monkeypatch.setattr(RelayMessage, "unpack", unpack)
    monkeypatch.setattr(hearing_module, "unpack_bundle", unpack)


@pytest.mark.usefixtures("unread")
def test_what_is_for_others_is_counted_and_not_read(heard: Heard) -> None:
    heard.hear(emit(2, "green"))
    heard.hear(emit(3, ["green", 7]))
    heard.hear(*(emit(number, f"user:{number}") for number in range(4, 54)))
    assert not heard.texts and heard.numbers == [54, 53]
    assert heard.subscriber.received == 53
    assert not heard.subscriber.malformed


@pytest.mark.usefixtures("unread")
def test_what_is_volatile_likewise(heard: Heard) -> None:
    volatile = {**EMIT, "method": "volatile", "room": "green"}
    one = RelayMessage("other", 0, volatile, ["x"]).pack()
    heard.hear(one)
    heard.hear(one, one)
    heard.hear(*[RelayMessage("here", 0, volatile, ["x"]).pack()] * 2)
    assert heard.numbers == [2, 1] and not heard.subscriber.malformed


@pytest.mark.usefixtures("unread")
def test_its_own_is_not_read(heard: Heard) -> None:
    own = RelayMessage("here", 1, {**EMIT, "room": "red"}, ["x"]).pack()
    heard.hear(own)
    heard.hear(own, own)
    assert not heard.texts and not heard.subscriber.malformed


def test_what_is_for_clients_here_comes(heard: Heard) -> None:
    heard.hear(emit(2, "green"))
    heard.hear(emit(3, ["green", "red"]))
    heard.hear(emit(4, "red"), emit(5, "green"), emit(6, "red"))
    assert heard.texts == ["3", "4", "6"]
    assert heard.numbers == [7, 6] and heard.subscriber.received == 6


def test_what_is_volatile_comes_to_clients_here(heard: Heard) -> None:
    red, green = ({**EMIT, "method": "volatile", "room": room} for room in ("red", "green"))
    heard.hear(*(RelayMessage("other", 0, one, ["x"]).pack() for one in (red, green, red)))
    assert heard.texts == ["x", "x"] and heard.numbers == [2, 1]


def test_a_room_that_is_entered_before_the_message_comes(heard: Heard) -> None:
    heard.hear(emit(2, "green"))
    heard.rooms[room_hash("/", "green")] = 1
    heard.hear(emit(3, "green"))
    del heard.rooms[room_hash("/", "green")]
    heard.hear(emit(4, "green"))
    assert heard.texts == ["3"]


def test_a_room_that_is_entered_because_of_the_message_before_in_the_bundle(heard: Heard) -> None:
    join = {"method": "sockets_join", "namespace": "/", "rooms": "green"}
    joins = RelayMessage("other", 3, join, time=1.0).pack()
    heard.hear(emit(2, "green"), joins, emit(4, "green"))
    assert heard.texts == ["4"]


def test_everybody_looks_at_what_has_no_rooms(heard: Heard) -> None:
    heard.hear(emit(2, "green", request=1))
    heard.hear(RelayMessage("other", 3, {"method": "close_room"}, ["3"], time=1.0).pack())
    assert heard.texts == ["2", "3"]


def test_who_has_no_rooms_gets_all(heard: Heard) -> None:
    heard.subscriber.rooms = None
    heard.hear(emit(2, "green"), emit(3, "blue"))
    heard.hear(emit(4, "green"))
    assert heard.texts == ["2", "3", "4"]


def test_what_is_missing_before_it_is_asked_for(heard: Heard) -> None:
    heard.hear(emit(4, "green"))
    heard.hear(emit(5, "green"), emit(6, "red"))
    assert heard.numbers == [2, 6] and not heard.texts
    again = [emit(2, "red"), emit(3, "green")]
    fields = {"method": "again", "to_all": True, "asked": 2, "first": 2, "start": 0}
    answer = RelayMessage("other", 0, fields, again).pack()
    heard.hear(answer, topic=topic_for_one("socketio", "here"))
    assert [text for text in heard.texts if text in ("2", "6")] == ["2", "6"]
    assert heard.numbers == [7, 6]
    heard.subscriber.catching_up = False  # all of it is delivered
    heard.hear(emit(7, "green"))
    heard.hear(emit(7, "green"))  # it comes twice
    assert heard.numbers == [8, 7]


def test_a_sender_that_is_new_is_asked_first(heard: Heard) -> None:
    data = RelayMessage("third", 5, {**EMIT, "room": "green"}, ["5"], time=1.0).pack()
    heard.hear(data)
    assert heard.subscriber.save()[0].senders["third"][:3] == [False, 1, 5]


def test_what_adopted_sessions_get_is_looked_at(heard: Heard) -> None:
    adopted: list[Any] = []
    part = Part(("t",), 0.0, {"other": [True, 2, 1, {}, False]}, {})
    heard.subscriber.adopt(part, lambda message: adopted.extend(message.packets))
    heard.hear(emit(2, "green"))
    listener = heard.subscriber._adoptions[0].listener
    assert [message.packets for message in listener.next_ones()] == [["2"]]
    assert heard.numbers == [3, 2]


def test_beside_what_is_to_another_worker_with_guests_here(heard: Heard) -> None:
    """Each of its streams has its own numbers, and both keep their order."""
    home = topic_for_one("socketio", "home")

    def to_home(number: int, after: int) -> bytes:
        fields = {**EMIT, "room": "a guest"}
        texts = [f"{number} to home"]
        return RelayMessage("other", number, fields, texts, after, 1.0).pack()

    def position() -> Any:
        return heard.subscriber.save()[0].senders["other"][1:4]

    heard.subscriber.hear_for_guests("home", {"other": 4})
    heard.hear(emit(2, "green"))
    heard.hear(to_home(5, 2), to_home(6, 2), topic=home)
    heard.hear(emit(3, "green", after={"home": 6}))  # it is looked at for that
    heard.hear(emit(4, "green"), emit(5, "blue"))
    assert heard.texts == ["5 to home", "6 to home", "3"]
    assert position() == [6, 5, {"home": [7, 6]}]
    heard.hear(emit(6, "red", after={"home": 7}))
    heard.hear(emit(7, "green"))  # it comes behind what is missing
    assert len(heard.texts) == 3 and position() == [6, 7, {"home": [7, 7]}]
    heard.hear(to_home(7, 5), topic=home)
    assert heard.texts[3:5] == ["7 to home", "6"]
    heard.subscriber.hear_no_more(["home"])
    heard.subscriber.catching_up = False  # nothing waited
    heard.hear(emit(8, "green"))
    assert position() == [9, 8, {}] and heard.subscriber.tags == ["here"]
    assert not heard.subscriber.malformed


def test_events_of_one_turn_for_the_same_clients_come_as_one(heard: Heard) -> None:
    heard.subscriber.packet = "p"
    came: list[RelayMessage] = []
    heard.deliver = came.append  # type: ignore[method-assign]
    heard.hear(*(emit(number, "red") for number in range(2, 6)))
    assert [message.packets for message in came] == [["2", "3", "4", "5"]]
    assert came[0].fields == {**EMIT, "room": "red"} and came[0].sender == "other"
    assert came[0].run == [emit(number, "red") for number in range(2, 6)]
    assert heard.numbers == [6, 5] and heard.subscriber.received == 5
    volatile = {**EMIT, "method": "volatile", "room": "red"}
    heard.hear(*[RelayMessage("other", 0, volatile, ["x"]).pack()] * 2)
    assert came[-1].packets == ["x", "x"] and heard.numbers == [6, 5]


def test_each_of_several_rooms_in_a_turn_likewise(heard: Heard) -> None:
    heard.subscriber.packet = "p"
    came: list[RelayMessage] = []
    heard.deliver = came.append  # type: ignore[method-assign]
    rooms = ["red", "red", "green", "green", ["red", 7], "red", "red", "blue"]
    heard.hear(*(emit(2 + number, room) for number, room in enumerate(rooms)))
    assert [message.packets for message in came] == [["2", "3"], ["6"], ["7", "8"]]
    assert heard.numbers == [10, 9] and heard.subscriber.received == 9


@pytest.mark.parametrize("why", ["format", "no format", "acknowledged", "room", "skip_sid", "gap"])
def test_else_they_come_one_by_one(heard: Heard, why: str) -> None:
    heard.subscriber.packet = None if why == "no format" else "p"
    more: dict[str, Any] = {"format": {"packet": "q"}, "acknowledged": {"ack": 7}}.get(why, {})
    first = emit(2, "red", **more)
    second = emit(3, "red", **(more if why != "skip_sid" else {"skip_sid": ["s"]}))
    third = emit(4, ["red", "red"] if why == "room" else "red", **more)
    if why == "gap":
        heard.hear(second, third)
        assert not heard.texts
        heard.hear(first)
    else:
        heard.hear(first, second, third)
    assert heard.texts == ["2", "3", "4"] and heard.numbers == [5, 4]


def test_a_bundle_with_something_odd_in_it(heard: Heard) -> None:
    heard.subscriber.packet = "p"
    heard.hear(emit(2, "red"), emit(3, "red") + b"\0", emit(4, "red"))
    assert heard.texts == ["2"] and heard.subscriber.malformed == 1
    assert heard.numbers == [3, 4]  # it is asked for


class Journal:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard_of: list[tuple[str, Optional[str], int]] = []

    def heard(
        self, sender: str, stream: Optional[str], number: int, *more: Any, via: Any = None, **_: Any
    ) -> None:
        self.heard_of.append((sender, stream, number))
        self.via = via

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


def test_the_journal_is_told_of_it(heard: Heard) -> None:
    journal: Any = Journal()
    heard.subscriber.journal = journal
    journal.heard_of.clear()
    heard.hear(emit(2, "green"))
    heard.hear(emit(3, "green"), emit(4, "blue"))
    assert journal.heard_of == [("other", None, 2), ("other", None, 4)]


def test_what_another_host_sent_is_noted(heard: Heard) -> None:
    journal: Any = Journal()
    heard.subscriber.journal = journal
    journal.heard_of.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RelayMessage, "unpack", None)  # it is not read
        heard.hear(emit(2, "green", via=["bridge", 7]))
        heard.hear(emit(3, "green", via=["bridge", 8]))
    heard.hear(emit(4, "red", via=["bridge", 8]))  # it has come before
    heard.hear(emit(5, "red", via=["bridge", 9]))
    assert heard.texts == ["5"] and heard.numbers == [6, 5]
    assert heard.subscriber.save()[0].passed == {"bridge": 9}
    assert journal.heard_of == [("other", None, 2), ("other", None, 3)]
    assert journal.via == ("bridge", 8)


def test_what_the_journal_writes_is_the_message_itself(heard: Heard) -> None:
    journal: Any = Journal()
    heard.subscriber.journal = journal
    packed: list[Any] = []
    heard.deliver = lambda message: packed.append(message.packed)  # type: ignore[method-assign]
    sent = [emit(number, "red") for number in (2, 3, 4)]
    heard.hear(sent[0])
    heard.hear(*sent[1:])
    heard.hear(emit(5, "green"), emit(6, "red"))
    assert [one for one in packed if one is not None] == packed == [*sent, emit(6, "red")]


@pytest.fixture
def nothing_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_versions, "_logged", set())


@pytest.mark.usefixtures("nothing_logged")
def test_a_process_of_another_version_is_told_of_once(
    heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    fields = b'{"method":"emit"}'
    for sender in (b"1a2b3c4d", b"1a2b3c4d", b"99999999"):
        head = struct.pack("!BQQdBI", 2, 1, 0, 0.0, len(sender), len(fields))
        with caplog.at_level(logging.ERROR):
            heard.hear(head + sender + fields)
    assert heard.subscriber.malformed == 3
    lines = [record.getMessage() for record in caplog.records]
    assert [("1a2b3c4d" in line, "restart it" in line) for line in lines] == [
        (True, True),
        (False, True),
    ]


@pytest.mark.usefixtures("nothing_logged")
def test_messages_of_a_newer_version(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    """Whose they are cannot be read; it is this process that is to be restarted."""
    for _ in range(3):
        heard.hear(b"\4" + bytes(40))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("are ignored: version 4 of the format, not 3: restart this process")
    assert heard.subscriber.malformed == 3


OLD = (
    "messages of process 1a2b3c4d are ignored: version 2 of the format, not 3: restart it "
    "(`sio status` shows the tags of workers)"
)
OLDER = (
    "messages of an older supervisor-sio are ignored: version 1 of the format, not 3: restart the "
    "process that sends them (`sio status` shows the versions)"
)
NEWER = (
    "messages of a newer supervisor-sio are ignored: version 4 of the format, not 3: restart this "
    "process"
)


@pytest.mark.usefixtures("nothing_logged")
@pytest.mark.parametrize(
    ("others", "lines"),
    [
        ([(2, "1a2b3c4d")], [OLD]),
        ([(1, "")], [OLDER]),
        ([(4, "")], [NEWER]),
        ([(4, "one"), (4, "two"), (5, "")], [NEWER]),
        ([(1, ""), (4, "")], [OLDER, NEWER]),
        ([(4, "1a2b3c4d"), (2, "1a2b3c4d")], [NEWER, OLD]),
        ([*((2, f"sender {number}") for number in range(RELAY_MOST_OUTDATED)), (4, "")], [NEWER]),
    ],
)
def test_a_line_for_each_kind_of_other_version(
    caplog: pytest.LogCaptureFixture, others: list[tuple[int, str]], lines: list[str]
) -> None:
    for version, sender in [*others, *others]:
        other_versions.note(OtherVersion(version, sender))
    said = [line for line in caplog.messages if "process sender" not in line]
    assert said == lines


@pytest.mark.usefixtures("nothing_logged")
def test_so_many_are_remembered(
    heard: Heard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(other_versions, "RELAY_MOST_OUTDATED", 2)
    for number in range(5):
        heard.subscriber.refuse(OtherVersion(2, f"sender {number}"))
    assert len(caplog.records) == 2 and heard.subscriber.malformed == 5
    assert isinstance(heard.subscriber, Hearing)
    heard.subscriber.refuse(MessageError("odd"))
