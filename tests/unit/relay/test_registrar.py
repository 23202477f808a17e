"""The router knows how much ended processes had sent."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import pytest

from supervisor_sio.common.limits import RELAY_MOST_ENDED, RELAY_MOST_LEFT, RELAY_MOST_STREAMS
from supervisor_sio.common.rundir import ClusterInfo, RunDir
from supervisor_sio.relay.message import (
    TOPIC_FOR_ROUTER,
    MessageError,
    RelayMessage,
    topic_for_all,
    topic_for_one,
)
from supervisor_sio.relay.registrar import Registrar
from supervisor_sio.relay.tally import Sent
from unit.in_the_middle import Other

CHANNEL = ClusterInfo().channel
FOR_ALL = topic_for_all(CHANNEL)
MEMBERS = [
    ["w", True, [CHANNEL], False],  # as it was before it came back
    ["remote", True, [CHANNEL], False],
    ["w", False, [CHANNEL], False],
    ["alias", False, [CHANNEL], True],
    ["other", False, ["another channel"], False],
]
END = {"began": 1.5, "all": 7, "own": {"w": 2}}


class Quiet(Registrar):
    """Notes the messages instead of sending them."""

    def __init__(self, run_dir: RunDir) -> None:
        super().__init__(run_dir, ClusterInfo())
        self.said: list[tuple[bytes, str, Mapping[str, Any]]] = []
        #: Called while a message is sent.
        self.interrupt: Callable[[], None] = lambda: None

    def _send(self, topic: bytes, sender: str, fields: Mapping[str, Any]) -> None:
        self.interrupt()
        assert not self._publisher.closed
        self.said.append((topic, sender, fields))

    def hear(self, sender: str, method: str, channel: str = CHANNEL, **fields: Any) -> None:
        message = RelayMessage(sender, 0, {"channel": channel, "method": method, **fields})
        self._answer(TOPIC_FOR_ROUTER + message.pack())

    def told(self, asker: str, channel: str = CHANNEL) -> list[tuple[str, Mapping[str, Any]]]:
        """The ended processes of which an asking process is told."""
        del self.said[:]
        self.hear(asker, "ended", channel, asked=2.5)
        assert {topic for topic, _, _ in self.said} <= {topic_for_one(channel, asker)}
        *told, last = [(sender, fields) for _, sender, fields in self.said]
        assert last == ("router", {"method": "all_ended", "asked": 2.5})
        return told


@pytest.fixture
def registrar(tmp_path: Path) -> Iterator[Quiet]:
    registrar = Quiet(RunDir(str(tmp_path)))
    registrar._thread = threading.Thread(target=lambda: None)
    registrar.start()
    yield registrar
    registrar.close()


def test_the_end_of_a_process_that_only_emits_is_told_now_and_later(registrar: Quiet) -> None:
    """It says itself how much it has sent."""
    before = time.monotonic()
    registrar.hear("emitter", "bye", **END)
    ((topic, sender, fields),) = registrar.said
    assert (topic, sender) == (FOR_ALL, "emitter")
    assert fields == {"method": "ended", **END, "sent": True, "at": fields["at"]}
    assert before <= fields["at"] <= time.monotonic()
    assert registrar.told("w") == [("emitter", fields)]
    assert registrar.told("w", "another channel") == []


def test_the_end_of_a_worker_is_told_now_and_later(registrar: Quiet) -> None:
    """A killed worker may not have sent its last messages."""
    registrar.ended("worker", CHANNEL, Sent(1.5, 7, {"w": 2}))
    ((_, sender, fields),) = registrar.said
    assert sender == "worker" and fields == {
        "method": "ended",
        **END,
        "sent": False,
        "at": fields["at"],
    }
    assert registrar.told("w") == [("worker", fields)]


def test_workers_of_former_versions_do_not_expect_that_all_are_named(registrar: Quiet) -> None:
    registrar.ended("worker", CHANNEL, Sent(1.5, 7, {"w": 2}))
    del registrar.said[:]
    registrar.hear("w", "ended")
    assert [sender for _, sender, _ in registrar.said] == ["worker"]


def test_who_receives(registrar: Quiet) -> None:
    """Also tags whose sessions are held or adopted: some process receives for them."""
    registrar.hear("emitter", "who")
    assert registrar.said == []  # the router does not know yet
    registrar.set_members(MEMBERS)
    registrar.hear("emitter", "who")
    receivers = {"method": "receivers", "tags": ["w", "alias"]}
    assert registrar.said == [(topic_for_one(CHANNEL, "emitter"), "router", receivers)]


def test_who_is_there(registrar: Quiet) -> None:
    """For processes that ask: also workers of other hosts, and which tags are aliases."""
    registrar.hear("asker-1", "members", asked=7)
    assert registrar.said == []  # the router does not know yet
    registrar.set_members(MEMBERS)
    registrar.hear("asker-1", "members", asked=7)
    rows = [["w", False, False], ["remote", True, False], ["alias", False, True]]
    members = {"method": "members", "asked": 7, "members": rows}
    assert registrar.said == [(topic_for_one(CHANNEL, "asker-1"), "router", members)]
    with pytest.raises(MessageError):
        registrar.hear("asker-1", "members", asked="7")


def test_many_short_lived_processes_push_no_worker_out(registrar: Quiet) -> None:
    for number in range(RELAY_MOST_ENDED + 1):
        registrar.ended(f"w{number}", CHANNEL, Sent(1.0, number, {}))
    for number in range(RELAY_MOST_LEFT + 1):
        registrar.hear(f"e{number}", "bye", **END)
    told = [sender for sender, _ in registrar.told("w")]
    assert told == [
        *(f"w{number}" for number in range(1, RELAY_MOST_ENDED + 1)),
        *(f"e{number}" for number in range(1, RELAY_MOST_LEFT + 1)),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"began": "1.5"},
        {"all": -1},
        {"all": 1.0},
        {"own": []},
        {"own": {"w": "2"}},
        {"own": {f"w{number}": 1 for number in range(RELAY_MOST_STREAMS + 1)}},
    ],
)
def test_what_no_process_can_have_sent_is_not_told(registrar: Quiet, wrong: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        registrar.hear("emitter", "bye", **{**END, **wrong})
    assert registrar.said == [] and registrar.told("w") == []


# --- its thread, and the router's --------------------------------------------------


@pytest.mark.parametrize("method", ["who", "members", "ended", "bye"])
def test_two_threads_do_not_send_at_the_same_time(registrar: Quiet, method: str) -> None:
    """libzmq's sockets are not safe to use from several threads."""
    registrar.set_members(MEMBERS)
    registrar.ended("first", CHANNEL, Sent(1.0, 1, {}))
    del registrar.said[:]
    other = Other(registrar, registrar.ended, "second", CHANNEL, Sent(1.0, 1, {}))
    registrar.interrupt = other.call
    registrar.hear("asker", method, asked=1, **END)
    other.result()
    assert [sender for _, sender, _ in registrar.said][-1] == "second"


def test_it_is_not_closed_while_it_sends(registrar: Quiet) -> None:
    other = Other(registrar, registrar.close)
    registrar.interrupt = other.call
    registrar.ended("w", CHANNEL, Sent(1.0, 1, {}))
    other.result()
    assert len(registrar.said) == 1 and registrar._publisher.closed
