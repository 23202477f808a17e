"""Answers to requests: origins, headers, compression, cookies."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any, Optional

import pytest

from supervisor_sio.engine.answers import Answers, Fault
from supervisor_sio.engine.http import find_end, read_head
from supervisor_sio.engine.options import Options
from supervisor_sio.engine.request import Request

DATE = "Thu, 26 Nov 2026 00:00:00 GMT"
PAGE = "https://page.example"


def request(
    *lines: str, query: str = "EIO=4&transport=polling", first: str = "GET", version: str = "1.1"
) -> Request:
    head = "\r\n".join([f"{first} /socket.io/?{query} HTTP/{version}", "Host: sio.example", *lines])
    data = f"{head}\r\n\r\n".encode()
    assert find_end(data) == len(data)
    return Request(read_head(data), "http", "192.0.2.1", lambda: {"PATH_INFO": "/socket.io/"})


def answers(**options: Any) -> Answers:
    return Answers(Options(**options), lambda: DATE)


class Answer:
    """A response, parsed by simple string operations."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        self.status, *lines = head.decode("latin-1").split("\r\n")
        self.lines = lines
        self.fields: dict[str, str] = dict(line.split(": ", 1) for line in lines)  # type: ignore[misc]


def polled(asked: Request, *packets: Any, **options: Any) -> Answer:
    return Answer(answers(**options).packets(asked, packets))


def test_a_poll_gets_its_packets() -> None:
    answer = polled(request(), "4a", b"\x00")
    assert answer.status == "HTTP/1.1 200 OK"
    assert answer.fields == {
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Length": "8",
        "Date": DATE,
        "Access-Control-Allow-Credentials": "true",
    }
    assert answer.body == b"4a\x1ebAA=="


def test_with_jsonp_a_script() -> None:
    answer = polled(request(query="EIO=4&transport=polling&j=3"), '4"x"')
    assert answer.fields["Content-Type"] == "text/javascript; charset=UTF-8"
    assert answer.body == rb'___eio[3]("4\"x\"");'


def test_a_post_gets_ok() -> None:
    answer = Answer(answers().taken(request(first="POST")))
    assert (answer.status, answer.body) == ("HTTP/1.1 200 OK", b"ok")
    assert answer.fields["Content-Type"] == "text/html"


def test_errors_have_codes_as_with_node() -> None:
    answer = Answer(answers().refusal(request(), Fault.SESSION))
    assert answer.status == "HTTP/1.1 400 Bad Request"
    assert json.loads(answer.body) == {"code": 1, "message": "Session ID unknown"}
    answer = Answer(answers().refusal(request(), Fault.REQUEST, "why", [("X-A", "b")], close=True))
    assert json.loads(answer.body) == {"code": 3, "message": "why"}
    assert (answer.fields["X-A"], answer.fields["Connection"]) == ("b", "close")


@pytest.mark.parametrize(
    ("message", "body"), [(None, b'"Unauthorized"'), ({"a": 1}, b'{"a": 1}'), ("no", b'"no"')]
)
def test_what_the_application_says_to_who_is_refused(message: Any, body: bytes) -> None:
    answer = Answer(answers().unauthorized(request(), message))
    assert (answer.status, answer.body) == ("HTTP/1.1 401 Unauthorized", body)


def test_head_gets_no_body() -> None:
    answer = Answer(answers().refusal(request(first="HEAD"), Fault.METHOD))
    assert answer.body == b"" and int(answer.fields["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("version", "lines", "connection"),
    [
        ("1.1", (), None),
        ("1.1", ("Connection: close",), "close"),
        ("1.0", (), "close"),
        ("1.0", ("Connection: keep-alive",), "keep-alive"),
    ],
)
def test_it_says_whether_the_connection_goes_on(
    version: str, lines: tuple[str, ...], connection: Optional[str]
) -> None:
    answer = polled(request(*lines, version=version), "6")
    assert answer.fields.get("Connection") == connection


# --- origins ---------------------------------------------------------------------------


def allows(asked: Request, **options: Any) -> bool:
    return answers(**options).is_origin_allowed(asked)


def from_page(*lines: str, origin: str = PAGE) -> Request:
    return request(f"Origin: {origin}", *lines)


def test_no_origin_is_allowed() -> None:
    assert allows(request(), cors_allowed_origins="https://other.example")


@pytest.mark.parametrize(
    ("origin", "lines", "allowed"),
    [
        ("http://sio.example", (), True),
        ("https://sio.example", (), False),
        (PAGE, (), False),
        ("https://sio.example", ("X-Forwarded-Proto: https",), True),
        ("https://sio.example", ("X-Forwarded-Proto: https, http",), True),
        ("http://front.example", ("X-Forwarded-Host: front.example",), True),
        (
            "https://front.example",
            ("X-Forwarded-Host: front.example, x", "X-Forwarded-Proto: https"),
            True,
        ),
        ("https://front.example", ("X-Forwarded-Host: front.example",), False),
    ],
)
def test_without_an_option_only_the_server_itself(
    origin: str, lines: tuple[str, ...], allowed: bool
) -> None:
    assert allows(from_page(*lines, origin=origin)) is allowed


def test_without_a_host_there_is_no_such_origin() -> None:
    head = read_head(b"GET / HTTP/1.0\r\nOrigin: http://\r\n\r\n")
    assert not allows(Request(head, "http", "192.0.2.1", dict))


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("*", True),
        (["*"], True),
        (PAGE, True),
        ([PAGE], True),
        ("https://other.example", False),
        (["https://other.example"], False),
        ([], True),
        (lambda origin, environ: environ["PATH_INFO"] == "/socket.io/" and origin == PAGE, True),
        (lambda origin, environ: False, False),
        (lambda origin: origin == PAGE, True),
        (lambda origin: False, False),
    ],
)
def test_the_option(option: Any, allowed: bool) -> None:
    assert allows(from_page(), cors_allowed_origins=option) is allowed
    fields = polled(from_page(), "6", cors_allowed_origins=option).fields
    assert ("Access-Control-Allow-Origin" in fields) is (allowed and option != [])


def test_an_empty_list_means_no_such_headers() -> None:
    fields = polled(from_page(), "6", cors_allowed_origins=[]).fields
    assert not [name for name in fields if name.startswith("Access-Control")]


def test_a_page_without_credentials() -> None:
    assert (
        "Access-Control-Allow-Credentials"
        not in polled(request(), "6", cors_credentials=False).fields
    )


def test_a_preflight() -> None:
    asked = request(f"Origin: {PAGE}", "Access-Control-Request-Headers: x-a, x-b", first="OPTIONS")
    answer = Answer(answers(cors_allowed_origins="*").preflight(asked))
    assert (answer.status, answer.body) == ("HTTP/1.1 200 OK", b"OK")
    assert answer.fields["Access-Control-Allow-Origin"] == PAGE
    assert answer.fields["Access-Control-Allow-Methods"] == "OPTIONS, GET, POST"
    assert answer.fields["Access-Control-Allow-Headers"] == "x-a, x-b"


# --- compression -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "method"),
    [
        ("gzip", "gzip"),
        ("br, deflate, gzip", "deflate"),
        ("GZIP;q=0.5", "gzip"),
        ("gzip;q=0, deflate; q=0.1", "deflate"),
        ("gzip; q=0.000", None),
        ("br", None),
        ("", None),
    ],
)
def test_the_first_method_that_a_client_accepts(accepted: str, method: Optional[str]) -> None:
    packet = "4" + "a" * 2000
    lines = [f"Accept-Encoding: {accepted}"] if accepted else []
    answer = polled(request(*lines), packet)
    assert answer.fields.get("Content-Encoding") == method
    plain = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[method]
    assert plain(answer.body) == packet.encode()
    assert int(answer.fields["Content-Length"]) == len(answer.body)


@pytest.mark.parametrize(
    ("length", "options", "compressed"),
    [
        (1024, {}, True),
        (1023, {}, False),
        (1024, {"compression_threshold": 1025}, False),
        (1024, {"http_compression": False}, False),
    ],
)
def test_only_long_answers(length: int, options: dict[str, Any], compressed: bool) -> None:
    answer = polled(request("Accept-Encoding: gzip"), "4" * length, **options)
    assert ("Content-Encoding" in answer.fields) is compressed


# --- cookies ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (None, None),
        ("io", "io=abc; path=/; SameSite=Lax"),
        ({"name": "n", "HttpOnly": True, "path": lambda: "/x"}, "n=abc; HttpOnly; path=/x"),
        ({"Max-Age": 5}, "io=abc; Max-Age=5"),
        ({"name": "n", "Secure": lambda: True}, "n=abc; Secure"),
    ],
)
def test_the_cookie(option: Any, value: Optional[str]) -> None:
    fields = answers(cookie=option).cookies("abc")
    assert list(fields) == ([] if value is None else [("Set-Cookie", value)])
