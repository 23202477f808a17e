"""Why some tests run in some modes of a worker alone; all others run in each of them."""

from __future__ import annotations

import pytest


def _only(*modes: str, reason: str) -> pytest.MarkDecorator:
    return pytest.mark.modes(*modes, reason=reason)


#: Once is enough.
NO_WORKER = _only("eventlet", reason="what it looks at is in no worker")
ANY_MODE = _only("eventlet", reason="what it looks at is the same code in each mode")
OWN_MODES = _only("eventlet", reason="it says itself in which modes its workers run")

#: Handlers are all that threading has in other places than asyncio.
NO_HANDLER = _only("eventlet", "asyncio", reason="about no handler: with threads it is asyncio's")

EVENTLET = _only("eventlet", reason="about eventlet: its patches, its hub, its measures")
ASYNCIO = _only("asyncio", reason="about the asyncio loop, or an ASGI application")
THREADING = _only("threading", reason="about handlers in threads")
LOOP = _only("eventlet", "asyncio", reason="about handlers in the loop")
OTHER_THREADS = _only("eventlet", "threading", reason="other threads may emit")
WSGI = _only("eventlet", "threading", reason="about a WSGI application")
