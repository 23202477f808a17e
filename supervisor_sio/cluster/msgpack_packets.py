"""msgpack packets as JavaScript clients write and accept them.

python-socketio's class is for clients in Python, and differs from ``socket.io-msgpack-parser``:

* A packet without data has the field ``data`` with nil, which the parser refuses in a DISCONNECT:
  the client takes it for a parse error, and connects again. Here it has no such field.
* ``undefined`` is an extension there (type 0, one byte of zero; notepack.io), also in place of an
  ``auth`` that is not given. Here it is ``None``, as in JSON.

Other values of type 0 are a ``Date`` (eight bytes) or an ``ArrayBuffer``, which cannot be told
apart; they stay ``msgpack.ExtType``, as python-socketio has them. An extension of any other type
is refused, unless the application has an ``ext_hook`` for it.
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
        """:raises Exception: of any kind, for what is not a packet."""
        super().decode(encoded_packet)
        if type(self.packet_type) is not int or not isinstance(self.namespace, str):
            raise ValueError("not a packet")


def checked(cls: Any) -> Any:
    """The class for a server that has python-socketio's, or one of its ``configure()``.

    It is called what it was: see :func:`.packets.wire_format`. A class that codes by itself stays.
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

    :raises ValueError: for one that nobody knows.
    """
    if code == _NOTEPACK and data == _UNDEFINED:
        return None
    if hook is not None:
        return hook(code, data)
    if code != _NOTEPACK:
        raise ValueError(f"a msgpack extension of type {code}")
    return msgpack.ExtType(code, data)
