"""Where a worker answers other than engineio; docs/design.md shows the list.

In tests/, ``python -m cluster.conformance_differences`` prints it.
"""

from __future__ import annotations

from .conformance import Difference, table

DIFFERENCES = [
    Difference(
        "A session that its client has closed is as unknown as any other",
        "engineio words it in two ways",
        {"body": "\"'Session is disconnected' SID\""},
        {"body": '"Invalid session SID"'},
    ),
    Difference(
        "What follows a close in its POST is ignored",
        "the session is closed, as it was asked for; engineio answers 400",
        {"status": "400", "body": '"Bad Request"'},
        {"status": "200", "body": "OK"},
        r"post 1\x1e",
    ),
    Difference(
        "A POST that is no payload is refused and ends the session",
        "the protocol wants it; engineio answers OK and goes on",
        {"status": "200", "body": "OK"},
        {"status": "400", "body": '"Bad Request"'},
        # An empty packet is none, but an empty body has none.
        r"post ([^|]*(abc|b!!!|\x1e\x1e|\x1e$)|\x1e)",
    ),
    Difference(
        "A POST that ends the session is refused at once",
        "engineio answers when the client has fetched what waits for it, and it may never",
        {"status": "no answer"},
        {
            "status": "400",
            "content-type": "text/plain",
            "body": '"Bad Request"',
            "access-control-allow-credentials": "(true)?",
        },
    ),
    Difference(
        "A websocket message that is no packet closes the websocket with a close frame",
        "engineio's server writes an HTTP answer into it",
        {"end": "not with a frame"},
        {"end": "yes"},
    ),
]


if __name__ == "__main__":
    print(table(DIFFERENCES))
