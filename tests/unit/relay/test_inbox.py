from __future__ import annotations

import copy
import json
from collections import deque
from typing import Any, Iterator, NamedTuple, Optional, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor_sio.relay import inbox as inbox_module
from supervisor_sio.relay import outbox as outbox_module
from supervisor_sio.relay.inbox import Impossible, Inbox, Question
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.outbox import Outbox
from unit.examples import examples

PLENTY = 2**30
SENDER = "s"
FAR = 2**31


# --- one sender, some receivers, and a medium that loses messages --------------


class Frame(NamedTuple):
    """A frame on its way to a receiver: a numbered message to all or to it alone, or another
    one."""

    to_all: Optional[bool]
    message: RelayMessage


class Receiver:
    """Asks and answers like a :class:`Subscriber`; both links keep the order."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.inbox = Inbox(tag)
        self.since: Optional[float] = None
        self.incoming: deque[Frame] = deque()
        self.questions: deque[Question] = deque()
        #: Texts that came as they were first sent.
        self.arrived: list[str] = []
        self.delivered: list[str] = []

    def hear(self, now: float) -> None:
        to_all, message = self.incoming.popleft()
        fields = message.fields
        if to_all is not None:
            self.arrived += message.packets  # type: ignore[arg-type]
            delivered = self.inbox.receive(message, None if to_all else self.tag)
        elif fields["method"] == "position":
            before = None
            if "before" in fields:
                before = {None: fields["before"], **fields["own_before"]}
            assert self.since is not None
            numbers = {None: fields["all"], **fields["own"]}
            delivered = self.inbox.position(SENDER, numbers, before, self.since)
        else:
            again = [RelayMessage.unpack(data) for data in message.packets]  # type: ignore[arg-type]
            numbers = fields["asked"], fields["first"], again, fields["start"]
            delivered = self.inbox.again(SENDER, fields["tag"], *numbers)
        self.take(delivered)
        if self.inbox.waits:
            self.ask(now)

    def take(self, delivered: Sequence[RelayMessage]) -> None:
        for message in delivered:
            if message.fields.get("only", self.tag) == self.tag:
                self.delivered += message.packets  # type: ignore[arg-type]

    def ask(self, now: float) -> None:
        self.questions.extend(self.inbox.questions(now))

    def move(self) -> None:
        """Another process goes on from here; frames on their way are lost."""
        successor = Inbox(self.tag)
        successor.restore(json.loads(json.dumps(self.inbox.save())))
        for tag, message in self.inbox.held:
            assert list(successor.receive(message, tag)) == []
        assert successor.save() == self.inbox.save()
        assert successor._behind.keys() == self.inbox._behind.keys()
        self.inbox = successor
        self.incoming.clear()
        self.questions.clear()


class World:
    """:param late: tags of receivers that do not receive yet."""

    def __init__(
        self, tags: str, late: str = "", messages: int = PLENTY, most_bytes: int = PLENTY
    ) -> None:
        self.now = 1.0
        self.outbox = Outbox(SENDER, messages, most_bytes)
        self.sent: list[tuple[Optional[str], float, str]] = []
        self.receivers = {tag: Receiver(tag) for tag in tags}
        for tag in set(tags) - set(late):
            self.listen(tag)

    def listen(self, tag: str) -> None:
        if self.receivers[tag].since is None:
            self.receivers[tag].since = self.now

    def publish(self, tag: Optional[str], pushed: bool) -> None:
        """:param pushed: false for a long message, of which only the number is sent."""
        self.now += 0.001
        text = f"{len(self.sent)} to {tag or 'all'}"
        self.sent.append((tag, self.now, text))
        fields = {"method": "emit"}
        if tag is not None and self.outbox.addressee(tag) is None:
            fields, tag = {"method": "emit", "only": tag}, None
        _, data = self.outbox.add(tag, fields, [text], self.now)
        if not pushed:
            self.tell(tag, {"method": "position", **self.outbox.position(0.0)})
            return
        for receiver in self.listeners(tag):
            message = RelayMessage.unpack(data)
            receiver.incoming.append(Frame(tag is None, message))

    def tell(self, tag: Optional[str], fields: dict[str, Any], packets: Sequence[Any] = ()) -> None:
        data = RelayMessage(SENDER, 0, fields, packets).pack()
        for receiver in self.listeners(tag):
            receiver.incoming.append(Frame(None, RelayMessage.unpack(data)))

    def listeners(self, tag: Optional[str]) -> Iterator[Receiver]:
        for receiver in self.receivers.values():
            if receiver.since is not None and tag in (None, receiver.tag):
                yield receiver

    def beat(self) -> None:
        if not self.outbox.empty:
            self.tell(None, {"method": "position", **self.outbox.position(0.0)})

    def answer(self, receiver: Receiver) -> None:
        _, whose, first, last = receiver.questions.popleft()
        tag, since = receiver.tag, receiver.since
        assert since is not None
        if not first:
            self.tell(tag, {"method": "position", **self.outbox.position_for([tag], since)})
            return
        again = self.outbox.again(whose, first, last)
        if again is not None:
            fields = {
                "method": "again",
                "tag": whose,
                "asked": first,
                "first": again.first,
                "start": again.start,
            }
            self.tell(tag, fields, again.messages)

    def act(self, action: tuple[str, str, bool, int]) -> None:
        kind, tag, flag, count = action
        receiver = self.receivers[tag]
        for _ in range(count):
            self.now += 0.001
            if kind == "publish to all":
                self.publish(None, flag)
            elif kind == "publish to one":
                self.publish(tag, flag)
            elif kind in ("hear", "lose") and receiver.incoming:
                receiver.incoming.popleft() if kind == "lose" else receiver.hear(self.now)
            elif kind == "answer" and receiver.questions:
                self.answer(receiver)
            elif kind == "lose question" and receiver.questions:
                receiver.questions.popleft()
        if kind == "beat":
            self.beat()
        elif kind == "wait":
            self.now += 0.1 * count
        elif kind == "look":
            receiver.ask(self.now)
        elif kind == "listen":
            self.listen(tag)
        elif kind == "move":
            receiver.move()

    def settle(self) -> None:
        """From now on nothing is lost; run until nothing happens any more."""
        for _ in range(4):
            self.now += 0.35
            self.beat()
            for receiver in self.receivers.values():
                receiver.ask(self.now)
                while receiver.incoming or receiver.questions:
                    while receiver.incoming:
                        receiver.hear(self.now)
                    while receiver.questions:
                        self.answer(receiver)
        for receiver in self.receivers.values():
            assert not receiver.inbox.waits
            assert receiver.inbox.questions(self.now + 100) == []
            assert receiver.inbox._held_bytes == 0

    def meant_for(self, receiver: Receiver) -> list[str]:
        return [
            text
            for tag, time, text in self.sent
            if tag in (None, receiver.tag) and receiver.since is not None and time >= receiver.since
        ]


TAGS = "abc"


def plans(*more: str) -> st.SearchStrategy[list[tuple[str, str, bool, int]]]:
    publish = ["publish to all", "publish to one"]
    kinds = [*publish, "hear", "lose", "answer", "lose question", "beat", "wait", "look", *more]
    kind = st.sampled_from([*kinds, "hear", *publish])
    action = st.tuples(kind, st.sampled_from(TAGS), st.integers(0, 4).map(bool), st.integers(1, 4))
    return st.lists(action, max_size=150)


def held(inbox: Inbox) -> int:
    return sum(
        len(packet)
        for sender in inbox._senders.values()
        for stream in sender.streams.values()
        for message in stream.held.values()
        for packet in message.packets
    )


def run(world: World, plan: list[tuple[str, str, bool, int]]) -> None:
    for action in plan:
        world.act(action)
        for receiver in world.receivers.values():
            assert receiver.inbox._held_bytes == held(receiver.inbox)


@settings(max_examples=examples(250))
@given(plans())
def test_each_message_arrives_once_and_in_order(plan: list[tuple[str, str, bool, int]]) -> None:
    world = World(TAGS)
    run(world, plan)
    world.settle()
    for receiver in world.receivers.values():
        assert receiver.delivered == world.meant_for(receiver)
        assert receiver.inbox.dropped == 0


@settings(max_examples=examples(250))
@given(plans(), st.integers(0, 6), st.integers(0, 60), st.integers(1, 4))
def test_little_is_held_and_little_sent_at_a_time(
    plan: list[tuple[str, str, bool, int]], most_held: int, most_bytes: int, batch: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(inbox_module, "RELAY_MOST_HELD", most_held)
        monkeypatch.setattr(inbox_module, "RELAY_MOST_HELD_BYTES", most_bytes)
        monkeypatch.setattr(outbox_module, "RELAY_BATCH_MESSAGES", batch)
        world = World(TAGS)
        run(world, plan)
        world.settle()
    for receiver in world.receivers.values():
        assert receiver.delivered == world.meant_for(receiver)
        assert receiver.inbox.dropped == 0


@settings(max_examples=examples(250))
@given(plans("listen", "listen"))
def test_who_comes_late_hears_what_is_sent_from_then_on(
    plan: list[tuple[str, str, bool, int]],
) -> None:
    world = World(TAGS, late="bc")
    run(world, plan)
    world.settle()
    for receiver in world.receivers.values():
        assert receiver.delivered == world.meant_for(receiver)
        assert receiver.inbox.dropped == 0


@settings(max_examples=examples(250))
@given(plans("move", "move", "listen"))
def test_another_process_goes_on_where_one_was(plan: list[tuple[str, str, bool, int]]) -> None:
    world = World(TAGS, late="c")
    run(world, plan)
    world.settle()
    for receiver in world.receivers.values():
        assert receiver.delivered == world.meant_for(receiver)
        assert receiver.inbox.dropped == 0


@settings(max_examples=examples(250))
@given(plans(), st.integers(1, 8), st.sampled_from([PLENTY, 1000, 1]))
def test_what_does_not_arrive_is_counted(
    plan: list[tuple[str, str, bool, int]], messages: int, most_bytes: int
) -> None:
    world = World(TAGS, messages=messages, most_bytes=most_bytes)
    for receiver in world.receivers.values():
        receiver.inbox.position(SENDER, {None: 0})  # it was there before anything was sent
    run(world, plan)
    world.settle()
    for receiver in world.receivers.values():
        meant = world.meant_for(receiver)
        assert receiver.delivered == [text for text in meant if text in receiver.delivered]
        assert receiver.inbox.dropped == len(meant) - len(receiver.delivered)


@settings(max_examples=examples(500))
@given(plans(), st.integers(1, 3), st.sampled_from([4, 10]))
def test_more_workers_than_streams(
    plan: list[tuple[str, str, bool, int]], streams: int, messages: int
) -> None:
    """Numbers never start again, and messages to one worker arrive, by whatever stream."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(outbox_module, "RELAY_MOST_STREAMS", streams)
        world = World(TAGS, messages=messages)
        for receiver in world.receivers.values():
            receiver.inbox.position(SENDER, {None: 0})
        for action in plan:
            world.act(action)
            assert len(world.outbox._to_one) <= streams
            if action[0].startswith("publish"):  # nothing is lost that is kept
                world.settle()
        world.settle()
    for receiver in world.receivers.values():
        assert receiver.delivered == world.meant_for(receiver)
        assert receiver.inbox.dropped == 0


@settings(max_examples=examples(250))
@given(plans("listen"), st.sampled_from([PLENTY, 3]))
def test_a_sender_that_is_gone_is_not_waited_for(
    plan: list[tuple[str, str, bool, int]], messages: int
) -> None:
    world = World(TAGS, late="c", messages=messages)
    run(world, plan)
    for receiver in world.receivers.values():
        inbox = receiver.inbox
        receiver.take(inbox.gone(SENDER))
        assert not inbox.waits and inbox._held_bytes == 0
        assert inbox.questions(world.now + 100) == []
        assert inbox.gone(SENDER) == ()
        meant = world.meant_for(receiver)
        assert receiver.delivered == [text for text in meant if text in receiver.delivered]
        assert set(receiver.arrived) <= set(receiver.delivered)


def test_what_arrived_is_delivered_though_its_sender_has_forgotten_it() -> None:
    """The sender gives its position when it does not know any more when that message was sent."""
    world = World("ab", messages=3)
    run(
        world,
        [
            ("publish to all", "a", True, 1),
            ("lose", "b", True, 1),
            ("publish to all", "a", True, 2),
            ("publish to one", "a", True, 2),
            ("hear", "b", True, 2),
            ("answer", "b", True, 1),
            ("hear", "b", True, 1),
        ],
    )
    receiver = world.receivers["b"]
    receiver.take(receiver.inbox.gone(SENDER))
    assert receiver.delivered == receiver.arrived == ["1 to all", "2 to all"]


@settings(max_examples=examples(500))
@given(plans(), st.sampled_from([PLENTY, 3]), st.booleans())
@example(
    # It no longer keeps the first of four when it is asked which of them are meant.
    plan=[
        ("publish to all", "a", False, 4),
        ("hear", "c", False, 4),
        ("answer", "c", False, 1),
        ("hear", "c", False, 1),
    ],
    messages=3,
    at_once=False,
)
def test_what_a_sender_had_sent_that_is_gone_is_counted(
    plan: list[tuple[str, str, bool, int]], messages: int, at_once: bool
) -> None:
    """It ends at any moment: what has arrived is delivered, and every other message is counted."""
    world = World(TAGS, messages=messages)
    run(world, plan)
    for receiver in world.receivers.values():
        inbox = receiver.inbox
        all_in_all = world.outbox.last(receiver.tag)
        nothing = {None: 0, receiver.tag: 0}
        receiver.take(inbox.position(SENDER, all_in_all, nothing, receiver.since or 0.0))
        receiver.take(inbox.gone(SENDER) if at_once else inbox.give_up(SENDER))
        meant = world.meant_for(receiver)
        assert receiver.delivered == [text for text in meant if text in receiver.delivered]
        assert set(receiver.arrived) <= set(receiver.delivered)
        assert inbox.dropped == len(meant) - len(receiver.delivered)
        assert not inbox.waits and inbox._held_bytes == 0


@settings(max_examples=examples(250))
@given(plans(), plans(), st.sampled_from([PLENTY, 3]))
def test_a_sender_that_was_given_up_is_heard_again(
    plan: list[tuple[str, str, bool, int]],
    later: list[tuple[str, str, bool, int]],
    messages: int,
) -> None:
    world = World(TAGS, messages=messages)
    for receiver in world.receivers.values():
        receiver.inbox.position(SENDER, {None: 0})
    run(world, plan)
    for receiver in world.receivers.values():
        receiver.take(receiver.inbox.give_up(SENDER))
        assert not receiver.inbox.waits and receiver.inbox.silent(world.now + 100) == []
    run(world, later)
    world.settle()
    for receiver in world.receivers.values():
        meant = world.meant_for(receiver)
        assert len(set(receiver.delivered)) == len(receiver.delivered)
        assert set(receiver.delivered) <= set(meant)
        assert receiver.inbox.dropped == len(meant) - len(receiver.delivered)


# --- an inbox alone -------------------------------------------------------------


def message(
    number: int, after: Any = 0, sender: str = SENDER, text: str = "text", own: Any = None
) -> RelayMessage:
    """:param own: for a message to all: how many each tag alone got before."""
    fields = {"method": "emit"} if own is None else {"method": "emit", "after": own}
    return RelayMessage(sender, number, fields, [text], after)


def numbers(delivered: Sequence[RelayMessage]) -> list[int]:
    return [message.sequence for message in delivered]


@pytest.fixture
def inbox() -> Inbox:
    """An inbox that has received the first message of a sender."""
    inbox = Inbox("ear")
    assert numbers(inbox.receive(message(1))) == [1]
    return inbox


def state(inbox: Inbox) -> Any:
    senders = {
        name: (
            {tag: vars(stream) for tag, stream in sender.streams.items()},
            sender.placed,
            sender.in_step,
            sender.waiting_since,
        )
        for name, sender in inbox._senders.items()
    }
    return copy.deepcopy((senders, sorted(inbox._behind), inbox._held_bytes, inbox.dropped))


def test_what_comes_twice_is_delivered_once(inbox: Inbox) -> None:
    assert inbox.receive(message(1)) == []
    assert inbox.receive(message(3)) == []
    assert inbox.receive(message(3, text="longer")) == []
    assert inbox._held_bytes == len("text")
    assert numbers(inbox.receive(message(2))) == [2, 3]
    for number in (1, 2, 3):
        assert inbox.receive(message(number)) == []
    assert not inbox.waits and inbox._held_bytes == 0


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("to_all", [True, False])
@pytest.mark.parametrize(
    ("number", "after", "own"),
    [
        (FAR + 2, 0, None),
        (2, FAR + 2, {"ear": FAR + 2}),
        (1, FAR + 2, {"ear": FAR + 2}),
        (2, 0, [1]),
        (2, 0, "ear"),
        (2, 0, 1),
        (2, 0.5, {"ear": 0.5}),
        (2, "1", {"ear": "1"}),
        (2, None, {"ear": None}),
        (2, True, {"ear": True}),
    ],
)
def test_an_impossible_number_changes_nothing(
    inbox: Inbox, known: bool, to_all: bool, number: int, after: Any, own: Any
) -> None:
    before = state(inbox)
    with pytest.raises(Impossible):
        one = message(number, after, SENDER if known else "new", own=own)
        inbox.receive(one, None if to_all else "ear")
    assert state(inbox) == before
    assert numbers(inbox.receive(message(2))) == [2]


@pytest.mark.parametrize("numbers", [(FAR + 2, 0), (0, FAR + 2), (2, FAR + 2)])
@pytest.mark.parametrize("name", [SENDER, "new"])
def test_an_impossible_position_changes_nothing(
    inbox: Inbox, name: str, numbers: tuple[int, int]
) -> None:
    before = state(inbox)
    with pytest.raises(Impossible):
        inbox.position(name, {None: numbers[0], "ear": numbers[1]})
    assert state(inbox) == before


def test_an_impossible_answer(inbox: Inbox) -> None:
    inbox.receive(message(3))
    with pytest.raises(Impossible):
        inbox.again(SENDER, None, 2, 2, [message(2, after={"ear": [1]}, own=1)])
    assert numbers(inbox.again(SENDER, None, 2, 2, [message(2)])) == [2, 3]


def test_a_negative_number_of_another_means_none(inbox: Inbox) -> None:
    assert numbers(inbox.receive(message(2, own={"ear": -1}))) == [2]


def test_an_answer_nobody_asked_for(inbox: Inbox) -> None:
    assert inbox.again("stranger", None, 1, 1, [message(1, sender="stranger")]) == ()
    assert inbox.again(SENDER, None, 1, 1, [message(1)]) == ()
    assert inbox.again(SENDER, None, 3, 3, [message(3)]) == ()
    assert inbox.again(SENDER, None, 2, 2, [message(2)]) == []  # it does not exist yet
    inbox.receive(message(4))
    assert inbox.again(SENDER, None, 2, 2**40, []) == [] or not inbox.waits
    assert not inbox.waits and inbox.dropped == 2


def test_other_senders_are_not_held_up(inbox: Inbox) -> None:
    assert inbox.receive(message(3)) == []
    assert numbers(inbox.receive(message(1, sender="other"))) == [1]
    assert numbers(inbox.receive(message(2, sender="other"))) == [2]
    assert [question.sender for question in inbox.questions(0.0)] == [SENDER]


def test_what_is_missing_is_asked_for(inbox: Inbox) -> None:
    inbox.receive(message(4))
    inbox.receive(message(7))
    inbox.receive(message(3, after=7), "ear")
    assert inbox.questions(10.0) == [Question(SENDER, None, 2, 3), Question(SENDER, "ear", 1, 2)]
    assert numbers(inbox.again(SENDER, None, 2, 2, [message(2), message(3)])) == [2, 3, 4]
    assert inbox.questions(10.0) == [Question(SENDER, None, 5, 6)]


def test_a_question_comes_again_until_it_is_answered(inbox: Inbox) -> None:
    inbox.receive(message(3))
    question = [Question(SENDER, None, 2, 2)]
    asked = [inbox.questions(now / 8) for now in range(80, 87)]
    assert asked == [question, [], [], question, [], [], question]
    inbox.receive(message(2))
    assert not inbox.waits and inbox.questions(99.0) == []


def test_a_sender_met_in_the_middle_is_asked_where_it_stands() -> None:
    inbox = Inbox("ear")
    assert inbox.receive(message(7)) == []
    assert inbox.receive(message(8, own={"ear": 3})) == []
    assert inbox.questions(1.0) == [Question(SENDER, None, 0, 0)]
    assert inbox.questions(1.1) == []
    assert numbers(inbox.position(SENDER, {None: 8, "ear": 3}, {None: 5, "ear": 3})) == []
    assert inbox.questions(2.0) == [Question(SENDER, None, 6, 6)]
    assert numbers(inbox.again(SENDER, None, 6, 6, [message(6)])) == [6, 7, 8]
    assert not inbox.waits and inbox.dropped == 0


def test_what_came_before_it_listened_is_let_go() -> None:
    inbox = Inbox("ear")
    inbox.receive(message(7))
    inbox.receive(message(5, after=7), "ear")
    assert inbox.position(SENDER, {None: 7, "ear": 5}, {None: 7, "ear": 5}) == []
    assert not inbox.waits and inbox._held_bytes == inbox.dropped == 0
    assert numbers(inbox.receive(message(8, own={"ear": 5}))) == [8]


def test_a_position_before_the_first_message_says_that_all_is_for_it() -> None:
    inbox = Inbox("ear")
    assert inbox.position(SENDER, {None: 0}) == []
    assert not inbox.waits
    inbox.receive(message(2))
    assert inbox.questions(1.0) == [Question(SENDER, None, 1, 1)]


def test_the_end_of_what_was_sent_is_missing(inbox: Inbox) -> None:
    assert inbox.position(SENDER, {None: 3, "ear": 1}) == []
    assert inbox.questions(1.0) == [Question(SENDER, None, 2, 3), Question(SENDER, "ear", 1, 1)]


def test_a_sender_is_silent_after_ten_seconds(inbox: Inbox) -> None:
    inbox.receive(message(3))
    assert inbox.silent(100.0) == []  # it was not asked yet
    inbox.questions(100.0)
    assert inbox.silent(110.0) == []
    inbox.questions(105.0)
    assert inbox.silent(110.1) == [SENDER]
    inbox.position(SENDER, {None: 3})  # it lives
    assert inbox.silent(110.2) == []
    inbox.questions(111.0)
    assert inbox.silent(122.0) == [SENDER]
    assert numbers(inbox.give_up(SENDER)) == [3]
    assert inbox.dropped == 1


def test_one_given_up_has_its_ten_seconds_when_it_is_asked_again(inbox: Inbox) -> None:
    inbox.receive(message(3))
    inbox.questions(100.0)
    inbox.give_up(SENDER)
    inbox.receive(message(5))
    inbox.questions(200.0)
    assert inbox.silent(200.1) == []
    assert inbox.silent(210.1) == [SENDER]


def test_one_that_made_up_for_it_has_its_ten_seconds_too(inbox: Inbox) -> None:
    inbox.receive(message(3))
    inbox.questions(100.0)
    assert numbers(inbox.receive(message(2))) == [2, 3]
    inbox.receive(message(5))
    inbox.questions(200.0)
    assert inbox.silent(200.1) == []


@pytest.mark.parametrize("name", ["stranger", SENDER])
def test_nothing_is_left_of_one_that_is_gone(inbox: Inbox, name: str) -> None:
    assert list(inbox.gone(name)) == []
    assert list(inbox.give_up(name)) == []
    assert name not in inbox._senders


def test_one_that_is_gone_before_it_said_where_it_stands() -> None:
    inbox = Inbox("ear")
    inbox.receive(message(7))
    inbox.receive(message(9, own={"ear": 4}))
    inbox.receive(message(4, after=8), "ear")
    delivered = [(one.sequence, one.after) for one in inbox.gone(SENDER)]
    assert delivered == [(7, 0), (4, 8), (9, 0)]
    assert (inbox.dropped, inbox._held_bytes) == (1, 0)


def test_two_that_wait_for_each_other_are_given_up(inbox: Inbox) -> None:
    assert inbox.receive(message(2, own={"ear": 1})) == []
    assert inbox.receive(message(1, after=2), "ear") == []
    assert inbox.waits and inbox.questions(1.0) == []
    assert inbox.give_up(SENDER) == []
    assert not inbox.waits and (inbox.dropped, inbox._held_bytes) == (2, 0)


def test_so_much_is_held_and_no_more(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "_most_held", 3)
    for number in range(3, 20):
        inbox.receive(message(number))
    assert inbox._held_bytes == 3 * len("text")
    assert inbox.questions(1.0) == [Question(SENDER, None, 2, 2)]
    assert numbers(inbox.receive(message(2))) == [2, 3, 4, 5]
    assert inbox.questions(2.0) == [Question(SENDER, None, 6, 19)]
    again = inbox.again(SENDER, None, 6, 6, [message(number) for number in range(6, 20)])
    assert numbers(again) == list(range(6, 20))
    assert not inbox.waits


def test_so_many_bytes_are_held_of_all(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "RELAY_MOST_HELD_BYTES", 100)
    inbox.receive(message(3, text="x" * 60))
    inbox.receive(message(1, sender="other"))
    inbox.receive(message(3, sender="other", text="x" * 60))
    inbox.receive(message(4, sender="other", text="x" * 40))
    assert inbox._held_bytes == 100
    assert numbers(inbox.receive(message(2))) == [2, 3]
    assert inbox.questions(1.0) == [Question("other", None, 2, 3)]
    again = [message(number, sender="other", text="x" * 60) for number in (2, 3)]
    assert numbers(inbox.again("other", None, 2, 2, again)) == [2, 3, 4]
    assert inbox._held_bytes == 0


def test_senders_that_are_long_silent_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "RELAY_MOST_SENDERS", 3)
    inbox = Inbox("ear")
    inbox.receive(message(1, sender="behind"))
    inbox.receive(message(3, sender="behind"))
    for number in range(10):
        inbox.receive(message(1, sender=f"once {number}"))
        inbox.position("behind", {None: 3})
    assert list(inbox._senders) == ["once 8", "once 9", "behind"]
    assert numbers(inbox.receive(message(2, sender="behind"))) == [2, 3]


def test_no_sender_is_forgotten_of_which_something_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "RELAY_MOST_SENDERS", 3)
    inbox = Inbox("ear")
    for number in range(5):
        inbox.receive(message(7, sender=f"{number}"))
        assert inbox._held_bytes == held(inbox)
    assert set(inbox._behind) <= set(inbox._senders)
    for number in range(5):
        inbox.gone(f"{number}")
    assert not inbox.waits and inbox._held_bytes == 0


# --- several tags, and two that become one ----------------------------------------


def to(tag: str, number: int, after: int, sender: str = SENDER) -> RelayMessage:
    return RelayMessage(
        sender, number, {"method": "emit", "to": tag}, [f"{number} to {tag}"], after
    )


def texts(delivered: Sequence[RelayMessage]) -> list[Any]:
    return [packet for message in delivered for packet in message.packets]


def test_each_stream_is_in_order_with_those_to_all() -> None:
    inbox = Inbox("a", "b")
    assert texts(inbox.receive(message(1, text="1"))) == ["1"]
    assert inbox.receive(message(2, own={"a": 1, "b": 2, "other": 9}, text="2")) == []
    assert texts(inbox.receive(to("a", 1, 1), "a")) == ["1 to a"]
    assert inbox.receive(to("b", 2, 1), "b") == []
    assert inbox.questions(1.0) == [Question(SENDER, "b", 1, 1)]
    again = inbox.again(SENDER, "b", 1, 1, [to("b", 1, 1)])
    assert texts(again) == ["1 to b", "2 to b", "2"]
    assert not inbox.waits and inbox._held_bytes == 0


def test_the_first_to_one_tag_says_nothing_of_those_to_another() -> None:
    """Those may have been sent before this process began to receive: the sender is asked."""
    inbox = Inbox("a", "b")
    assert inbox.receive(to("b", 1, 0), "b") == []
    assert inbox.questions(1.0) == [Question(SENDER, None, 0, 0)]
    numbers = {None: 0, "a": 4, "b": 1}
    assert texts(inbox.position(SENDER, numbers, {None: 0, "a": 4, "b": 0})) == ["1 to b"]
    assert not inbox.waits and inbox.dropped == 0
    assert texts(inbox.receive(to("a", 5, 0), "a")) == ["5 to a"]


def test_what_one_is_behind_is_asked_for_before_they_are_one() -> None:
    ours, theirs = Inbox("a"), Inbox("b")
    for inbox in (ours, theirs):
        inbox.receive(message(1))
    ours.receive(message(2))
    ours.receive(message(1, sender="only ours"))
    theirs.receive(to("b", 1, 1), "b")
    assert ours.knows("only ours") and not theirs.knows("only ours")
    assert not ours.level(theirs)
    assert ours.questions(1.0) == [] and theirs.questions(1.0) == [Question(SENDER, None, 2, 2)]
    assert numbers(theirs.again(SENDER, None, 2, 2, [message(2)])) == [2]
    assert ours.level(theirs) and ours.level(theirs)
    ours.merge(theirs)
    assert ours.tags == ("a", "b") and not ours.waits
    assert ours.receive(message(3, own={"a": 1, "b": 2}, text="3")) == []
    questions = [Question(SENDER, "a", 1, 1), Question(SENDER, "b", 2, 2)]
    assert sorted(ours.questions(2.0)) == questions
    assert texts(ours.receive(to("b", 2, 2), "b")) == ["2 to b"]
    assert texts(ours.receive(to("a", 1, 2), "a")) == ["1 to a", "3"]


def test_who_has_sent_to_all_less_than_another_is_given_up_in_time() -> None:
    """A dead sender answers neither question."""
    ours, theirs = Inbox("a"), Inbox("b")
    for number in (1, 2, 3):
        ours.receive(message(number))
    theirs.receive(message(1))
    assert not ours.level(theirs)
    theirs.questions(1.0)
    (silent,) = theirs.silent(12.0)
    assert list(theirs.give_up(silent)) == [] and theirs.dropped == 2
    assert ours.level(theirs)
    ours.merge(theirs)
    assert ours.dropped == 2


def test_what_waits_for_a_tag_that_is_given_up_is_delivered() -> None:
    inbox = Inbox("a", "b")
    inbox.receive(message(1))
    assert inbox.receive(message(2, own={"b": 2}, text="2")) == []
    assert inbox.receive(to("b", 2, 1), "b") == []
    assert texts(inbox.forget("b")) == ["2"]
    assert inbox.tags == ("a",) and not inbox.waits
    assert inbox._held_bytes == inbox.dropped == 0
    assert inbox.save() == {SENDER: [True, 3, 2, {}, False]}
    assert numbers(inbox.receive(message(3, own={"b": 7}))) == [3]


def test_nothing_is_saved_of_a_tag_that_is_given_up() -> None:
    """Nor of messages to it from an ended sender: a reader would refuse the whole position."""
    inbox = Inbox("a", "b")
    inbox.receive(message(1, own={"b": 0}))
    inbox.receive(to("b", 1, 1), "b")
    inbox.gone(SENDER)
    assert "b" in inbox.save()[SENDER][3]
    inbox.forget("b")
    assert inbox.save()[SENDER][3] == {}


def test_one_that_is_given_up_unheard_can_be_saved() -> None:
    """Only messages to one tag have arrived; they say how many to all were sent before."""
    inbox = Inbox("a")
    assert inbox.receive(to("a", 3, 5), "a") == []
    assert texts(inbox.give_up(SENDER)) == ["3 to a"]
    assert inbox.save() == {SENDER: [True, 6, 5, {"a": [4, 3]}, False]}
    assert texts(inbox.receive(message(6, own={"a": 3}, text="6"))) == ["6"]
    assert not inbox.waits and inbox.dropped == 0


@pytest.mark.parametrize(
    "received", ["all the time", "only before", "before, and its end", "before and after"]
)
def test_messages_of_a_killed_sender_that_others_may_have(received: str) -> None:
    """Of a sender that was received from until it was killed, the last messages were not sent. If
    another process goes on from this position, they may have been sent in between."""
    inbox = Inbox("a")
    inbox.receive(message(1))
    end = {None: 3}
    if received != "all the time":
        if received == "before, and its end":
            inbox.end(SENDER, end)
        for _ in range(2):
            successor = Inbox("a")
            successor.restore(inbox.save(), inbox.complete)
            assert not successor.waits  # until the router repeats it
            inbox = successor
    if received == "before and after":
        inbox.position(SENDER, {None: 1})
    inbox.end(SENDER, end)
    assert inbox.waits and not inbox.has_gap
    inbox.gone(SENDER)
    assert inbox.dropped == 2 and inbox.has_gap is (received == "only before")


def test_a_sender_that_lives_after_all_has_not_ended() -> None:
    """The router had lost it for a moment."""
    inbox = Inbox("a")
    inbox.receive(message(1))
    inbox.end(SENDER, {None: 1})
    assert inbox.complete == [SENDER]
    inbox.lives(SENDER)
    assert inbox.complete == []


def test_long_messages_that_a_killed_sender_had_only_announced() -> None:
    """Perhaps no process has asked for them."""
    inbox = Inbox("a")
    inbox.receive(message(1))
    inbox.position(SENDER, {None: 2})
    assert inbox.save() == {SENDER: [True, 2, 2, {}, False]}
    inbox.end(SENDER, {None: 2})
    assert inbox.save() == {SENDER: [True, 2, 1, {}, False]}
    inbox.gone(SENDER)
    assert inbox.dropped == 1 and not inbox.has_gap


def test_messages_that_a_killed_sender_has_named_were_sent() -> None:
    """By a later message, or itself at its end."""
    for name in ("by a later one", "at its end"):
        inbox = Inbox("a")
        inbox.receive(message(1))
        if name == "by a later one":
            inbox.receive(message(3))
        inbox.end(SENDER, {None: 3}, sent=name == "at its end")
        inbox.gone(SENDER)
        assert inbox.has_gap, name


@pytest.mark.parametrize("lived", [True, False])
def test_a_sender_that_nobody_has_met_before_its_end(lived: bool) -> None:
    """What it has sent since these sessions began may have been for them."""
    for before, dropped in ((None, 0), ({None: 0}, 3)):
        for restored in (True, False):
            inbox = Inbox("a")
            if restored:
                inbox.restore({})
            inbox.end(SENDER, {None: 3}, before, 1.0, lived=lived)
            inbox.gone(SENDER)
            assert inbox.dropped == dropped and inbox.has_gap is (restored and lived)


@pytest.mark.parametrize("ours_knows", [True, False])
def test_one_that_has_ended_for_one_of_both_is_waited_for_by_the_other(ours_knows: bool) -> None:
    """It has sent more than the other one knows, which is not at the same position."""
    ours, theirs = Inbox("a"), Inbox("b")
    knows, other = (ours, theirs) if ours_knows else (theirs, ours)
    for inbox in (ours, theirs):
        inbox.receive(message(1))
    knows.receive(message(2))
    knows.gone(SENDER)
    assert not ours.level(theirs) and other.waits
    other.gone(SENDER)
    assert ours.level(theirs) and other.dropped == 1


def test_the_own_messages_of_a_process_are_not_waited_for() -> None:
    """Adopted sessions already have the earlier ones, and get new ones directly."""
    ours, theirs = Inbox("a"), Inbox("b")
    for inbox in (ours, theirs):
        inbox.receive(message(1))
    ours.receive(message(2))
    ours.gone(SENDER)  # as after another adoption
    assert ours.level(theirs, SENDER) and not theirs.waits


def test_what_one_of_both_has_received_was_sent() -> None:
    """Of the rest only the router knows."""
    ours, theirs = Inbox("a"), Inbox("b")
    for inbox in (ours, theirs):
        inbox.receive(message(1))
        inbox.receive(message(1, sender="other"))
    ours.receive(message(2))
    for inbox, sender, last in ((ours, "other", 2), (theirs, SENDER, 3)):
        inbox.end(sender, {None: last})
    assert not ours.level(theirs)
    theirs.gone("other")
    assert theirs.dropped == 1 and not theirs.has_gap
    theirs.gone(SENDER)
    assert theirs.dropped == 3 and theirs.has_gap


def test_what_comes_late_of_one_that_has_ended_is_not_new() -> None:
    """Nor in a process that goes on from the position, or merges it with its own."""
    inbox = Inbox("a")
    inbox.receive(message(1))
    inbox.gone(SENDER)
    successor, other = Inbox("a"), Inbox("b")
    successor.restore(inbox.save())
    other.merge(successor)
    for one in (inbox, successor, other):
        assert not one._senders and not one.receive(message(1)) and not one.waits
        assert numbers(one.receive(message(2))) == [2]


@pytest.mark.parametrize("tag", [None, "a"])
def test_one_that_was_thought_to_have_ended_is_heard_again(tag: Optional[str]) -> None:
    inbox = Inbox("a")
    inbox.receive(message(1))
    inbox.gone(SENDER)
    for number in (2, 3):
        one = message(number) if tag is None else to("a", number - 1, 1)
        assert len(inbox.receive(one, tag)) == 1
    assert list(inbox._senders) == [SENDER] and not inbox.waits


def test_of_one_that_has_ended_the_furthest_position_is_remembered() -> None:
    ours, theirs = Inbox("a"), Inbox("b")
    for inbox, tag, count in ((ours, "a", 1), (theirs, "b", 3)):
        for number in range(1, count + 1):
            inbox.receive(message(number))
        inbox.receive(to(tag, 1, count), tag)
        inbox.gone(SENDER)
    assert ours.level(theirs)  # it sends nothing more: nothing is missing
    ours.merge(theirs)
    assert ours.save() == {SENDER: [True, 4, 3, {"a": [2, 1], "b": [2, 1]}, True]}
    assert ours.dropped == 0


@pytest.mark.parametrize("ours_knows", [True, False])
def test_one_that_only_one_of_both_knows_to_have_ended_has_ended(ours_knows: bool) -> None:
    ours, theirs = Inbox("a"), Inbox("b")
    for inbox, tag in ((ours, "a"), (theirs, "b")):
        inbox.receive(message(1))
        inbox.receive(to(tag, 1, 1), tag)
    (ours if ours_knows else theirs).gone(SENDER)
    assert ours.level(theirs)
    ours.merge(theirs)
    assert ours.has_ended(SENDER) and not ours.knows(SENDER)
    assert ours.save() == {SENDER: [True, 2, 1, {"a": [2, 1], "b": [2, 1]}, True]}
    # It had not ended.
    assert texts(ours.receive(to("a", 2, 1), "a")) == ["2 to a"]
    assert texts(ours.receive(to("b", 2, 1), "b")) == ["2 to b"]
    assert ours.knows(SENDER) and not ours.has_ended(SENDER)


@pytest.mark.parametrize("guests", ["ours", "theirs"])
def test_guests_of_a_sender_that_only_the_other_one_knows(guests: str) -> None:
    ours, theirs = Inbox("a"), Inbox("b")
    (ours if guests == "ours" else theirs).hear("c", {SENDER: 2})
    other = theirs if guests == "ours" else ours
    other.receive(message(1))
    assert ours.level(theirs)
    ours.merge(theirs)
    assert ours.knows(SENDER)
    assert texts(ours.receive(to("c", 3, 1), "c")) == ["3 to c"]


def test_of_one_that_has_ended_nothing_is_said_under_a_tag_that_is_given_up() -> None:
    inbox = Inbox("a", "b")
    inbox.receive(message(1))
    inbox.receive(to("b", 1, 1), "b")
    inbox.gone(SENDER)
    inbox.forget("b")
    assert inbox.save() == {SENDER: [True, 2, 1, {}, True]}


def test_so_many_that_have_ended_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "RELAY_MOST_GONE", 3)
    inbox = Inbox("a")
    for number in range(10):
        inbox.receive(message(1, sender=f"{number}"))
        inbox.gone(f"{number}")
    assert list(inbox.save()) == ["7", "8", "9"]


def test_what_was_sent_before_the_sessions_began_is_not_for_them() -> None:
    """The message had waited in the adopting process."""
    inbox = Inbox("a", since=100.0)
    early, late = message(1), message(2, text="2")
    early.time, late.time = 99.0, 101.0
    assert not inbox.receive(early) and not inbox.receive(late)
    assert inbox.questions(1.0) == [Question(SENDER, None, 0, 0)]
    assert texts(inbox.position(SENDER, {None: 2}, {None: 1}, 100.0)) == ["2"]
    assert not inbox.waits and inbox.dropped == 0


def test_another_tag_is_heard_from_a_number_on() -> None:
    inbox = Inbox("a")
    inbox.receive(message(1))
    inbox.hear("b", {SENDER: 2})
    assert inbox.tags == ("a", "b") and not inbox.waits
    assert inbox.receive(to("b", 2, 1), "b") == []
    assert inbox.receive(message(2, own={"b": 3}, text="2")) == []
    assert inbox.questions(1.0) == [Question(SENDER, "b", 3, 3)]
    assert texts(inbox.receive(to("b", 3, 1), "b")) == ["3 to b", "2"]
    inbox.forget("b")
    assert numbers(inbox.receive(message(3, own={"b": 7}))) == [3]


def test_another_tag_is_heard_of_a_sender_that_is_not_known_yet() -> None:
    """Its earlier messages to that tag are not for this process, though it was running."""
    inbox = Inbox("a")
    inbox.hear("b", {SENDER: 2})
    assert not inbox.waits and inbox.questions(1.0) == []
    assert inbox.position(SENDER, {None: 0, "b": 3}) == []
    assert inbox.questions(1.0) == [Question(SENDER, None, 0, 0)]
    inbox.position(SENDER, {None: 0, "b": 3}, {None: 0, "a": 0, "b": 0})
    assert inbox.questions(1.0) == [Question(SENDER, "b", 3, 3)]
    assert texts(inbox.receive(to("b", 3, 0), "b")) == ["3 to b"]


def test_another_tag_is_heard_of_a_sender_that_has_ended() -> None:
    inbox = Inbox("a")
    inbox.receive(message(1))
    inbox.gone(SENDER)
    inbox.hear("b", {SENDER: 2})
    assert inbox.save() == {SENDER: [True, 2, 1, {"b": [3, 2]}, True]}
    assert not inbox.receive(to("b", 2, 1), "b") and not inbox.waits


def test_both_hear_for_a_tag_before_they_are_one() -> None:
    """This process has guests of a worker, and adopts that worker's clients, too."""
    ours, theirs = Inbox("a", "b"), Inbox("b")
    for inbox in (ours, theirs):
        inbox.receive(message(1, own={"b": 0}))
        inbox.receive(to("b", 1, 1), "b")
    theirs.receive(to("b", 2, 1), "b")
    assert not ours.level(theirs)
    assert ours.questions(1.0) == [Question(SENDER, "b", 2, 2)]
    ours.receive(to("b", 2, 1), "b")
    assert ours.level(theirs)
    ours.merge(theirs)
    assert ours.tags == ("a", "b")
    assert texts(ours.receive(to("b", 3, 1), "b")) == ["3 to b"]
