"""The fields of messages between workers, by method, and their checks."""

from __future__ import annotations

from typing import Any, Callable, Mapping

#: The tag under which the bridge receives what is for other hosts only; each bridge sends under a
#: name that begins so.
BRIDGE = "bridge"

#: Prefix of the ids of processes that ask but serve no clients: messages to them have no number on
#: the relay.
ASKER = "asker-"

#: Methods of messages between such processes and workers.
ASKED = frozenset({"expect", "answer", "repeat"})


class MalformedFields(ValueError):
    """Fields that none of our workers sends."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e9


def _is_room(value: Any) -> bool:
    return isinstance(value, str) or type(value) is int


def _is_some_rooms(value: Any) -> bool:
    return all(map(_is_room, value)) if isinstance(value, list) else _is_room(value)


def _is_selection(value: Any) -> bool:
    return value is None or _is_some_rooms(value)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "namespace": _is_text,
    "packet": _is_text,
    "room": _is_selection,
    "rooms": _is_some_rooms,
    "except_room": _is_selection,
    "skip_sid": _is_list_of_text,
    "ack": _is_number,
    "sid": _is_text,
    "request": _is_number,
    "worker": _is_text,
    "count": _is_number,
    "operation": _is_text,
    "event": _is_text,
    "reply_to": _is_text,
    "to": _is_text,
    "to_tag": _is_text,
    "start": _is_number,
    "number": _is_number,
    "first": _is_number,
    "timeout": _is_seconds,
    "at": _is_seconds,
}

_REQUIRED: dict[str, tuple[str, ...]] = {
    "emit": ("namespace", "packet"),
    "volatile": ("namespace", "packet"),
    "callback": ("ack",),
    "disconnect": ("sid", "namespace"),
    "enter_room": ("sid", "namespace", "room"),
    "leave_room": ("sid", "namespace", "room"),
    "close_room": ("room", "namespace"),
    "sockets_join": ("rooms", "namespace"),
    "sockets_leave": ("rooms", "namespace"),
    "disconnect_sockets": ("namespace",),
    "server_side_emit": ("event", "namespace"),
    "request": ("request", "operation", "namespace"),
    "expect": ("request", "worker", "count"),
    "answer": ("request", "worker"),
    "repeat": ("request", "worker", "first"),
    # About clients that come back to another worker.
    "gone": ("to_tag", "sid"),
    "arrived": ("to_tag", "sid", "worker", "at"),
}


#: Methods of answers: they are of use to the asking process only.
ANSWERS = frozenset({"callback", "expect", "answer"})

#: Methods that change one room: ``None`` would be everybody in the namespace.
_OF_ONE_ROOM = ("enter_room", "leave_room", "close_room")


def check_fields(fields: Mapping[str, Any]) -> None:
    """:raises MalformedFields: for an unknown method, or a field that is missing or wrong."""
    method = fields["method"]
    required = _REQUIRED.get(method)
    if required is None:
        raise MalformedFields(f"unknown method {method!r}")
    for name in required:
        if name not in fields:
            raise MalformedFields(f"{method} without {name}")
    if method in _OF_ONE_ROOM and not _is_room(fields["room"]):
        raise MalformedFields(f"{method} with room {fields['room']!r:.80}")
    for name, value in fields.items():
        check = _CHECKS.get(name)
        if check is not None and not check(value):
            raise MalformedFields(f"{method} with {name} {value!r:.80}")
