"""A POST some of whose packets are unhandled: its progress, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Any, Optional

from . import packets
from .deadlines import NEVER, NOWHERE
from .payload import Packet
from .request import Request
from .saved import Saved

if TYPE_CHECKING:
    from .session import Exchange, Session


class Step(Enum):
    """What the next packet waits for."""

    #: A later turn of the loop.
    TURN = "turn"
    #: The owner, which is busy with the last message.
    OWNER = "owner"
    #: Polls that take pending output: the client may not cause more of it before.
    POLLS = "polls"


# Before Python 3.12, looking up an enum member takes longer than the rest of a comparison.
TURN, OWNER, POLLS = Step


class Post:
    """One POST.

    :param packets: what :func:`.payload.decode` returned.
    """

    __slots__ = (
        "request",
        "exchange",
        "packets",
        "ahead",
        "step",
        "deadline",
        "slot",
        "_session",
    )

    def __init__(
        self,
        session: Session,
        request: Request,
        exchange: Exchange,
        packets: Iterator[Optional[Packet]],
    ) -> None:
        self.request = request
        self.exchange = exchange
        self.packets = packets
        #: The next packet, if it has been decoded but not handled.
        self.ahead: Optional[Packet] = None
        self.step = TURN
        self.deadline = NEVER
        self.slot = NOWHERE
        self._session = session

    def on_deadline(self, now: float) -> None:
        """Polls have not taken enough of the pending output in time."""
        self._session.cut_off()

    def state_as_dict(self) -> dict[str, Any]:
        """See :meth:`.Session.state_as_dict`."""
        self.request.shrink()
        return {
            "request": self.request.state_as_dict(),
            "packets": packets.save(chain([self.ahead], self.packets)),
            "malformed": 0,  # a worker of the previous release needs this field
            "step": self.step.value,
        }

    @classmethod
    def restore(cls, session: Session, state: Saved, exchange: Exchange) -> Post:
        """See :meth:`.Engine.restore`."""
        request = Request.restore(state.object("request"))
        rest = packets.restore(state.list("packets"), valid=False)
        post = cls(session, request, exchange, iter(rest))
        post.step = state.choice("step", Step)
        return post
