"""Clients that are to reconnect, so that another worker has them: ``sio rebalance``.

Their connections end as if the network had failed, so that they come back by themselves. Those go
first that lose least by it.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Callable, Iterable

from ..common.limits import REBALANCE_LOOKED_AT
from ..engine.session import Session
from .recovery import Recovery, recoveries


def release(servers: Iterable[Any], most: int) -> int:
    """Close the connections of so many clients of these servers at most: of how many. In the loop.

    No packet says so: after one of Socket.IO no client would connect again, and after one of
    Engine.IO those of python-socketio would not.
    """
    closed = 0
    for server in servers:
        eio = server.eio
        found = [one for one in recoveries(eio.runtime) if one.manager is server.manager]

        def comes_back(session: Session, found: list[Recovery] = found) -> bool:
            return any(one.may_come_back(session.sid) for one in found)

        sessions = islice(eio.engine.sessions.values(), REBALANCE_LOOKED_AT)
        chosen = choose(sessions, most - closed, comes_back)
        for session in chosen:
            session.close(eio.reason.TRANSPORT_CLOSE, abort=True)
        closed += len(chosen)
    return closed


def choose(
    sessions: Iterable[Session], most: int, comes_back: Callable[[Session], bool]
) -> list[Session]:
    """Those that lose least: who comes back to the session, and of whom nothing is under way.

    Clients that are still connecting are left alone: python-socketio's do not try again.
    """
    ranks: list[list[Session]] = [[] for _ in range(4)]
    for session in sessions:
        if session.connected and not session.closed:
            rank = 2 * (not comes_back(session)) + (not session.at_rest)
            ranks[rank].append(session)
            if len(ranks[0]) == most:
                break
    return [session for rank in ranks for session in rank][:most]
