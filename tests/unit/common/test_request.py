from __future__ import annotations

import contextlib
from typing import Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisor_sio.common.request import (
    MAX_REQUEST_LINE,
    BadRequest,
    Kind,
    Request,
    parse_head,
    tag_of,
)

PATHS = (b"/socket.io/", b"/game/")


def parse(data: bytes) -> Optional[Request]:
    return parse_head(data, PATHS)


def line_of(length: int, end: bytes = b"\r\n") -> bytes:
    """A valid request line of this length, its line end included."""
    frame = b"GET / HTTP/1.1" + end
    return frame.replace(b"/ ", b"/" + b"x" * (length - len(frame)) + b" ", 1)


def verdict(data: bytes) -> object:
    """What ``parse_head`` says: a request, None, or status and reason."""
    try:
        return parse(data)
    except BadRequest as bad:
        return bad.status, bad.reason


tags = st.text("0123456789abcdef", min_size=8, max_size=8)
#: Bytes that may stand in a request target: no whitespace.
visible = st.lists(st.integers(0x21, 0x7E), max_size=60).map(bytes)
requests = st.one_of(
    visible.map(lambda rest: (b"/" + rest, None)),
    visible.map(lambda rest: (b"/socket.io/?EIO=4&t=" + rest.replace(b"&", b""), Kind.HANDSHAKE)),
    tags.map(lambda tag: (f"/game/?EIO=4&sid={tag}.rest&t=1".encode(), Request(Kind.SESSION, tag))),
)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/socket.io/?EIO=4&transport=polling", Request(Kind.HANDSHAKE)),
        (b"/socket.io/", Request(Kind.HANDSHAKE)),
        (b"/game/?EIO=4", Request(Kind.HANDSHAKE)),
        (b"http://example.org:8000/socket.io/?EIO=4", Request(Kind.HANDSHAKE)),
        (b"/socket.io/?EIO=4&sid=0a1b2c3d.AbC_-9", Request(Kind.SESSION, "0a1b2c3d")),
        (b"/socket.io/?sid=0a1b2c3d.AbC&sid=other.x", Request(Kind.SESSION, "0a1b2c3d")),
        (b"/socket.io/?sid=0a1b2c3d%2EAbC", Request(Kind.SESSION, "0a1b2c3d")),
        (b"HTTPS://example.org/socket.io/?sid=0a1b2c3d.x", Request(Kind.SESSION, "0a1b2c3d")),
        (b"/socket.io/?sid=made-elsewhere", Request(Kind.SESSION, "")),
        (b"/socket.io/?nosid=0a1b2c3d.x", Request(Kind.HANDSHAKE)),
        (b"/socket.io", Request(Kind.PLAIN)),
        (b"/socket.iox/?sid=0a1b2c3d.x", Request(Kind.PLAIN)),
        (b"/page?next=/socket.io/&sid=0a1b2c3d.x", Request(Kind.PLAIN)),
        (b"/", Request(Kind.PLAIN)),
        (b"*", Request(Kind.PLAIN)),
        (b"http://example.org", Request(Kind.PLAIN)),
    ],
)
def test_where_a_request_goes(target: bytes, expected: Request) -> None:
    assert parse(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n") == expected


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"M-SEARCH", b"get"])
def test_any_method_opens_a_session_but_a_preflight(method: bytes) -> None:
    assert parse(method + b" /socket.io/?EIO=4 HTTP/1.1\r\n") == Request(Kind.HANDSHAKE)
    assert parse(b"OPTIONS /socket.io/?EIO=4 HTTP/1.1\r\n") == Request(Kind.PLAIN)


def test_a_preflight_of_a_session_goes_to_its_worker() -> None:
    assert parse(b"OPTIONS /socket.io/?sid=aa.x HTTP/1.1\r\n") == Request(Kind.SESSION, "aa")


def test_root_as_engineio_path() -> None:
    assert parse_head(b"GET /any?EIO=4 HTTP/1.1\r\n", (b"/",)) == Request(Kind.HANDSHAKE)


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01", "400 Bad Request", "tls-on-plain"),  # a TLS client
        (b"\x00", "400 Bad Request", "garbage"),
        (b"\xff" * 20, "400 Bad Request", "garbage"),
        (b" GET / HTTP/1.1\r\n", "400 Bad Request", "garbage"),
        (b"GET /\r\n", "400 Bad Request", "garbage"),
        (b"GET / HTTP/2.0\r\n", "400 Bad Request", "garbage"),
        (b"GET / HTTP/1.10\r\n", "400 Bad Request", "garbage"),
        (b"GET / x HTTP/1.1\r\n", "400 Bad Request", "garbage"),
        (b"GET  / HTTP/1.1\r\n", "400 Bad Request", "garbage"),
        (b"GET / HTTP/1.1 \r\n", "400 Bad Request", "garbage"),
        (b"GET / HTTP/1.1\r\r\n", "400 Bad Request", "garbage"),
        (b"G:T / HTTP/1.1\r\n", "400 Bad Request", "garbage"),
        (b"M" * 33 + b" / HTTP/1.1\r\n", "400 Bad Request", "garbage"),
        (b"\r\n" * 5, "400 Bad Request", "garbage"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 HTTP Version Not Supported", "http2"),
    ],
)
def test_what_no_worker_should_see(data: bytes, status: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=status) as caught:
        parse(data)
    assert (caught.value.status, caught.value.reason) == (status, reason)


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_the_longest_request_line(end: bytes) -> None:
    longest = line_of(MAX_REQUEST_LINE, end)
    assert len(longest) == MAX_REQUEST_LINE
    assert parse(longest) == Request(Kind.PLAIN)
    assert parse(longest[:-1]) is None
    assert parse(b"\r\n" + longest) == Request(Kind.PLAIN)
    assert verdict(line_of(MAX_REQUEST_LINE + 1, end)) == ("414 URI Too Long", "line-too-long")


def test_an_endless_line_is_refused_before_it_ends() -> None:
    endless = b"GET /" + b"x" * MAX_REQUEST_LINE
    assert parse(endless[: MAX_REQUEST_LINE - 1]) is None
    assert verdict(endless[:MAX_REQUEST_LINE]) == ("414 URI Too Long", "line-too-long")


@given(requests, st.sampled_from([b"", b"\r\n", b"\n", b"\r\n\n\n"]), st.sampled_from([b"\r", b""]))
def test_no_segmentation_changes_the_verdict(
    request_: tuple[bytes, object], empty_lines: bytes, end: bytes
) -> None:
    line = empty_lines + b"POST " + request_[0] + b" HTTP/1.1" + end + b"\n"
    rest = b"Host: x\r\n\r\nbody\n"
    for length in range(len(line)):
        assert parse(line[:length]) is None
    whole = parse(line)
    assert whole is not None
    if isinstance(request_[1], Request):
        assert whole == request_[1]
    elif request_[1] is Kind.HANDSHAKE:
        assert whole.kind is (Kind.SESSION if b"&sid=" in request_[0] else Kind.HANDSHAKE)
    for length in range(len(rest) + 1):
        assert parse(line + rest[:length]) == whole


@given(
    st.one_of(
        st.binary(max_size=300),
        st.text("\r\n \tGETPRI/?&sid=.HTP12", max_size=80).map(str.encode),
        visible.map(lambda target: b"GET " + target + b" HTTP/1.1\r\n"),
    )
)
@example(b"GET /socket.io/?sid=%FF%2E HTTP/1.1\r\n")
@example(b"GET /socket.io/?sid=\xff.\xfe HTTP/1.1\r\n")
@example(b"\r")
@example(b"")
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        found = parse(data)
        assert found is None or (isinstance(found.tag, str) and isinstance(found.kind, Kind))
        assert found is None or b"\n" in data


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_more_bytes_do_not_change_a_verdict(data: bytes, more: bytes) -> None:
    first = verdict(data)
    if first is not None:
        assert verdict(data + more) == first


@given(tags, st.text("abc.-_", max_size=20))
def test_the_tag_is_what_stands_before_the_first_dot(tag: str, rest: str) -> None:
    assert tag_of(f"{tag}.{rest}") == tag
    assert tag_of(tag) == ""


@given(
    st.sampled_from(["GET", "POST", "OPTIONS", "GE T", "X" * 33, ""]),
    st.text("/socket.io?&sid=abc%2E.#:@ \tü", max_size=60),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.10", "http/1.1", ""]),
    st.sampled_from(["\r\n", "\n", "\r\r\n", "\r"]),
)
@example("GET", "/socket.io/?sid=a.b&sid=c.d", "HTTP/1.1", "\r\n")
@example("OPTIONS", "/socket.io/?", "HTTP/1.1", "\n")
def test_the_usual_line_is_judged_as_any_other(
    method: str, target: str, version: str, end: str
) -> None:
    line = f"{method} {target} {version}{end}Host: x\r\n\r\n".encode()
    # An empty line before it makes it unusual, and changes nothing.
    assert verdict(line) == verdict(b"\r\n" + line)
