"""Socket.IO packets as python-socketio makes them, with JSON coders that are ready.

``json.dumps(separators=…)`` and ``json.loads(parse_int=…)``, as python-socketio calls them, make a
new coder for each packet, which takes longer than to code a short one.

JSON is that of RFC 8259. Python also reads and writes ``NaN``, ``Infinity`` and numbers that are
too large for a float; a browser closes its connection over one, so they are errors here, both ways.
"""

from __future__ import annotations

import json
import math
import re
import sys
from functools import partial
from json.encoder import (  # type: ignore[attr-defined]
    c_make_encoder,
    encode_basestring_ascii,
)
from typing import Any, Callable, Optional, Sequence, Union

from engineio import json as eio_json
from socketio import packet

#: Types of most values; they need no look for bytes in them.
_NEVER_BINARY = frozenset((str, int, float, bool, type(None)))


#: Most characters of an integer.
_MOST_DIGITS = 100


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _integer(text: str) -> int:
    """Refuse thousands of digits, which take long to convert; engineio's limit is 100 as well."""
    if len(text) > _MOST_DIGITS:
        raise ValueError("an integer that is too long")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that is too large")
    return number


#: Texts shorter than this are decoded at once: a check before would cost more than it saves.
_LONG = 10_000

#: What the check keeps of a text: each digit as 0, and each e; without plus signs.
_NUMBERS = bytes(
    ord("0") if chr(byte) in "0123456789" else ord("e") if chr(byte) in "eE" else ord(" ")
    for byte in range(256)
)
_LARGE_EXPONENT = b"e000"
#: A sign counts as a character.
_MANY_DIGITS = b"0" * _MOST_DIGITS


def _is_suspicious(text: str) -> bool:
    """Whether a text may have a number that is refused; it may stand in a string, too.

    Without 100 digits in a row or an exponent of three digits it has none: 99 digits with ``e99``
    are less than 1e199.
    """
    numbers = text.encode(errors="replace").translate(_NUMBERS, b"+")
    return _LARGE_EXPONENT in numbers or _MANY_DIGITS in numbers


_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
#: What ``JSONEncoder.encode`` makes anew for each value, without the check for circles.
_write: Any = c_make_encoder and c_make_encoder(
    None, _encoder.default, encode_basestring_ascii, None, ":", ",", False, False, False
)
_decoder = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=_refuse)
#: Calls no Python code for each number: three times as fast.
_plain_decoder = json.JSONDecoder(parse_constant=_refuse)


def encode(data: Any) -> str:
    """Encode data as JSON, without spaces.

    :raises ValueError: for NaN and infinities, and for data that contain themselves.
    :raises TypeError: for values that JSON does not have.
    """
    if _write is None:  # this Python lacks the module in C
        return _encoder.encode(data)
    try:
        return "".join(_write(data, 0))
    except RecursionError:
        return _encoder.encode(data)  # raises an error that says what is wrong


class _Json:
    """The two functions of a JSON module that a packet needs."""

    @classmethod
    def dumps(cls, data: Any, separators: tuple[str, str] = (",", ":")) -> str:
        return encode(data)

    @classmethod
    def loads(cls, text: str) -> Any:
        decoder = _decoder
        if len(text) >= _LONG and not _is_suspicious(text):
            decoder = _plain_decoder
        try:
            data, end = decoder.scan_once(text, 0)  # type: ignore[attr-defined]
        except StopIteration:
            end = -1
        if end == len(text):
            return data
        return decoder.decode(text)  # takes spaces around it, or raises a precise error


#: All that may make a text invalid JSON for other parsers; nearly always it stands in a string.
_SUSPICIOUS = re.compile(r"NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{309}")


#: Values that are not JSON for other parsers, as texts and as data.
_NO_JSON = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400)
_NO_JSON_DATA = (math.nan, math.inf, -math.inf, 10**399)


class CheckedJson:
    """A JSON module of the application, restricted to what other JSON parsers accept.

    Its texts are checked, unless the module refuses the rest by itself, as orjson does.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        if not any(_reads(module, text) for text in _NO_JSON):
            self.loads = module.loads  # type: ignore[method-assign]
        if not any(_writes(module, value) for value in _NO_JSON_DATA):
            self.dumps = module.dumps  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def dumps(self, data: Any, *args: Any, **options: Any) -> Any:
        text = self._module.dumps(data, *args, **options)
        _check(text)
        return text

    def loads(self, text: Any, *args: Any, **options: Any) -> Any:
        _check(text)
        return self._module.loads(text, *args, **options)


def _reads(module: Any, text: str) -> bool:
    try:
        module.loads(f"[{text}]")
    except Exception:
        return False
    return True


def _writes(module: Any, value: float) -> bool:
    """Whether the module writes the value as it is; orjson writes null."""
    try:
        text = module.dumps([value], separators=(",", ":"))
    except Exception:
        return False
    return not isinstance(text, str) or _SUSPICIOUS.search(text) is not None


def _check(text: Any) -> None:
    """:raises ValueError: when a text has values that are not in RFC 8259."""
    if not isinstance(text, str):
        return
    # The expression alone takes much longer than these checks, which nearly all texts pass.
    if _is_suspicious(text) or "NaN" in text or "Infinity" in text:
        if _SUSPICIOUS.search(text):
            _Json.loads(text)


class Packet(packet.Packet):  # type: ignore[misc]
    """python-socketio's default packet, with the same wire format.

    It also takes bytes in tuples within the data: tuples are arrays in JSON, and
    ``sio.instrument()`` makes such data.
    """

    json = _Json

    @classmethod
    def data_is_binary(cls, data: Any) -> bool:
        if isinstance(data, dict):
            data = data.values()
        elif not isinstance(data, (list, tuple)):
            return isinstance(data, (bytes, bytearray))
        for item in data:
            if type(item) not in _NEVER_BINARY and cls.data_is_binary(item):
                return True
        return False

    _data_is_binary = data_is_binary  # its name in older versions

    @classmethod
    def _deconstruct_binary_internal(cls, data: Any, attachments: list[Any]) -> Any:
        if isinstance(data, (bytes, bytearray)):
            attachments.append(data)
            return {"_placeholder": True, "num": len(attachments) - 1}
        if isinstance(data, (list, tuple)):
            return [cls._deconstruct_binary_internal(item, attachments) for item in data]
        if isinstance(data, dict):
            return {k: cls._deconstruct_binary_internal(v, attachments) for k, v in data.items()}
        return data


#: An event without attachments: its namespace and its id, before its data.
_EVENT = re.compile(r"2(?:(/[^,?]*),)?([0-9]{0,100})(?=\[)")


def read_event(
    text: str, loads: Callable[[str], Any] = _Json.loads
) -> Optional[tuple[str, Optional[int], Any]]:
    """The namespace, id and data of an event without attachments; ``None`` for any other packet.

    It reads the same as :class:`Packet`, in half the time.

    :param loads: of the JSON module of the server.
    """
    match = _EVENT.match(text)
    if match is None:
        return None
    namespace, number = match.groups()
    try:
        data = loads(text[match.end() :])
    except Exception:  # the application's module may raise any
        return None
    return namespace or "/", int(number) if number else None, data


def ack_text(
    namespace: str, number: int, data: list[Any], dumps: Callable[[Any], str] = encode
) -> Optional[str]:
    """The packet that acknowledges an event; ``None`` when it needs attachments.

    :param dumps: of the JSON module of the server.
    """
    if Packet.data_is_binary(data):
        return None
    prefix = "3" if namespace == "/" else f"3{namespace},"
    return f"{prefix}{number}{dumps(data)}"


class Partial:
    """A packet of a client whose attachments have not all come yet.

    :param pkt: its data refer to each attachment exactly once.
    :param text: the message with the packet.
    :param size: bytes that all attachments may have together.
    :raises ValueError: when the data refer to an attachment never, twice, or to a missing one.
    """

    __slots__ = ("packet", "messages", "_places", "_size")

    def __init__(self, pkt: Any, text: str, size: int) -> None:
        places = _placeholders(pkt.data)
        numbers = [number for number, _, _ in places]
        if not all(type(number) is int for number in numbers) or sorted(numbers) != list(
            range(pkt.attachment_count)
        ):
            raise ValueError("an attachment that is not named exactly once")
        self.packet = pkt
        #: The messages of the event, as they came.
        self.messages: list[Union[str, bytes]] = [text]
        #: Where the attachments belong; the next one is last.
        self._places = sorted(places, key=lambda place: place[0], reverse=True)
        self._size = size

    def add(self, attachment: bytes) -> bool:
        """Add an attachment. Return whether it was the last one: the packet is complete then.

        :raises ValueError: when the attachments have too many bytes.
        """
        self._size -= len(attachment)
        if self._size < 0:
            raise ValueError("an event that is too long")
        self.messages.append(attachment)
        _, container, key = self._places.pop()
        container[key] = attachment
        return not self._places


class Skipped:
    """Takes the attachments of a packet that is dropped, as its client has left.

    :param count: of the attachments.
    """

    __slots__ = ("_left",)

    packet = None
    messages: Sequence[Union[str, bytes]] = ()

    def __init__(self, count: int) -> None:
        self._left = count

    def add(self, attachment: bytes) -> bool:
        """:meth:`Partial.add`"""
        self._left -= 1
        return not self._left


def _placeholders(data: Any) -> list[tuple[Any, Any, Any]]:
    """The placeholders of attachments in decoded data: number, container and key."""
    found = []
    containers = [data]
    while containers:
        container = containers.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            if isinstance(value, dict) and value.get("_placeholder") and "num" in value:
                found.append((value["num"], container, key))
            elif isinstance(value, (dict, list)):
                containers.append(value)
    return found


def class_for(server: Any) -> Any:
    """The packet class that a ``socketio.Server`` should have, with the same wire format."""
    cls = server.packet_class
    if cls.encode is not packet.Packet.encode:
        return _checked(cls)
    if cls is packet.Packet and cls.json is eio_json:
        return Packet
    # The new class keeps the name: see wire_format().
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    base = Packet if cls is packet.Packet else cls
    return type(cls.__name__, (base,), {**names, "json": CheckedJson(cls.json)})


def _checked(cls: Any) -> Any:
    """A class that does not write JSON: only msgpack's is replaced."""
    module = sys.modules.get("socketio.msgpack_packet")
    if module is None or not issubclass(cls, module.MsgPackPacket):
        return cls
    from .msgpack_packets import checked

    return checked(cls)


def coders(cls: Any) -> Optional[tuple[Callable[[Any], str], Callable[[str], Any]]]:
    """What writes and reads the data of a packet, for :func:`ack_text` and :func:`read_event`.

    ``None`` for a class that is not :class:`Packet` with a JSON module.
    """
    if not issubclass(cls, Packet) or cls.encode is not Packet.encode:
        return None
    if cls.json is _Json:
        return encode, _Json.loads
    return partial(cls.json.dumps, separators=(",", ":")), cls.json.loads


def wire_format(cls: Any) -> str:
    """A name for the wire format of a class's packets."""
    if cls is Packet:
        cls = packet.Packet
    return f"{cls.__module__}.{cls.__qualname__}"
