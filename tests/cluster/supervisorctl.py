"""The real supervisorctl, as its console script runs it.

Each is forked from a process that has imported what it needs: that takes most of the time, and
the tests run hundreds of them.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection

from supervisor.supervisorctl import main

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["supervisor.supervisorctl", "supervisor_sio.ctlplugin"])

#: multiprocessing looks at all children when one starts, and two looks at one go wrong.
_LOCK = threading.Lock()


#: Seconds between calls of what happens meanwhile.
_PAUSE = 0.05

#: Seconds for a command.
_TIMEOUT = 60.0


#: What ``sio reload`` and ``scale`` say of what they wait for, and of who is ready.
_PROGRESS = re.compile(r".*(waiting for |no new clients ).*|.*: ready \(.*|(not )?ready: .*")


def done_in(said: str) -> list[str]:
    """The lines of ``sio reload`` or ``scale`` that say what was done, and no more."""
    return [line for line in said.splitlines() if not _PROGRESS.fullmatch(line)]


def supervisorctl(
    words: Sequence[str], environment: Mapping[str, str], meanwhile: Callable[[], None]
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with errors in its output.

    :param meanwhile: is called as long as it runs.
    :raises subprocess.TimeoutExpired: when it takes longer than a minute; it is killed then.
    """
    ours, theirs = _FORKS.Pipe(duplex=False)
    arguments = (words, dict(environment), theirs)
    process = _FORKS.Process(target=_run, args=arguments, daemon=True)
    with _LOCK, theirs:
        process.start()
    said = b""
    deadline = time.monotonic() + _TIMEOUT
    with ours:
        while True:
            while not ours.poll(_PAUSE):
                if time.monotonic() > deadline:
                    process.kill()
                    raise subprocess.TimeoutExpired(list(words), _TIMEOUT, said)
                meanwhile()
            more = os.read(ours.fileno(), 65536)
            if not more:
                break
            said += more
    with _LOCK:
        process.join()
    assert process.exitcode is not None
    return subprocess.CompletedProcess(list(words), process.exitcode, said.decode())


def _run(words: Sequence[str], environment: Mapping[str, str], output: Connection) -> None:
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = ["supervisorctl", *words]
    main()
