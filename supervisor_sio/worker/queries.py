"""Answers ``supervisorctl sio``: lists a worker's clients or rooms, or disconnects some.

Because clients may choose the names of rooms, the bytes that a row takes in the channel are
limited, and a shortened row is marked.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterable, Iterator

from ..cluster import sessions
from ..common.channel import Message, in_parts, row_size
from ..common.limits import (
    LONGEST_ROOM,
    MAX_REASON,
    MAX_ROOMS,
    MAX_ROWS,
    MOST_ROOMS_COUNTED,
    MOST_ROOMS_OF_CLIENT,
)
from .releasing import release

_CUT = "…"


def answer(question: Message) -> tuple[list[Any], int]:
    """The rows of an answer, and how many there would be without a limit.

    :raises KeyError: for an unknown question.
    """
    if question["what"] == "release":
        return [], release(sessions.servers(), question["limit"])
    rows, total = [], 0
    for server in sessions.servers():
        more, count = _ANSWERS[question["what"]](server, question)
        rows += more
        total += count
    return rows[: max(MAX_ROWS, MOST_ROOMS_COUNTED)], total


def packets(question: Message, rows: list[Any], total: int) -> Iterator[Message]:
    """The answer's messages, each of which fits into a packet of the channel."""
    for part in in_parts(rows):
        yield {"type": "answer", "id": question["id"], "rows": part, "last": False}
    yield {"type": "answer", "id": question["id"], "rows": [], "last": True, "total": total}


def failed(question: Message, error: BaseException) -> Message:
    """The message for a question that has raised an error."""
    reason = f"{type(error).__name__}: {error}"[:MAX_REASON]
    return {"type": "answer", "id": question["id"], "rows": [], "last": True, "error": reason}


def _sockets(server: Any, question: Message) -> tuple[list[Any], int]:
    namespace, room = question["namespace"], question["room"]
    sids = [sid for sid, _ in server.manager.get_participants(namespace, room or None)]
    rows: list[Any] = []
    for sid in sids[: question["limit"]]:
        try:
            rooms = shown(r for r in server.manager.get_rooms(sid, namespace) if r != sid)
            environ = server.get_environ(sid, namespace)
            transport = server.transport(sid, namespace)
        except (KeyError, AttributeError):
            continue  # about to disconnect
        rows.append([sid, rooms, transport, cut(environ.get("REMOTE_ADDR", ""))])
    return rows, len(sids)


def _rooms(server: Any, question: Message) -> tuple[list[Any], int]:
    """The rooms sorted by name, so that the limit leaves out the same rooms in each worker."""
    rooms = server.manager.rooms.get(question["namespace"], {})
    everybody = rooms.get(None, {})
    sizes: Counter[str] = Counter()
    for room, members in rooms.items():
        if room is not None and room not in everybody:
            sizes[cut(room)] += len(members)
    return [list(row) for row in sorted(sizes.items())[:MOST_ROOMS_COUNTED]], len(sizes)


def cut(name: Any) -> str:
    """A name, shortened to ``LONGEST_ROOM`` bytes."""
    text = str(name)
    # A character takes 1 to 12 bytes in JSON.
    if len(text) * 12 <= LONGEST_ROOM or row_size(text) <= LONGEST_ROOM:
        return text
    text = text[:LONGEST_ROOM]
    while row_size(text) > LONGEST_ROOM - row_size(_CUT):
        text = text[: len(text) * 7 // 8]
    return text + _CUT


def shown(rooms: Iterable[Any]) -> list[str]:
    """The names of a client's rooms that fit into its row, and the number of the others."""
    rooms = list(rooms)
    names: list[str] = []
    size = 0
    for room in rooms:
        name = cut(room)
        size += row_size(name) + 1
        if len(names) == MOST_ROOMS_OF_CLIENT or size > MAX_ROOMS:
            return [*names, f"{_CUT} {len(rooms) - len(names)} more"]
        names.append(name)
    return names


def _kick(server: Any, question: Message) -> tuple[list[Any], int]:
    sid, namespace = question["sid"], question["namespace"]
    if not server.manager.is_connected(sid, namespace):
        return [], 0
    # In the background, because disconnect handlers may take long.
    server.start_background_task(server.disconnect, sid, namespace=namespace, ignore_queue=True)
    return [sid], 1


_ANSWERS = {"sockets": _sockets, "rooms": _rooms, "kick": _kick}
