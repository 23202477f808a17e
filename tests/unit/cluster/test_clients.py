from __future__ import annotations

import socketio

from unit.polling import PollingClient


def test_a_disconnect(server: socketio.Server) -> None:
    gone = []
    server.on("disconnect", lambda sid, reason: gone.append(sid))
    client = PollingClient(server)
    server.disconnect(client.sid)
    assert gone == [client.sid]
    server.disconnect(client.sid)
    server.disconnect("nobody")
