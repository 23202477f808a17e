"""msgpack packets as JavaScript clients write and accept them.

python-socketio's class is for clients in Python, and differs from ``socket.io-msgpack-parser``:

* A packet without data has the field ``data`` with nil, which the parser refuses in a DISCONNECT:
  the client takes it for a parse error, and connects again. Here the packet has no such field.
* ``undefined`` is an extension there (type 0, one byte of zero; notepack.io), also in place of an
  ``auth`` that is not given. Here it is ``None``, as in JSON.

Other values of type 0 are a ``Date`` (eight bytes) or an ``ArrayBuffer``, which cannot be told
apart; they stay ``msgpack.ExtType``, as in python-socketio. Type -1 is a timestamp, see msgpack's
specification, and becomes ``msgpack.Timestamp``. An extension of any other type is refused, unless
the application has an ``ext_hook``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional

import msgpack
from socketio.msgpack_packet import MsgPackPacket

#: The extensions of notepack.io.
_NOTEPACK = 0
_UNDEFINED = b"\0"

Hook = Callable[[int, bytes], Any]


class _Checked(MsgPackPacket):  # type: ignore[misc]
    def encode(self) -> bytes:
        fields = {"type": self.packet_type, "data": self.data, "nsp": self.namespace}
        if self.data is None:
            del fields["data"]
        if self.id is not None:
            fields["id"] = self.id
        encoded: bytes = msgpack.dumps(fields, default=type(self).dumps_default)
        return encoded

    def decode(self, encoded_packet: Any) -> None:
        """:raises Exception: of any type, when it is not a packet."""
        super().decode(encoded_packet)
        if type(self.packet_type) is not int or not isinstance(self.namespace, str):
            raise ValueError("not a packet")


def checked(cls: Any) -> Any:
    """The packet class for a server with python-socketio's class, or a class of its
    ``configure()``.

    It keeps the name, see :func:`.packets.wire_format`. A class with its own coding is returned as
    it is.
    """
    if cls.encode is not MsgPackPacket.encode or cls.decode is not MsgPackPacket.decode:
        return cls
    hook = None if cls.ext_hook is msgpack.ExtType else cls.ext_hook
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(
        cls.__name__,
        (_Checked, cls),
        {**names, "ext_hook": staticmethod(partial(_extension, hook))},
    )


def _extension(hook: Optional[Hook], code: int, data: bytes) -> Any:
    """The value of an extension.

    :raises ValueError: for an unknown type.
    """
    if code == _NOTEPACK and data == _UNDEFINED:
        return None
    if hook is not None:
        return hook(code, data)
    if code != _NOTEPACK:
        raise ValueError(f"a msgpack extension of type {code}")
    return msgpack.ExtType(code, data)
