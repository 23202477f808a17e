"""A publisher is used by several threads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator

import pytest

from supervisor_sio.common.rundir import ClusterInfo, RunDir
from supervisor_sio.relay.message import RelayMessage
from supervisor_sio.relay.outbox import Outbox
from supervisor_sio.relay.publisher import Publisher


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr("supervisor_sio.relay.publisher._LINGER", 0)
    made = Publisher(RunDir(str(tmp_path)), ClusterInfo(), "s")
    yield made
    made.close()


def test_messages_of_threads_leave_in_the_order_of_their_numbers(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that gets them in another order would ask for what is on its way."""
    add, sent = Outbox.add, []

    def add_slowly(self: Outbox, *args: Any) -> Any:
        number, data = add(self, *args)
        time.sleep(0.002 / number)  # the first waits longest: the others would overtake it
        return number, data

    def send(topic: bytes, data: bytes) -> None:
        sent.append(RelayMessage.unpack(data).sequence)

    monkeypatch.setattr(Outbox, "add", add_slowly)
    monkeypatch.setattr(publisher, "_send_frame", send)
    with ThreadPoolExecutor(4) as pool:
        for number in range(40):
            pool.submit(publisher.publish, None, {"method": "emit", "number": number})
    assert sent == list(range(1, 41)) and publisher.sent == 40
