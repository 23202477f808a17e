"""Why a client is turned away, its connection ended, its session not moved to another worker, or
not recovered by a client that came back: every reason, in one table.

A reason is a string with a name here; the code that turns somebody away imports it by that
name and counts it in :class:`.refusals.Refusals`. What is counted in the router is the label
``reason`` of a metric and stands behind ``refused``, ``not moved`` or ``not recovered`` in ``sio
status``; what is counted in a worker adds to one of its figures, and its log names the reason.
``python -m supervisor_sio.common.reasons`` prints the table that ``docs/metrics.md`` shows; a
test compares the two.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Mapping, NamedTuple


class Counted(Enum):
    """What a reason is counted as, in the words of a status."""

    REFUSED = "refused"  # a client or a connection
    NOT_MOVED = "not moved"  # a session, by a worker that ends or by the router
    NOT_RECOVERED = "not recovered"  # the session of a client that came back
    BY_WORKER = ""  # in the reason's figure, or only in the log


class Reason(NamedTuple):
    """One row of the table."""

    name: str
    help: str
    counted: Counted
    #: The status line of the answer, if there is a request to answer and somebody to read it.
    answer: str
    #: The figure of a worker that it adds to, see :mod:`.figures`.
    figure: str
    #: Nobody's fault, and not worth a line in the log.
    quiet: bool


TABLE: dict[str, Reason] = {}


def _reason(name: str, *row: Any) -> str:
    TABLE[name] = Reason(name, *row)
    return name


def _refused(name: str, help: str, answer: str = "", figure: str = "", quiet: bool = False) -> str:
    return _reason(name, help, Counted.REFUSED, answer, figure, quiet)


def _by_worker(name: str, help: str, figure: str = "") -> str:
    return _reason(name, help, Counted.BY_WORKER, "", figure, False)


def _of_session(counted: Counted, name: str, help: str) -> str:
    figure = f"{counted.value} {name}".replace(" ", "_").replace("-", "_")
    return _reason(name, help, counted, "", figure, False)


def _not_moved(name: str, help: str) -> str:
    return _of_session(Counted.NOT_MOVED, name, help)


def _not_recovered(name: str, help: str) -> str:
    return _of_session(Counted.NOT_RECOVERED, name, help)


_BAD_REQUEST = "400 Bad Request"
_UNAVAILABLE = "503 Service Unavailable"

# --- before a connection is anybody's ------------------------------------------

GARBAGE = _refused("garbage", "not HTTP/1", _BAD_REQUEST)
TLS_ON_PLAIN = _refused("tls-on-plain", "TLS where none is spoken", _BAD_REQUEST)
PLAIN_ON_TLS = _refused("plain-on-tls", "no TLS where it is spoken", _BAD_REQUEST)
TLS_HANDSHAKE = _refused("tls-handshake", "the TLS handshake failed, or took too long")
PROXY_HEADER = _refused(
    "proxy-header", "no PROXY header on a port that wants one, or a bad one", _BAD_REQUEST
)
LINE_TOO_LONG = _refused("line-too-long", "a request line longer than 8 KB", "414 URI Too Long")
HTTP2 = _refused("http2", "HTTP/2, which is not spoken", "505 HTTP Version Not Supported")
HEAD_TIMEOUT = _refused(
    "head-timeout", "no request line within `head_timeout`", "408 Request Timeout"
)
CLOSED_EARLY = _refused("closed-early", "its client gave up first", quiet=True)
RESET = _refused("reset", "its client reset it", quiet=True)

# --- while it waits for a worker -----------------------------------------------

ADDRESS_SHARE = _refused("address-share", "too many wait of one address", _UNAVAILABLE)
WORKER_SHARE = _refused("worker-share", "too many wait for one worker", _UNAVAILABLE)
MAX_PENDING = _refused("max-pending", "too many wait together, see `max_pending`", _UNAVAILABLE)
HOLD_TIMEOUT = _refused("hold-timeout", "no worker took it within `hold_timeout`", _UNAVAILABLE)
IDLE = _refused("idle", "it waited without a request, and another needed the room", quiet=True)
ROUTER_STOPPING = _refused(
    "router-stopping",
    "it waited for a worker when supervisord stopped, or with TLS the router",
    _UNAVAILABLE,
)

# --- what went wrong on this side ----------------------------------------------

NO_DESCRIPTOR = _refused(
    "no-descriptor",
    "the process has no descriptor free: raise the limit of open files",
    _UNAVAILABLE,
    figure="no_descriptor",
)
ACCEPT_FAILED = _refused("accept-failed", "the kernel had no connection to give")
WORKER_ACCEPT_FAILED = _refused("worker-accept-failed", "the same, of a worker's channel")
BAD_CONNECTION = _refused("bad-connection", "it could not be passed to a worker")
BAD_WORKER = _refused("bad-worker", "a process that called itself a worker did not speak like one")

# --- with a worker ---------------------------------------------------------------

PROTOCOL = _by_worker(
    "protocol error",
    "its client broke rules of HTTP, websockets, Engine.IO or Socket.IO, or a limit",
    figure="protocol_errors",
)
WRONG_ARGUMENTS = _by_worker(
    "wrong arguments for a handler",
    "an event that its handler cannot take; the session goes on",
    figure="protocol_errors",
)
TOO_SLOW = _by_worker(
    "too slow",
    "its client did not send or read in time",
    figure="slow_clients",
)
NO_ANSWER = _by_worker(
    "no answer to call()", "its client did not answer in time; the session goes on"
)
FAILED = _by_worker("internal error", "see the traceback in the log of the worker")

# --- when a worker with takeover ends: its session is closed, as without takeover --------

HANDLER_RUNNING = _not_moved(
    "handler-running", "a handler of it did not end within `drain_timeout`"
)
SESSION_DATA = _not_moved(
    "session-data",
    "its session or its environ has what is not JSON; the log of the worker names the key",
)
STATE_TOO_LONG = _not_moved("state-too-long", "its state is longer than the limit, see limits")
MID_REQUEST = _not_moved("mid-request", "a request of it was in a state that cannot be moved")
PASS_TIMEOUT = _not_moved("pass-timeout", "`drain_timeout` was over before its turn came")
NO_ROUTER = _not_moved("no-router", "there was no router to hold it")
HELD_FULL = _not_moved("held-full", "the router has no descriptors to hold more")
OTHER_FORMAT = _not_moved(
    "other-format", "no worker there takes it: another version of supervisor-sio, or no takeover"
)
NOT_ADOPTED = _not_moved("not-adopted", "no worker adopted it within `hold_timeout`")
NOT_RESTORED = _not_moved(
    "not-restored", "the worker that adopted it could not go on with it; see its log"
)

# --- with recovery, when a client comes back and asks for its session: it gets a new one ---------

UNKNOWN_PID = _not_recovered(
    "unknown-pid", "no client has this `pid`: its time was over, it left, or it is made up"
)
UNKNOWN_OFFSET = _not_recovered(
    "unknown-offset", "it was never given this offset: its last event is not known"
)
IN_USE = _not_recovered(
    "in-use", "another client has this `pid`, and is connected: a page was copied with what it knew"
)
NOT_KEPT = _not_recovered(
    "not-kept",
    "what it missed is more than is kept, see `recovery_messages` and `recovery_maxbytes`",
)
NO_OWNER = _not_recovered("no-owner", "the worker that has the session did not answer in time")
INCOMPLETE = _not_recovered("incomplete", "a part of what it missed could not be had")
NOT_SAVED = _not_recovered(
    "not-saved",
    "its session has what is not JSON, or too much, and the log of the worker names the key; or "
    "it is in too many rooms, see limits",
)
JOURNAL_REFUSED = _not_recovered(
    "journal-refused",
    "the clients of a worker whose journal the router cannot keep: no descriptor is free, or it "
    "has too many parts, see limits; counts workers",
)
NOT_INHERITED = _not_recovered(
    "not-inherited",
    "the clients of a worker that has died, whose journal no other worker has inherited in time; "
    "counts workers",
)
LOST_FULL = _not_recovered(
    "lost-full",
    "too many clients of a worker were away, see limits: it was given up before its time",
)
CLAIMS_FULL = _not_recovered(
    "claims-full",
    "too many came back at a time, or with a `pid` that nobody knows, see limits",
)


def counted_as(name: str) -> Counted:
    """What counts it; what is not in the table is of a client or a connection."""
    return TABLE[name].counted if name in TABLE else Counted.REFUSED


def is_of_recovery(name: str) -> bool:
    """Whether it is why the session of a client that came back was not recovered."""
    return name in TABLE and TABLE[name].counted is Counted.NOT_RECOVERED


def by_figure(counted: Mapping[str, int]) -> dict[str, int]:
    """A worker's counts by reason, added up to the figures that it reports."""
    figures = {reason.figure: 0 for reason in TABLE.values() if reason.figure}
    for reason in TABLE.values():
        if reason.figure:
            figures[reason.figure] += counted.get(reason.name, 0)
    return figures


def render() -> str:
    """The table in Markdown."""
    rows = [
        f"| `{row.name}` | {_counted(row)} | {row.answer[:3]} | {row.help} |"
        for row in TABLE.values()
    ]
    return "\n".join(["| reason | counted as | answer | why |", "|---|---|---|---|", *rows]) + "\n"


def _counted(row: Reason) -> str:
    return row.counted.value or row.figure.replace("_", " ") or "only in the log"


if __name__ == "__main__":
    print(render(), end="")
