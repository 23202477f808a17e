"""Heads and chunked bodies, as :mod:`supervisor_sio.engine.http` reads them."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_sio.common import limits
from supervisor_sio.engine import http
from supervisor_sio.engine.http import Body, ChunkedBody, Head, HttpError, find_end, read_head

LINE = b"GET / HTTP/1.1\r\n"
HOST = b"Host: x\r\n"


def head(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = HOST) -> bytes:
    return first + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def read_in_pieces(data: bytes, *cuts: int) -> tuple[Head, bytes]:
    """The head and the bytes behind it, read in pieces like a connection does."""
    got, looked = b"", 0
    for begin, end in zip((0, *cuts), (*cuts, len(data))):
        got += data[begin:end]
        found = find_end(got, looked)
        if found:
            return read_head(got[:found]), data[found:]
        looked = len(got)
    raise EOFError


REFUSED = {
    # how the body is framed (RFC 9112, section 6)
    "two lengths": head(b"Content-Length: 5", b"Content-Length: 5"),
    "two different lengths": head(b"Content-Length: 5", b"content-length: 6"),
    "a list of lengths": head(b"Content-Length: 5, 5"),
    "a length with a sign": head(b"Content-Length: +5"),
    "a negative length": head(b"Content-Length: -5"),
    "a length with an underscore": head(b"Content-Length: 1_0"),
    "a length in hex": head(b"Content-Length: 0x5"),
    "a length with a space": head(b"Content-Length: 1 0"),
    "a length of another script": head("Content-Length: ٥".encode()),
    "an empty length": head(b"Content-Length: "),
    "a length of 20 digits": head(b"Content-Length: 18446744073709551617"),
    "a length of 5,000 digits": head(b"Content-Length: " + b"9" * 5000),
    "length and chunks": head(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "chunks and length": head(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "an unknown encoding": head(b"Transfer-Encoding: xchunked"),
    "identity": head(b"Transfer-Encoding: identity"),
    "gzip and chunks": head(b"Transfer-Encoding: gzip, chunked"),
    "chunks twice": head(b"Transfer-Encoding: chunked, chunked"),
    "two encodings": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunks, then identity": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    "chunks and a comma": head(b"Transfer-Encoding: chunked,"),
    "an empty encoding": head(b"Transfer-Encoding:"),
    "chunks behind a control character": head(b"Transfer-Encoding: \x0bchunked"),
    "chunks in HTTP/1.0": head(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0"),
    # lines (sections 2.2 and 5)
    "no colon": head(b"nonsense"),
    "space before the colon": head(b"Content-Length : 5"),
    "tab before the colon": head(b"Content-Length\t: 5"),
    "no name": head(b": 5"),
    "space in a name": head(b"A B: 5"),
    "a name that is not ASCII": head("Größe: 5".encode()),
    "a folded line": head(b"A: b", b" c"),
    "a line folded with a tab": head(b"A: b", b"\tc"),
    "a folded first line": head(b"A: b", host=b" Host: x\r\n"),
    "NUL in a value": head(b"A: b\0c"),
    "NUL in a name": head(b"A\0: b"),
    "escape": head(b"A: b\x1b[31m"),
    "delete": head(b"A: b\x7f"),
    "a bare CR": head(b"A: b\rTransfer-Encoding: chunked"),
    "a bare CR at the end": head(b"A: b\r"),
    "a bare LF": head(b"A: b\nTransfer-Encoding: chunked"),
    "a bare LF behind the request line": b"GET / HTTP/1.1\nHost: x\r\n\r\n",
    # Host (section 3.2)
    "no Host": head(host=b""),
    "two Hosts": head(b"Host: y"),
    "twice the same Host": head(b"Host: x"),
    "two Hosts in HTTP/1.0": head(b"Host: y", first=b"GET / HTTP/1.0"),
    "a Host with a path": head(host=b"Host: x/y\r\n"),
    "a Host with a user": head(host=b"Host: u@x\r\n"),
    "two in a Host": head(host=b"Host: x, y\r\n"),
    "a Host with a broken address": head(host=b"Host: [::1\r\n"),
    "a Host with a port of letters": head(host=b"Host: x:http\r\n"),
    # the request line (section 3)
    "a target that is no path": head(first=b"GET x HTTP/1.1"),
    "only a query": head(first=b"GET ?x HTTP/1.1"),
    "a fragment": head(first=b"GET /#x HTTP/1.1"),
    "a broken URL": head(first=b"GET http://[ HTTP/1.1"),
    "another broken URL": head(first=b"GET http://[x]y/ HTTP/1.1"),
    "a URL without a host": head(first=b"GET http:/// HTTP/1.1"),
    "a URL with a user": head(first=b"GET http://u@x/ HTTP/1.1"),
    "another scheme": head(first=b"GET ftp://x/ HTTP/1.1"),
    "a star": head(first=b"OPTIONS * HTTP/1.1"),
    "CONNECT": head(first=b"CONNECT x:443 HTTP/1.1"),
    "CONNECT with a path": head(first=b"CONNECT /a HTTP/1.1"),
    "CONNECT with a URL": head(first=b"CONNECT http://x/a HTTP/1.1"),
    "a target that is not ASCII": head(first="GET /é HTTP/1.1".encode()),
    "a target with a tab": head(first=b"GET /\t HTTP/1.1"),
    "a target with a space": head(first=b"GET /a b HTTP/1.1"),
    "a target with NUL": head(first=b"GET /\0 HTTP/1.1"),
    "two spaces": head(first=b"GET  / HTTP/1.1"),
    "a space in front": head(first=b" GET / HTTP/1.1"),
    "a space behind": head(first=b"GET / HTTP/1.1 "),
    "no version": head(first=b"GET /"),
    "HTTP/0.9": head(first=b"GET / HTTP/0.9"),
    "HTTP/1.2": head(first=b"GET / HTTP/1.2"),
    "HTTP/2.0": head(first=b"GET / HTTP/2.0"),
    "HTTP/1.10": head(first=b"GET / HTTP/1.10"),
    "small letters": head(first=b"GET / http/1.1"),
    "another protocol": head(first=b"OPTIONS / RTSP/1.0"),
    "an unknown method": head(first=b"FOO / HTTP/1.1"),
    "a small method": head(first=b"get / HTTP/1.1"),
    "an answer": head(first=b"HTTP/1.1 200 OK"),
    # sizes
    "101 fields": head(*(b"A: b" for _ in range(limits.HEAD_FIELDS))),
    "a long field": head(b"A: " + b"b" * limits.HEAD_BYTES),
    "a long target": head(first=b"GET /" + b"a" * limits.HEAD_BYTES + b" HTTP/1.1"),
}

TOO_LONG = ("101 fields", "a long field", "a long target")


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """It is refused however the bytes are split."""
    data = REFUSED[name]
    status = "431 Request Header Fields Too Large" if name in TOO_LONG else "400 Bad Request"
    # A byte at a time is the same as each of these, for long ones it takes too long.
    cuts = range(1, len(data)) if len(data) < 1000 else range(1, len(data), 997)
    for cut in cuts:
        with pytest.raises(HttpError) as caught:
            read_in_pieces(data, cut)
        assert caught.value.status == status, cut
        assert str(caught.value).isprintable()
    if len(data) < 1000:
        with pytest.raises(HttpError):
            read_in_pieces(data, *range(1, len(data)))


BROWSER = head(
    b"Connection: keep-alive",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
    b"Cookie: a=b; c=\xe9",
    b"X-Empty:",
    b"x-space: \t a b \t",
    b"Content-Length: 5",
    first=b"POST /socket.io/?EIO=4&transport=polling&sid=a.b%20c HTTP/1.1",
    host=b"Host: chat.example.org:8443\r\n",
)


@given(st.sets(st.integers(1, len(BROWSER) + 4)))
def test_what_browsers_send(cuts: set[int]) -> None:
    found, behind = read_in_pieces(BROWSER + b"12345", *sorted(cuts))
    assert behind == b"12345"
    assert found == Head(
        "POST",
        "/socket.io/",
        "EIO=4&transport=polling&sid=a.b%20c",
        "HTTP/1.1",
        "chat.example.org:8443",
        [
            (b"Host", b"chat.example.org:8443"),
            (b"Connection", b"keep-alive"),
            (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64)"),
            (b"Cookie", b"a=b; c=\xe9"),
            (b"X-Empty", b""),
            (b"x-space", b"a b"),
            (b"Content-Length", b"5"),
        ],
        5,
        keep_alive=True,
        may_upgrade=False,
        named={name.lower(): value for name, value in found.fields},
    )


@pytest.mark.parametrize(
    "lines, expected",
    [
        ((), 0),
        ((b"Content-Length: 0",), 0),
        ((b"Content-Length: 00017 ",), 17),
        ((b"content-LENGTH:999999999999999999",), 999999999999999999),
        ((b"Transfer-Encoding: chunked",), None),
        ((b"transfer-encoding:\tChunked ",), None),
        ((b"Content_Length: 7",), 0),
        ((b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: 3"), 3),
    ],
)
def test_length(lines: tuple[bytes, ...], expected: int | None) -> None:
    assert read_head(head(*lines, first=b"POST / HTTP/1.1")).length == expected


@pytest.mark.parametrize(
    "line, version, expected",
    [
        (b"A: b", b"1.1", True),
        (b"Connection: close", b"1.1", False),
        (b"Connection: Foo, CLOSE", b"1.1", False),
        (b"Connection: keep-alive, close", b"1.1", False),
        (b"Connection: closed", b"1.1", True),
        (b"A: b", b"1.0", False),
        (b"Connection: foo , Keep-Alive", b"1.0", True),
    ],
)
def test_whether_the_connection_is_kept(line: bytes, version: bytes, expected: bool) -> None:
    assert read_head(head(line, first=b"GET / HTTP/" + version)).keep_alive is expected


@pytest.mark.parametrize(
    "lines, version, expected",
    [
        ((b"Connection: keep-alive, Upgrade",), b"1.1", True),
        ((b"Connection: keep-alive", b"Connection: upgrade"), b"1.1", True),
        ((b"Connection: upgraded",), b"1.1", False),
        ((b"Connection: Upgrade",), b"1.0", False),
        ((b"Connection: Upgrade", b"Content-Length: 1"), b"1.1", False),
        ((b"Connection: Upgrade", b"Transfer-Encoding: chunked"), b"1.1", False),
    ],
)
def test_whether_it_may_be_upgraded(
    lines: tuple[bytes, ...], version: bytes, expected: bool
) -> None:
    data = head(b"Upgrade: websocket", *lines, first=b"GET / HTTP/" + version)
    assert read_head(data).may_upgrade is expected


@pytest.mark.parametrize(
    "target, expected",
    [
        (b"/", ("x", "/", "")),
        (b"//[a?b?c", ("x", "//[a", "b?c")),
        (b"/%2e%zz", ("x", "/%2e%zz", "")),
        (b"http://y", ("y", "/", "")),
        (b"HTTPS://y:1?a", ("y:1", "/", "a")),
        (b"http://[::1]:80/p", ("[::1]:80", "/p", "")),
    ],
)
def test_target(target: bytes, expected: tuple[str, str, str]) -> None:
    found = read_head(head(first=b"GET " + target + b" HTTP/1.1"))
    assert (found.host, found.path, found.query) == expected


def test_host_where_it_may_be_missing_or_empty() -> None:
    assert read_head(head(first=b"GET / HTTP/1.0", host=b"")).host == ""
    assert read_head(head(host=b"Host:\r\n")).host == ""


def test_the_longest_head_and_the_most_fields() -> None:
    most = head(*(b"A: b" for _ in range(limits.HEAD_FIELDS - 1)))
    assert len(read_in_pieces(most)[0].fields) == limits.HEAD_FIELDS
    room = limits.HEAD_BYTES - len(head(b"A: "))
    longest = head(b"A: " + b"b" * room)
    assert read_in_pieces(longest, *range(1, len(longest), 500))[0].host == "x"
    with pytest.raises(HttpError, match="too long"):
        read_in_pieces(head(b"A: b" + b"b" * room))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_arbitrary_lines_are_read_or_refused(data: bytes, at: int) -> None:
    whole = bytearray(BROWSER)
    whole[at:at] = data
    try:
        found, _ = read_in_pieces(bytes(whole))
    except (HttpError, EOFError):
        return
    for name, value in found.fields:
        assert name and not set(name + value) & set(b"\0\r\n\x1b\x7f")


# --- bodies in chunks ---------------------------------------------------------------


def decode(data: bytes, *cuts: int) -> tuple[bytes, bytes]:
    """The body and the bytes behind it; :class:`EOFError` if the end is missing."""
    body, got = ChunkedBody(), b""
    for begin, end in zip((0, *cuts), (*cuts, len(data))):
        got += body.feed(data[begin:end])
        if body.ended:
            return got, body.rest + data[end:]
    raise EOFError


CHUNKED = b'5\r\nhello\r\n001;a=b;c="d \xe9"\r\n \r\nA ;x\r\n0123456789\r\n0;e\r\nX: y\r\n\r\n'


@given(st.sets(st.integers(1, len(CHUNKED) + 4)))
def test_chunks_in_any_pieces(cuts: set[int]) -> None:
    assert decode(CHUNKED + b"GET /", *sorted(cuts)) == (b"hello 0123456789", b"GET /")


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"\r\n",
        b";a\r\n",
        b" 5\r\n",
        b"+5\r\n",
        b"-5\r\n",
        b"0x5\r\n",
        b"1_0\r\n",
        b"5 \r\n",
        b"5\n",
        b"5\r\r\n",
        b"5;\0\r\n",
        b"5;a\rb\r\n",
        b"f" * 16 + b"\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0",
        b"1\r\na0\r\n",
        b"0\r\nno colon\r\n",
        b"0\r\n folded\r\n",
        b"0\r\nA : b\r\n",
        b"0\r\n\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"5;" + b"a" * limits.CHUNK_LINE_BYTES,
        b"0" * limits.CHUNK_LINE_BYTES,
        b"0\r\nA: " + b"b" * limits.CHUNK_LINE_BYTES,
        b"0\r\n" + b"A: b\r\n" * (limits.TRAILER_BYTES // 6 + 1),
    ],
)
def test_what_are_no_chunks(data: bytes) -> None:
    for cut in range(1, min(len(data), 400)):
        with pytest.raises(HttpError):
            decode(data, cut)
    if len(data) < 400:
        with pytest.raises(HttpError):
            decode(data, *range(1, len(data)))


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=8), st.binary(max_size=50))
def test_no_more_is_read_ahead_than_a_message_to_the_router_takes(
    chunks: list[bytes], behind: bytes
) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    data += b"0\r\n\r\n" + behind * 100
    body, got, at = ChunkedBody(), b"", 0
    while not body.ended:
        piece = data[at : at + body.wanted]
        at += len(piece)
        got += body.feed(piece)
        assert len(body.rest) <= 8192 + limits.CHUNK_LINE_BYTES
    assert got == b"".join(chunks)


def test_a_body_is_wanted_whole() -> None:
    body = Body(5, 10)
    assert body.wanted == 5 and body.feed(b"ab") is None
    assert body.wanted == 3
    assert body.feed(b"cdeGET") == b"abcde"
    assert body.rest == b"GET"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_in_small_pieces_takes_no_more_memory_than_others(chunked: bool) -> None:
    size = 100_000
    body = Body(None if chunked else size, size)
    tracemalloc.start()
    try:
        for _ in range(size // 2 - 1):
            body.feed(b"2\r\nxx\r\n" if chunked else b"xx")
        assert tracemalloc.get_traced_memory()[0] < 2 * size
    finally:
        tracemalloc.stop()
    assert body.feed(b"2\r\nxx\r\n0\r\n\r\n" if chunked else b"xx") == b"x" * size


def test_a_body_of_no_length_is_there_at_once() -> None:
    body = Body(0, 10)
    assert body.feed(b"GET") == b""
    assert body.rest == b"GET"


def test_a_body_in_chunks_is_wanted_whole() -> None:
    body = Body(None, 10)
    assert body.wanted > 0
    assert body.feed(b"2\r\nab\r\n1") is None
    assert body.feed(b"\r\nc\r\n") is None
    assert body.feed(b"0\r\n") is None
    assert body.feed(b"\r\nGET") == b"abc"
    assert body.rest == b"GET"


def test_a_body_that_is_too_long_is_refused_before_it_comes() -> None:
    with pytest.raises(HttpError, match="too long") as refused:
        Body(11, 10)
    assert refused.value.status == "413 Content Too Large"


def test_a_body_in_chunks_that_gets_too_long_is_refused() -> None:
    body = Body(None, 3)
    assert body.feed(b"3\r\nabc\r\n") is None
    with pytest.raises(HttpError, match="too long"):
        body.feed(b"1\r\nd\r\n")


@pytest.mark.parametrize("end", [b"\n\n", b"\n\r\n"])
def test_other_line_ends_are_refused_before_the_head_is_complete(end: bytes) -> None:
    with pytest.raises(HttpError, match="line end"):
        find_end(b"GET / HTTP/1.1" + end)


@pytest.mark.parametrize("lengths", [[b"1", b"1"], [b"1_0"], [b"+5"], [b"9" * 19]])
def test_a_length_that_the_parser_forgives_is_refused_all_the_same(lengths: list[bytes]) -> None:
    with pytest.raises(HttpError, match="Content-Length"):
        named, repeated = http._by_name([(b"Content-Length", length) for length in lengths])
        http._length(named, repeated, is_old=False)


def test_a_target_that_is_a_query_alone_is_refused() -> None:
    with pytest.raises(HttpError, match="target"):
        read_head(b"GET ?query HTTP/1.1\r\nHost: a\r\n\r\n")


def test_a_head_that_the_parser_takes_for_a_part_of_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = SimpleNamespace(feed_data=lambda data: None)
    monkeypatch.setattr(http.httptools, "HttpRequestParser", lambda found: waiting)
    with pytest.raises(HttpError, match="request line"):
        read_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")


def test_what_has_come_of_a_body_and_what_is_to_come() -> None:
    body = Body(5, 10)
    assert (body.left, body.received) == (5, b"")
    assert body.feed(b"ab") is None
    assert (body.left, body.received) == (3, b"ab")
    body = Body(None, 10)
    assert body.feed(b"2\r\nab") is None
    assert body.left is None
