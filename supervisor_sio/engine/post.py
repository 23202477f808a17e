"""A POST whose packets have not all been taken: how far it is, and what it waits for."""

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

    #: Its turn.
    TURN = "turn"
    #: The owner.
    OWNER = "owner"
    #: Polls that take what waits for this client, who cannot ask for more before.
    POLLS = "polls"


# Before Python 3.12, to look a member up takes longer than the rest of a comparison.
TURN, OWNER, POLLS = Step


class Post:
    """One POST.

    :param packets: as :func:`.payload.decode` gives them.
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
        #: The next one, if it has been looked for.
        self.ahead: Optional[Packet] = None
        self.step = TURN
        self.deadline = NEVER
        self.slot = NOWHERE
        self._session = session

    def on_deadline(self, now: float) -> None:
        """Polls have taken too little."""
        self._session.cut_off()

    def state_as_dict(self) -> dict[str, Any]:
        """See :meth:`.Session.state_as_dict`."""
        self.request.shrink()
        return {
            "request": self.request.state_as_dict(),
            "packets": packets.save(chain([self.ahead], self.packets)),
            "malformed": 0,  # for a worker of the release before, which counts them
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
