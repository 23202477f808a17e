"""The reasons for which a client is refused, a connection ended, or a session neither moved to
another worker nor recovered, in one table.

A reason is a string with a name here. The code that refuses a client imports it by that name and
counts it in :class:`.refusals.Refusals`. A reason counted in the router is the label ``reason`` of
a metric and appears after ``refused``, ``not moved`` or ``not recovered`` in ``sio status``; one
counted in a worker adds to a figure of the worker, and the worker's log names the reason.
``python -m supervisor_sio.common.reasons`` prints the table that ``docs/metrics.md`` shows; a
test compares the two.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Mapping, NamedTuple


class Counted(Enum):
    """What a reason is counted as, in the words of ``sio status``."""

    REFUSED = "refused"  # a client or a connection
    NOT_MOVED = "not moved"  # a session, by a worker that ends or by the router
    NOT_RECOVERED = "not recovered"  # the session of a client that came back
    BY_WORKER = ""  # adds to a figure of the worker, or is only logged


class Reason(NamedTuple):
    """One row of the table."""

    name: str
    help: str
    counted: Counted
    #: The HTTP status of the answer, if there is a request to answer and a client to read it.
    answer: str
    #: The figure of a worker that the reason adds to, see :mod:`.figures`.
    figure: str
    #: Nothing is wrong, so it is not logged.
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

# --- before the worker of a connection is known --------------------------------

GARBAGE = _refused("garbage", "not HTTP/1", _BAD_REQUEST)
TLS_ON_PLAIN = _refused("tls-on-plain", "TLS on a port without TLS", _BAD_REQUEST)
PLAIN_ON_TLS = _refused("plain-on-tls", "no TLS on a port with TLS", _BAD_REQUEST)
TLS_HANDSHAKE = _refused("tls-handshake", "the TLS handshake failed, or took too long")
PROXY_HEADER = _refused(
    "proxy-header", "a missing or malformed PROXY header, with `proxy_protocol`", _BAD_REQUEST
)
LINE_TOO_LONG = _refused("line-too-long", "a request line longer than 8 KB", "414 URI Too Long")
HTTP2 = _refused("http2", "HTTP/2, which is not supported", "505 HTTP Version Not Supported")
HEAD_TIMEOUT = _refused(
    "head-timeout", "no request line within `head_timeout`", "408 Request Timeout"
)
CLOSED_EARLY = _refused("closed-early", "the client closed the connection first", quiet=True)
RESET = _refused("reset", "the client reset the connection", quiet=True)

# --- while it waits for a worker -----------------------------------------------

ADDRESS_SHARE = _refused(
    "address-share", "too many connections from one address wait", _UNAVAILABLE
)
WORKER_SHARE = _refused("worker-share", "too many connections wait for one worker", _UNAVAILABLE)
MAX_PENDING = _refused("max-pending", "too many connections wait, see `max_pending`", _UNAVAILABLE)
HOLD_TIMEOUT = _refused(
    "hold-timeout", "no worker accepted the connection within `hold_timeout`", _UNAVAILABLE
)
IDLE = _refused(
    "idle", "the connection had no request yet, and another one needed its place", quiet=True
)
ROUTER_STOPPING = _refused(
    "router-stopping",
    "the connection waited for a worker when supervisord stopped (with TLS: or the router)",
    _UNAVAILABLE,
)

# --- what went wrong on this side ----------------------------------------------

NO_DESCRIPTOR = _refused(
    "no-descriptor",
    "the process has no free descriptor: raise the limit of open files",
    _UNAVAILABLE,
    figure="no_descriptor",
)
ACCEPT_FAILED = _refused("accept-failed", "accepting a client's connection failed")
WORKER_ACCEPT_FAILED = _refused(
    "worker-accept-failed", "accepting a worker's connection to the router failed"
)
BAD_CONNECTION = _refused("bad-connection", "the connection could not be passed to a worker")
BAD_WORKER = _refused("bad-worker", "a process on the workers' socket broke their protocol")

# --- with a worker ---------------------------------------------------------------

PROTOCOL = _by_worker(
    "protocol error",
    "the client broke a rule of HTTP, websockets, Engine.IO or Socket.IO, or exceeded a limit",
    figure="protocol_errors",
)
WRONG_ARGUMENTS = _by_worker(
    "wrong arguments for a handler",
    "an event whose arguments its handler does not accept; the session continues",
    figure="protocol_errors",
)
TOO_SLOW = _by_worker(
    "too slow",
    "the client did not send or read in time",
    figure="slow_clients",
)
NO_ANSWER = _by_worker(
    "no answer to call()", "the client did not answer in time; the session continues"
)
FAILED = _by_worker("internal error", "see the traceback in the log of the worker")

# --- when a worker with takeover ends: the session is closed, as without takeover --------

HANDLER_RUNNING = _not_moved(
    "handler-running", "a handler of the session did not return within `drain_timeout`"
)
SESSION_DATA = _not_moved(
    "session-data",
    "its session data or environ has a value that is not JSON; the worker's log names the key",
)
STATE_TOO_LONG = _not_moved("state-too-long", "its state is too long, see `TAKEOVER_STATE`")
MID_REQUEST = _not_moved("mid-request", "one of its requests was in a state that cannot be moved")
PASS_TIMEOUT = _not_moved("pass-timeout", "`drain_timeout` ended before the session's turn")
NO_ROUTER = _not_moved("no-router", "no router was there to hold the session")
HELD_FULL = _not_moved("held-full", "the router has no free descriptors to hold more sessions")
OTHER_FORMAT = _not_moved(
    "other-format",
    "no worker can adopt it: they have another version of supervisor-sio, or no takeover",
)
NOT_ADOPTED = _not_moved("not-adopted", "no worker adopted the session within `hold_timeout`")
NOT_RESTORED = _not_moved(
    "not-restored", "the worker that adopted the session could not restore it; see its log"
)

# --- with recovery, when a client comes back: it gets a new session ------------------------------

UNKNOWN_PID = _not_recovered(
    "unknown-pid",
    "no client has this `pid`: its time was over, the client left, or the `pid` is invented",
)
UNKNOWN_OFFSET = _not_recovered(
    "unknown-offset", "the client sent an offset that it never received"
)
IN_USE = _not_recovered(
    "in-use", "a connected client has this `pid`: a page was duplicated with its state"
)
NOT_KEPT = _not_recovered(
    "not-kept",
    "it missed more than is kept, see `recovery_messages` and `recovery_maxbytes`",
)
NO_OWNER = _not_recovered("no-owner", "the worker that owns the session did not answer in time")
INCOMPLETE = _not_recovered("incomplete", "some of the events that it missed are not available")
NOT_SAVED = _not_recovered(
    "not-saved",
    "its session data is not JSON, or too long (the worker's log names the key), or the client is "
    "in too many rooms, see `CLIENT_STATE` and `CLIENT_ROOMS`",
)
JOURNAL_REFUSED = _not_recovered(
    "journal-refused",
    "the router cannot keep the journal of a worker: it has no free descriptor, or the journal has "
    "more than `JOURNAL_SEGMENTS`; counts workers",
)
NOT_INHERITED = _not_recovered(
    "not-inherited",
    "no other worker inherited the journal of a dead worker in time; counts workers",
)
LOST_FULL = _not_recovered(
    "lost-full",
    "too many clients of the worker were lost, see `CLIENTS_LOST`: this one was given up early",
)
CLAIMS_FULL = _not_recovered(
    "claims-full",
    "too many clients came back at a time, or with an unknown `pid`, see `CLAIMS` and "
    "`CLAIMS_IN_VAIN`",
)


def counted_as(name: str) -> Counted:
    """What the reason is counted as; a reason outside the table counts as refused."""
    return TABLE[name].counted if name in TABLE else Counted.REFUSED


def is_of_recovery(name: str) -> bool:
    """Whether it is a reason for which a session was not recovered."""
    return name in TABLE and TABLE[name].counted is Counted.NOT_RECOVERED


def by_figure(counted: Mapping[str, int]) -> dict[str, int]:
    """Add up a worker's counts by reason to the figures that the worker reports."""
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
