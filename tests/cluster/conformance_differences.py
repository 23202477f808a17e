"""Where a worker answers other than engineio; docs/design.md has these rows, and others.

In tests/, ``python -m cluster.conformance_differences`` prints the list.
"""

from __future__ import annotations

from .conformance import Difference, table

_ERROR = r'\{"code":[0-5],"message":"[^"]+"\}'
_JSON = {"status": "400", "content-type": "application/json", "body": _ERROR}
#: Headers of CORS, where they come at all.
_CORS = {
    "access-control-allow-origin": ".*",
    "access-control-allow-methods": "(OPTIONS, GET, POST)?",
    "access-control-allow-headers": ".*",
    "access-control-allow-credentials": "(true)?",
}

DIFFERENCES = [
    Difference(
        'errors: `{"code": …, "message": …}`, as `application/json`, with CORS headers',
        "as Node's servers; a page of another origin can read why",
        {"status": "400", "content-type": "text/plain", "body": '(".*")?'},
        {**_JSON, **_CORS, "body": f"({_ERROR})?"},  # nothing for HEAD
    ),
    Difference(
        "a method that is not known: 400",
        "the protocol's test suite; engineio answers 405",
        {"status": "405", "content-type": "text/plain", "body": "(Method Not Found)?"},
        {**_JSON, **_CORS, "body": f"({_ERROR})?"},
    ),
    Difference(
        "a request that names no transport: 400",
        "the protocol's test suite; engineio takes polling for meant",
        {"status": "200"},
        {**_JSON, **_CORS, "set-cookie": "", "body": f"({_ERROR})?"},
    ),
    Difference(
        "a parameter that comes twice: the first counts",
        "engineio looks at the first of some, and at all of others",
        {"status": "400"},
        {
            **_CORS,
            "status": "200",
            "content-type": "text/plain; charset=UTF-8",
            "body": "(0{.*|OK)",
            "set-cookie": ".*",
        },
        "EIO=4&EIO=3",
    ),
    Difference(
        "a POST that is accepted: `ok`, as `text/html`",
        "the protocol's test suite",
        {"status": "200", "content-type": "text/plain", "body": "OK"},
        {"status": "200", "content-type": "text/html", "body": "ok"},
        r"^POST|post [^|]*$",
    ),
    Difference(
        "the answer to OPTIONS: `text/plain; charset=UTF-8`",
        "a text should name its character set",
        {"status": "200", "content-type": "text/plain", "body": "OK"},
        {"status": "200", "content-type": "text/plain; charset=UTF-8", "body": "OK"},
        r"OPTIONS [^|]*$",
    ),
    Difference(
        "OPTIONS for a request that will be refused: as for any other",
        "as Node's servers; only then a browser tells the page why",
        {"status": "400", "content-type": "text/plain", "body": '".*"'},
        {
            **_CORS,
            "status": "200",
            "content-type": "text/plain; charset=UTF-8",
            "body": "OK",
        },
        r"^OPTIONS",
    ),
    Difference(
        "the answer to JSONP: `text/javascript`",
        "as Node's servers; browsers may refuse to run plain text",
        {"status": "200", "content-type": "text/plain; charset=UTF-8", "body": "___eio.*"},
        {"status": "200", "content-type": "text/javascript; charset=UTF-8", "body": "___eio.*"},
        "j=",
    ),
    Difference(
        "`upgrades` in the handshake: nothing where `transports` is only polling",
        "the client would try, and fail",
        {"status": "200", "body": r'.*"upgrades.{1,5}websocket.*'},
        {"status": "200", "body": r'.*upgrades\\?":\[\].*'},
        "/small.io/",
    ),
    Difference(
        "something in a POST is not a packet: 400, and the session ends",
        "the protocol's test suite; engineio goes on, or waits for a poll before it answers",
        {"status": "200|no answer"},
        {**_JSON, **_CORS},
        "post [^|]*$",
    ),
    Difference(
        "what follows a close in its POST is ignored",
        "the session is closed, as it was asked for",
        {"status": "400", "content-type": "text/plain", "body": '"Bad Request"'},
        {"status": "200", "content-type": "text/html", "body": "ok"},
        r"post 1\x1e",
    ),
    Difference(
        "a second websocket for a session that has one: accepted, and closed",
        "the protocol's test suite",
        {"status": "400"},
        {"status": "101"},
        "websocket [^|]*$",
    ),
    Difference(
        "a message of a websocket that is not a packet: it closes with a close frame",
        "the protocol's test suite; engineio writes an HTTP answer into it",
        {"end": "not with a frame"},
        {"end": "yes"},
    ),
    Difference(
        'a namespace without handlers: `{"message": "Invalid namespace"}`',
        "as Node's servers; the protocol's test suite",
        {"message": '44/nobody,"Unable to connect"'},
        {"message": '44/nobody,{"message":"Invalid namespace"}'},
    ),
    Difference(
        'a namespace without handlers, by polling: `{"message": "Invalid namespace"}`',
        "the same",
        {"status": "200", "body": '(.*\n)?44/nobody,"Unable to connect".*'},
        {"status": "200", "body": '(.*\n)?44/nobody,{"message":"Invalid namespace"}.*'},
    ),
    Difference(
        "a poll that comes behind its client's close: `6`, once",
        "it may have been sent before, on another connection; the protocol's test suite",
        {"status": "400", "content-type": "text/plain", "body": ".*Session is disconnected.*"},
        {"status": "200", "content-type": "text/plain; charset=UTF-8", "body": "6"},
        r"post 1 \| poll",
    ),
    Difference(
        "`5` in a POST is ignored",
        "as Node's servers; engineio sends a `6`",
        {"status": "200", "body": r"(.*\n)?6\n.*"},
        {"status": "200"},
        r"post ([^|]*\x1e)?5",
    ),
]


if __name__ == "__main__":
    print(table(DIFFERENCES))
