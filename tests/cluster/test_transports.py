"""Both client libraries get through the shared port, over every transport."""

from __future__ import annotations

import pytest

from .conftest import Clients
from .harness import Cluster


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], None], ids=str)
@pytest.mark.parametrize("kind", ["python", "node"])
def test_connects_and_talks(
    shared_pair: Cluster, clients: Clients, kind: str, transports: list[str] | None
) -> None:
    client = clients.connect(shared_pair, kind, transports, namespaces=["/", "/room"])
    assert client.transport == (transports[0] if transports else "websocket")

    assert client.call("echo", "text") == "text"
    assert client.call("echo", {"n": [1, None]}, "ü", 3) == [{"n": [1, None]}, "ü", 3]
    assert client.call("echo", b"\x00\xff" * 50000) == b"\x00\xff" * 50000
    assert client.call("echo", {"in": [b"a", b""]}, namespace="/room") == {"in": [b"a", b""]}

    client.call("emit_all", "hello", b"everybody", {"to": client.sid()})
    assert client.wait_for("hello") == [[b"everybody"]]
    assert client.connects == 2 and not client.disconnects
