"""Threads and locks of the operating system, where a library has patched the modules."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from supervisor_sio.relay.native import Event

PATCHED = """\
import sys, time
if sys.argv[1] == "eventlet":
    import eventlet
    eventlet.monkey_patch()
    from eventlet import spawn
else:
    from gevent import monkey
    monkey.patch_all()
    from gevent import spawn
from supervisor_sio.relay import native

event, turns, ended = native.Event(), [], []

def set_later():
    until = time.monotonic() + 20
    while len(turns) < 5 and time.monotonic() < until:  # as long as they do run
        native.original_sleep(0.01)
    event.set()

def turn():
    while not ended:
        turns.append(1)
        time.sleep(0.001)

native.original_sleep = native.original("time").sleep
if sys.argv[1] == "gevent":
    native.original_sleep = monkey.get_original("time", "sleep")
spawn(turn)
native.start_thread(set_later, "sets it")
began = time.monotonic()
event.wait(30)
ended.append(1)
event.wait(30)
assert time.monotonic() - began < 20, "it was not seen"
assert len(turns) > 4, "the other greenlet was held up"
began = time.monotonic()
native.Event().wait(0.05)
assert time.monotonic() - began > 0.04
"""


@pytest.mark.parametrize("library", ["eventlet", "gevent"])
def test_other_greenlets_run_meanwhile(library: str) -> None:
    pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, "-c", PATCHED, library],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_where_nothing_is_replaced_it_is_an_event_of_the_system() -> None:
    event = Event()
    began = time.monotonic()
    event.wait(0.05)
    assert time.monotonic() - began > 0.04
    threading.Timer(0.05, event.set).start()
    event.wait(30)
    event.wait(30)
    assert time.monotonic() - began < 20
