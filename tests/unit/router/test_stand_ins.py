"""Listening in the place of a worker, as memory files in and out; over a real relay."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor_sio.common.recovery import FORMAT, Source
from supervisor_sio.common.rundir import ClusterInfo
from supervisor_sio.relay.journal import Journal as Written
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.position import Held, Part, Position
from supervisor_sio.relay.publisher import Publisher
from supervisor_sio.relay.stand_in import StandIn
from supervisor_sio.relay.threaded import ThreadSubscriber
from supervisor_sio.router import reserve
from supervisor_sio.router.journals import Journal
from supervisor_sio.router.stand_ins import StandIns
from supervisor_sio.router.stand_ins import place as place_of
from unit.relays import relay_in


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", ["socketio", "another"])
def test_what_is_heard_in_its_place_goes_on(
    tmp_path: Path, no_leak: Callable[[], AbstractContextManager[None]], name: str
) -> None:
    cluster = ClusterInfo()
    with no_leak(), relay_in(tmp_path, cluster) as run_dir:
        stand_ins = StandIns(run_dir, cluster)
        stand_ins.set_members([["old", False, [name], True], ["other", False, [name], False]])
        before = open_files()
        place = Position(name, [Part(("old",), time.monotonic(), {}, {})]).write()
        listener = stand_ins.listen(place)
        assert open_files() - before <= reserve._FOR_LISTENER
        publisher = Publisher(run_dir, cluster._replace(channel=name), "other")
        deadline = time.monotonic() + 10
        while True:
            publisher.publish("old", {"method": "close_room", "room": "a", "namespace": "/"}, ())
            time.sleep(0.05)
            heard = listener.stop()
            position = Position.read(heard)
            assert position.channel == name and position.tags == ("old",)
            if position.parts[0].kept or position.parts[0].held:
                break
            assert time.monotonic() < deadline
            listener = stand_ins.listen(heard)
            os.close(heard)
        publisher.close()
        os.close(heard)
        os.close(place)
        assert stand_ins._lives("other") and not stand_ins._lives("old")


def test_a_place_that_is_not_understood(tmp_path: Path) -> None:
    with relay_in(tmp_path, ClusterInfo()) as run_dir:
        place = os.memfd_create("test")
        os.write(place, b"nonsense")
        before = open_files()
        with pytest.raises(ValueError):
            StandIns(run_dir, ClusterInfo()).listen(place)
        assert open_files() == before
        os.close(place)


def test_the_place_of_a_worker_that_was_killed(
    tmp_path: Path, no_leak: Callable[[], AbstractContextManager[None]]
) -> None:
    cluster = ClusterInfo()
    kept: dict[str, dict[int, int]] = {"events": {}, "states": {}}

    def keep(log: str, number: int, descriptor: int) -> None:
        kept[log][number] = os.dup(descriptor)

    with no_leak(), relay_in(tmp_path, cluster) as run_dir:
        written = Written(
            "old",
            age=120,
            most_messages=1000,
            most_bytes=1_000_000,
            on_segment=keep,
            on_dropped=lambda log, number: None,
        )
        written.began(time.monotonic())
        written.heard("other", None, 7)
        journal = Journal(Source("old", cluster.channel), FORMAT, 120, 5.0, kept)
        made = place_of(journal, ["old", "older"])
        position = Position.read(made)
        assert position.channel == cluster.channel and position.tags == ("old", "older")
        assert position.parts[0].senders["other"][:3] == [True, 8, 7]
        os.close(StandIns(run_dir, cluster).listen(made).stop())
        os.close(made)
        journal.close()
        written.close()


@pytest.mark.parametrize(
    "how", ["not yet", "half", "it had begun", "long ago", "of another journal", "nonsense"]
)
def test_the_place_of_clients_for_which_it_may_not_have_received(
    no_leak: Callable[[], AbstractContextManager[None]], how: str
) -> None:
    """Its own journal tells, for each part: clients that have its own position by now must not get
    everything since the former one twice."""
    logs: dict[str, dict[int, int]] = {"events": {}, "states": {}}

    def keep(log: str, number: int, descriptor: int) -> None:
        logs[log][number] = os.dup(descriptor)

    with no_leak():
        written = Written(
            "heir",
            age=120,
            most_messages=1000,
            most_bytes=1_000_000,
            on_segment=keep,
            on_dropped=lambda log, number: None,
        )
        written.began(1.0)
        written.heard("other", None, 9)
        own = RelayMessage("heir", 1, {"method": "emit"}, ["its own"], time=2.0)
        written.event(own, None)
        written.save("a client", b"{}")
        part = Part(("old", "older"), 1.0, {"other": [True, 8, 7, {}, False]}, {})
        part.kept.append(Held("old", b"a message"))
        second = replace(part, tags=("guest",), kept=[Held("guest", b"another")])
        if how in ("half", "it had begun"):
            written.adopting(replace(part, kept=[]))
        if how == "it had begun":
            written.adopting(replace(second, kept=[]))
        elif how in ("long ago", "of another journal"):
            written.save("heir of " + ("older" if how == "long ago" else "olde"), b"{}")
        journal = Journal(Source("heir", "socketio"), FORMAT, 120, 5.0, logs)
        given = Position("socketio", [part, second]).write()
        if how == "nonsense":
            os.pwrite(given, b"nonsense", 0)
            with pytest.raises(ValueError):
                place_of(journal, ["heir", "old", "older", "guest"], [given])
        else:
            made = place_of(journal, ["heir", "old", "older", "guest"], [given])
            parts = Position.read(made).parts
            found = {tag: one.senders["other"][2] for one in parts for tag in one.tags}
            last = {"it had begun": 7, "long ago": 9}.get(how, 7)
            assert found == {"heir": 9, "old": last, "older": last, "guest": last}
            kept = [held for one in parts for held in one.kept]
            lacks = [Held(None, own.pack())]  # nobody else has what the heir has sent
            due = {
                "half": [*lacks, *second.kept, *lacks],
                "it had begun": lacks * 2,
                "long ago": [],
            }
            assert kept == due.get(how, [*part.kept, *lacks, *second.kept, *lacks])
            os.close(made)
        os.close(given)
        journal.close()
        written.close()


def test_a_listener_that_confirms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process receives the same: whoever ends must wait for that one. Nor does it store
    anything."""
    cluster = ClusterInfo()
    with relay_in(tmp_path, cluster) as run_dir:
        stand_ins = StandIns(run_dir, cluster)
        place = Position("socketio", [Part(("old",), time.monotonic(), {}, {})]).write()
        publisher = Publisher(run_dir, cluster, "other")
        sender = ThreadSubscriber(publisher, run_dir)
        sender.start()

        async def sleep(seconds: float) -> None:
            time.sleep(seconds)

        def missing(seconds: float) -> list[str]:
            until = time.monotonic() + seconds
            waiting = sender.wait_confirmed(lambda: ["old"], lambda: until, sleep)
            return asyncio.run(waiting)

        listener = stand_ins.listen(place, confirm=False)
        while not Position.read(heard := listener.stop()).parts[0].kept:
            os.close(heard)
            listener = stand_ins.listen(place, confirm=False)
            publisher.publish("old", {"method": "close_room", "room": "a", "namespace": "/"}, ())
            time.sleep(0.1)
        assert missing(0.5) == ["old"]
        listener = stand_ins.listen(heard, confirm=False)
        with monkeypatch.context() as patch:
            stored: list[StandIn] = []
            patch.setattr(StandIn, "_position", stored.append)
            assert missing(0.5) == ["old"]
            listener.discard()
            assert not stored
        listener = stand_ins.listen(heard)
        assert missing(20) == []
        os.close(listener.stop())
        os.close(heard)
        os.close(place)
        sender.stop()
        publisher.close()


def test_a_journal_that_is_not_understood() -> None:
    nonsense = os.memfd_create("test")
    os.write(nonsense, b"nonsense" * 1000)
    for logs in ({}, {"events": {}}, {"events": {0: nonsense}}):
        with pytest.raises(ValueError):
            place_of(Journal(Source("old", "socketio"), FORMAT, 120, 5.0, logs), ["old"])
    os.close(nonsense)
