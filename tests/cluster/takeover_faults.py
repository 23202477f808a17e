"""takeover_app.py, with faults that a test asks for by a file beside HAPPENED."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any, Iterable

from takeover_app import app as app

from supervisor_sio.cluster import moving
from supervisor_sio.relay.journal import Journal
from supervisor_sio.worker import takeover
from supervisor_sio.worker.adoption import Arrival

DIRECTORY = Path(os.environ["HAPPENED"]).parent


def asked_for(fault: str) -> bool:
    """Once."""
    with contextlib.suppress(FileNotFoundError):
        (DIRECTORY / fault).unlink()
        return True
    return False


restore_client = moving.restore_client


def restore_or_die(*args: Any) -> Any:
    if asked_for("die-in-adoption"):
        os.kill(os.getpid(), signal.SIGKILL)
    return restore_client(*args)


moving.restore_client = restore_or_die

write, hear, own_given = Arrival.write, Arrival.hear, Journal.own_given

#: Of this worker, once it receives for clients that it has adopted.
runtimes: list[Any] = []


def write_slowly(self: Arrival) -> bool:
    """As with very many clients, as long as the file is there."""
    return write(self) and not (DIRECTORY / "write-slowly").exists()


def hear_and_note(self: Arrival) -> None:
    runtimes.append(self._runtime)
    hear(self)


def give_and_tell(self: Journal, tags: Iterable[str]) -> None:
    """Until they have what this worker itself has emitted, these clients do not recover."""
    own_given(self, tags)
    for runtime in runtimes:
        # Not before the router has the journal's new segment, which is sent to it in the next turn.
        runtime.threads.run(0, (DIRECTORY / "heard").touch)


Arrival.write = write_slowly  # type: ignore[method-assign]
Arrival.hear = hear_and_note  # type: ignore[method-assign]
Journal.own_given = give_and_tell  # type: ignore[method-assign]

if asked_for("pass-early"):  # instead of waiting for handlers first
    takeover._MOST_FOR_PASSING, takeover._PART_FOR_PASSING = 60.0, 1.0

if asked_for("other-format"):
    for name, module in list(sys.modules.items()):
        if name.startswith("supervisor_sio.") and hasattr(module, "FORMAT"):
            module.FORMAT += 1
