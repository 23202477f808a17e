"""Every bound of supervisor-sio, in one table, each with its reason.

A bound is a plain number with a name here. The code that enforces it imports it by
that name. ``python -m supervisor_sio.common.limits`` prints the table that
``docs/limits.md`` shows; a test compares the two.

A bound counts what it costs (memory, objects, descriptors, time, log lines), not
only the bytes of a payload. What is an option of ``[rpcinterface:sio]`` stands in
:mod:`supervisor_sio.settings`, with its default there.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

Number = TypeVar("Number", int, float)


class Limit(NamedTuple):
    """One row of the table."""

    name: str
    value: float
    unit: str
    #: What it is counted for: ``client``, ``event``, ``worker``, ``router`` and so on.
    per: str
    reason: str


TABLE: list[Limit] = []


def _limit(name: str, value: Number, unit: str, per: str, reason: str) -> Number:
    TABLE.append(Limit(name, value, unit, per, reason))
    return value


# --- HTTP, before a request is known to be anybody's ---------------------------

# --- Engine.IO sessions and websockets ------------------------------------------

# --- Socket.IO events -------------------------------------------------------------

# --- The router: connections that no worker has yet -----------------------------

# --- supervisord's side, and answers to supervisorctl ---------------------------

GUARD_LOG_INTERVAL = _limit(
    "GUARD_LOG_INTERVAL",
    1.0,
    "seconds",
    "reason",
    "between two log lines of supervisord about the same error of ours; all are counted",
)
GUARD_PAUSE = _limit(
    "GUARD_PAUSE",
    1.0,
    "seconds",
    "descriptor",
    "that supervisord does not look at a descriptor after an error of ours there: it might "
    "stay readable, and supervisord would turn round and round",
)
MAX_CANDIDATES = _limit(
    "MAX_CANDIDATES",
    8,
    "connections",
    "supervisord",
    "that have yet to say that they are a router; one more closes the oldest",
)
MAX_ROWS = _limit(
    "MAX_ROWS",
    10_000,
    "rows",
    "answer",
    "clients or rooms in an answer of `sio.getSockets` and `sio.getRooms`",
)
ROUTER_PACKETS_PER_TURN = _limit(
    "ROUTER_PACKETS_PER_TURN",
    16,
    "packets",
    "turn",
    "of the router that supervisord reads before it looks after everything else",
)
ANSWER_TIMEOUT = _limit(
    "ANSWER_TIMEOUT",
    5.0,
    "seconds",
    "call",
    "that an XML-RPC call waits for the router, which gives its workers three",
)

# --- The relay: messages between the processes of a host ------------------------

# --- The bridge: messages between hosts -----------------------------------------

# --- A worker and its life --------------------------------------------------------


def render() -> str:
    """The table in Markdown."""
    rows = [
        f"| `{row.name}` | {row.value:,} {row.unit} | {row.per} | {row.reason} |" for row in TABLE
    ]
    return "\n".join(["| limit | value | for each | why |", "|---|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    print(render(), end="")
