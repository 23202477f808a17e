from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common.channel import MAX_PACKET
from supervisor_sio.router.membership import Membership

rows = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.booleans(), st.sampled_from(["x", "y"])), max_size=8
)


class Worker:
    """As a worker takes the messages."""

    def __init__(self) -> None:
        self.known = 0
        self.taken: dict[str, Any] = {}
        self.members: dict[str, Any] = {}

    def hear(self, membership: Membership) -> int:
        messages = [json.loads(data) for data in membership.since(self.known)]
        self.known = membership.version
        for message in messages:
            if message["first"]:
                self.taken = {}
            self.taken.update((row[0], row) for row in message["members"])
            for tag in message["gone"]:
                del self.taken[tag]
        assert [message["last"] for message in messages] == [False] * (len(messages) - 1) + [True]
        self.members = dict(self.taken)
        return len(messages)


@given(st.lists(st.tuples(rows, st.booleans()), min_size=1, max_size=20))
def test_whoever_hears_whichever_changes_knows_the_same(
    steps: list[tuple[dict[str, tuple[bool, str]], bool]],
) -> None:
    membership, always, sometimes = Membership(), Worker(), Worker()
    for change, hears in steps:
        before = membership.version
        membership.set([tag, remote, [name]] for tag, (remote, name) in change.items())
        expected = {tag: [tag, remote, [name]] for tag, (remote, name) in change.items()}
        for worker, listens in ((always, True), (sometimes, hears)):
            if listens and worker.known != membership.version:
                worker.hear(membership)
                assert worker.members == expected
        assert always.members == expected and membership.version - before <= 1


def test_hundreds_are_told_in_parts_and_encoded_once() -> None:
    channel = "ipc-0123456789abcdef0123456789abcdef"
    everybody = [[f"{number:08}", False, [channel] * 4] for number in range(500)]
    membership, worker = Membership(), Worker()
    membership.set(everybody)
    messages = membership.since(0)
    assert len(messages) > 2 and all(len(data) < MAX_PACKET for data in messages)
    assert membership.since(0) is messages
    worker.hear(membership)
    membership.set(everybody[1:])
    (difference,) = membership.since(worker.known)
    assert len(difference) < 100 and membership.since(worker.known)[0] is difference
    worker.hear(membership)
    assert list(worker.members) == [row[0] for row in everybody[1:]]
    version = membership.version
    membership.set(everybody[1:])
    assert membership.version == version
