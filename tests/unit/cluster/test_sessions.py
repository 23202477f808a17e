from __future__ import annotations

import re
from typing import Any

import pytest

from supervisor_sio import ZmqManager
from supervisor_sio.cluster import sessions
from supervisor_sio.common import identity
from supervisor_sio.common.request import Kind, Request, parse_head, tag_of
from unit.polling import PollingClient, make_server


def test_session_ids_name_this_worker() -> None:
    server = make_server(client_manager=ZmqManager())
    client = PollingClient(server)
    for sid in (client.eio_sid, client.sid):
        assert tag_of(sid) == identity.tag()
        line = f"GET /socket.io/?EIO=4&sid={sid} HTTP/1.1\r\n".encode()
        assert parse_head(line, (b"/socket.io/",)) == Request(Kind.SESSION, identity.tag())
    assert client.eio_sid != client.sid


def test_ids_are_as_long_and_random_as_before() -> None:
    plain, ours = make_server(), make_server()
    sessions.attach(ours, 10, ZmqManager()._send_through)
    drawn = {ours.eio.generate_id() for _ in range(100)}
    assert len(drawn) == 100
    for sid in drawn:
        random_part = sid.partition(".")[2]
        assert len(random_part) == len(plain.eio.generate_id())
        assert re.fullmatch(r"[\w-]+", random_part, re.ASCII)


def test_open_sessions_are_counted() -> None:
    before = sessions.count()
    server = make_server(client_manager=ZmqManager())
    clients = [PollingClient(server) for _ in range(3)]
    assert sessions.count() == before + 3
    clients[0].close()
    assert sessions.count() == before + 2
    server.disconnect(clients[1].sid)  # from its namespace; the session is open still
    assert sessions.count() == before + 2
    clients[1].close()
    clients[2].close()
    assert sessions.count() == before


def test_a_server_is_known_as_long_as_it_lives() -> None:
    server = make_server()
    assert server not in sessions.servers()
    sessions.attach(server, 10, ZmqManager()._send_through)
    assert server in sessions.servers()


def test_a_worker_prepares_servers_that_are_there_and_those_to_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``serve(app)`` comes after the application; ``supervisor-sio worker`` before it."""
    monkeypatch.setattr(sessions, "_install", None)
    prepared: list[tuple[Any, int]] = []

    def install(server: Any, max_attachments: int) -> sessions.Outlet:
        prepared.append((server, max_attachments))
        return sessions.PlainOutlet(server)

    manager = ZmqManager(max_attachments=3)
    early = make_server(client_manager=manager)
    plain = manager._outlet
    replaced = make_server()  # as Flask-SocketIO puts another manager in its place
    sessions.attach(replaced, 10, ZmqManager()._send_through)
    assert prepared == []
    sessions.serve_by(install)
    assert [found for found in prepared if found[0] in (early, replaced)] == [(early, 3)]
    assert manager._outlet is not plain
    late = make_server(client_manager=ZmqManager())
    assert prepared[-1] == (late, 10)
    count = len(prepared)
    sessions.serve_by(install)
    assert len(prepared) == count
