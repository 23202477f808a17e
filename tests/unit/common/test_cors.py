"""Which pages may read a refusal: from the options of servers to the fields of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor_sio.common.cors import (
    fields,
    may_be_told,
    origins_of,
    preflight_fields,
    read_origins,
)
from supervisor_sio.common.limits import CORS_ORIGINS, ORIGIN_CHARACTERS
from supervisor_sio.engine.options import Options

A, B = "http://a.example", "http://b.example:8000"
ALLOWED = {A: True, B: False}


def origins(*allowed: Any, credentials: bool = True) -> dict[str, bool]:
    return origins_of(
        Options(cors_allowed_origins=one, cors_credentials=credentials) for one in allowed
    )


def test_the_options_of_servers() -> None:
    assert origins(A) == {A: True}
    assert origins([A, B], credentials=False) == {A: False, B: False}
    assert origins("*", (B,)) == {"*": True, B: True}
    # Its own origin needs no permission; what a function would say is not known here.
    assert origins(None, [], lambda origin: True) == {}
    one_may = [Options(cors_allowed_origins=A, cors_credentials=flag) for flag in (True, False)]
    assert origins_of(one_may) == origins_of(reversed(one_may)) == {A: True}


def request(origin: str, rest: str = "\r\n") -> bytes:
    return f"GET / HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n{rest}".encode("latin-1")


@pytest.mark.parametrize("origin", [A, f"\t{A} "])
def test_a_page_that_may_send_cookies(origin: str) -> None:
    expected = (
        f"Access-Control-Allow-Origin: {A}\r\nVary: Origin\r\n"
        "Access-Control-Allow-Credentials: true\r\n"
    )
    assert fields(ALLOWED, request(origin)) == expected
    assert fields({"*": True}, request(origin)) == expected


def test_a_page_that_may_not() -> None:
    expected = f"Access-Control-Allow-Origin: {B}\r\nVary: Origin\r\n"
    assert fields(ALLOWED, request(B)) == expected


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        request("http://c.example"),
        request("*"),
        request(f"{A}, {B}"),
        request(f"{A}\rX: y"),
        request("http://\xe4.example"),
        request(""),
        request(A)[:-6],  # there may be more of it
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nOrigin: http://a.example\r\n",  # its body
        b"Origin: http://a.example\r\n\r\n",  # its first line
        b"GET / HTTP/1.1\r\nX-Origin: http://a.example\r\n\r\n",
    ],
)
def test_everybody_else(head: bytes) -> None:
    assert fields(ALLOWED, head) == ""
    assert fields({}, head) == fields({}, request(A)) == ""


@pytest.mark.parametrize("head", [request(A, "Cookie: it has no e"), request(A).lower()])
def test_any_head_as_far_as_it_has_come(head: bytes) -> None:
    assert f"Access-Control-Allow-Origin: {A}\r\n" in fields(ALLOWED, head)


def preflight(origin: str, more: str = "", end: str = "\r\n") -> bytes:
    return (
        f"OPTIONS /socket.io/ HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n"
        f"Access-Control-Request-Method: GET\r\n{more}{end}"
    ).encode()


def test_a_preflight() -> None:
    allowed = fields(ALLOWED, request(B)) + "Access-Control-Allow-Methods: OPTIONS, GET, POST\r\n"
    assert preflight_fields(ALLOWED, preflight(B)) == allowed
    asked = preflight(B, "Access-Control-Request-Headers:  authorization,x-a \r\n")
    assert preflight_fields(ALLOWED, asked) == (
        f"{allowed}Access-Control-Allow-Headers: authorization,x-a\r\n"
    )
    assert preflight_fields(ALLOWED, asked.replace(b"Access-Control", b"access-control")) == (
        preflight_fields(ALLOWED, asked)
    )


@pytest.mark.parametrize(
    "head",
    [
        b"",
        preflight("http://c.example"),
        preflight(A, end=""),  # there may be more of it
        preflight(A).replace(b"OPTIONS", b"GET"),
        preflight(A).replace(b"-Request-Method", b"-Requested"),
        request(A).replace(b"GET", b"OPTIONS"),
        b"OPTIONS / HTTP/1.1\r\n\r\n" + preflight(A),  # its body
    ],
)
def test_what_is_not_a_preflight_of_such_a_page(head: bytes) -> None:
    assert preflight_fields(ALLOWED, head) == preflight_fields({}, preflight(A)) == ""


@pytest.mark.parametrize("wanted", ["x\rX: y", "x\0", "\xe4"])
def test_no_field_is_added_by_what_a_preflight_asks_for(wanted: str) -> None:
    asked = preflight(A, f"Access-Control-Request-Headers: {wanted}\r\n")
    assert "Access-Control-Allow-Headers" not in preflight_fields(ALLOWED, asked)


def test_what_a_worker_tells() -> None:
    assert read_origins(ALLOWED) == ALLOWED and read_origins({}) == {}
    many = {f"http://{number}.example": True for number in range(CORS_ORIGINS)}
    assert may_be_told(many) and read_origins(many) == many
    more = {**many, A: True}
    long = {"x" * (ORIGIN_CHARACTERS + 1): True}
    for wrong in (None, [A], {A: 1}, {A: None}, more, long):
        with pytest.raises(ValueError, match="^(origins that are not a table|too many origins)$"):
            read_origins(wrong)
    assert not may_be_told(more) and not may_be_told(long)
