"""Socket.IO packets of messages: encoded once for all clients, decoded for their arguments."""

from __future__ import annotations

from typing import Any, Optional

from ..relay.message import EncodedPacket, RelayMessage
from ..relay.methods import MalformedFields
from .packets import CheckedJson, Packet, wire_format


class Coding:
    """The part of a manager that knows how its server encodes packets."""

    # From the manager.
    server: Any
    _write_only_json: Optional[CheckedJson]

    def _packet_class(self) -> Any:
        return self.server.packet_class if self.server is not None else Packet

    def _packet_format(self) -> str:
        """Tells whether a worker can pass a packet on to its clients as it is."""
        return wire_format(self._packet_class())

    def _encode(
        self, kind: int, namespace: str, data: list[Any], ack_id: Optional[int] = None
    ) -> list[EncodedPacket]:
        packet = self._packet_class()(kind, namespace=namespace, data=data, id=ack_id)
        if self.server is None and self._write_only_json is not None:
            packet.json = self._write_only_json
        encoded = packet.encode()
        parts = encoded if isinstance(encoded, list) else [encoded]
        return [part if isinstance(part, str) else bytes(part) for part in parts]

    def _decode(self, message: RelayMessage) -> list[Any]:
        """The arguments of an encoded packet.

        :raises MalformedFields: when it is not a packet.
        """
        # Of another serializer only a process without a server sends, such as a
        # write-only one or the bridge to other hosts: JSON.
        same = message.fields.get("packet", self._packet_format()) == self._packet_format()
        cls = self._packet_class() if same else Packet
        try:
            packet = cls(encoded_packet=message.packets[0])
            for attachment in message.packets[1:]:
                packet.add_attachment(attachment)
            return list(packet.data)
        except Exception as error:
            raise MalformedFields(f"not a Socket.IO packet: {error}") from None
