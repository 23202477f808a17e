"""What one worker can ask of the whole cluster, beyond emitting."""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Mapping

from ..relay.message import RelayMessage
from .asking import Asking
from .emit_with_acks import EmitWithAcks
from .fetching import Fetching
from .server_side import ServerSide
from .steering import Steering


class Operations(Fetching, Steering, EmitWithAcks, ServerSide):
    """The part of a manager that speaks to all workers at once.

    Each call takes a ``namespace``, by default ``/``; a ``room`` or a list of
    rooms, by default everybody in the namespace; ``except_room``, a room or
    rooms whose members are left out; and ``local=True`` for the clients of
    this process alone. An unknown room selects nobody.

    Calls that return answers wait for every worker that lives; one that dies
    meanwhile is not waited for. When the time is up they return what has come,
    and say so in ``timed_out`` and ``missing``. They work in a process that
    serves no clients, too, but not with a write-only manager: that receives
    no answers.
    """

    def __init__(self) -> None:
        Asking.__init__(self)
        ServerSide.__init__(self)

    #: What handles each method of the messages of other workers.
    HANDLERS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        **Asking.HANDLERS,
        **Steering.HANDLERS,
        **ServerSide.HANDLERS,
    }
    REQUESTS: ClassVar[Mapping[str, Callable[[Any, RelayMessage], None]]] = {
        **Fetching.REQUESTS,
        **ServerSide.REQUESTS,
    }
