"""Translates between the relay's messages and those of :class:`socketio.RedisManager`.

Pure. What stock python-socketio servers understand is sent in their format (``PubSubManager`` of
python-socketio, JSON since its version 5.14): emits, callbacks, disconnects and room changes.
Everything else is sent between bridges as method ``relay``, which stock servers ignore. Each
message also has, in keys that those ignore, the bridge that it comes ``via``, its number ``seq``
there, and its ``origin``: the sender, whether it was sent to the bridge alone, and its number
there.
"""

from __future__ import annotations

import json
import random
from base64 import b64decode, b64encode
from collections import OrderedDict
from typing import Any, Mapping, NamedTuple, Optional, Sequence

from socketio import packet as sio_packet

from ..common.limits import BRIDGE_LONGEST_NAME, BRIDGE_MOST_CALLBACKS
from ..common.request import tag_of
from ..relay.message import EncodedPacket, RelayMessage
from ..relay.methods import BRIDGE, check_fields

JSON_PACKET = "socketio.packet.Packet"
_MSGPACK_PACKET = "socketio.msgpack_packet.MsgPackPacket"

#: Methods with the same fields on both sides.
_SHARED = {
    "disconnect": ("sid", "namespace"),
    "enter_room": ("sid", "namespace", "room"),
    "leave_room": ("sid", "namespace", "room"),
    "close_room": ("room", "namespace"),
}

#: Fields that have a meaning on one relay only.
_HIDDEN = ("to", "after", "only", "via")

#: Largest number in a status.
_LARGEST_NUMBER = 2**53

QueueMessage = dict[str, Any]


class FormatError(ValueError):
    """A message that is not in this format."""


class Outgoing(NamedTuple):
    """A message for the relay of this host."""

    #: The worker, or ``None`` for all.
    tag: Optional[str]
    fields: dict[str, Any]
    packets: Sequence[EncodedPacket] = ()


class Translator:
    """The translations of one bridge.

    :param bridge: a unique id without a colon.
    """

    def __init__(self, bridge: str) -> None:
        self.bridge = bridge
        self._callbacks: OrderedDict[int, tuple[Any, ...]] = OrderedDict()
        # Clients may still owe answers to questions of the former bridge: other ids.
        self._last_ack = random.getrandbits(20) << 32

    # --- from the relay -------------------------------------------------------

    def to_queue(self, message: RelayMessage) -> Optional[QueueMessage]:
        """The message for other hosts; ``None`` when it is not for them.

        :raises FormatError: when it cannot be sent to them.
        """
        fields = message.fields
        method = fields["method"]
        if method == "callback" and "to" not in fields:
            return self._callback_to_queue(message)
        if method == "emit" and "request" not in fields:
            return self._emit_to_queue(message)
        if method == "volatile":
            return {**self._emit_to_queue(message), "volatile": True}
        if method in _SHARED:
            shared = {name: fields.get(name) for name in _SHARED[method]}
            return {"method": method, **shared, "host_id": self._origin(message)}
        return self.to_bridges(message)

    def to_bridges(self, message: RelayMessage) -> QueueMessage:
        """The message in a form that stock servers ignore."""
        return self._relayed(message, message.fields.get("to"))

    def _relayed(self, message: RelayMessage, to: Optional[str]) -> QueueMessage:
        """The message as it is, for other bridges."""
        fields = {name: value for name, value in message.fields.items() if name not in _HIDDEN}
        fields.setdefault("reply_to", message.sender)
        return {
            "method": "relay",
            "host_id": self.bridge,
            "to": to,
            "fields": fields,
            "packets": [
                packet if isinstance(packet, str) else {"base64": b64encode(packet).decode()}
                for packet in message.packets
            ],
        }

    def _origin(self, message: RelayMessage) -> str:
        """The ``host_id`` for a worker here, which callbacks name."""
        return f"{self.bridge}:{message.sender}"

    def _emit_to_queue(self, message: RelayMessage) -> QueueMessage:
        fields = message.fields
        (event, *arguments), attachments = _decode(message, at_least=1)
        data: list[Any] = arguments or [None]
        if attachments:
            data = [data, *(b64encode(attachment).decode() for attachment in attachments)]
        ack, room, namespace = fields.get("ack"), fields.get("room"), fields["namespace"]
        if "to" in fields and isinstance(room, list):
            # A list of sids: one message for each of their workers, with its own sids.
            room = [one for one in room if tag_of(str(one)) == fields["to"]]
        translated = {
            "method": "emit",
            "event": event,
            "data": data,
            "binary": bool(attachments),
            "namespace": namespace,
            "room": room,
            "skip_sid": fields.get("skip_sid"),
            "callback": None if ack is None else [room, namespace, ack],
            "host_id": self._origin(message),
        }
        if "except_room" in fields:
            translated["except_room"] = fields["except_room"]
        return translated

    def _callback_to_queue(self, message: RelayMessage) -> Optional[QueueMessage]:
        """The answer of a client here to an emit of another host."""
        asked = self._callbacks.pop(message.fields["ack"], None)
        if asked is None:
            return None
        host_id, room, namespace, ack = asked
        arguments, attachments = _decode(message)
        if attachments:
            # python-socketio's format has no bytes in callbacks; the bridges' has.
            _, of_ours, tag = host_id.partition(":")
            if not of_ours:
                raise FormatError("a stock python-socketio takes no acknowledgement with bytes")
            fields = {**message.fields, "ack": ack}
            return self._relayed(RelayMessage(message.sender, 0, fields, message.packets), tag)
        return {
            "method": "callback",
            "host_id": host_id,
            "sid": room,
            "namespace": namespace,
            "id": ack,
            "args": arguments,
        }

    # --- from the queue -------------------------------------------------------

    def from_queue(self, data: QueueMessage) -> Optional[Outgoing]:
        """The message for the workers here; ``None`` when it is not for them.

        :raises FormatError: when it is malformed.
        """
        try:
            outgoing = self._from_queue(data)
            if outgoing is not None:
                check_fields(outgoing.fields)
                for text in (outgoing.tag, *outgoing.packets):
                    if isinstance(text, str):
                        text.encode()  # JSON may have lone surrogates
            return outgoing
        except FormatError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FormatError(f"{data.get('method')!r:.40}: {error}") from None

    def _from_queue(self, data: QueueMessage) -> Optional[Outgoing]:
        method, host_id = data.get("method"), data.get("host_id")
        if method == "callback":
            return self._callback_from_queue(data)
        if isinstance(host_id, str) and host_id.partition(":")[0] == self.bridge:
            return None  # a message of this bridge
        if method == "emit":
            return self._emit_from_queue(data)
        if method in _SHARED:
            shared = {name: data.get(name) for name in _SHARED[method]}
            shared["namespace"] = shared["namespace"] or "/"
            return Outgoing(None, {"method": method, **shared})
        if method == "relay":
            packets = [
                packet if isinstance(packet, str) else b64decode(packet["base64"], validate=True)
                for packet in data["packets"]
            ]
            to = data["to"]
            if not (to is None or isinstance(to, str)):
                raise FormatError("a receiver that is not a text")
            fields = {name: value for name, value in data["fields"].items() if name not in _HIDDEN}
            return Outgoing(to, fields, packets)
        return None  # a method of a newer version

    def _emit_from_queue(self, data: QueueMessage) -> Outgoing:
        event, host_id = data["event"], data.get("host_id")
        if not isinstance(event, str):
            raise FormatError("an event without a name")  # clients would disconnect
        arguments, attachments = data["data"], []
        if data.get("binary"):
            attachments = [b64decode(text, validate=True) for text in arguments[1:]]
            arguments = arguments[0]
        if not isinstance(arguments, list):
            arguments = [arguments]
        if arguments == [None]:
            arguments = []
        namespace = data.get("namespace") or "/"
        skip = data.get("skip_sid") or []
        fields: dict[str, Any] = {
            "method": "volatile" if data.get("volatile") else "emit",
            "namespace": namespace,
            "packet": JSON_PACKET,
            "room": data.get("room"),
            "except_room": data.get("except_room"),
            "skip_sid": [skip] if isinstance(skip, str) else skip,
        }
        callback, ack = data.get("callback"), None
        if callback is not None:
            room, asked_in, asked_id = callback
            if not isinstance(host_id, str):
                raise FormatError("a callback without a sender")
            _, of_ours, worker = host_id.partition(":")
            if of_ours and seen(data) is not None:
                # Acknowledgement ids are unique among all bridges' hosts, so the answer names the
                # worker itself, whichever routers run by then.
                ack = asked_id
                fields.update(ack=ack, reply_to=worker)
            else:
                ack = self._await_callback((host_id, room, asked_in, asked_id))
                fields.update(ack=ack, reply_to=BRIDGE)
        packets = _encode(namespace, [event, *arguments], attachments, ack)
        return Outgoing(None, fields, packets)

    def _await_callback(self, asked: tuple[Any, ...]) -> int:
        self._last_ack += 1
        self._callbacks[self._last_ack] = asked
        if len(self._callbacks) > BRIDGE_MOST_CALLBACKS:
            self._callbacks.popitem(last=False)
        return self._last_ack

    def _callback_from_queue(self, data: QueueMessage) -> Optional[Outgoing]:
        bridge, _, tag = str(data["host_id"]).partition(":")
        if bridge != self.bridge:
            return None  # for another bridge
        if not isinstance(data["args"], list):
            raise FormatError("a callback without its arguments")
        packet = sio_packet.Packet(
            sio_packet.ACK, namespace=data.get("namespace") or "/", data=data["args"], id=data["id"]
        )
        fields = {"method": "callback", "ack": data["id"], "packet": JSON_PACKET}
        return Outgoing(tag, fields, [packet.encode()])


def parse(raw: bytes) -> QueueMessage:
    """:raises FormatError: when it is not a message; it is never unpickled."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        if raw[:1] == b"\x80":
            raise FormatError(
                "a pickle, from a python-socketio before 5.14: upgrade that"
            ) from None
        raise FormatError(f"not JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("method"), str):
        raise FormatError("not an object with a method")
    return data


def encode(data: QueueMessage, via: str, number: int) -> bytes:
    """Encode a message of a bridge. By its first bytes the bridge recognizes it as its own."""
    return json.dumps({"via": via, "seq": number, **data}).encode()


def head_of(via: str) -> bytes:
    """The first bytes of all messages of a bridge, up to their number."""
    return encode({}, via, 0)[: -len("0}")]


def number_after(head: bytes, raw: bytes) -> Optional[int]:
    """The number of a message with these first bytes, without decoding it; ``None`` for others."""
    if not raw.startswith(head):
        return None
    number, comma, _ = raw[len(head) : len(head) + len(f"{_LARGEST_NUMBER},")].partition(b",")
    return int(number) if comma and number.isdigit() else None


def _decode(message: RelayMessage, at_least: int = 0) -> tuple[list[Any], list[bytes]]:
    """The arguments, at least so many, with placeholders for bytes; and the bytes.

    :raises FormatError: when the message has no Socket.IO packet.
    """
    packets = list(message.packets)
    try:
        if str(message.fields.get("packet")).startswith(_MSGPACK_PACKET):  # or configured
            from socketio.msgpack_packet import MsgPackPacket

            whole = MsgPackPacket(encoded_packet=packets[0])
            encoded = sio_packet.Packet(whole.packet_type, data=whole.data).encode()
            packets = encoded if isinstance(encoded, list) else [encoded]
        # Attachments are not added, so their placeholders stay in the data.
        packet = sio_packet.Packet(encoded_packet=packets[0])
        attachments = [packet for packet in packets[1:] if isinstance(packet, bytes)]
    except Exception as error:
        raise FormatError(f"not a Socket.IO packet: {error}") from None
    if not isinstance(packet.data, list) or len(packet.data) < at_least:
        raise FormatError("a Socket.IO packet without its arguments")
    return packet.data, attachments


def _encode(
    namespace: str, data: list[Any], attachments: list[bytes], ack: Optional[int]
) -> list[EncodedPacket]:
    if not attachments:
        packet = sio_packet.Packet(sio_packet.EVENT, namespace=namespace, data=data, id=ack)
        return [str(packet.encode())]
    # https://socket.io/docs/v4/socket-io-protocol/#packet-encoding: the data
    # has its placeholders already.
    where = "" if namespace == "/" else f"{namespace},"
    number = "" if ack is None else str(ack)
    head = f"{sio_packet.BINARY_EVENT}{len(attachments)}-{where}{number}"
    return [head + json.dumps(data, separators=(",", ":")), *attachments]


def origin_of(data: QueueMessage) -> tuple[str, bool, int]:
    """:raises FormatError: when the origin is missing or malformed."""
    try:
        sender, alone, number = data["origin"]
        if _is_name(sender) and isinstance(alone, bool) and type(number) is int:
            return sender, alone, number
    except (KeyError, TypeError, ValueError):
        pass
    raise FormatError("a message of a bridge without its origin")


def seen(data: Mapping[str, Any]) -> Optional[tuple[str, int]]:
    """The bridge that a message comes through, and its number; ``None`` for stock servers'."""
    via, number = data.get("via"), data.get("seq")
    if _is_name(via) and type(number) is int and 0 <= number <= _LARGEST_NUMBER:
        return str(via), number
    return None


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= BRIDGE_LONGEST_NAME
