"""The event listener protocol over real pipes, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, sys
from supervisor_sio.router.listener import EventListener

async def main():
    end = asyncio.get_running_loop().create_future()
    def take(event):
        print(event.name)
        int(event.values["pid"])
    listener = EventListener(take, lambda: end.set_result(None))
    listener.listen()
    await end

asyncio.run(main())
"""


def talk(said: bytes) -> tuple[bytes, str]:
    """Send this as supervisord and close; returns what the router answers and logs."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=said, capture_output=True, timeout=30, check=True
    )
    return process.stdout, process.stderr.decode()


def event(payload: str) -> bytes:
    return f"ver:3.0 eventname:TICK_5 len:{len(payload)}\n{payload}".encode()


def test_each_event_is_answered_and_output_goes_to_the_log() -> None:
    answers, log = talk(event("pid:1") + event("pid:2"))
    assert answers == b"READY\n" + b"RESULT 2\nOKREADY\n" * 2
    assert log == "TICK_5\nTICK_5\nsupervisord is gone, so the router ends\n"


def test_what_is_not_supervisords_ends_it() -> None:
    for said in (b"hello\n", event("pid:x")):
        answers, log = talk(said)
        assert answers == b"READY\n"
        assert "standard input does not come from supervisord: " in log
