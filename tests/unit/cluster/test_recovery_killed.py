"""A worker is killed while a client comes back to it: what its journal says then."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from functools import partial
from types import SimpleNamespace
from typing import Any, Callable, List

import pytest

from supervisor_sio.cluster import confirming, inheriting
from supervisor_sio.cluster.lost import decode
from supervisor_sio.common import reasons
from supervisor_sio.common.limits import RECOVERY_WAIT
from supervisor_sio.relay.message import RelayMessage

from .recovering import CLUSTER, Client, Cluster, Worker, room_of, until


def test_what_was_missed_is_not_written_twice(run: Any) -> None:
    """Until all events are written anew, no heir may send them from this journal."""

    async def scenario(cluster: Cluster) -> None:
        dead, heir = await cluster.start(2)
        client = Client()
        await dead.connect(client)
        await dead.emit()
        client.take()
        dead.disconnect(client.eio_sid)
        for _ in range(3):
            await dead.emit()
        await dead.kill()
        await cluster.inherit(dead, heir)
        said: List[str] = []
        send_alone = heir.manager._send_alone

        def killed_here(*args: Any) -> None:
            state = dict(heir.reader().states())[client.pid]
            said.append(dict(decode(state).pairs())["not"])
            send_alone(*args)

        heir.manager._send_alone = killed_here
        await heir.connect(client)
        assert client.recovered, client.reason
        assert len(said) == 3 and all(said)
        state = dict(heir.reader().states())[client.pid]
        assert dict(decode(state).pairs())["not"] == ""
        assert client.events[dead.tag] == [1, 2, 3, 4]

    run(scenario)


def test_who_had_a_client_before_inherits_it(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, dead, other = await cluster.start(3)
        client = Client()
        await home.connect(client)
        client.lose()
        await dead.connect(client)
        await dead.emit()
        await dead.kill()
        over = False

        async def emit() -> None:
            while not over:
                for one in (home, other):
                    await one.emit_to(client.sid)
                await asyncio.sleep(0.001)

        emitting = asyncio.create_task(emit())
        await cluster.inherit(dead, home)
        assert home.manager.lost == 1
        await asyncio.sleep(0.05)
        await other.connect(client)
        assert client.recovered, client.reason
        over = True
        await emitting

        def has_all() -> bool:
            client.take()
            return all(
                client.events.get(f"{one.tag} alone", [0])[-1] == one.sent_alone
                for one in (home, other)
            )

        await until(has_all)
        client.assert_whole()
        assert all(numbers[0] == 1 for numbers in client.events.values())

    run(scenario)


async def lost_again(home: Worker, dead: Worker) -> Client:
    """A client of a dead worker that had got it from the worker that is about to inherit it."""
    client = Client()
    await home.connect(client)
    client.lose()
    await dead.connect(client)
    await dead.kill()
    home.manager.expect([dead.tag])
    await home.manager.inherit([(dead.reader(), 0.0)], asyncio.sleep)
    return client


def test_it_goes_on_where_it_is_when_the_heir_is_another_one(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, dead, _ = await cluster.start(3)
        client = await lost_again(home, dead)
        assert home.manager.lost == 1 and not home.manager._moved
        home.manager.not_adopted([dead.tag])
        assert home.manager.lost == 0 and home.manager._moved[client.sid].tag == dead.tag

    run(scenario)


def test_one_that_could_not_be_kept_is_told_of_at_once(run: Any) -> None:
    """The client cannot come back, so it is not waited for."""

    async def scenario(cluster: Cluster) -> None:
        dead, heir = await cluster.start(2)
        client = Client()
        await dead.connect(client)
        await dead.server.save_session(client.sid, {"at": object()})
        await dead.kill()
        await cluster.inherit(dead, heir)
        assert told_of(heir) == [(client.sid, "server error", {})]
        await heir.connect(client)
        assert client.reason == reasons.NOT_SAVED

    run(scenario)


def note_writes(worker: Worker, pid: str) -> List[bool]:
    """Note whether the journal has a client whenever a state of the client is written."""
    has: List[bool] = []
    save = worker.manager._journal.save

    def save_noting(one: str, state: bytes) -> None:
        if one == pid:
            has.append(pid in dict(worker.reader().states()))
        save(one, state)

    worker.manager._journal.save = save_noting
    return has


def test_a_client_that_goes_is_in_the_journal_all_the_time(run: Any) -> None:
    """An heir finds the client there, or where it has moved; also when no worker takes it."""

    async def scenario(cluster: Cluster) -> None:
        home, dead = await cluster.start(2)
        client = Client()
        await home.connect(client)
        has = note_writes(home, client.pid)
        await killed_before_it_has_come(cluster, client, dead)
        assert has and all(has)
        state = dict(home.reader().states())[client.pid]
        assert dict(decode(state).pairs())["moved"]
        await home.manager.confirm(cluster.ask)
        assert all(has) and home.manager.lost == 1
        state = dict(home.reader().states())[client.pid]
        assert "moved" not in dict(decode(state).pairs())

    run(scenario)


def test_so_is_one_that_would_have_been_inherited(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, dead, _ = await cluster.start(3)
        client = await lost_again(home, dead)
        has = note_writes(home, client.pid)
        home.manager.not_adopted([dead.tag])
        assert has == [True] and client.pid in dict(home.reader().states())

    run(scenario)


# --- between the word of who had it that it has gone, and the journal of who gets it ------------


async def killed_before_it_has_come(cluster: Cluster, client: Client, dead: Worker) -> None:
    await client.worker.server.save_session(client.sid, {"name": "x"})
    client.lose()
    gone = asyncio.Event()

    def never(*args: Any) -> None:
        gone.set()
        raise asyncio.CancelledError

    dead.manager._arrive = never
    dead.manager._do_not_expect = lambda *args: None
    connecting = asyncio.create_task(dead.connect(client))
    await gone.wait()
    await dead.kill()
    await asyncio.gather(connecting, return_exceptions=True)


def told_of(worker: Worker) -> List[Any]:
    """Clients that have expired, as the worker's loop looks each second."""
    found = []
    for eio_sid, sid, namespace, reason in worker.manager.expire(time.monotonic()):
        found.append((sid, reason, worker.manager.lost_session(sid)))
        assert worker.manager.sid_from_eio_sid(eio_sid, namespace) == sid
        worker.manager.basic_disconnect(sid, namespace)
    return found


@pytest.mark.parametrize("inherited", [True, False])
@pytest.mark.parametrize("back_to", ["home", "other"])
@pytest.mark.parametrize("step", ["claim", "fetch", "taken"])
def test_killed_behind_each_step(run: Any, step: str, back_to: str, inherited: bool) -> None:
    """The client comes again, before or after a worker has inherited the killed worker's
    clients."""

    async def scenario(cluster: Cluster) -> None:
        home, dead, other = await cluster.start(3)
        client = Client()
        await home.connect(client)
        await home.emit()
        client.lose()
        sid, pid = client.sid, client.pid
        reached = asyncio.Event()

        async def ask(tag: str, question: Any, packets: Any = ()) -> Any:
            if reached.is_set():
                return {"reason": reasons.NO_OWNER}, []  # it is dead
            answer = await cluster.ask(tag, question, packets)
            if question["do"] == step:
                reached.set()
                await asyncio.sleep(3600)
            return answer

        dead.cluster = SimpleNamespace(ask=ask, numbers=cluster.numbers)  # type: ignore
        connecting = asyncio.create_task(dead.connect(client))
        await reached.wait()
        dead.cluster = cluster
        await dead.kill()
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await home.emit()
        if inherited:
            await cluster.inherit(dead, other)
        client.eio_sid = ""
        await (home if back_to == "home" else other).connect(client)
        await home.manager.confirm(cluster.ask)
        if step == "taken":  # nobody knows what it has got
            assert not client.recovered and client.sid != sid and client.pid != pid
            assert [one[0] for one in told_of(home)] == [sid]
        else:
            assert client.recovered, client.reason
            await home.emit()
            await until(lambda: client.take() or client.events[home.tag] == [1, 2, 3])
        for worker in (home, other):
            await worker.manager.confirm(cluster.ask)
            assert not told_of(worker) and not worker.manager.lost

    run(scenario)


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize(
    "step, answered",
    [("claim", False), ("claim", True), ("fetch", False), ("fetch", True), ("taken", False)],
)
def test_the_one_that_is_asked_is_killed(run: Any, step: str, answered: bool, heard: bool) -> None:
    """Its heir is asked. The killed worker's last messages may be lost: they are not waited for."""

    async def scenario(cluster: Cluster) -> None:
        there, heir = await cluster.start(2)
        (dead,) = await cluster.start(1)
        client = Client()
        await dead.connect(client)
        subscriber = there.manager._subscriber
        take, sender = subscriber._take, dead.tag.encode()
        if not heard and step != "taken":  # it waits for that as long as the other one lives
            subscriber._take = lambda data, now: () if sender in data[:60] else take(data, now)
        for _ in range(2):
            await dead.emit()
        await asyncio.sleep(0.05)
        client.lose()
        reached, killed = asyncio.Event(), asyncio.Event()

        async def ask(tag: str, question: Any, packets: Any = ()) -> Any:
            if question["do"] == step and not reached.is_set():
                answer = await cluster.ask(tag, question, packets) if answered else None
                reached.set()
                await killed.wait()
                if answer is not None:
                    return answer
            # As the router does it.
            await until(lambda: any(tag in one.manager.tags for one in cluster.workers))
            return await cluster.ask(tag, question, packets)

        there.cluster = SimpleNamespace(ask=ask, numbers=cluster.numbers)  # type: ignore
        connecting = asyncio.create_task(there.connect(client))
        await reached.wait()
        await dead.kill()
        killed.set()
        cluster.set_members()
        began = time.monotonic()
        await cluster.inherit(dead, heir)
        await connecting
        assert client.recovered, client.reason
        assert time.monotonic() - began < RECOVERY_WAIT
        assert client.events == {dead.tag: [1, 2]}
        assert not heir.manager.lost and not there.manager.lost

    run(scenario)


@pytest.mark.parametrize("heir", ["another", "the one that asks", "nobody"])
def test_the_one_that_is_asked_has_handed_it_over_and_not_said_so(run: Any, heir: str) -> None:
    """The worker is killed; or the router is, and the question is repeated."""

    async def scenario(cluster: Cluster) -> None:
        there, other = await cluster.start(2)
        (dead,) = await cluster.start(1)
        client = Client()
        await dead.connect(client)
        await dead.emit()
        client.lose()
        reached, asked_again = asyncio.Event(), asyncio.Event()

        async def ask(tag: str, question: Any, packets: Any = ()) -> Any:
            if question["do"] == "taken" and not reached.is_set():
                await dead.emit(room=client.sid, local=True)
                answer, _ = await cluster.ask(tag, question, packets)
                assert not answer.get("reason") and client.sid in dead.manager._moved
                reached.set()
                await asked_again.wait()
            return await cluster.ask(tag, question, packets)

        there.cluster = SimpleNamespace(ask=ask, numbers=cluster.numbers)  # type: ignore
        connecting = asyncio.create_task(there.connect(client))
        await reached.wait()
        if heir != "nobody":
            await dead.kill()
            await cluster.inherit(dead, other if heir == "another" else there)
        asked_again.set()
        await connecting
        assert client.recovered, client.reason
        assert client.events == {dead.tag: [1, 2]}
        for worker in cluster.workers:
            await worker.manager.confirm(cluster.ask)
            assert not worker.manager.unconfirmed and not told_of(worker)

    run(scenario)


def test_another_one_does_not_get_what_was_handed_over(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, there, other = await cluster.start(3)
        client = Client()
        await home.connect(client)
        await killed_before_it_has_come(cluster, client, there)
        question = {"do": "taken", "pid": client.pid, "namespace": "/", "tag": there.tag}
        answer, packets = await home.manager.answer_claim(question)
        assert not answer and len(packets) == 1
        for wrong in ({"tag": other.tag}, {"namespace": "/other"}, {"pid": "made up"}):
            answer, packets = await home.manager.answer_claim({**question, **wrong})
            assert answer["reason"] in (reasons.IN_USE, reasons.UNKNOWN_PID) and not packets

    run(scenario)


@pytest.mark.parametrize("heir", ["home", "other", "nobody"])
def test_the_worker_that_had_it_tells_of_it(run: Any, heir: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, dead, other = await cluster.start(3)
        client = Client()
        await home.connect(client)
        await killed_before_it_has_come(cluster, client, dead)
        assert home.manager.unconfirmed == 1 and not told_of(home)
        if heir != "nobody":
            await cluster.inherit(dead, home if heir == "home" else other)
        await home.manager.confirm(cluster.ask)
        assert told_of(home) == [(client.sid, "transport close", {"name": "x"})]
        await home.manager.confirm(cluster.ask)
        assert not home.manager.unconfirmed and not told_of(home) and not told_of(other)
        assert client.pid not in dict(home.reader().states())

    run(scenario)


def test_the_heir_of_both_tells_of_it(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, dead, heir = await cluster.start(3)
        client = Client()
        await home.connect(client)
        await killed_before_it_has_come(cluster, client, dead)
        await home.kill()
        await cluster.inherit(dead, heir)
        await cluster.inherit(home, heir)
        await heir.manager.confirm(cluster.ask)
        assert told_of(heir) == [(client.sid, "transport close", {"name": "x"})]

    run(scenario)


def test_an_heir_that_is_killed_first_has_written_nothing_of_it(run: Any) -> None:
    """Until the clients are its own; otherwise its own heir would have this client, too."""

    async def scenario(cluster: Cluster) -> None:
        home, dead, killed, heir = await cluster.start(4)
        client = Client()
        await home.connect(client)
        await killed_before_it_has_come(cluster, client, dead)
        await home.kill()
        killed.manager.expect([home.tag])
        await killed.manager.inherit([(home.reader(), time.monotonic())], asyncio.sleep)
        assert client.pid not in dict(killed.reader().states())
        await killed.kill()
        await cluster.inherit(home, heir)
        assert client.pid in dict(heir.reader().states())

    run(scenario)


@pytest.mark.parametrize("written", range(5))
def test_an_heir_that_is_killed_while_it_writes_them_down(run: Any, written: int) -> None:
    """It writes two clients, their position, and the note that it has inherited them all."""

    async def scenario(cluster: Cluster) -> None:
        dead, killed, heir = await cluster.start(3)
        clients = [Client() for _ in range(2)]
        for client in clients:
            await dead.connect(client)
        died = time.monotonic()
        position = dead.reader().position(CLUSTER.channel, [dead.tag])
        await dead.kill()
        killed.manager.expect([dead.tag])
        await killed.manager.inherit([(dead.reader(), died)], asyncio.sleep)
        journal = killed.manager._journal
        done: List[Any] = []

        def until_killed(write: Callable[..., None], *args: Any) -> None:
            if len(done) == written:
                raise asyncio.CancelledError
            done.append(args)
            write(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal, "save", partial(until_killed, journal.save))
            patch.setattr(journal, "adopting", partial(until_killed, journal.adopting))
            with contextlib.suppress(asyncio.CancelledError):
                killed.manager.adopt(position)
        assert len(done) == min(written, 4)
        # Before it receives for them, the next heir needs the position at which the router is.
        begun = (position.parts[0],) in done
        assert killed.reader().not_heard(position) == ([] if begun else position.parts)
        journals = [(killed.reader(), time.monotonic()), (dead.reader(), died)]
        await killed.kill()
        heir.manager.expect([dead.tag, killed.tag])
        await heir.manager.inherit(journals, asyncio.sleep)
        assert {one.pid for one in heir.manager._known.values()} == {one.pid for one in clients}
        assert heir.manager.lost == 2

    run(scenario)


def test_what_an_heir_emits_to_inherited_clients_alone_is_in_its_journal(run: Any) -> None:
    """If the heir is killed before it receives for inherited clients, the router reads its emits
    from its journal. For other emits that reach no client here, only the number is noted."""

    async def scenario(cluster: Cluster) -> None:
        dead, killed = await cluster.start(2)
        client = Client()
        await dead.connect(client)
        part = dead.reader().position(CLUSTER.channel, [dead.tag]).parts[0]
        emit = killed.server.emit
        await emit("before", to="nobody")
        await dead.kill()
        killed.manager.expect([dead.tag])
        await killed.manager.inherit([(dead.reader(), time.monotonic())], asyncio.sleep)
        for number in range(3):
            await emit("to all", number)
            await emit("to it", number, to=client.sid)
        reader = killed.reader()
        written = [event.message.packets[0] for event in reader.since(0)]
        assert len(written) == 6 and not any("before" in str(one) for one in written)
        part.senders[killed.tag] = [True, 2, 1, {}, False]
        assert reader.add_own(part)
        assert [RelayMessage.unpack(one.data).packets[0] for one in part.kept] == written

    run(scenario)


def test_an_heir_with_a_shorter_recovery_keeps_its_note(run: Any) -> None:
    """As long as another heir may get the journal: it would restore clients that have left."""

    async def scenario(cluster: Cluster) -> None:
        dead, heir = await cluster.start(2)
        await dead.connect(Client())
        died = time.monotonic()
        position = dead.reader().position(CLUSTER.channel, [dead.tag])
        await dead.kill()
        heir.manager.expect([dead.tag])
        longer = heir.manager.recovery + 1000
        await heir.manager.inherit([(dead.reader(), died)], asyncio.sleep, longer)
        heir.manager.adopt(position)
        for late, kept in ((longer, True), (longer + heir.manager._margin + 1, False)):
            with heir.manager._tables:
                heir.manager._drop_journals(died + late)
            notes = [pid for pid, _ in heir.reader().states() if pid.startswith("heir of ")]
            assert notes == [f"heir of {dead.tag}"] * kept

    run(scenario)


@pytest.mark.parametrize("killed_after", [1, 2, 3, 99])
def test_an_heir_writes_them_down_in_turns(
    run: Any, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    """One state per turn. What changes meanwhile is written in its new state."""
    monkeypatch.setattr(inheriting, "RECOVERY_SLICE", -1.0)

    async def scenario(cluster: Cluster) -> None:
        dead, killed, heir = await cluster.start(3)
        clients = [Client() for _ in range(3)]
        for client in clients:
            await dead.connect(client)
        died = time.monotonic()
        position = dead.reader().position(CLUSTER.channel, [dead.tag])
        await dead.kill()
        killed.manager.expect([dead.tag])
        await killed.manager.inherit([(dead.reader(), died)], asyncio.sleep)
        turns = 0
        while turns < killed_after and not killed.manager.write_states([dead.tag]):
            turns += 1
            assert 1 <= len(dict(killed.reader().states())) <= turns
            if turns == 2:
                for client in clients:
                    await killed.manager.enter_room(client.sid, "/", "red")
        if killed_after == 99:
            assert turns == 5  # two of them were written twice
            killed.manager.adopt(position)
        journals = [(killed.reader(), time.monotonic()), (dead.reader(), died)]
        await killed.kill()
        heir.manager.expect([dead.tag, killed.tag])
        await heir.manager.inherit(journals, asyncio.sleep)
        assert {one.pid for one in heir.manager._known.values()} == {one.pid for one in clients}
        if killed_after == 99:
            for client in clients:
                assert set(heir.manager.get_rooms(client.sid, "/")) == {client.sid, "red"}

    run(scenario)


@pytest.mark.parametrize("left, killed", [(False, False), (True, False), (True, True)])
def test_of_one_that_has_come_it_does_not_tell(
    run: Any,
    left: bool,
    killed: bool,
) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, there, other = await cluster.start(3)
        client = Client()
        await home.connect(client)
        client.lose()
        await there.connect(client)
        assert home.manager.unconfirmed == 1
        if left:
            await there.manager.disconnect(client.sid, "/", ignore_queue=True)
        if killed:
            await there.kill()
            await cluster.inherit(there, other)
        await home.manager.confirm(cluster.ask)
        assert not home.manager.unconfirmed and not home.manager.lost
        assert not told_of(home) and not told_of(other)
        there.manager._drop_arrivals(math.inf)
        assert not [pid for pid, _ in there.reader().states() if "arrived" in pid] or killed

    run(scenario)


@pytest.mark.parametrize("comes_to", ["home", "other"])
def test_one_that_has_not_come_is_not_looked_for_in_circles(run: Any, comes_to: str) -> None:
    """Where it has moved has been inherited by the worker that is asked, which cannot have it."""

    async def scenario(cluster: Cluster) -> None:
        home, dead, other = await cluster.start(3)
        client = Client()
        await home.connect(client)
        await killed_before_it_has_come(cluster, client, dead)
        await cluster.inherit(dead, home)
        await until(lambda: dead.tag in home.manager.tags)
        cluster.asked.clear()
        await (home if comes_to == "home" else other).connect(client)
        assert client.reason == reasons.INCOMPLETE
        assert cluster.asked == ([] if comes_to == "home" else [(home.tag, "claim")])
        await home.manager.confirm(cluster.ask)
        assert len(told_of(home)) == 1

    run(scenario)


@pytest.mark.parametrize("inherits", ["home", "other"])
@pytest.mark.parametrize("by_way_of", ["home", "another"])
def test_that_it_had_come_before_proves_nothing(run: Any, inherits: str, by_way_of: str) -> None:
    """The worker that is killed before the client has come has had it, and given it away, before:
    the note of that, which its heir finds, is not about this time."""

    async def scenario(cluster: Cluster) -> None:
        home, there, another, other = await cluster.start(4)
        client = Client()
        await home.connect(client)
        way = [there, home] if by_way_of == "home" else [there, another, home]
        for worker in way:
            client.lose()
            await worker.connect(client)
            assert client.recovered, client.reason
            for one in cluster.workers:
                await one.manager.confirm(cluster.ask)
        await killed_before_it_has_come(cluster, client, there)
        await cluster.inherit(there, home if inherits == "home" else other)
        await home.manager.confirm(cluster.ask)
        assert [sid for sid, *_ in told_of(home)] == [client.sid]
        assert not home.manager.unconfirmed and not told_of(other) and not told_of(another)

    run(scenario)


def test_one_that_is_about_to_come_is_asked_about_again(run: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        home, there = await cluster.start(2)
        client = Client()
        await home.connect(client)
        client.lose()
        asked = []

        async def ask(tag: str, question: Any, packets: Any = ()) -> Any:
            answer = await cluster.ask(tag, question, packets)
            if question["do"] == "taken":
                await home.manager.confirm(cluster.ask)
                asked.append(home.manager.unconfirmed)
            return answer

        there.cluster = SimpleNamespace(ask=ask, numbers=cluster.numbers)  # type: ignore
        await there.connect(client)
        assert client.recovered and asked == [1]
        await home.manager.confirm(cluster.ask)
        assert not home.manager.unconfirmed and not home.manager.lost

    run(scenario)


def test_so_many_are_asked_about_at_a_time(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirming, "CLIENTS_ASKED", 2)

    async def scenario(cluster: Cluster) -> None:
        home, there = await cluster.start(2)
        for _ in range(3):
            client = Client()
            await home.connect(client)
            client.lose()
            await there.connect(client)
        for left in (1, 0):
            await home.manager.confirm(cluster.ask)
            assert home.manager.unconfirmed == left

    run(scenario)


@pytest.mark.parametrize("who", ["home", "where it is"])
@pytest.mark.parametrize("heir", range(2))
def test_the_order_holds_when_a_worker_is_killed(run: Any, who: str, heir: int) -> None:
    """The client's home is killed, or the worker that has it; others emit."""

    async def scenario(cluster: Cluster) -> None:
        home, there, other = await cluster.start(3)
        client, stays = Client(), Client()
        await home.connect(client)
        await other.connect(stays)
        for one in (client, stays):
            await one.worker.manager.enter_room(one.sid, "/", room_of(one.sid))
        client.lose()
        await there.connect(client)
        dead, living = (home, [there, other]) if who == "home" else (there, [home, other])
        over = asyncio.Event()
        all_series = [*(one.series for one in living), cluster.start_writing()]
        sids = [client.sid, stays.sid]
        emitting = [asyncio.create_task(one.emit_until(over, sids)) for one in all_series]
        await asyncio.sleep(0.05)
        if dead is there:
            client.take()
        await dead.kill()
        await asyncio.sleep(0.05)
        await cluster.inherit(dead, living[heir])
        await asyncio.sleep(0.05)
        for worker in (*living, *living):
            if client.eio_sid in client.worker.sessions:
                client.lose()
            await worker.connect(client)
            assert client.recovered, client.reason
            await asyncio.sleep(0.05)
        over.set()
        await asyncio.gather(*emitting)
        for one in (client, stays):
            for series in all_series:
                await series.has_come_to(one)

    run(scenario)
