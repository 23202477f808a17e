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

HEAD_BYTES = _limit(
    "HEAD_BYTES", 16384, "bytes", "request", "of request line and headers, as in Node's servers"
)
HEAD_FIELDS = _limit("HEAD_FIELDS", 100, "header lines", "request", "as in Apache")
CHUNK_LINE_BYTES = _limit(
    "CHUNK_LINE_BYTES",
    256,
    "bytes",
    "chunk",
    "the line with its size, of at most 15 digits, and extensions; also for each trailer",
)
TRAILER_BYTES = _limit(
    "TRAILER_BYTES", 4096, "bytes", "chunked body", "applications do not read trailers"
)
CORS_ORIGINS = _limit(
    "CORS_ORIGINS",
    100,
    "origins",
    "worker",
    "of `cors_allowed_origins` that the router gets to know, to refuse in a way that their pages "
    "can read; of an application with more it knows none",
)
ORIGIN_CHARACTERS = _limit(
    "ORIGIN_CHARACTERS", 300, "characters", "origin", "a host name has at most 253"
)
UNREAD_BODY_BYTES = _limit(
    "UNREAD_BODY_BYTES",
    65536,
    "bytes",
    "request",
    "a body that the application leaves unread; of a longer one the connection closes",
)
LINGER_SECONDS = _limit(
    "LINGER_SECONDS",
    2.0,
    "seconds",
    "connection",
    "reading on after a refusal: to close at once would reset the connection, answer included",
)
BODY_GRACE_SECONDS = _limit(
    "BODY_GRACE_SECONDS",
    20.0,
    "seconds",
    "request",
    "of waiting for its body, and one more for each BODY_RATE bytes; as Apache's mod_reqtimeout",
)
BODY_RATE = _limit("BODY_RATE", 500, "bytes a second", "request", "see BODY_GRACE_SECONDS")
STALLED_SECONDS = _limit(
    "STALLED_SECONDS", 60.0, "seconds", "request", "in which a client takes nothing of its answer"
)
READS_PER_TURN = _limit(
    "READS_PER_TURN", 2, "reads of 64 KB", "request", "of a body, before others have a turn"
)
HALF_CLOSED_SECONDS = _limit(
    "HALF_CLOSED_SECONDS",
    2.0,
    "seconds",
    "request",
    "for an ASGI application to answer a client that has ended its side of the connection; then "
    "it is told that the client is gone, as most are",
)
APPLICATION_MESSAGE = _limit(
    "APPLICATION_MESSAGE",
    16 * 1024 * 1024,
    "bytes",
    "message of a websocket of the ASGI application",
    "as uvicorn has it; a longer one ends the websocket with 1009",
)
APPLICATION_READ = _limit(
    "APPLICATION_READ",
    16384,
    "bytes",
    "read of a websocket of the ASGI application",
    "after which no more is read until the application has received the messages in it",
)

# --- Engine.IO sessions and websockets ------------------------------------------

OUTPUT_CEILING = _limit(
    "OUTPUT_CEILING",
    16 * 1024 * 1024,
    "bytes",
    "client",
    "of output that waits, with either transport; whoever has more is cut off at once. 15 MB "
    "that are sent at once to a client on a slow line stay within it",
)
OUTPUT_OBJECT = _limit(
    "OUTPUT_OBJECT",
    200,
    "bytes",
    "piece of waiting output",
    "that it is counted for besides its own: it is an object in a queue",
)
SLOW_OUTPUT = _limit(
    "SLOW_OUTPUT",
    4 * 1024 * 1024,
    "bytes",
    "client",
    "of output that waits; while there is more, the client must take SLOW_OUTPUT_TAKEN in each "
    "SLOW_OUTPUT_PATIENCE, or is cut off",
)
SLOW_OUTPUT_PATIENCE = _limit(
    "SLOW_OUTPUT_PATIENCE",
    10.0,
    "seconds",
    "client",
    "see SLOW_OUTPUT; half of `ping_timeout` (20): phones recover from most stalls in less",
)
SLOW_OUTPUT_TAKEN = _limit(
    "SLOW_OUTPUT_TAKEN",
    256 * 1024,
    "bytes",
    "client",
    "see SLOW_OUTPUT; at less, 26 KB/s, what waits takes longer than a client waits for a ping",
)
READING_STOPS = _limit(
    "READING_STOPS",
    1024 * 1024,
    "bytes",
    "client",
    "of output that waits; while there is more, nothing is read from the client: one that does "
    "not take the answers cannot ask for more",
)
CATCH_UP_BYTES = _limit(
    "CATCH_UP_BYTES",
    256 * 1024,
    "bytes",
    "worker",
    "of missed messages that are delivered before the worker looks whether its clients take them",
)
CATCH_UP_WAIT = _limit(
    "CATCH_UP_WAIT",
    0.1,
    "seconds",
    "CATCH_UP_BYTES",
    "that a worker which catches up waits at most for clients for which SLOW_OUTPUT waits; a "
    "client that takes less than 2.5 MB/s meanwhile reaches OUTPUT_CEILING, and delays nobody",
)
POLL_PACKETS = _limit(
    "POLL_PACKETS",
    16,
    "packets",
    "answer to a poll",
    "the clients of python-engineio reject more; the rest stays for the next poll",
)
POLL_BYTES = _limit(
    "POLL_BYTES",
    1024 * 1024,
    "bytes",
    "answer to a poll",
    "the answer is built as a whole; one packet may be longer",
)
MESSAGES_AT_ONCE = _limit(
    "MESSAGES_AT_ONCE",
    32,
    "messages",
    "client",
    "of a websocket or of a POST, before others have a turn; a POST has any number of them",
)
UNQUOTED_AT_ONCE = _limit(
    "UNQUOTED_AT_ONCE",
    65536,
    "characters",
    "POST of JSONP",
    "of `%XX`, before others have a turn: 1 MB of them takes 0.1 s",
)
UPGRADE_SECONDS = _limit(
    "UPGRADE_SECONDS",
    10.0,
    "seconds",
    "client",
    "from its websocket's handshake to the end of the upgrade, as in Node's servers; then the "
    "session goes on with polling",
)
UPGRADE_POLL_SECONDS = _limit(
    "UPGRADE_POLL_SECONDS",
    0.1,
    "seconds",
    "poll",
    "that nothing waits for, during the last part of an upgrade, as in Node's servers: the client "
    "goes on when it is answered",
)
LAST_POLL_SECONDS = _limit(
    "LAST_POLL_SECONDS",
    30.0,
    "seconds",
    "client",
    "that the application has disconnected, to poll for what waits; as in Node's servers",
)
CROSSED_POLL_SECONDS = _limit(
    "CROSSED_POLL_SECONDS",
    1.0,
    "seconds",
    "client",
    "that has closed its session with a POST, for a poll that it had sent before, by another "
    "connection",
)
ABANDONED_POLL_SECONDS = _limit(
    "ABANDONED_POLL_SECONDS",
    2.0,
    "seconds",
    "client",
    "for its next poll, when the connection of the last one has ended without all of the answer: "
    "who repeats a request does so at once, and who is gone should not be there for long",
)
CLOSE_SECONDS = _limit(
    "CLOSE_SECONDS",
    5.0,
    "seconds",
    "websocket",
    "that the client has to answer a close frame, or to take it; then the connection ends",
)
END_SECONDS = _limit("END_SECONDS", 0.5, "seconds", "websocket", "the same, when the worker leaves")
ENGINE_PATHS = _limit(
    "ENGINE_PATHS",
    16,
    "paths",
    "Socket.IO server",
    "at which handshakes came, so that what comes there later skips the application; one more "
    "replaces the oldest",
)

# --- Socket.IO events -------------------------------------------------------------

CONNECT_SECONDS = _limit(
    "CONNECT_SECONDS",
    45.0,
    "seconds",
    "client",
    "from the beginning of its session until it is in a namespace, as in Node's servers; "
    "`ZmqManager(connect_timeout=…)` sets another",
)
ACK_TIMEOUT = _limit(
    "ACK_TIMEOUT",
    3600.0,
    "seconds",
    "acknowledgement",
    "that it may come after its event: a person may have to answer. `call()` and "
    "`emit_with_acks()` have timeouts of their own",
)
ACKS_PER_CLIENT = _limit(
    "ACKS_PER_CLIENT",
    1000,
    "acknowledgements",
    "client",
    "that are pending: about 300 bytes each; beyond that the oldest one expires",
)
ACKS_PER_WORKER = _limit(
    "ACKS_PER_WORKER",
    65_536,
    "callbacks",
    "worker",
    "of the application that wait for an acknowledgement; beyond that the oldest one expires",
)
ATTACHMENTS = _limit(
    "ATTACHMENTS",
    10,
    "attachments",
    "event",
    "as in Node's parser since CVE-2026-33151; `ZmqManager(max_attachments=…)` sets another",
)
EVENT_SIZES = _limit(
    "EVENT_SIZES",
    10,
    "times max_http_buffer_size",
    "event",
    "its attachments included: each is a message of its own, and Node takes ten of the longest",
)
EARLY_OUTPUT = _limit(
    "EARLY_OUTPUT",
    1024 * 1024,
    "bytes",
    "client",
    "of emits to it that wait until its connect handler has accepted it; more is dropped",
)

# --- The router: connections that no worker has yet -----------------------------

EXPORTER_CONNECTIONS = _limit(
    "EXPORTER_CONNECTIONS",
    100,
    "connections",
    "metrics port",
    "at a time; one more ends the oldest, which had the most time",
)
EXPORTER_HEAD_BYTES = _limit(
    "EXPORTER_HEAD_BYTES",
    16384,
    "bytes",
    "request for metrics",
    "without its body, as HEAD_BYTES",
)
TALLIES = _limit(
    "TALLIES",
    16,
    "descriptors",
    "worker",
    "channels of the relay on which it sends: one for each Socket.IO server in it",
)

PENDING_SHARE = _limit(
    "PENDING_SHARE",
    4,
    "as the divisor of max_pending",
    "address, /64 of IPv6, or worker",
    "a quarter is what one address may have with unfinished requests, and keeps of complete "
    "ones when others need room; and what may wait for one worker that hangs",
)
SHELF_BUFFER = _limit(
    "SHELF_BUFFER",
    1048576,
    "bytes",
    "cluster",
    "of a socket in the kernel, of which net.core.wmem_max allows 208 KiB unless it was raised: "
    "stores about 2,000 waiting connections while the router restarts",
)
TLS_CHUNK = _limit(
    "TLS_CHUNK",
    65536,
    "bytes",
    "direction of a TLS connection",
    "that wait at the router while the other side does not read; an idle connection has no buffer",
)
TLS_STALL_TIMEOUT = _limit(
    "TLS_STALL_TIMEOUT",
    30.0,
    "seconds",
    "direction of a TLS connection",
    "in which a side takes nothing of what waits for it; longer than a worker waits for a slow "
    "client of a websocket, so that the worker, which knows more, decides first",
)
TLS_LINGER = _limit(
    "TLS_LINGER",
    2.0,
    "seconds",
    "TLS connection",
    "for a client to read what was sent last, and close: closed over unread bytes, the "
    "connection would be reset",
)
MAX_CHANNELS = _limit(
    "MAX_CHANNELS",
    4096,
    "bytes",
    "worker",
    "the row with its tag and channels that the other workers are sent, a fraction of MAX_ROW",
)

# --- Sessions that move from one worker to another --------------------------------

HELD_SHARE = _limit(
    "HELD_SHARE",
    0.75,
    "of the descriptors for clients",
    "router",
    "that sessions which wait for the next worker may have; the others are left for new clients, "
    "and for what is on its way (the kernel counts that, too: unix(7), ETOOMANYREFS)",
)
TAKEOVER_TAGS = _limit(
    "TAKEOVER_TAGS",
    500,
    "tags",
    "worker",
    "of workers before it whose sessions it has; each is a topic of the relay, and a row in what "
    "every worker is told",
)
TAKEOVER_CHANNELS = _limit(
    "TAKEOVER_CHANNELS",
    16,
    "channels of the relay",
    "worker that ends",
    "in each of which the router listens in its place; as TALLIES",
)
TAKEOVER_BATCHES = _limit(
    "TAKEOVER_BATCHES",
    2,
    "batches",
    "worker that adopts",
    "on their way to it: each has up to 252 connections, which the kernel counts until they are "
    "read, and a worker that hangs reads none",
)
TAKEOVER_TRIES = _limit(
    "TAKEOVER_TRIES",
    8,
    "workers",
    "worker that ended",
    "that are asked to adopt its sessions, each once: what one cannot take, or dies of, is not "
    "for ever",
)
PASS_TIMEOUT = _limit(
    "PASS_TIMEOUT",
    5.0,
    "seconds",
    "batch of sessions",
    "for the router to have it; a router that is killed meanwhile is back in one or two",
)
TAKEOVER_STATE = _limit(
    "TAKEOVER_STATE",
    32 * 1024 * 1024,
    "bytes",
    "session",
    "of its state as JSON, when it moves to another worker: OUTPUT_CEILING bytes that wait for a "
    "client take two thirds of it; one that is longer is closed",
)
TAKEOVER_HANDLERS = _limit(
    "TAKEOVER_HANDLERS",
    100,
    "on_takeover handlers",
    "worker",
    "of the application that run at a time after a takeover, as many as CLOSING_AT_ONCE",
)
ADOPT_TIMEOUT = _limit(
    "ADOPT_TIMEOUT",
    15.0,
    "seconds",
    "step of an adoption",
    "without which the next worker is asked; to make 10,000 sessions anew takes a few",
)

# --- Clients that come back after their worker has died --------------------------

JOURNAL_SEGMENTS = _limit(
    "JOURNAL_SEGMENTS",
    1000,
    "segments",
    "log of a worker's journal",
    "that the router has open, a descriptor for each, beside HELD_SHARE of all; of JOURNAL_SEGMENT "
    "bytes they are a gigabyte. Nothing is recovered from a journal that has more",
)
JOURNALS = _limit(
    "JOURNALS",
    1000,
    "journals",
    "worker",
    "its own and inherited ones: two channels of the relay for each of TAKEOVER_TAGS",
)
JOURNAL_AGAIN = _limit(
    "JOURNAL_AGAIN",
    10.0,
    "seconds",
    "worker",
    "after which it is asked for its journals again when the router had no descriptor free for "
    "them; and after which they are kept for the next router when the kernel had no room for them",
)
JOURNAL_TIME = _limit(
    "JOURNAL_TIME",
    600.0,
    "seconds",
    "worker that has died",
    "at least, for another one to inherit its journals: also when nobody can come back any more, "
    "the disconnect handlers of its clients are yet to run",
)
CLAIMS = _limit(
    "CLAIMS",
    10_000,
    "questions",
    "router",
    "of workers to those that have a client which came back, until they are answered: as many "
    "clients of one worker come back at a time when it has died",
)
CLAIM_BYTES = _limit("CLAIM_BYTES", 16 * 1024 * 1024, "bytes", "router", "the same questions")
CLAIM_TIMEOUT = _limit(
    "CLAIM_TIMEOUT",
    20.0,
    "seconds",
    "question",
    "for its answer, with the time until another worker has inherited the client, also when the "
    "first one that was asked to has done nothing for ADOPT_TIMEOUT; then the client gets a new "
    "session",
)

CLAIMS_AT_ONCE = _limit(
    "CLAIMS_AT_ONCE",
    10_000,
    "questions",
    "worker",
    "of others that it answers at a time; as CLAIMS",
)
CLAIMS_IN_VAIN = _limit(
    "CLAIMS_IN_VAIN",
    100.0,
    "a second",
    "worker",
    "of its clients with a `pid` that nobody knows; beyond, no other worker is asked about any "
    "client. A stranger may send made-up ones as fast as it can, before an application knows it, "
    "and each costs the worker that it names, and the router, a quarter of a millisecond",
)
CLAIMS_IN_VAIN_AT_ONCE = _limit(
    "CLAIMS_IN_VAIN_AT_ONCE",
    1000,
    "questions",
    "worker",
    "the same, after a quiet time: many clients may come back when their time is over",
)
CLAIM_LENGTH = _limit(
    "CLAIM_LENGTH",
    64 * 1024 * 1024,
    "bytes",
    "question or answer",
    "about a client that comes back: all that it has missed, at most what a journal keeps",
)
LOST_HANDLERS = _limit(
    "LOST_HANDLERS",
    100,
    "disconnect handlers",
    "worker",
    "that run at a time, of clients that have not come back",
)

# --- The channels between supervisord, the router and the workers ---------------

MAX_PACKET = _limit(
    "MAX_PACKET",
    65536,
    "bytes",
    "message",
    "one packet of a channel: a fraction of the 208 KiB that the kernel keeps for a socket, so "
    "that several fit in",
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
    "with what is added to it on the way, a row always fits into a packet",
)
MAX_REASON = _limit(
    "MAX_REASON",
    1000,
    "characters",
    "error in a message",
    "an error may quote what a peer has sent, and must not be too long for the channel itself",
)
MOST_ANSWERS = _limit(
    "MOST_ANSWERS",
    64,
    "answers",
    "router",
    "to calls of `sio.*` that are pending at a time; each has a timeout, ANSWER_TIMEOUT",
)
MAX_NAMES = _limit(
    "MAX_NAMES",
    16384,
    "bytes",
    "list of workers that a router gets at its start",
    "so that all it gets fits into one packet; it learns of those left out when they join",
)
MAX_COMMAND = _limit(
    "MAX_COMMAND",
    65000,
    "bytes",
    "command to the router",
    "536 bytes are left for what the router adds to it for the workers",
)

# --- supervisord's side, and answers to supervisorctl ---------------------------

GUARD_LOG_INTERVAL = _limit(
    "GUARD_LOG_INTERVAL",
    1.0,
    "seconds",
    "reason",
    "between two log lines of supervisord about the same error of supervisor-sio; all are counted",
)
GUARD_PAUSE = _limit(
    "GUARD_PAUSE",
    1.0,
    "seconds",
    "descriptor",
    "that supervisord does not poll a descriptor after an error of supervisor-sio there: it "
    "might stay readable, and supervisord would be in a busy loop",
)
STEADY_AFTER = _limit(
    "STEADY_AFTER",
    10.0,
    "seconds",
    "worker",
    "that it must have been ready for, or its end counts as one more failure in a row",
)
FAILURES_WITHOUT_PAUSE = _limit(
    "FAILURES_WITHOUT_PAUSE",
    2,
    "failures",
    "worker",
    "in a row, after which supervisord still starts it again at once",
)
FAILURE_PAUSE = _limit(
    "FAILURE_PAUSE",
    30.0,
    "seconds",
    "worker",
    "before supervisord starts it again, at most; 1 after the third failure in a row, then twice "
    "as long each time",
)
LAST_LINE = _limit(
    "LAST_LINE",
    400,
    "characters",
    "worker",
    "that `sio status` shows of the last line of its log when it has failed",
)
LAST_LINE_READ = _limit(
    "LAST_LINE_READ",
    4096,
    "bytes",
    "failure",
    "at the end of the worker's log that supervisord reads for it",
)
SCRIPT_LENGTH = _limit(
    "SCRIPT_LENGTH",
    65536,
    "characters",
    "program",
    "of a start script, or a module of the application, that `supervisor-sio check` reads",
)
PROBE_TIMEOUT = _limit(
    "PROBE_TIMEOUT",
    20.0,
    "seconds",
    "program",
    "that `supervisor-sio check` waits for the Python of a program to say which packages it has",
)
ACCESS_LOG_TEXT = _limit(
    "ACCESS_LOG_TEXT",
    200,
    "characters",
    "text of a client",
    "in a line of the access log: an address, a path, a user agent",
)
EVENT_METRICS = _limit(
    "EVENT_METRICS",
    100,
    "events",
    "worker",
    "that have metrics of their own with `event_metrics`, of those for which the application has "
    "handlers; all others share one row: each has four series for each worker",
)
EVENT_METRICS_TEXT = _limit(
    "EVENT_METRICS_TEXT",
    200,
    "bytes",
    "name of an event, or namespace",
    "as JSON, with `event_metrics`; what is longer has no row of its own: all rows fit into one "
    "message",
)
IMPORT_TIMEOUT = _limit(
    "IMPORT_TIMEOUT",
    60.0,
    "seconds",
    "application",
    "that `supervisor-sio check --app` waits for its import",
)
FORGOTTEN_RUN_DIRS = _limit(
    "FORGOTTEN_RUN_DIRS",
    100,
    "directories",
    "start",
    "that supervisord looks at, to remove those of supervisords that were killed",
)
MAX_CANDIDATES = _limit(
    "MAX_CANDIDATES",
    8,
    "connections",
    "supervisord",
    "that have yet to identify themselves as a router; one more closes the oldest",
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
    "of the router that supervisord reads before it does everything else that is due",
)
ROUTER_TURN = _limit(
    "ROUTER_TURN",
    0.005,
    "seconds",
    "turn",
    "after which supervisord reads no further packet of the router, for the same reason: long "
    "answers are put together packet by packet",
)
ANSWER_TIMEOUT = _limit(
    "ANSWER_TIMEOUT",
    5.0,
    "seconds",
    "call",
    "that an XML-RPC call waits for the router, which waits three for its workers",
)
MOST_ROOMS_COUNTED = _limit(
    "MOST_ROOMS_COUNTED",
    25_000,
    "rooms",
    "worker and question",
    "0.1 s of a worker and 2 MB in the router; counts of those that are shown are right also "
    "when there are more",
)
MOST_ROOMS_OF_CLIENT = _limit(
    "MOST_ROOMS_OF_CLIENT",
    50,
    "rooms",
    "client in `sio sockets`",
    "the clients choose how many there are; the row says how many are left out",
)
LONGEST_ROOM = _limit(
    "LONGEST_ROOM",
    1024,
    "bytes",
    "room name in an answer",
    "the clients choose it; it ends with … where it is cut",
)
MAX_ROOMS = _limit(
    "MAX_ROOMS",
    4096,
    "bytes",
    "client in `sio sockets`",
    "a quarter of MAX_ROW: sid, address and the worker's name have room beside the rooms",
)

# --- What one worker of the cluster runs ------------------------------------------

RUN_ONCE_LEASE = _limit(
    "RUN_ONCE_LEASE",
    6.0,
    "seconds",
    "task of `run_once()`",
    "that its worker may run it after it has last said that it does; the same silence after which "
    "a worker counts as hung",
)
RUN_ONCE_RENEWAL = _limit(
    "RUN_ONCE_RENEWAL",
    1.0,
    "seconds",
    "task of `run_once()`",
    "after which its worker says so again: five of them may fail",
)
RUN_ONCE_OFFER = _limit(
    "RUN_ONCE_OFFER",
    1.0,
    "seconds",
    "offer of a task",
    "that a worker has to begin; after that another one is asked",
)
RUN_ONCE_PAUSE = _limit(
    "RUN_ONCE_PAUSE",
    60.0,
    "seconds",
    "task of `run_once()`",
    "before it is tried again, at most: it is 1 after its first failure, and twice as long after "
    "each further one; a task that has run for as long begins anew",
)
RUN_ONCE_TASKS = _limit(
    "RUN_ONCE_TASKS",
    100,
    "tasks",
    "cluster",
    "of all its workers together; so that the status of all fits into a packet",
)
RUN_ONCE_NAME = _limit(
    "RUN_ONCE_NAME",
    64,
    "characters",
    "name of a task",
    "letters, digits and `._:-`: it is a label of metrics, and stands in a line of `sio status`",
)

# --- Workers that hang, or are recycled --------------------------------------------

SILENCE = _limit(
    "SILENCE",
    6.0,
    "seconds",
    "worker",
    "without a report, after which it counts as hung: one that is well reports every two",
)
DRAIN_TIME = _limit(
    "DRAIN_TIME",
    2.0,
    "seconds",
    "worker without takeover",
    "between its last new session and its stop, so that clients in the middle of connecting "
    "(upgrading, say) get to the end of it",
)
RECYCLE_LOOK = _limit(
    "RECYCLE_LOOK",
    0.5,
    "seconds",
    "cluster with limits of its workers",
    "between looks at their memory, at least; supervisord reads a file of /proc for each",
)
RECYCLE_QUIET = _limit(
    "RECYCLE_QUIET",
    2.0,
    "seconds",
    "worker that is recycled",
    "in which no worker has come, gone, or been drained, before it is the next: between two steps "
    "of `sio reload` it is less",
)
RECYCLE_NOTICE = _limit(
    "RECYCLE_NOTICE",
    1.0,
    "seconds",
    "worker that is recycled",
    "in which the status says so and nothing is done yet: what an operator begins meanwhile goes "
    "first, and what begins later waits",
)
RECYCLE_DRAIN = _limit(
    "RECYCLE_DRAIN",
    15.0,
    "seconds",
    "worker that is recycled",
    "for the router to drain it: a router that is killed just then is back sooner",
)
RECYCLE_START = _limit(
    "RECYCLE_START",
    60.0,
    "seconds",
    "worker that is recycled",
    "for its new process to be ready, as with `sio reload`",
)
RECYCLE_EARLY = _limit(
    "RECYCLE_EARLY",
    10.0,
    "seconds",
    "worker",
    "after it was ready: if it is over `max_memory` by then, it is recycled no sooner than after "
    "so long the next time, and twice as long each further time",
)
RECYCLE_PAUSE = _limit(
    "RECYCLE_PAUSE",
    300.0,
    "seconds",
    "worker",
    "that this becomes at most: the memory of the host still has to be protected",
)
RECYCLE_JITTER = _limit(
    "RECYCLE_JITTER",
    0.1,
    "of `max_lifetime`",
    "process of a worker",
    "that its own is shorter at most, by chance: those that were started together end one by one",
)

# --- The relay: messages between the processes of a host ------------------------

RELAY_MOST_STREAMS = _limit(
    "RELAY_MOST_STREAMS",
    1000,
    "streams",
    "process that emits",
    "each numbers the messages to one worker; who invents session ids invents workers, and "
    "each would cost a stream",
)

RELAY_LONGEST_PUSHED = _limit(
    "RELAY_LONGEST_PUSHED",
    16 * 1024,
    "bytes",
    "message",
    "a longer one is not sent to all, but fetched by each process that needs it: so what waits "
    "in the relay for a stopped worker is bounded in bytes, and not only in messages",
)
RELAY_BUNDLE_MESSAGES = _limit(
    "RELAY_BUNDLE_MESSAGES",
    128,
    "messages",
    "turn of a process's loop",
    "that are collected before they are sent together; RELAY_LONGEST_PUSHED is for all of them",
)
RELAY_MOST_ROOMS = _limit(
    "RELAY_MOST_ROOMS",
    255,
    "rooms",
    "message",
    "that workers without a client in them pass over by their hashes; one to more rooms is "
    "looked at by every worker",
)
RELAY_MOST_OUTDATED = _limit(
    "RELAY_MOST_OUTDATED",
    100,
    "senders",
    "process that receives from the relay",
    "of another version of this package, whose restart is asked for in a log line each",
)
RELAY_MOST_ENDED = _limit(
    "RELAY_MOST_ENDED",
    100,
    "workers",
    "router",
    "that ended last, and of which the router still knows how much they had sent",
)
RELAY_MOST_LEFT = _limit(
    "RELAY_MOST_LEFT",
    100,
    "processes",
    "router",
    "the same of processes that only emit, and ended before all workers had what they sent; "
    "beside RELAY_MOST_ENDED, as one may start many of them",
)

RELAY_MOST_FAILURES = _limit(
    "RELAY_MOST_FAILURES",
    20,
    "errors in a row",
    "process that receives from the relay",
    "after so many, a quarter of a second apart, the messages are not the cause: a worker that "
    "cannot receive ends, and supervisord starts it again",
)

RELAY_MOST_HELD = _limit(
    "RELAY_MOST_HELD",
    1000,
    "messages",
    "stream",
    "that wait in a process for an earlier one of their sender; what comes beyond that is "
    "fetched again in its turn",
)
RELAY_MOST_HELD_BYTES = _limit(
    "RELAY_MOST_HELD_BYTES", 16 * 1024 * 1024, "bytes", "process", "the same, of all senders"
)
RELAY_GIVE_UP = _limit(
    "RELAY_GIVE_UP",
    10.0,
    "seconds",
    "sender",
    "after so long without an answer a missing message expires and is counted as dropped, "
    "unless the router knows the sender to be alive",
)
RELAY_MOST_SENDERS = _limit(
    "RELAY_MOST_SENDERS",
    10_000,
    "senders",
    "process",
    "of which a position is remembered; a process may emit once and end",
)
RELAY_MOST_GONE = _limit(
    "RELAY_MOST_GONE",
    1000,
    "senders",
    "process",
    "that have ended last, and of which the position is remembered: what waits in the relay of "
    "them must not come twice to sessions that were adopted meanwhile",
)
RELAY_BATCH_MESSAGES = _limit(
    "RELAY_BATCH_MESSAGES", 128, "messages", "answer", "that are sent again at a time"
)
RELAY_BATCH_BYTES = _limit(
    "RELAY_BATCH_BYTES",
    256 * 1024,
    "bytes",
    "answer",
    "the same; a message that is longer goes alone",
)
RELAY_MOST_REPEATED = _limit(
    "RELAY_MOST_REPEATED",
    1024,
    "objects",
    "process",
    "fields of messages that are remembered encoded and decoded, each at most 512 bytes long, and "
    "hashes of rooms, whose names have at most 512 characters",
)
RELAY_HIGH_WATER = _limit(
    "RELAY_HIGH_WATER",
    8192,
    "messages",
    "process that sends to the relay or receives from it",
    "that may wait in the process itself, to be sent or to be looked at; it fetches what is "
    "dropped beyond that from the sender",
)
RELAY_WAITING = _limit(
    "RELAY_WAITING",
    2048,
    "messages",
    "process that receives from the relay",
    "that may wait in the relay for a process that does not take them, such as a stopped one; "
    "each may be a bundle: with RELAY_LONGEST_PUSHED these are 32 MB. It fetches the rest likewise",
)

STAND_IN_MESSAGES = _limit(
    "STAND_IN_MESSAGES",
    100_000,
    "messages",
    "worker whose sessions the router holds",
    "that are kept for them until another worker adopts them: ten seconds of 10,000 a second; "
    "what comes beyond that is lost to them and counted as dropped",
)
STAND_IN_BYTES = _limit(
    "STAND_IN_BYTES",
    64 * 1024 * 1024,
    "bytes",
    "worker whose sessions the router holds",
    "the same, with RELAY_KEPT_OVERHEAD for each message",
)
RELAY_KEPT_OVERHEAD = _limit(
    "RELAY_KEPT_OVERHEAD",
    400,
    "bytes",
    "message that is kept",
    "that it is counted with beside its own: objects and links",
)
POSITION_BYTES = _limit(
    "POSITION_BYTES",
    128 * 1024 * 1024,
    "bytes",
    "worker that passes its sessions on",
    "how far they have heard the others: what STAND_IN_BYTES and RELAY_MOST_HELD_BYTES allow, "
    "and the positions of RELAY_MOST_SENDERS",
)

JOURNAL_SEGMENT = _limit(
    "JOURNAL_SEGMENT",
    1024 * 1024,
    "bytes",
    "piece of a journal",
    "with recovery: what a worker keeps for clients that may come back lies in pieces, and is "
    "dropped a piece at a time; a record that is longer has one to itself",
)
JOURNAL_PIECES = _limit(
    "JOURNAL_PIECES",
    16,
    "pieces",
    "journal",
    "into which its limits of events, bytes and seconds are divided; one piece more may be kept",
)
JOURNAL_CARRIED = _limit(
    "JOURNAL_CARRIED",
    4,
    "records",
    "record written",
    "of clients' states that are written anew to drop an old piece, while more than half of all "
    "is out of date",
)

REPLIES_KEPT = _limit(
    "REPLIES_KEPT",
    10_000,
    "answers",
    "worker",
    "to processes that serve no clients, which are not numbered on the relay: one that missed "
    "some asks for them again",
)
REPLIES_AGAIN = _limit(
    "REPLIES_AGAIN",
    1000,
    "answers",
    "question for what was lost",
    "that are sent at a time, as long as they have no more than RELAY_BATCH_BYTES",
)
REPLIES_BYTES = _limit("REPLIES_BYTES", 4 * 1024 * 1024, "bytes", "worker", "the same")
REPLIES_SECONDS = _limit(
    "REPLIES_SECONDS",
    60.0,
    "seconds",
    "answer",
    "the same; who waits for it asks every second, and a router starts in less than ten",
)

# --- Clients that move to another worker ----------------------------------------

PLAIN_DEPTH = _limit(
    "PLAIN_DEPTH",
    100,
    "levels",
    "client",
    "to which lists and dictionaries in its session data are nested; one with more is disconnected "
    "when it is to be moved, and does not come back to its session. A thousand, of calls as well, "
    "are Python's bound, and whoever reads it has calls of its own",
)
CLIENT_STATE = _limit(
    "CLIENT_STATE",
    1024 * 1024,
    "characters",
    "client",
    "of its session data and the environment of its handshake, when it is moved to another worker; "
    "one with more is disconnected",
)
MOST_TOLD_OF = _limit(
    "MOST_TOLD_OF",
    20,
    "log lines",
    "worker",
    "each about something else in a client's data that cannot be moved",
)
OBJECTS_LOOKED_AT = _limit(
    "OBJECTS_LOOKED_AT",
    10_000,
    "objects",
    "search",
    "for the application that a client's environment leads to, from what the worker has imported",
)
SHARED_TEXTS = _limit(
    "SHARED_TEXTS",
    1024,
    "texts",
    "worker",
    "of environments of moved clients that are kept once for all of them, and as many headers",
)
SHARED_LENGTH = _limit("SHARED_LENGTH", 256, "characters", "text", "the longest that is shared")

# --- Clients that come back to their session --------------------------------------

OFFSET_LENGTH = _limit(
    "OFFSET_LENGTH",
    64,
    "characters",
    "offset",
    "that a client says when it comes; it is kept, as it may say it again. Ours have 24 at most, "
    "those of Node's servers as many",
)
CLIENT_ROOMS = _limit(
    "CLIENT_ROOMS",
    32_768,
    "characters",
    "client",
    "of the names of its rooms, each with 16 more; about 1,000 usual ones. All of them are written "
    "down each time that it enters or leaves one, which takes half a millisecond then. A client "
    "with more does not come back to its session",
)
ROOMS_LEFT = _limit(
    "ROOMS_LEFT",
    100,
    "rooms",
    "client",
    "that it has left a short while ago; it may have missed something in them",
)
CLIENT_STAYS = _limit(
    "CLIENT_STAYS",
    8,
    "workers",
    "client",
    "before this one where it was with the same connection, each with its rooms: in memory, and in "
    "each state that is written. A reload adds one. A client that has got nothing for so many, and "
    "then comes back, gets a new session",
)
RECOVERY_WAIT = _limit(
    "RECOVERY_WAIT",
    15.0,
    "seconds",
    "client",
    "until a worker has heard as much of the others as the one that the client has come to; on a "
    "machine that is overloaded, as after a crash, that takes seconds. Less than CLAIM_TIMEOUT: "
    "the reason is to be told",
)
CLIENT_ANSWERS = _limit(
    "CLIENT_ANSWERS",
    1.0,
    "seconds",
    "client",
    "to answer a ping when another one says that it is this client; else that one is believed",
)
RECOVERY_HANDS = _limit(
    "RECOVERY_HANDS",
    40.0,
    "seconds",
    "client",
    "that a worker which was given what a client has missed has to take the client: longer than "
    "RECOVERY_WAIT and CLAIM_TIMEOUT, which pass one after the other",
)
RECOVERY_HOPS = _limit(
    "RECOVERY_HOPS", 8, "workers", "client", "that are asked one after the other for one client"
)
RECOVERY_SLICE = _limit(
    "RECOVERY_SLICE",
    0.005,
    "seconds",
    "worker",
    "in which it looks through its journal, or writes down whom it has inherited, before others "
    "get a turn",
)
MISSED_BYTES = _limit(
    "MISSED_BYTES",
    32 * 1024 * 1024,
    "bytes",
    "worker",
    "of what clients have missed that come back: from when it is read until they, or other "
    "workers, have it; and as much again of clients that come from others. The next ones wait, in "
    "their order. One may go over it: twice what a journal keeps",
)
MISSED_WAITING = _limit(
    "MISSED_WAITING",
    10_000,
    "clients",
    "worker",
    "that wait for that, at most for RECOVERY_WAIT; as CLAIMS",
)
MISSED_HELD = _limit(
    "MISSED_HELD",
    3.0,
    "seconds",
    "client",
    "that what it has been sent counts there at most: clients that take little do not keep the "
    "others waiting. What waits for it then is bounded by OUTPUT_CEILING and SLOW_OUTPUT",
)
MISSED_THREAD_WAIT = _limit(
    "MISSED_THREAD_WAIT",
    0.2,
    "seconds",
    "client of a worker with threads",
    "that it waits for room for what it has missed; then it goes over MISSED_BYTES. It keeps one "
    "of the few threads of the application meanwhile",
)
CLIENTS_MOVED = _limit(
    "CLIENTS_MOVED",
    65_536,
    "clients",
    "worker",
    "that have come back to another one: what is for them is passed on; the oldest is forgotten",
)
CLIENTS_GONE = _limit(
    "CLIENTS_GONE",
    1000,
    "clients",
    "worker",
    "that could not be kept when they were lost, or were given up, of which it is known why; the "
    "oldest is forgotten, and counts as one that nobody knows",
)
JOURNALS_KEPT = _limit(
    "JOURNALS_KEPT",
    64,
    "journals",
    "worker",
    "of workers before it; the oldest is let go of, as if its time were over",
)
CLIENT_ARRIVED = _limit(
    "CLIENT_ARRIVED",
    60.0,
    "seconds",
    "client",
    "in which the worker that had it before may ask whether it has come, if it has left since",
)
CLIENTS_ASKED = _limit(
    "CLIENTS_ASKED", 1000, "clients", "question", "whether they have come, to another worker"
)
CLIENTS_LOST = _limit(
    "CLIENTS_LOST",
    32_768,
    "clients",
    "worker",
    "that are away and may come back, of all that it has and has inherited; beyond, the one whose "
    "time is over next is given up within a second. Each takes about five KiB, and what the "
    "application has stored for it; a stranger who connects and leaves all the time makes many",
)

# --- The bridge: messages between hosts -----------------------------------------

BRIDGE_MOST_WAITING = _limit(
    "BRIDGE_MOST_WAITING",
    65_536,
    "messages",
    "host",
    "that may wait for Redis while it is away, a minute at 1,000 a second; more is counted as "
    "unsent. Between once and twice as many are kept for other hosts that missed them",
)
BRIDGE_MOST_WAITING_BYTES = _limit(
    "BRIDGE_MOST_WAITING_BYTES", 64 * 1024 * 1024, "bytes", "host", "the same"
)
BRIDGE_PATIENCE = _limit(
    "BRIDGE_PATIENCE",
    60.0,
    "seconds",
    "host",
    "from when it counts as gone, for which messages are waited for that it may still send again; "
    "one that is heard and does not answer has RELAY_GIVE_UP",
)
BRIDGE_MOST_ON_THEIR_WAY = _limit(
    "BRIDGE_MOST_ON_THEIR_WAY",
    1000,
    "messages",
    "host",
    "given to Redis that have yet to come back from it: what is more waits here",
)
BRIDGE_MOST_HELD = _limit(
    "BRIDGE_MOST_HELD",
    10_000,
    "messages",
    "host",
    "of each other host that wait for an earlier one, within RELAY_MOST_HELD_BYTES of all; what "
    "comes beyond that is asked for",
)
BRIDGE_MOST_UNNUMBERED = _limit(
    "BRIDGE_MOST_UNNUMBERED",
    1000,
    "messages",
    "host",
    "that have no number and wait for Redis: questions of bridges and their answers, and what is "
    "volatile; more is not sent, and what is needed is asked for again",
)
BRIDGE_MOST_UNNUMBERED_BYTES = _limit(
    "BRIDGE_MOST_UNNUMBERED_BYTES", 16 * 1024 * 1024, "bytes", "host", "the same"
)
BRIDGE_BEAT = _limit(
    "BRIDGE_BEAT",
    1.0,
    "seconds",
    "host",
    "between two words to the others: who is here, and the number of the last message",
)
BRIDGE_SILENCE = _limit(
    "BRIDGE_SILENCE",
    4.0,
    "seconds",
    "host",
    "without a word of it, after which its workers count as gone, and no call waits for them; "
    "less than a call waits unless it says otherwise, and more than a router takes to start anew. "
    "Also what a connection to Redis may be silent",
)
BRIDGE_BATCH = _limit(
    "BRIDGE_BATCH",
    256 * 1024,
    "bytes",
    "answer",
    "messages sent again to another host at a time; one that is longer goes alone",
)
BRIDGE_MOST_ORIGINS = _limit(
    "BRIDGE_MOST_ORIGINS",
    10_000,
    "streams",
    "host",
    "senders of other hosts whose last number is remembered, or a successor of their bridge "
    "would have its messages delivered twice",
)
BRIDGE_MOST_OTHERS = _limit(
    "BRIDGE_MOST_OTHERS",
    1000,
    "bridges",
    "process",
    "other hosts, and the routers that they had before, of which a position is remembered",
)
BRIDGE_LONGEST_NAME = _limit(
    "BRIDGE_LONGEST_NAME",
    255,
    "characters",
    "message",
    "in the name of a bridge or of a sender of another host: such names are remembered, and saved "
    "for the next router",
)
BRIDGE_MOST_CALLBACKS = _limit(
    "BRIDGE_MOST_CALLBACKS",
    65_536,
    "callbacks",
    "host",
    "of other hosts that wait for acknowledgements of clients here; beyond that the oldest "
    "one expires",
)

BRIDGE_MOST_ASKERS = _limit(
    "BRIDGE_MOST_ASKERS",
    10_000,
    "processes",
    "host",
    "that serve no clients and have asked the workers of all hosts last: answers of other hosts "
    "are passed on to them, and by a router that is not the first also to those whom it does not "
    "know, as they may have asked before",
)

# --- A worker and its life --------------------------------------------------------

CLOSING_AT_ONCE = _limit(
    "CLOSING_AT_ONCE",
    100,
    "disconnect handlers",
    "worker",
    "of the application that run at a time while it drains",
)
TAKEOVER_HELD = _limit(
    "TAKEOVER_HELD",
    256 * 1024,
    "bytes",
    "client",
    "of its messages, and OUTPUT_OBJECT for each, that wait while its session moves to another "
    "worker; then no more is read of it. Those that waited for a thread before are kept as well",
)
TAKEOVER_BATCH = _limit(
    "TAKEOVER_BATCH",
    256 * 1024,
    "bytes",
    "batch",
    "of sessions that move, after which the next batch begins: to read one must not take the loop "
    "long; it also has one packet's descriptors at most",
)
IDLE_GREENLETS = _limit(
    "IDLE_GREENLETS",
    100,
    "greenlets",
    "worker",
    "that wait to be used again; each keeps a stack",
)
LEAVE_TIMEOUT = _limit(
    "LEAVE_TIMEOUT",
    2.0,
    "seconds",
    "worker",
    "that a router may take to let it go",
)
LINK_MESSAGES = _limit(
    "LINK_MESSAGES",
    100,
    "messages",
    "worker",
    "that wait for a router which does not read; each answer to a question has one there at a "
    "time, and one more is not sent",
)

EVENTS_WAITING = _limit(
    "EVENTS_WAITING",
    64,
    "events",
    "client",
    "that wait for a thread of the application; the next message stays unread until they have "
    "begun",
)
LONG_EVENT = _limit(
    "LONG_EVENT",
    16384,
    "bytes",
    "client",
    "of an event that waits for a thread, with its attachments: behind a longer one none is read",
)
BODY_AHEAD = _limit(
    "BODY_AHEAD",
    65536,
    "bytes",
    "request",
    "of its body that are read before a thread of the application is taken for it",
)
SLOW_CLIENT_SECONDS = _limit(
    "SLOW_CLIENT_SECONDS",
    2.0,
    "seconds",
    "request",
    "in which a client sends nothing of its body, or takes nothing of its answer, while others "
    "wait for the thread that waits for it",
)
LOG_LINES = _limit(
    "LOG_LINES",
    1000,
    "lines",
    "worker",
    "of the loop that wait for the application's log handlers, in a worker with threads; further "
    "ones are not written",
)
LAST_THREADS_SECONDS = _limit(
    "LAST_THREADS_SECONDS",
    1.0,
    "seconds",
    "worker",
    "at its end, for threads of the application that are not daemons",
)
THREAD_CALLS = _limit(
    "THREAD_CALLS",
    1000,
    "calls",
    "worker",
    "from other threads that wait for the thread that serves; the caller of one more waits",
)
THREAD_CALLS_BYTES = _limit(
    "THREAD_CALLS_BYTES",
    16 * 1024 * 1024,
    "bytes",
    "worker",
    "that these calls have to send, before the same happens",
)
THREAD_WAIT = _limit(
    "THREAD_WAIT",
    5.0,
    "seconds",
    "call",
    "that another thread waits there before the call raises: the thread that serves is stuck",
)
TRACEBACKS = _limit(
    "TRACEBACKS",
    3,
    "tracebacks",
    "place in the code and minute",
    "of the application in a worker's log; a line a second says how many more there were: "
    "clients decide how often a handler fails",
)


def render() -> str:
    """The table in Markdown."""
    rows = [
        f"| `{row.name}` | {row.value:,} {row.unit} | {row.per} | {row.reason} |" for row in TABLE
    ]
    return "\n".join(["| limit | value | for each | why |", "|---|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    print(render(), end="")
