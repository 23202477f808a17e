"""The router's end of the channel to supervisord, over a socket pair."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any, Awaitable, Callable

import pytest

from supervisor_sio.common import channel
from supervisor_sio.common.limits import MOST_ANSWERS
from supervisor_sio.common.rundir import RunDir
from supervisor_sio.router.events import Event
from supervisor_sio.router.supervisord import (
    CommandError,
    SupervisordChannel,
    connect,
    in_messages,
)
from unit.router.harness import wait_for


class Harness:
    def __init__(self) -> None:
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.ours = ours
        self.sock.setblocking(False)
        self.channel = SupervisordChannel(ours, self.execute)
        self.channel.listen()

    def execute(self, command: channel.Message) -> None:
        if command["type"] == "impossible":
            raise CommandError("it cannot be done")
        if command["type"] == "broken":
            raise KeyError("x" * 100_000)
        self.channel.result(command)

    def hear(self) -> list[channel.Message]:
        messages = []
        while True:
            try:
                packet = channel.receive(self.sock)
            except BlockingIOError:
                return messages
            assert packet is not None
            messages.append(packet.message)


def run(scenario: Callable[[Harness], Awaitable[None]]) -> None:
    async def main() -> None:
        harness = Harness()
        with harness.sock, harness.ours:
            await scenario(harness)

    asyncio.run(main())


def test_an_error_in_one_command_is_that_commands(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(harness: Harness) -> None:
        for number, kind in enumerate(("fine", "impossible", "broken", "fine")):
            channel.send(harness.sock, {"type": kind, "id": number})
        results: list[channel.Message] = []
        await wait_for(lambda: results.extend(harness.hear()) or len(results) == 4)
        assert [result["id"] for result in results] == [0, 1, 2, 3]
        errors = [result["error"] for result in results]
        assert errors[:2] == ["", "it cannot be done"] and errors[3] == ""
        assert errors[2].startswith("the router failed: KeyError") and len(errors[2]) == 1000

    run(scenario)
    assert len(caplog.records) == 1


def rows(number: int, count: int) -> Any:
    for _ in range(count):
        yield {"type": "rows", "id": number, "rows": ["x" * 30_000]}
    yield {"type": "result", "id": number}


def test_long_answers_wait_until_supervisord_reads() -> None:
    async def scenario(harness: Harness) -> None:
        for number in range(3):
            harness.channel.answer(rows(number, 20))
        heard: list[channel.Message] = []
        await wait_for(lambda: heard.extend(harness.hear()) or len(heard) >= 63)
        expected = [[kind, n] for n in range(3) for kind in ["rows"] * 20 + ["result"]]
        assert [[message["type"], message["id"]] for message in heard] == expected

    run(scenario)


def test_an_answer_that_cannot_be_sent_keeps_no_other() -> None:
    async def scenario(harness: Harness) -> None:
        harness.channel.answer(iter([{"type": "rows", "rows": ["x" * 100_000]}]))
        harness.channel.answer(iter([{"type": "rows", "rows": [b"bytes"]}]))
        harness.channel.answer(rows(7, 1))
        assert [message["type"] for message in harness.hear()] == ["rows", "result"]

    run(scenario)


def test_answers_that_nobody_reads_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(harness: Harness) -> None:
        harness.channel.answer(rows(0, 100))
        for number in range(1, 200):
            harness.channel.answer(rows(number, 0))
        heard: list[channel.Message] = []
        for _ in range(200):
            heard += harness.hear()
            await asyncio.sleep(0.005)
        results = [message["id"] for message in heard if message["type"] == "result"]
        assert results == list(range(MOST_ANSWERS))

    run(scenario)


def test_figures_of_hundreds_of_workers_go_in_parts() -> None:
    workers = [{"tag": f"{number:08}", "name": "n" * 100, "sessions": 7} for number in range(700)]
    messages = [json.loads(data) for data in in_messages({"waiting": 3}, workers)]
    assert len(messages) > 2
    assert [row for message in messages for row in message["workers"]] == workers
    assert [message["first"] for message in messages] == [True] + [False] * (len(messages) - 1)
    assert [message["last"] for message in messages] == [False] * (len(messages) - 1) + [True]
    assert messages[0]["waiting"] == 3 and "waiting" not in messages[1]


def test_figures_are_left_out_while_supervisord_is_busy() -> None:
    async def scenario(harness: Harness) -> None:
        data = in_messages({"waiting": 1}, [{"name": "x" * 10_000}] * 20)
        for _ in range(50):
            harness.channel.figures(data)
        while harness.hear():
            pass
        harness.channel.figures(data)
        assert len(harness.hear()) == len(data)
        harness.sock.close()
        await asyncio.sleep(0.02)
        assert not harness.channel.open
        harness.channel.figures(data)
        harness.channel.answer(rows(1, 1))

    run(scenario)


def test_events_name_a_process_as_supervisorctl_does() -> None:
    values = {"processname": "workers_01", "groupname": "workers"}
    assert Event("PROCESS_STATE_STARTING", values).process == "workers:workers_01"
    assert Event("PROCESS_STATE_EXITED", {"processname": "a", "groupname": "a"}).process == "a"


def test_a_router_that_is_refused_before_it_asks_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = RunDir(str(tmp_path))
    send = channel.send
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(run_dir.supervisord)
        listener.listen(1)

        def send_late(sock: socket.socket, message: channel.Message) -> None:
            with monkeypatch.context() as patch, listener.accept()[0] as accepted:
                patch.setattr(channel, "send", send)
                channel.refuse(accepted, "another is there")
            send(sock, message)

        monkeypatch.setattr(channel, "send", send_late)
        with pytest.raises(channel.ChannelError, match="another is there"):
            connect(run_dir)
