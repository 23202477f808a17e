from __future__ import annotations

import time
from typing import Any

import pytest

from supervisor_sio import ZmqManager
from unit.cluster.others import OTHER, Sent, eventually, from_another


def test_alone_nobody_answers_a_server_side_call(manager: ZmqManager) -> None:
    manager.on("ask", lambda *args: pytest.fail("it asks itself"))
    before = time.monotonic()
    answers = manager.server_side_call("ask", 1, timeout=10)
    assert (answers, answers.timed_out, answers.missing) == ([], False, 0)
    manager.server_side_emit("ask", 1)
    assert time.monotonic() - before < 9


def test_arguments_that_cannot_be_encoded(manager: ZmqManager) -> None:
    with pytest.raises(TypeError):
        manager.server_side_emit("tell", object())
    with pytest.raises(TypeError):
        manager.server_side_call("ask", object())


def test_a_server_side_event_of_another(manager: ZmqManager, sent: Sent) -> None:
    got: list[Any] = []

    @manager.on("tell")
    def tell(*args: Any) -> None:
        got.append(args)

    manager.on("tell", lambda *args: got.append("chat"), namespace="/chat")
    from_another(manager, 1, b"\0", method="server_side_emit", event="tell")
    from_another(manager, 1, method="server_side_emit", event="unknown")
    eventually(lambda: got == [(1, b"\0")])
    assert sent == []


def test_a_server_side_call_of_another(manager: ZmqManager, sent: Sent) -> None:
    manager.on("double", lambda number: 2 * number)
    manager.on("fail", lambda: 1 / 0)
    call = {"method": "request", "operation": "server_side_call"}
    from_another(manager, b"ab", **call, event="double", request=5)
    sent.wait(1)
    from_another(manager, **call, event="fail", request=6)
    sent.wait(2)
    from_another(manager, **call, event="unknown", request=7)
    from_another(manager, method="request", operation="of a newer version", request=8)
    sent.wait(4)
    answer = {"method": "answer", "worker": manager.host_id}
    packet = manager._packet_format()
    assert sent == [
        (OTHER, {**answer, "request": 5, "packet": packet}, [b"abab"]),
        *[(OTHER, {**answer, "request": number}, None) for number in (6, 7, 8)],
    ]


def test_an_answer_that_cannot_be_encoded_is_none(manager: ZmqManager, sent: Sent) -> None:
    manager.on("ask", lambda: object())
    from_another(manager, method="request", operation="server_side_call", event="ask", request=1)
    sent.wait(1)
    assert sent[0][2] is None
