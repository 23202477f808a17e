from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from supervisor_sio.common.rundir import OwnedRunDir
from supervisor_sio.relay.proxy import Relay


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", (0.0, 0.1, 0.2, 0.3))
def test_a_relay_that_ends_soon_after_its_start_ends(
    tmp_path: Path, seconds: float, no_leak: Callable[[], AbstractContextManager[None]]
) -> None:
    owned = OwnedRunDir(str(tmp_path))
    with no_leak():
        for _ in range(5):  # the proxy may end between a look at it and a word to it
            listeners = [owned.bind(path, socket.SOCK_STREAM) for path in (owned.xsub, owned.xpub)]
            xsub, xpub = (listener.detach() for listener in listeners)
            relay = Relay(owned.xsub, xsub, owned.xpub, xpub)
            time.sleep(seconds)
            relay.close()
            assert not relay.alive and relay.received() == 0
