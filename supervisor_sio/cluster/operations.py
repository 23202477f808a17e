"""Operations that one process can run on the whole cluster, besides emitting."""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Mapping

from ..relay.message import RelayMessage
from .asking import Asking
from .emit_with_acks import EmitWithAcks
from .fetching import Fetching
from .server_side import ServerSide
from .steering import Steering


class Operations(Fetching, Steering, EmitWithAcks, ServerSide):
    """The part of a manager that acts on all workers at once.

    Each call takes a ``namespace``, by default ``/``; a ``room`` or a list of
    rooms, by default everybody in the namespace; ``except_room``, a room or
    rooms whose members are left out; and ``local=True`` for the clients of
    this process alone. An unknown room selects nobody.

    Calls that return answers wait for every living worker; a worker that dies meanwhile is not
    waited for. When the timeout ends they return what has come, with the rest in ``timed_out`` and
    ``missing``. They work in a process that serves no clients, too, but not with a write-only
    manager, which receives no answers.
    """

    def __init__(self) -> None:
        Asking.__init__(self)
        ServerSide.__init__(self)

    #: The handler of each method of other workers' messages.
    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        **Asking.HANDLERS,
        **Steering.HANDLERS,
        **ServerSide.HANDLERS,
    }
    REQUESTS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        **Fetching.REQUESTS,
        **ServerSide.REQUESTS,
    }
