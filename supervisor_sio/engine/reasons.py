"""Names: why a session has ended, and what clients did wrong."""

# Why a session has ended, as engineio calls it.
SERVER_DISCONNECT = "server disconnect"
CLIENT_DISCONNECT = "client disconnect"
PING_TIMEOUT = "ping timeout"
TRANSPORT_CLOSE = "transport close"
TRANSPORT_ERROR = "transport error"

# What is counted; but for messages that mean nothing, the session or connection has ended.
PROTOCOL, TOO_SLOW, FAILED = "protocol error", "too slow", "internal error"
