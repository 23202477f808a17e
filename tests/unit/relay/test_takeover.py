"""Sessions move from process to process, and receive each message once, in its sender's order."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor_sio.relay import inbox as inbox_module
from supervisor_sio.relay import outbox as outbox_module
from supervisor_sio.relay import subscriber as subscriber_module
from unit.examples import examples

from .network import Network, World

Action = tuple[str, int, int]

_PUBLISH = [
    "publish",
    "publish to a room",
    "publish to one",
    "publish from outside",
    "burst",
    "end turn",
]
_HEAR = ["hear", "hear", "hear", "turn", "lose", "lose", "tick"]
_MOVE = ["pass on", "leave", "leave", "adopt", "adopt by a new one", "restart", "new emitter"]


def plans_of(kinds: list[str], most: int) -> st.SearchStrategy[list[Action]]:
    kind = st.sampled_from(kinds)
    return st.lists(st.tuples(kind, st.integers(0, 7), st.integers(0, 7)), max_size=most)


def plans(*more: str) -> st.SearchStrategy[list[Action]]:
    return plans_of([*_PUBLISH, *_PUBLISH, *_HEAR, *_HEAR, *_MOVE, "give up", *more], 120)


#: The second worker has the sessions of the first, as if they were its own, or not quite yet.
_ADOPTED = [("pass on", 0, 0), ("adopt", 0, 0)]
_MERGED = [
    *_ADOPTED,
    *[action for who in range(12) for action in (("tick", 0, 3), ("hear", who, 7))],
]

#: It misses some of what comes to all and to those sessions, which then end.
_GIVE_UP = st.tuples(
    st.sampled_from([_ADOPTED, _MERGED]),
    st.lists(
        st.sampled_from(
            [
                *(("publish from outside", 0, what) for what in (0, 5)),
                *(("hear", 0, 0), ("lose", 0, 0)),
            ]
        ),
        max_size=15,
    ),
    st.just([("give up", 0, 0)]),
    plans(),
).map(lambda parts: [action for part in parts for action in part])


def act(world: World, kind: str, who: int, what: int) -> None:
    def one_of(several: Any) -> Any:
        return several[who % len(several)] if several else None

    long = what == 7
    senders = [*world.workers, *world.leaving, world.emitter]
    groups = list(world.delivered)
    process = one_of(world.processes)
    if kind == "publish":
        one_of(senders).publish(None, long)
    elif kind == "publish to a room":
        one_of(senders).publish(None, long, f"room {what % 3}")
    elif kind == "burst":
        for _ in range(4):
            one_of(senders).publish(None, long, f"room {what % 3}" if what < 4 else None)
    elif kind == "end turn":
        one_of(senders).end_turn()
    elif kind == "publish to one" and groups:
        one_of(senders).publish(groups[what % len(groups)], long)
    elif kind == "publish from outside":
        world.emitter.publish(None if what < 5 or not groups else groups[who % len(groups)], long)
    elif kind == "hear":
        process.hear(1 + what)
    elif kind == "turn":
        process.turn()
    elif kind == "lose":
        for _ in range(min(1 + what, len(process.socket.incoming))):
            process.socket.incoming.popleft()
    elif kind == "tick":
        world.network.now += 0.1 * (1 + what)
    elif kind == "pass on" and world.workers:
        world.pass_on(one_of(world.workers))
    elif kind == "leave" and world.leaving:
        world.leave(one_of(world.leaving))
    elif kind == "adopt" and world.held and world.workers:
        world.adopt(one_of(world.held), world.workers[what % len(world.workers)])
    elif kind == "adopt by a new one" and world.held:
        world.adopt(one_of(world.held), world.start_worker())
    elif kind == "restart" and world.held:
        world.restart(one_of(world.held))
    elif kind == "give up" and world.adopted:
        world.give_up(*one_of(world.adopted))
    elif kind == "new emitter" and what == 0:
        world.replace_emitter()
    elif kind == "kill":
        world.kill(one_of([*world.leaving, world.emitter]))


def run(plan: list[Action], workers: int = 2) -> World:
    network = Network()
    with network.installed():
        world = World(network, os.close)
        for _ in range(workers):
            world.start_worker()
        for action in plan:
            act(world, *action)
        world.settle()
        world.check()
        for process in (*world.workers, world.emitter):
            world.end(process)
    return world


@settings(max_examples=examples(300))
@given(plans())
def test_each_client_gets_each_message_once_and_in_order(plan: list[Action]) -> None:
    """Whatever is lost on the way, and whichever process passes on, holds or adopts sessions."""
    run(plan)


@settings(max_examples=examples(150))
@given(plans(), st.integers(0, 6), st.integers(1, 4))
def test_little_is_held_and_little_sent_at_a_time(
    plan: list[Action], most_held: int, batch: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(inbox_module, "RELAY_MOST_HELD", most_held)
        monkeypatch.setattr(outbox_module, "RELAY_BATCH_MESSAGES", batch)
        monkeypatch.setattr(subscriber_module, "_BATCH", batch - 1)
        run(plan)


@settings(max_examples=examples(150))
@given(_GIVE_UP)
def test_the_others_go_on_when_the_clients_of_a_worker_have_left(plan: list[Action]) -> None:
    """Messages that waited for one to those clients are delivered without it."""
    run(plan)


@settings(max_examples=examples(150))
@given(plans("kill", "kill"))
def test_what_a_killed_process_has_sent_comes_at_most_once(plan: list[Action]) -> None:
    """And in order; messages of other processes come as always."""
    run(plan)
