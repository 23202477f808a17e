"""Every bound of supervisor-sio, in one table, each with its reason.

A bound is a plain number with a name here. The code that enforces it imports it by
that name. ``python -m supervisor_sio.common.limits`` prints the table that
``docs/limits.md`` shows; a test compares the two.

A bound limits what something costs (memory, objects, descriptors, time, log lines), not only
the bytes of a payload. Bounds that are options of ``[rpcinterface:sio]`` are in
:mod:`supervisor_sio.settings`, with their defaults.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

Number = TypeVar("Number", int, float)


class Limit(NamedTuple):
    """One row of the table."""

    name: str
    value: float
    unit: str
    #: What the bound applies to: ``client``, ``event``, ``worker``, ``router`` and so on.
    per: str
    reason: str


TABLE: list[Limit] = []


def _limit(name: str, value: Number, unit: str, per: str, reason: str) -> Number:
    TABLE.append(Limit(name, value, unit, per, reason))
    return value


# --- HTTP, before the worker of a request is known ------------------------------

HEAD_BYTES = _limit(
    "HEAD_BYTES",
    16384,
    "bytes",
    "request",
    "length of the request line and headers together, as in Node's servers",
)
HEAD_FIELDS = _limit(
    "HEAD_FIELDS", 100, "header lines", "request", "number of header lines, as in Apache"
)
CHUNK_LINE_BYTES = _limit(
    "CHUNK_LINE_BYTES",
    256,
    "bytes",
    "chunk",
    "length of a line with a chunk's size (15 digits at most) and extensions, and of each trailer",
)
TRAILER_BYTES = _limit(
    "TRAILER_BYTES",
    4096,
    "bytes",
    "chunked body",
    "length of all trailers; applications do not read trailers",
)
CORS_ORIGINS = _limit(
    "CORS_ORIGINS",
    100,
    "origins",
    "worker",
    "origins in `cors_allowed_origins` that a worker reports to the router, so that pages of "
    "these origins can read a refusal; a worker with more reports none",
)
ORIGIN_CHARACTERS = _limit(
    "ORIGIN_CHARACTERS",
    300,
    "characters",
    "origin",
    "length of an origin; a host name has 253 characters at most",
)
UNREAD_BODY_BYTES = _limit(
    "UNREAD_BODY_BYTES",
    65536,
    "bytes",
    "request",
    "the server reads and discards this much of a body that the application did not read; after a"
    " longer body it closes the connection",
)
LINGER_SECONDS = _limit(
    "LINGER_SECONDS",
    2.0,
    "seconds",
    "connection",
    "the server reads on for so long after a refusal; closing at once would reset the connection,"
    " and the client would lose the answer",
)
BODY_GRACE_SECONDS = _limit(
    "BODY_GRACE_SECONDS",
    20.0,
    "seconds",
    "request",
    "time to receive a body, plus one second for each BODY_RATE bytes received, as in Apache's "
    "mod_reqtimeout",
)
BODY_RATE = _limit(
    "BODY_RATE",
    500,
    "bytes a second",
    "request",
    "bytes for which BODY_GRACE_SECONDS grows by one second",
)
STALLED_SECONDS = _limit(
    "STALLED_SECONDS",
    60.0,
    "seconds",
    "request",
    "the connection ends when the client reads nothing of its answer for so long",
)
READS_PER_TURN = _limit(
    "READS_PER_TURN",
    2,
    "reads of 64 KB",
    "request",
    "reads of a body before other clients get a turn",
)
HALF_CLOSED_SECONDS = _limit(
    "HALF_CLOSED_SECONDS",
    2.0,
    "seconds",
    "request",
    "time for an ASGI application to answer a client that has closed its sending side; then the "
    "application receives a disconnect, because most such clients are gone",
)
APPLICATION_MESSAGE = _limit(
    "APPLICATION_MESSAGE",
    16 * 1024 * 1024,
    "bytes",
    "message of a websocket of the ASGI application",
    "length of a message, as in uvicorn; a longer one closes the websocket with code 1009",
)
APPLICATION_READ = _limit(
    "APPLICATION_READ",
    16384,
    "bytes",
    "read of a websocket of the ASGI application",
    "the server reads on when the application has received all messages of this read",
)

# --- Engine.IO sessions and websockets ------------------------------------------

OUTPUT_CEILING = _limit(
    "OUTPUT_CEILING",
    16 * 1024 * 1024,
    "bytes",
    "client",
    "output that waits for one client, with either transport; a client with more is disconnected "
    "at once. 15 MB sent at once to a client on a slow line fit",
)
OUTPUT_OBJECT = _limit(
    "OUTPUT_OBJECT",
    200,
    "bytes",
    "piece of waiting output",
    "added to the length of each piece of waiting output, because it is an object in a queue",
)
SLOW_OUTPUT = _limit(
    "SLOW_OUTPUT",
    4 * 1024 * 1024,
    "bytes",
    "client",
    "when more output than this waits for a client, the client must read SLOW_OUTPUT_TAKEN bytes "
    "in each SLOW_OUTPUT_PATIENCE, or it is disconnected",
)
SLOW_OUTPUT_PATIENCE = _limit(
    "SLOW_OUTPUT_PATIENCE",
    10.0,
    "seconds",
    "client",
    "see SLOW_OUTPUT; half of `ping_timeout` (20 seconds): phones recover from most stalls faster",
)
SLOW_OUTPUT_TAKEN = _limit(
    "SLOW_OUTPUT_TAKEN",
    256 * 1024,
    "bytes",
    "client",
    "see SLOW_OUTPUT; at a lower rate (26 KB/s), the waiting output takes longer than a client "
    "waits for a ping",
)
READING_STOPS = _limit(
    "READING_STOPS",
    1024 * 1024,
    "bytes",
    "client",
    "when more output than this waits for a client, nothing is read from it: a client that does "
    "not read answers cannot ask for more",
)
CATCH_UP_BYTES = _limit(
    "CATCH_UP_BYTES",
    256 * 1024,
    "bytes",
    "worker",
    "missed messages that a worker delivers before it checks whether its clients read them",
)
CATCH_UP_WAIT = _limit(
    "CATCH_UP_WAIT",
    0.1,
    "seconds",
    "CATCH_UP_BYTES",
    "after each CATCH_UP_BYTES, the longest time that a worker waits for clients with more than "
    "SLOW_OUTPUT waiting; a client that reads less than 2.5 MB/s reaches OUTPUT_CEILING and does "
    "not delay the others",
)
POLL_PACKETS = _limit(
    "POLL_PACKETS",
    16,
    "packets",
    "answer to a poll",
    "clients of python-engineio reject an answer with more; the rest waits for the next poll",
)
POLL_BYTES = _limit(
    "POLL_BYTES",
    1024 * 1024,
    "bytes",
    "answer to a poll",
    "length of an answer, which is built in memory; a single packet may be longer",
)
MESSAGES_AT_ONCE = _limit(
    "MESSAGES_AT_ONCE",
    32,
    "messages",
    "client",
    "messages of a websocket or a POST that are handled before other clients get a turn; a POST "
    "may carry any number",
)
UNQUOTED_AT_ONCE = _limit(
    "UNQUOTED_AT_ONCE",
    65536,
    "characters",
    "POST of JSONP",
    "`%XX` sequences that are decoded before other clients get a turn: 1 MB of them takes 0.1 s",
)
UPGRADE_SECONDS = _limit(
    "UPGRADE_SECONDS",
    10.0,
    "seconds",
    "client",
    "time from the websocket's handshake to the end of the upgrade, as in Node's servers; then "
    "the session stays on polling",
)
UPGRADE_POLL_SECONDS = _limit(
    "UPGRADE_POLL_SECONDS",
    0.1,
    "seconds",
    "poll",
    "time after which a pending poll is answered during the last step of an upgrade, as in Node's"
    " servers: the client waits for this answer",
)
LAST_POLL_SECONDS = _limit(
    "LAST_POLL_SECONDS",
    30.0,
    "seconds",
    "client",
    "time for a client that the application has disconnected to poll for its waiting output, as "
    "in Node's servers",
)
CROSSED_POLL_SECONDS = _limit(
    "CROSSED_POLL_SECONDS",
    1.0,
    "seconds",
    "client",
    "a client closed its session with a POST: time for a poll that it sent before on another "
    "connection to arrive",
)
ABANDONED_POLL_SECONDS = _limit(
    "ABANDONED_POLL_SECONDS",
    2.0,
    "seconds",
    "client",
    "a connection ended before the client had the whole answer to its poll: time for the next "
    "poll. A client that repeats the request does so at once; one that is gone must not stay for "
    "long",
)
CLOSE_SECONDS = _limit(
    "CLOSE_SECONDS",
    5.0,
    "seconds",
    "websocket",
    "time for the client to receive and answer a close frame; then the connection ends",
)
END_SECONDS = _limit(
    "END_SECONDS", 0.5, "seconds", "websocket", "as CLOSE_SECONDS, when the worker stops"
)
ENGINE_PATHS = _limit(
    "ENGINE_PATHS",
    16,
    "paths",
    "Socket.IO server",
    "paths at which handshakes arrived; later requests at these paths skip the application. One "
    "more replaces the oldest",
)

# --- Socket.IO events -------------------------------------------------------------

CONNECT_SECONDS = _limit(
    "CONNECT_SECONDS",
    45.0,
    "seconds",
    "client",
    "time from the start of a session until the client has connected to a namespace, as in Node's"
    " servers; set by `ZmqManager(connect_timeout=…)`",
)
ACK_TIMEOUT = _limit(
    "ACK_TIMEOUT",
    3600.0,
    "seconds",
    "acknowledgement",
    "time to wait for an acknowledgement of an event: a person may have to answer. `call()` and "
    "`emit_with_acks()` have their own timeouts",
)
ACKS_PER_CLIENT = _limit(
    "ACKS_PER_CLIENT",
    1000,
    "acknowledgements",
    "client",
    "pending acknowledgements, about 300 bytes each; one more makes the oldest expire",
)
ACKS_PER_WORKER = _limit(
    "ACKS_PER_WORKER",
    65_536,
    "callbacks",
    "worker",
    "callbacks of the application that wait for an acknowledgement; one more makes the oldest "
    "expire",
)
ATTACHMENTS = _limit(
    "ATTACHMENTS",
    10,
    "attachments",
    "event",
    "attachments of an event, as in Node's parser since CVE-2026-33151; set by "
    "`ZmqManager(max_attachments=…)`",
)
EVENT_SIZES = _limit(
    "EVENT_SIZES",
    10,
    "times max_http_buffer_size",
    "event",
    "length of an event with its attachments; each attachment is a message of its own, and Node "
    "accepts ten of the greatest length",
)
EARLY_OUTPUT = _limit(
    "EARLY_OUTPUT",
    1024 * 1024,
    "bytes",
    "client",
    "emits to a client that wait until its connect handler has accepted it; further ones are "
    "dropped",
)

# --- The router: connections that no worker has yet -----------------------------

EXPORTER_CONNECTIONS = _limit(
    "EXPORTER_CONNECTIONS",
    100,
    "connections",
    "metrics port",
    "open connections; one more closes the oldest, which had the most time",
)
EXPORTER_HEAD_BYTES = _limit(
    "EXPORTER_HEAD_BYTES",
    16384,
    "bytes",
    "request for metrics",
    "length of a request without its body, as HEAD_BYTES",
)
TALLIES = _limit(
    "TALLIES",
    16,
    "descriptors",
    "worker",
    "channels of the relay on which a worker sends: one for each Socket.IO server in it",
)

PENDING_SHARE = _limit(
    "PENDING_SHARE",
    4,
    "as the divisor of max_pending",
    "address, /64 of IPv6, or worker",
    "one address may have a quarter of `max_pending` as unfinished requests, and keeps a quarter "
    "of complete ones when others need room; a quarter may wait for one worker that hangs",
)
SHELF_BUFFER = _limit(
    "SHELF_BUFFER",
    1048576,
    "bytes",
    "cluster",
    "buffer of a socket in the kernel (net.core.wmem_max allows 208 KiB unless it is raised); it "
    "stores about 2,000 waiting connections while the router restarts",
)
TLS_CHUNK = _limit(
    "TLS_CHUNK",
    65536,
    "bytes",
    "direction of a TLS connection",
    "data that waits in the router while the other side does not read; an idle connection has no "
    "buffer",
)
TLS_STALL_TIMEOUT = _limit(
    "TLS_STALL_TIMEOUT",
    30.0,
    "seconds",
    "direction of a TLS connection",
    "the router closes a connection when one side reads nothing of its waiting data for so long; "
    "longer than a worker waits for a slow client of a websocket, so that the worker, which knows"
    " more, decides first",
)
TLS_LINGER = _limit(
    "TLS_LINGER",
    2.0,
    "seconds",
    "TLS connection",
    "time for a client to read the last data and to close; closing over unread bytes would reset "
    "the connection",
)
MAX_CHANNELS = _limit(
    "MAX_CHANNELS",
    4096,
    "bytes",
    "worker",
    "length of the row with a worker's tag and channels that the other workers receive; a "
    "fraction of MAX_ROW",
)

# --- Sessions that move from one worker to another --------------------------------

HELD_SHARE = _limit(
    "HELD_SHARE",
    0.75,
    "of the descriptors for clients",
    "router",
    "share for sessions that wait for their next worker; the rest is for new clients and for "
    "descriptors in transit, which the kernel counts as well (unix(7), ETOOMANYREFS)",
)
TAKEOVER_TAGS = _limit(
    "TAKEOVER_TAGS",
    500,
    "tags",
    "worker",
    "tags of earlier workers whose sessions a worker has adopted; each is a topic of the relay, "
    "and a row in what every worker receives",
)
TAKEOVER_CHANNELS = _limit(
    "TAKEOVER_CHANNELS",
    16,
    "channels of the relay",
    "worker that ends",
    "channels in which the router receives messages in place of the worker; as TALLIES",
)
TAKEOVER_BATCHES = _limit(
    "TAKEOVER_BATCHES",
    2,
    "batches",
    "worker that adopts",
    "batches in transit to the worker: each has up to 252 connections, which the kernel counts "
    "until the worker has read them, and a worker that hangs reads none",
)
TAKEOVER_TRIES = _limit(
    "TAKEOVER_TRIES",
    8,
    "workers",
    "worker that ended",
    "workers that are asked, once each, to adopt the sessions; then the sessions end: a state "
    "that no worker can adopt, or that kills workers, must not stay",
)
PASS_TIMEOUT = _limit(
    "PASS_TIMEOUT",
    5.0,
    "seconds",
    "batch of sessions",
    "time for the router to receive a batch; a router that is killed meanwhile is back in one or "
    "two seconds",
)
TAKEOVER_STATE = _limit(
    "TAKEOVER_STATE",
    32 * 1024 * 1024,
    "bytes",
    "session",
    "length of a session's state as JSON when it moves to another worker: OUTPUT_CEILING bytes of"
    " waiting output take two thirds of it; a session with a longer state is closed",
)
TAKEOVER_HANDLERS = _limit(
    "TAKEOVER_HANDLERS",
    100,
    "on_takeover handlers",
    "worker",
    "`on_takeover` handlers that run at a time after a takeover; as CLOSING_AT_ONCE",
)
ADOPT_TIMEOUT = _limit(
    "ADOPT_TIMEOUT",
    15.0,
    "seconds",
    "step of an adoption",
    "time for each step of an adoption; then the router asks the next worker. Restoring 10,000 "
    "sessions takes a few seconds",
)

# --- Clients that come back after their worker has died --------------------------

JOURNAL_SEGMENTS = _limit(
    "JOURNAL_SEGMENTS",
    1000,
    "segments",
    "log of a worker's journal",
    "open segments in the router, one descriptor each, besides HELD_SHARE of all; at "
    "JOURNAL_SEGMENT bytes each they are a gigabyte. Nothing is recovered from a journal with "
    "more",
)
JOURNALS = _limit(
    "JOURNALS",
    1000,
    "journals",
    "worker",
    "journals of its own and inherited ones: two channels of the relay for each of TAKEOVER_TAGS",
)
JOURNAL_AGAIN = _limit(
    "JOURNAL_AGAIN",
    10.0,
    "seconds",
    "worker",
    "time after which the router asks a worker again for its journals if the router had no free "
    "descriptor; and time between attempts to keep them for the next router if the kernel had no "
    "room",
)
JOURNAL_TIME = _limit(
    "JOURNAL_TIME",
    600.0,
    "seconds",
    "worker that has died",
    "minimum time for another worker to inherit the journals: the disconnect handlers of the "
    "clients must run even when no client can come back any more",
)
CLAIMS = _limit(
    "CLAIMS",
    10_000,
    "questions",
    "router",
    "pending questions of workers to the owners of clients that came back; as many clients of one"
    " dead worker may come back at a time",
)
CLAIM_BYTES = _limit(
    "CLAIM_BYTES", 16 * 1024 * 1024, "bytes", "router", "length of all these questions"
)
CLAIM_TIMEOUT = _limit(
    "CLAIM_TIMEOUT",
    20.0,
    "seconds",
    "question",
    "time for an answer, including the time until another worker has inherited the client, even "
    "if the first worker that was asked to inherit did nothing for ADOPT_TIMEOUT; then the client"
    " gets a new session",
)

CLAIMS_AT_ONCE = _limit(
    "CLAIMS_AT_ONCE",
    10_000,
    "questions",
    "worker",
    "questions of other workers that a worker answers at a time; as CLAIMS",
)
CLAIMS_IN_VAIN = _limit(
    "CLAIMS_IN_VAIN",
    100.0,
    "a second",
    "worker",
    "clients with an unknown `pid`; above this rate, the worker asks no other worker about any "
    "client. A stranger can send invented pids as fast as it likes, before the application sees "
    "it, and each costs the named worker and the router a quarter of a millisecond",
)
CLAIMS_IN_VAIN_AT_ONCE = _limit(
    "CLAIMS_IN_VAIN_AT_ONCE",
    1000,
    "questions",
    "worker",
    "burst above CLAIMS_IN_VAIN after a quiet time: many clients may come back after their time "
    "is over",
)
CLAIM_LENGTH = _limit(
    "CLAIM_LENGTH",
    64 * 1024 * 1024,
    "bytes",
    "question or answer",
    "length of a question or answer about a client that comes back, with all that it has missed: "
    "at most what a journal keeps",
)
LOST_HANDLERS = _limit(
    "LOST_HANDLERS",
    100,
    "disconnect handlers",
    "worker",
    "disconnect handlers that run at a time for clients that did not come back",
)

# --- The channels between supervisord, the router and the workers ---------------

MAX_PACKET = _limit(
    "MAX_PACKET",
    65536,
    "bytes",
    "message",
    "length of one packet of a channel: a fraction of the 208 KiB that the kernel buffers for a "
    "socket, so that several fit",
)
MAX_DESCRIPTORS = _limit(
    "MAX_DESCRIPTORS",
    253,
    "descriptors",
    "message",
    "the kernel passes no more with one packet (SCM_MAX_FD)",
)
MAX_ROW = _limit(
    "MAX_ROW",
    16384,
    "bytes",
    "row of an answer",
    "a row always fits into a packet, with what the router adds to it",
)
MAX_REASON = _limit(
    "MAX_REASON",
    1000,
    "characters",
    "error in a message",
    "an error may quote what a peer has sent, and must itself fit into a packet",
)
MOST_ANSWERS = _limit(
    "MOST_ANSWERS",
    64,
    "answers",
    "router",
    "pending calls of `sio.*`; each has a timeout, ANSWER_TIMEOUT",
)
MAX_NAMES = _limit(
    "MAX_NAMES",
    16384,
    "bytes",
    "list of workers that a router gets at its start",
    "list of workers that a router receives at its start; everything it receives must fit into "
    "one packet, and it learns of the others when they join",
)
MAX_COMMAND = _limit(
    "MAX_COMMAND",
    65000,
    "bytes",
    "command to the router",
    "length of a command; the router adds 536 bytes at most for the workers",
)

# --- supervisord's side, and answers to supervisorctl ---------------------------

GUARD_LOG_INTERVAL = _limit(
    "GUARD_LOG_INTERVAL",
    1.0,
    "seconds",
    "reason",
    "time between two log lines of supervisord about the same error of supervisor-sio; each error"
    " is counted",
)
GUARD_PAUSE = _limit(
    "GUARD_PAUSE",
    1.0,
    "seconds",
    "descriptor",
    "supervisord does not poll a descriptor for so long after an error of supervisor-sio on it: "
    "the descriptor might stay readable, and supervisord would be in a busy loop",
)
STEADY_AFTER = _limit(
    "STEADY_AFTER",
    10.0,
    "seconds",
    "worker",
    "a worker that ends within this time after it was ready counts as one more failure in a row",
)
FAILURES_WITHOUT_PAUSE = _limit(
    "FAILURES_WITHOUT_PAUSE",
    2,
    "failures",
    "worker",
    "failures in a row after which supervisord still restarts the worker at once",
)
FAILURE_PAUSE = _limit(
    "FAILURE_PAUSE",
    30.0,
    "seconds",
    "worker",
    "longest pause before supervisord restarts the worker; the pause is 1 second after the third "
    "failure in a row, and doubles with each further one. A worker that was ready is down no "
    "longer than it has lived",
)
LAST_LINE = _limit(
    "LAST_LINE",
    400,
    "characters",
    "worker",
    "length of the last line of a failed worker's log in `sio status`",
)
LAST_LINE_READ = _limit(
    "LAST_LINE_READ",
    4096,
    "bytes",
    "failure",
    "supervisord reads this much from the end of a failed worker's log to find its last line",
)
SCRIPT_LENGTH = _limit(
    "SCRIPT_LENGTH",
    65536,
    "characters",
    "program",
    "`supervisor-sio check` reads this much of a start script or of a module of the application",
)
PROBE_TIMEOUT = _limit(
    "PROBE_TIMEOUT",
    20.0,
    "seconds",
    "program",
    "`supervisor-sio check` waits so long for a program's Python to list its packages",
)
ACCESS_LOG_TEXT = _limit(
    "ACCESS_LOG_TEXT",
    200,
    "characters",
    "text of a client",
    "length of an address, a path or a user agent in a line of the access log",
)
EVENT_METRICS = _limit(
    "EVENT_METRICS",
    100,
    "events",
    "worker",
    "events with metrics of their own, with `event_metrics`, if the application has handlers for "
    "them; all others share one row. Each event has four series for each worker",
)
EVENT_METRICS_TEXT = _limit(
    "EVENT_METRICS_TEXT",
    200,
    "bytes",
    "name of an event, or namespace",
    "length as JSON, with `event_metrics`; an event with a longer name has no row of its own, so "
    "that all rows fit into one message",
)
IMPORT_TIMEOUT = _limit(
    "IMPORT_TIMEOUT",
    60.0,
    "seconds",
    "application",
    "`supervisor-sio check --app` waits so long for the import",
)
FORGOTTEN_RUN_DIRS = _limit(
    "FORGOTTEN_RUN_DIRS",
    100,
    "directories",
    "start",
    "directories that supervisord checks to remove those of killed supervisords",
)
MAX_CANDIDATES = _limit(
    "MAX_CANDIDATES",
    8,
    "connections",
    "supervisord",
    "connections that have not yet identified themselves as a router; one more closes the oldest",
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
    "packets of the router that supervisord reads before it does its other work",
)
ROUTER_TURN = _limit(
    "ROUTER_TURN",
    0.005,
    "seconds",
    "turn",
    "time for which supervisord reads packets of the router before it does its other work: long "
    "answers come in many packets",
)
ANSWER_TIMEOUT = _limit(
    "ANSWER_TIMEOUT",
    5.0,
    "seconds",
    "call",
    "an XML-RPC call waits so long for the router, which waits three seconds for its workers",
)
MOST_ROOMS_COUNTED = _limit(
    "MOST_ROOMS_COUNTED",
    25_000,
    "rooms",
    "worker and question",
    "rooms that a worker counts: 0.1 s in the worker and 2 MB in the router. The counts of the "
    "listed rooms are exact even if there are more",
)
MOST_ROOMS_OF_CLIENT = _limit(
    "MOST_ROOMS_OF_CLIENT",
    50,
    "rooms",
    "client in `sio sockets`",
    "rooms listed for a client; clients decide how many they have. The row gives the number of "
    "the others",
)
LONGEST_ROOM = _limit(
    "LONGEST_ROOM",
    1024,
    "bytes",
    "room name in an answer",
    "length of a room name; clients choose it. A name that is cut ends with …",
)
MAX_ROOMS = _limit(
    "MAX_ROOMS",
    4096,
    "bytes",
    "client in `sio sockets`",
    "length of all room names of a client; a quarter of MAX_ROW, so that the sid, the address and"
    " the worker's name fit as well",
)

# --- What one worker of the cluster runs ------------------------------------------

RUN_ONCE_LEASE = _limit(
    "RUN_ONCE_LEASE",
    6.0,
    "seconds",
    "task of `run_once()`",
    "a worker may run a task for so long after it last renewed its lease; as long as SILENCE, "
    "after which a worker counts as hung",
)
RUN_ONCE_RENEWAL = _limit(
    "RUN_ONCE_RENEWAL",
    1.0,
    "seconds",
    "task of `run_once()`",
    "time between two renewals of a lease: five may fail",
)
RUN_ONCE_OFFER = _limit(
    "RUN_ONCE_OFFER",
    1.0,
    "seconds",
    "offer of a task",
    "time for a worker to begin an offered task; then the router offers it to another worker",
)
RUN_ONCE_PAUSE = _limit(
    "RUN_ONCE_PAUSE",
    60.0,
    "seconds",
    "task of `run_once()`",
    "longest pause before a failed task is retried: 1 second after the first failure, doubled "
    "with each further one; a task that has run for as long starts again at 1",
)
RUN_ONCE_TASKS = _limit(
    "RUN_ONCE_TASKS",
    100,
    "tasks",
    "cluster",
    "tasks of all workers together, so that the status of all fits into a packet",
)
RUN_ONCE_NAME = _limit(
    "RUN_ONCE_NAME",
    64,
    "characters",
    "name of a task",
    "letters, digits and `._:-`: the name is a label of metrics, and part of a line of `sio "
    "status`",
)

# --- Workers that hang, or are recycled --------------------------------------------

SILENCE = _limit(
    "SILENCE",
    6.0,
    "seconds",
    "worker",
    "a worker counts as hung after so long without a report; a healthy one reports every two "
    "seconds",
)
DRAIN_TIME = _limit(
    "DRAIN_TIME",
    2.0,
    "seconds",
    "worker without takeover",
    "time between a worker's last new session and its stop, so that clients that are connecting "
    "(or upgrading) can finish",
)
RECYCLE_LOOK = _limit(
    "RECYCLE_LOOK",
    0.5,
    "seconds",
    "cluster with limits of its workers",
    "minimum time between two checks of the workers' memory; supervisord reads a file of /proc "
    "for each worker",
)
RECYCLE_QUIET = _limit(
    "RECYCLE_QUIET",
    2.0,
    "seconds",
    "worker that is recycled",
    "the next worker is recycled when no worker has started, stopped or been drained for so long;"
    " more than the time between two steps of `sio reload`",
)
RECYCLE_NOTICE = _limit(
    "RECYCLE_NOTICE",
    1.0,
    "seconds",
    "worker that is recycled",
    "`sio status` announces a recycling for so long before it begins: a command that an operator "
    "starts meanwhile goes first, and a later one waits",
)
RECYCLE_DRAIN = _limit(
    "RECYCLE_DRAIN",
    15.0,
    "seconds",
    "worker that is recycled",
    "time for the router to drain the worker; a router that was killed is back sooner",
)
RECYCLE_START = _limit(
    "RECYCLE_START",
    60.0,
    "seconds",
    "worker that is recycled",
    "time for the new process to be ready, as with `sio reload`",
)
RECYCLE_EARLY = _limit(
    "RECYCLE_EARLY",
    10.0,
    "seconds",
    "worker",
    "if a worker exceeds `max_memory` within this time after it was ready, it is recycled after "
    "no less than this time the next time, and twice as long each further time",
)
RECYCLE_PAUSE = _limit(
    "RECYCLE_PAUSE",
    300.0,
    "seconds",
    "worker",
    "longest such time: the memory of the host must still be protected",
)
RECYCLE_JITTER = _limit(
    "RECYCLE_JITTER",
    0.1,
    "of `max_lifetime`",
    "process of a worker",
    "each process's `max_lifetime` is shorter by a random part of at most this, so that workers "
    "that started together do not end together",
)

# --- Clients that `sio rebalance` moves to other workers ---------------------------

REBALANCE_RATE = _limit(
    "REBALANCE_RATE",
    100,
    "clients a second",
    "cluster",
    "clients that `sio rebalance` disconnects at most: each opens a new session, which takes a "
    "worker about a millisecond, with TLS the router two more, and may run a `connect` handler",
)
REBALANCE_TOLERANCE = _limit(
    "REBALANCE_TOLERANCE",
    0.05,
    "of its share",
    "worker",
    "by so much, or by one client if that is more, each worker's number of clients may differ from "
    "its share: no client has to reconnect for less",
)
REBALANCE_WAIT = _limit(
    "REBALANCE_WAIT",
    10.0,
    "seconds",
    "round of `sio rebalance`",
    "time for the last clients to reconnect: socket.io-client waits for up to 1.5 s before its "
    "first attempt, and for up to 7.5 s between later ones; while as many clients are missing as "
    "are disconnected in this time, no others are",
)
REBALANCE_ROUNDS = _limit(
    "REBALANCE_ROUNDS",
    3,
    "rounds",
    "`sio rebalance`",
    "rounds after which `sio rebalance` ends even if the load is uneven; the second round is for "
    "what changed during the first one, as when a worker died",
)
REBALANCE_START = _limit(
    "REBALANCE_START",
    60.0,
    "seconds",
    "worker that starts",
    "while a worker starts, `sio rebalance` is refused, and each round of one under way waits for "
    "it, for this time at most; from this time after its start on it is left out, because "
    "`sio reload` and `sio scale` have given it up",
)
REBALANCE_LOOKED_AT = _limit(
    "REBALANCE_LOOKED_AT",
    2000,
    "sessions",
    "worker, each tenth of a second",
    "sessions that a worker looks at to choose those to disconnect; that takes about a millisecond",
)

# --- The relay: messages between the processes of a host ------------------------

RELAY_MOST_STREAMS = _limit(
    "RELAY_MOST_STREAMS",
    1000,
    "streams",
    "process that emits",
    "streams of a process, each of which numbers the messages to one worker; an invented session "
    "id names an invented worker, and each would cost a stream",
)

RELAY_LONGEST_PUSHED = _limit(
    "RELAY_LONGEST_PUSHED",
    16 * 1024,
    "bytes",
    "message",
    "a longer message is not sent to all processes; each process that needs it fetches it. This "
    "bounds in bytes what waits in the relay for a stopped worker",
)
RELAY_BUNDLE_MESSAGES = _limit(
    "RELAY_BUNDLE_MESSAGES",
    128,
    "messages",
    "turn of a process's loop",
    "messages that are collected and sent together, or received and handled together, within"
    " RELAY_LONGEST_PUSHED bytes",
)
RELAY_MOST_ROOMS = _limit(
    "RELAY_MOST_ROOMS",
    255,
    "rooms",
    "message",
    "rooms of a message whose hashes let a worker without a client in them skip the message; "
    "every worker examines a message to more rooms",
)
RELAY_MOST_OUTDATED = _limit(
    "RELAY_MOST_OUTDATED",
    100,
    "senders",
    "process that receives from the relay",
    "senders of another version of this package that get a log line each; the line asks for their"
    " restart",
)
RELAY_MOST_ENDED = _limit(
    "RELAY_MOST_ENDED",
    100,
    "workers",
    "router",
    "workers that ended last, for which the router remembers how many messages they had sent",
)
RELAY_MOST_LEFT = _limit(
    "RELAY_MOST_LEFT",
    100,
    "processes",
    "router",
    "as RELAY_MOST_ENDED, for processes that only emit and ended before all workers had their "
    "messages; counted apart, because one may start many of them",
)

RELAY_MOST_FAILURES = _limit(
    "RELAY_MOST_FAILURES",
    20,
    "errors in a row",
    "process that receives from the relay",
    "errors in a row, a quarter of a second apart, after which the messages are not the cause: a "
    "worker that cannot receive ends, and supervisord restarts it",
)

RELAY_MOST_HELD = _limit(
    "RELAY_MOST_HELD",
    1000,
    "messages",
    "stream",
    "messages that wait in a process for an earlier one of the same sender; further ones are "
    "fetched again later",
)
RELAY_MOST_HELD_BYTES = _limit(
    "RELAY_MOST_HELD_BYTES",
    16 * 1024 * 1024,
    "bytes",
    "process",
    "length of such messages of all senders",
)
RELAY_GIVE_UP = _limit(
    "RELAY_GIVE_UP",
    10.0,
    "seconds",
    "sender",
    "a missing message expires after so long without an answer, and counts as dropped, unless the"
    " router knows that the sender lives",
)
RELAY_MOST_SENDERS = _limit(
    "RELAY_MOST_SENDERS",
    10_000,
    "senders",
    "process",
    "senders whose position a process remembers; a process may emit once and end",
)
RELAY_MOST_GONE = _limit(
    "RELAY_MOST_GONE",
    1000,
    "senders",
    "process",
    "senders that ended last, whose position is remembered: their messages that still wait in the"
    " relay must not reach adopted sessions twice",
)
RELAY_BATCH_MESSAGES = _limit(
    "RELAY_BATCH_MESSAGES", 128, "messages", "answer", "messages that are sent again at a time"
)
RELAY_BATCH_BYTES = _limit(
    "RELAY_BATCH_BYTES",
    256 * 1024,
    "bytes",
    "answer",
    "length of messages that are sent again at a time; a longer message is sent alone",
)
RELAY_MOST_REPEATED = _limit(
    "RELAY_MOST_REPEATED",
    1024,
    "objects",
    "process",
    "fields of messages that are remembered encoded and decoded, each at most 512 bytes long, and"
    " hashes of rooms whose names have at most 512 characters",
)
RELAY_HIGH_WATER = _limit(
    "RELAY_HIGH_WATER",
    8192,
    "messages",
    "process that sends to the relay or receives from it",
    "messages that may wait in the process itself, to be sent or examined; the process fetches "
    "dropped ones from the sender",
)
RELAY_WAITING = _limit(
    "RELAY_WAITING",
    2048,
    "messages",
    "process that receives from the relay",
    "messages that may wait in the relay for a process that does not read them, such as a stopped"
    " one; each may be a bundle, so with RELAY_LONGEST_PUSHED these are 32 MB. The process "
    "fetches dropped ones from the sender",
)

STAND_IN_MESSAGES = _limit(
    "STAND_IN_MESSAGES",
    100_000,
    "messages",
    "worker whose sessions the router holds",
    "messages kept for these sessions until another worker adopts them: ten seconds of 10,000 a "
    "second; further ones are lost to these sessions, and count as dropped",
)
STAND_IN_BYTES = _limit(
    "STAND_IN_BYTES",
    64 * 1024 * 1024,
    "bytes",
    "worker whose sessions the router holds",
    "length of these messages, with RELAY_KEPT_OVERHEAD for each",
)
RELAY_KEPT_OVERHEAD = _limit(
    "RELAY_KEPT_OVERHEAD",
    400,
    "bytes",
    "message that is kept",
    "added to the length of each message: objects and links",
)
HEIR_EVENTS = _limit(
    "HEIR_EVENTS",
    10_000,
    "events",
    "worker that is killed after it has inherited clients",
    "how many of its journal's last events the router reads to find what the worker itself had "
    "emitted meanwhile: this blocks the router for up to 60 ms",
)
HEIR_BYTES = _limit(
    "HEIR_BYTES",
    16 * 1024 * 1024,
    "bytes",
    "worker that is killed after it has inherited clients",
    "length of what the worker itself had emitted meanwhile; if it is more, these clients get a "
    "new session",
)
POSITION_BYTES = _limit(
    "POSITION_BYTES",
    128 * 1024 * 1024,
    "bytes",
    "worker that passes its sessions on",
    "length of the worker's position in the streams of the others, with the messages that it "
    "waits for: what STAND_IN_BYTES, HEIR_BYTES and RELAY_MOST_HELD_BYTES allow, and the positions "
    "of RELAY_MOST_SENDERS",
)

JOURNAL_SEGMENT = _limit(
    "JOURNAL_SEGMENT",
    1024 * 1024,
    "bytes",
    "piece of a journal",
    "with recovery, length of a piece of a journal; a journal drops its oldest piece as a whole. "
    "A longer record has a piece of its own",
)
JOURNAL_PIECES = _limit(
    "JOURNAL_PIECES",
    16,
    "pieces",
    "journal",
    "pieces into which a journal's limits of events, bytes and seconds are divided; it may keep "
    "one piece more",
)
JOURNAL_CARRIED = _limit(
    "JOURNAL_CARRIED",
    4,
    "records",
    "record written",
    "states of clients that are copied with each new record so that an old piece can be dropped, "
    "while more than half of all records are out of date",
)

REPLIES_KEPT = _limit(
    "REPLIES_KEPT",
    10_000,
    "answers",
    "worker",
    "answers to processes that serve no clients. These answers are not numbered on the relay: a "
    "process that missed some asks for them again",
)
REPLIES_AGAIN = _limit(
    "REPLIES_AGAIN",
    1000,
    "answers",
    "question for what was lost",
    "answers that are sent again at a time, within RELAY_BATCH_BYTES",
)
REPLIES_BYTES = _limit(
    "REPLIES_BYTES", 4 * 1024 * 1024, "bytes", "worker", "length of the answers of REPLIES_KEPT"
)
REPLIES_SECONDS = _limit(
    "REPLIES_SECONDS",
    60.0,
    "seconds",
    "answer",
    "time for which such an answer is kept; a process that waits for it asks every second, and a "
    "router starts in less than ten",
)

# --- Clients that move to another worker ----------------------------------------

PLAIN_DEPTH = _limit(
    "PLAIN_DEPTH",
    100,
    "levels",
    "client",
    "nesting of lists and dictionaries in a client's session data; a client with more is "
    "disconnected when it would move, and cannot recover its session. Python's own bound is a "
    "thousand levels, calls included, and the code that reads the data needs some",
)
CLIENT_STATE = _limit(
    "CLIENT_STATE",
    1024 * 1024,
    "characters",
    "client",
    "length of a client's session data and handshake environment when it moves to another worker;"
    " a client with more is disconnected",
)
MOST_TOLD_OF = _limit(
    "MOST_TOLD_OF",
    20,
    "log lines",
    "worker",
    "log lines about data of clients that cannot be moved, each about another cause",
)
OBJECTS_LOOKED_AT = _limit(
    "OBJECTS_LOOKED_AT",
    10_000,
    "objects",
    "search",
    "objects that a worker examines to find the application objects that a client's environment "
    "refers to, starting from the imported modules",
)
SHARED_TEXTS = _limit(
    "SHARED_TEXTS",
    1024,
    "texts",
    "worker",
    "texts in the environments of moved clients that are stored once for all clients, and as many"
    " headers",
)
SHARED_LENGTH = _limit(
    "SHARED_LENGTH", 256, "characters", "text", "length of a text that is shared"
)

# --- Clients that come back to their session --------------------------------------

OFFSET_LENGTH = _limit(
    "OFFSET_LENGTH",
    64,
    "characters",
    "offset",
    "length of the offset that a client sends when it comes back; it is stored, because the "
    "client may send it again. Our offsets have 24 characters at most, as have those of Node's "
    "servers",
)
CLIENT_ROOMS = _limit(
    "CLIENT_ROOMS",
    32_768,
    "characters",
    "client",
    "length of the names of a client's rooms, with 16 more for each; about 1,000 usual ones. All "
    "names are written each time the client enters or leaves a room, which takes half a "
    "millisecond then. A client with more cannot recover its session",
)
ROOMS_LEFT = _limit(
    "ROOMS_LEFT",
    100,
    "rooms",
    "client",
    "rooms that a client left a short while ago; it may have missed something in them",
)
CLIENT_STAYS = _limit(
    "CLIENT_STAYS",
    8,
    "workers",
    "client",
    "earlier workers that had the client on the same connection, each with its rooms, in memory "
    "and in each written state. A reload adds one. A client that received nothing during so many,"
    " and then comes back, gets a new session",
)
RECOVERY_WAIT = _limit(
    "RECOVERY_WAIT",
    15.0,
    "seconds",
    "client",
    "time for a worker to receive as many messages of the others as the worker that the client "
    "has come to; after a crash, an overloaded machine takes seconds for it. Less than "
    "CLAIM_TIMEOUT, so that the reason can still be reported",
)
CLIENT_ANSWERS = _limit(
    "CLIENT_ANSWERS",
    1.0,
    "seconds",
    "client",
    "time for a connected client to answer a ping when another connection claims its session; "
    "without an answer, the new connection gets the session",
)
RECOVERY_HANDS = _limit(
    "RECOVERY_HANDS",
    40.0,
    "seconds",
    "client",
    "time for a worker that received a client's missed events to take the client: longer than "
    "RECOVERY_WAIT and CLAIM_TIMEOUT together",
)
RECOVERY_HOPS = _limit(
    "RECOVERY_HOPS", 8, "workers", "client", "workers that are asked in turn about one client"
)
RECOVERY_SLICE = _limit(
    "RECOVERY_SLICE",
    0.005,
    "seconds",
    "worker",
    "time for which a worker reads its journal, or writes the clients that it has inherited, "
    "before other work gets a turn",
)
MISSED_BYTES = _limit(
    "MISSED_BYTES",
    32 * 1024 * 1024,
    "bytes",
    "worker",
    "missed events of clients that come back, from when they are read until these clients or "
    "other workers have them; and as much again for clients of other workers. Further clients "
    "wait in their order. A single client may exceed it: twice what a journal keeps",
)
MISSED_WAITING = _limit(
    "MISSED_WAITING",
    10_000,
    "clients",
    "worker",
    "clients that wait for room in MISSED_BYTES, at most for RECOVERY_WAIT; as CLAIMS",
)
MISSED_HELD = _limit(
    "MISSED_HELD",
    3.0,
    "seconds",
    "client",
    "longest time for which events that were sent to a client count in MISSED_BYTES, so that slow"
    " clients do not make others wait; then OUTPUT_CEILING and SLOW_OUTPUT bound its waiting "
    "output",
)
MISSED_THREAD_WAIT = _limit(
    "MISSED_THREAD_WAIT",
    0.2,
    "seconds",
    "client of a worker with threads",
    "time for which such a client waits for room in MISSED_BYTES; then it exceeds it. It occupies"
    " one of the application's few threads meanwhile",
)
CLIENTS_MOVED = _limit(
    "CLIENTS_MOVED",
    65_536,
    "clients",
    "worker",
    "clients that have come back to another worker; messages for them are forwarded. The oldest "
    "is forgotten",
)
CLIENTS_GONE = _limit(
    "CLIENTS_GONE",
    1000,
    "clients",
    "worker",
    "clients that could not be kept or were given up, for which the worker remembers the reason; "
    "the oldest is forgotten, and then has an unknown `pid`",
)
JOURNALS_KEPT = _limit(
    "JOURNALS_KEPT",
    64,
    "journals",
    "worker",
    "journals of earlier workers; the oldest is dropped, as if its time were over",
)
CLIENT_ARRIVED = _limit(
    "CLIENT_ARRIVED",
    60.0,
    "seconds",
    "client",
    "time for which a worker remembers a client that came back and has left since: the previous "
    "worker may ask whether it arrived",
)
CLIENTS_ASKED = _limit(
    "CLIENTS_ASKED",
    1000,
    "clients",
    "question",
    "clients in one question to another worker whether they have arrived",
)
CLIENTS_LOST = _limit(
    "CLIENTS_LOST",
    32_768,
    "clients",
    "worker",
    "clients without a connection that may come back, with inherited ones; above that, the one "
    "whose time ends next is given up within a second. Each takes about five KiB, and what the "
    "application has stored for it; a stranger who connects and leaves all the time makes many",
)

# --- The bridge: messages between hosts -----------------------------------------

BRIDGE_MOST_WAITING = _limit(
    "BRIDGE_MOST_WAITING",
    65_536,
    "messages",
    "host",
    "messages that wait for Redis while it is away, a minute at 1,000 a second; further ones "
    "count as unsent. One to two times as many are kept for other hosts that missed them",
)
BRIDGE_MOST_WAITING_BYTES = _limit(
    "BRIDGE_MOST_WAITING_BYTES", 64 * 1024 * 1024, "bytes", "host", "length of these messages"
)
BRIDGE_PATIENCE = _limit(
    "BRIDGE_PATIENCE",
    60.0,
    "seconds",
    "host",
    "time after which the missing messages of a host that is gone expire; a host that is "
    "connected and does not answer has RELAY_GIVE_UP",
)
BRIDGE_MOST_ON_THEIR_WAY = _limit(
    "BRIDGE_MOST_ON_THEIR_WAY",
    4000,
    "messages",
    "host",
    "messages given to Redis that have not come back from it yet; further ones wait in the router. "
    "A host that receives slowly sends so many while it receives what all hosts have sent",
)
BRIDGE_MOST_ON_THEIR_WAY_BYTES = _limit(
    "BRIDGE_MOST_ON_THEIR_WAY_BYTES",
    2 * 1024 * 1024,
    "bytes",
    "host",
    "length of these messages, and up to BRIDGE_BATCH more: Redis disconnects a receiver for which "
    "8 MiB have waited for a minute",
)
BRIDGE_MOST_HELD = _limit(
    "BRIDGE_MOST_HELD",
    10_000,
    "messages",
    "host",
    "messages of each other host that wait for an earlier one, within RELAY_MOST_HELD_BYTES for "
    "all hosts; further ones are requested again",
)
BRIDGE_MOST_UNNUMBERED = _limit(
    "BRIDGE_MOST_UNNUMBERED",
    1000,
    "messages",
    "host",
    "messages without a number that wait for Redis: questions of bridges, their answers, and "
    "volatile emits; further ones are not sent, and are requested again if they are needed",
)
BRIDGE_MOST_UNNUMBERED_BYTES = _limit(
    "BRIDGE_MOST_UNNUMBERED_BYTES",
    16 * 1024 * 1024,
    "bytes",
    "host",
    "length of these messages; a longer one, with a long message that was missed, waits alone",
)
BRIDGE_LONGEST = _limit(
    "BRIDGE_LONGEST",
    27 * 1024 * 1024,
    "bytes",
    "message",
    "length of a message, also within an answer to a host that missed it; a longer one is not "
    "sent, and counts as unsent, because Redis disconnects a receiver for which it has allocated "
    "32 MiB, in steps of 4 MiB",
)
BRIDGE_BEAT = _limit(
    "BRIDGE_BEAT",
    1.0,
    "seconds",
    "host",
    "time between two heartbeats to the other hosts: the list of workers, and the number of the "
    "last message",
)
BRIDGE_SILENCE = _limit(
    "BRIDGE_SILENCE",
    4.0,
    "seconds",
    "host",
    "without a heartbeat of a host for so long, its workers count as gone, and no call waits for "
    "them; less than the default timeout of a call, and more than a router's restart takes. A "
    "connection to Redis may be silent for as long",
)
BRIDGE_BATCH = _limit(
    "BRIDGE_BATCH",
    256 * 1024,
    "bytes",
    "answer",
    "messages sent again to another host at a time; a longer message is sent alone",
)
BRIDGE_MOST_ORIGINS = _limit(
    "BRIDGE_MOST_ORIGINS",
    10_000,
    "streams",
    "host",
    "senders of other hosts whose last number is remembered; without it, a restarted bridge of "
    "theirs would have its messages delivered twice",
)
BRIDGE_MOST_OTHERS = _limit(
    "BRIDGE_MOST_OTHERS",
    1000,
    "bridges",
    "process",
    "other hosts, with their earlier routers, whose position is remembered",
)
BRIDGE_LONGEST_NAME = _limit(
    "BRIDGE_LONGEST_NAME",
    255,
    "characters",
    "message",
    "length of the name of a bridge or a sender of another host: such names are remembered, and "
    "saved for the next router",
)
BRIDGE_MOST_CALLBACKS = _limit(
    "BRIDGE_MOST_CALLBACKS",
    65_536,
    "callbacks",
    "host",
    "callbacks of other hosts that wait for acknowledgements of clients here; one more makes the "
    "oldest expire",
)

BRIDGE_MOST_ASKERS = _limit(
    "BRIDGE_MOST_ASKERS",
    10_000,
    "processes",
    "host",
    "processes without clients that last asked the workers of all hosts: answers of other hosts "
    "are forwarded to them. A router that is not the host's first forwards answers also to "
    "processes that it does not know, because they may have asked before",
)

# --- A worker and its life --------------------------------------------------------

CLOSING_AT_ONCE = _limit(
    "CLOSING_AT_ONCE",
    100,
    "disconnect handlers",
    "worker",
    "disconnect handlers that run at a time while the worker drains",
)
MESSAGES_HELD = _limit(
    "MESSAGES_HELD",
    256 * 1024,
    "bytes",
    "client",
    "messages of a client, with OUTPUT_OBJECT for each, that wait while its session moves to "
    "another worker, or because EVENTS_WAITING is reached; then nothing more is read from it, also"
    " no acknowledgement. When a session moves, messages that wait for a thread are kept as well",
)
TAKEOVER_BATCH = _limit(
    "TAKEOVER_BATCH",
    256 * 1024,
    "bytes",
    "batch",
    "length after which the next batch of moving sessions begins, so that reading a batch does "
    "not block the loop for long; a batch also has one packet's descriptors at most",
)
IDLE_GREENLETS = _limit(
    "IDLE_GREENLETS",
    100,
    "greenlets",
    "worker",
    "greenlets that wait to be reused; each keeps a stack",
)
LEAVE_TIMEOUT = _limit(
    "LEAVE_TIMEOUT",
    2.0,
    "seconds",
    "worker",
    "a worker that stops waits so long for the router to release it",
)
LINK_MESSAGES = _limit(
    "LINK_MESSAGES",
    100,
    "messages",
    "worker",
    "messages that wait for a router that does not read; each answer to a question has one "
    "message waiting at a time, and one more is not sent",
)

EVENTS_WAITING = _limit(
    "EVENTS_WAITING",
    64,
    "events",
    "client",
    "events that wait for a thread of the application; later events are read, but wait until all "
    "of these have begun",
)
LONG_EVENT = _limit(
    "LONG_EVENT",
    16384,
    "bytes",
    "client",
    "length of an event that waits for a thread, with its attachments; after a longer one, later "
    "events wait as with EVENTS_WAITING",
)
BODY_AHEAD = _limit(
    "BODY_AHEAD",
    65536,
    "bytes",
    "request",
    "bytes of a body that are read before the request occupies a thread of the application",
)
SLOW_CLIENT_SECONDS = _limit(
    "SLOW_CLIENT_SECONDS",
    2.0,
    "seconds",
    "request",
    "time for which a client may send nothing of its body, or read nothing of its answer, while "
    "other requests wait for the thread that it occupies",
)
LOG_LINES = _limit(
    "LOG_LINES",
    1000,
    "lines",
    "worker",
    "log lines of the loop that wait for the application's log handlers, in a worker with "
    "threads; further ones are dropped",
)
LAST_THREADS_SECONDS = _limit(
    "LAST_THREADS_SECONDS",
    1.0,
    "seconds",
    "worker",
    "a worker that ends waits so long for threads of the application that are not daemons",
)
THREAD_CALLS = _limit(
    "THREAD_CALLS",
    1000,
    "calls",
    "worker",
    "calls from other threads that wait for the serving thread; the caller of one more blocks",
)
THREAD_CALLS_BYTES = _limit(
    "THREAD_CALLS_BYTES",
    16 * 1024 * 1024,
    "bytes",
    "worker",
    "length of what these calls send, above which a caller blocks",
)
THREAD_WAIT = _limit(
    "THREAD_WAIT",
    5.0,
    "seconds",
    "call",
    "a caller blocks so long, then the call raises: the serving thread is stuck",
)
TRACEBACKS = _limit(
    "TRACEBACKS",
    3,
    "tracebacks",
    "place in the code and minute",
    "tracebacks of the application in a worker's log; a line a second counts the others: clients "
    "decide how often a handler fails",
)


def render() -> str:
    """The table in Markdown."""
    rows = [
        f"| `{row.name}` | {row.value:,} {row.unit} | {row.per} | {row.reason} |" for row in TABLE
    ]
    head = ["| limit | value | for each | what it bounds, and why |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    print(render(), end="")
