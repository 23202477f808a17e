"""Parse the arguments of ``sio emit``. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Optional

#: Reserved events: a JavaScript client closes its connection when it receives one
#: (``RESERVED_EVENTS`` of socket.io-parser).
RESERVED_EVENTS = frozenset(
    ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")
)

RESERVED = "the name is reserved by Socket.IO, and browsers would close their connection"

_OPTIONS = ("--room", "--namespace", "--to")
_decoder = json.JSONDecoder()

USAGE = "sio emit EVENT [JSON ...] [--room ROOM] [--namespace NAMESPACE] [--to SID] [--json]"


class EmissionError(ValueError):
    """The arguments cannot be parsed; the text says why."""


@dataclass
class Emission:
    event: str = ""
    arguments: list[Any] = field(default_factory=list)
    room: str = ""
    namespace: str = "/"
    #: Whether to print the result as JSON.
    json: bool = False


def parse_emission(text: str) -> Emission:
    """Parse the text after ``sio emit``.

    The shell has already removed its quotes, so values are separated by the rules of JSON. An event
    or a room with a space is written as a JSON string.

    :raises EmissionError: when the text cannot be parsed.
    """
    emission = Emission()
    rooms = []
    event, rest = next_word(text.strip())
    if not event or event.startswith("--"):
        raise EmissionError(f"no event; usage: {USAGE}")
    if event in RESERVED_EVENTS:
        raise EmissionError(f"{event} cannot be emitted: {RESERVED}")
    emission.event = event
    while rest:
        option, equals, _ = rest.split(None, 1)[0].partition("=")
        if option == "--json" and not equals:
            emission.json = True
            rest = rest[len(option) :].strip()
        elif option.startswith("--"):
            if option not in _OPTIONS:
                raise EmissionError(f"unknown option {option}; usage: {USAGE}")
            value, rest = next_word(rest[len(option + equals) :].strip())
            if not value:
                raise EmissionError(f"{option} needs a value")
            if option == "--namespace":
                emission.namespace = value if value.startswith("/") else f"/{value}"
            else:
                rooms.append(value)
        else:
            try:
                argument, end = _decoder.raw_decode(rest)
            except (ValueError, RecursionError):
                raise EmissionError(
                    f"not JSON: {rest}; a string needs its quotes, as in '\"hello\"'"
                ) from None
            reason = unsendable(argument)
            if reason is not None:
                raise EmissionError(f"the argument cannot be sent: {reason}")
            emission.arguments.append(argument)
            rest = rest[end:].strip()
    if len(rooms) > 1:
        raise EmissionError("--room and --to name one room or one sid")
    emission.room = rooms[0] if rooms else ""
    return emission


def unsendable(value: Any) -> Optional[str]:
    """Why a value that Python parsed as JSON is not JSON for clients, or ``None``.

    Python accepts NaN; a browser closes its connection when it receives one.
    """
    try:
        json.dumps(value, allow_nan=False)
    except RecursionError:
        return "it is nested too deeply"
    except ValueError:
        return "it has NaN, Infinity or a number that is too large, which are not JSON"
    return None


def next_word(text: str) -> tuple[str, str]:
    """The first word, or JSON string, and the rest."""
    if text.startswith('"'):
        try:
            word, end = _decoder.raw_decode(text)
        except ValueError:
            raise EmissionError(f"a quote without its end: {text}") from None
        return str(word), text[end:].strip()
    word, _, rest = text.partition(" ")
    return word, rest.strip()
