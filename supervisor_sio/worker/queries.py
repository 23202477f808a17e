"""What ``supervisorctl sio`` asks each worker: its clients, its rooms, to let one go."""

from __future__ import annotations

from typing import Any

from .. import sessions
from ..channel import Message, in_parts

#: Rows of an answer at most.
_MOST_ROWS = 10_000

#: Rooms of one client that are told, and characters of each.
_MOST_ROOMS = 50
_LONGEST_ROOM = 200


def answer(question: Message) -> tuple[list[Any], int]:
    """The rows of an answer, and how many there would be without a limit.

    :raises KeyError: for a question that is not understood.
    """
    rows, total = [], 0
    for server in sessions.servers():
        more, count = _ANSWERS[question["what"]](server, question)
        rows += more
        total += count
    return rows[:_MOST_ROWS], total


def packets(question: Message, rows: list[Any], total: int) -> list[Message]:
    """The messages of an answer; each fits into a packet of the channel."""
    answers: list[Message] = [
        {"type": "answer", "id": question["id"], "rows": part, "last": False}
        for part in in_parts(rows)
    ]
    answers[-1].update(last=True, total=total)
    return answers


def _sockets(server: Any, question: Message) -> tuple[list[Any], int]:
    namespace, room = question["namespace"], question["room"]
    sids = [sid for sid, _ in server.manager.get_participants(namespace, room or None)]
    rows: list[Any] = []
    for sid in sids[: question["limit"]]:
        try:
            rooms = [_name(r) for r in server.manager.get_rooms(sid, namespace) if r != sid]
            environ = server.get_environ(sid, namespace)
            transport = server.transport(sid, namespace)
        except (KeyError, AttributeError):
            continue  # about to disconnect
        rows.append([sid, rooms[:_MOST_ROOMS], transport, environ.get("REMOTE_ADDR", "")])
    return rows, len(sids)


def _rooms(server: Any, question: Message) -> tuple[list[Any], int]:
    rooms = server.manager.rooms.get(question["namespace"], {})
    everybody = rooms.get(None, {})
    sizes = {
        _name(room): len(members)
        for room, members in rooms.items()
        if room is not None and room not in everybody
    }
    rows: list[Any] = sorted(map(list, sizes.items()), key=lambda row: -row[1])
    return rows, len(rows)


def _kick(server: Any, question: Message) -> tuple[list[Any], int]:
    sid, namespace = question["sid"], question["namespace"]
    if not server.manager.is_connected(sid, namespace):
        return [], 0
    # Handlers of the application may take their time.
    server.start_background_task(server.disconnect, sid, namespace=namespace, ignore_queue=True)
    return [sid], 1


def _name(room: Any) -> str:
    return str(room)[:_LONGEST_ROOM]


_ANSWERS = {"sockets": _sockets, "rooms": _rooms, "kick": _kick}
