"""The Engine.IO parameters of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor_sio.engine.http import read_head
from supervisor_sio.engine.request import NO_INDEX, Request
from supervisor_sio.engine.saved import Saved


def make(query: str = "", *lines: str) -> Request:
    text = "\r\n".join([f"GET /socket.io/?{query} HTTP/1.1", "Host: example.org", *lines, "", ""])
    return Request(read_head(text.encode("latin-1")), "https", "192.0.2.1", lambda: {"a": "wsgi"})


@pytest.mark.parametrize(
    ("query", "transport", "sid", "version", "jsonp"),
    [
        ("EIO=4&transport=polling&t=abc&sid=x-Y_1", "polling", "x-Y_1", "4", None),
        ("transport=websocket", "websocket", "", "", None),
        ("", "", "", "", None),
        ("sid=&transport&EIO", "", "", "", None),
        ("sid=one&sid=two&EIO=4&EIO=3&transport=a&transport=b", "a", "one", "4", None),
        ("sid=&sid=two", "", "two", "", None),
        ("%73id=a%20b&transport=pol+ling", "pol ling", "a b", "", None),
        ("sid=a=b", "", "a=b", "", None),
        ("j=0", "", "", "", 0),
        ("j=17&j=18", "", "", "", 17),
        ("j=", "", "", "", None),
        *((f"j={bad}", "", "", "", NO_INDEX) for bad in ("x", "-1", "1.5", "1_0", "%D9%A1")),
        (f"j={'1' * 5000}", "", "", "", NO_INDEX),
    ],
)
def test_queries(query: str, transport: str, sid: str, version: str, jsonp: Any) -> None:
    request = make(query)
    assert (request.transport, request.sid, request.version) == (transport, sid, version)
    assert request.jsonp == jsonp


def test_fields() -> None:
    request = make("", "ORIGIN: http://a", "Cookie: ä", "Accept: x", "accept: y", "X: ", "x: z")
    assert request.header(b"origin") == "http://a"
    assert request.header(b"cookie") == "ä"
    assert request.header(b"accept") == "x,y" and request.header(b"x") == ",z"
    assert request.header(b"nothing") == ""
    assert request.environ() == {"a": "wsgi"}


@pytest.mark.parametrize("asked", [True, False])
def test_a_request_that_waits_keeps_what_its_answer_needs(asked: bool) -> None:
    request = make("j=5&sid=x", "Origin: http://a", "Cookie: secret", "Accept-Encoding: gzip")
    if asked:
        assert request.header(b"cookie") == "secret"
    request.shrink()
    assert request.header(b"origin") == "http://a" and request.header(b"cookie") == ""
    assert request.header(b"accept-encoding") == "gzip"
    assert request.head.host == "example.org" and request.head.query == ""
    assert request.jsonp == 5 and request.sid == "x" and request.environ() == {}


@pytest.mark.parametrize("query", ["j=5", ""])
def test_to_another_process_and_back(query: str) -> None:
    request = make(query, "Origin: http://ä", "Connection: close")
    request.shrink()
    state = json.loads(json.dumps(request.state_as_dict()))
    other = Request.restore(Saved(state, "request"))
    assert other.state_as_dict() == state
    assert other.head.fields == request.head.fields and other.jsonp == request.jsonp
    assert not other.head.keep_alive and other.scheme == "https"
    assert other.address == "192.0.2.1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", 5),
        ("keep_alive", "yes"),
        ("jsonp", "5"),
        ("jsonp", True),
        ("fields", {}),
        ("fields", None),
        ("host", None),
    ],
)
def test_what_was_changed_by_hand(name: str, value: Any) -> None:
    state = make().state_as_dict()
    state[name] = value
    with pytest.raises(ValueError, match=f"^request: {name} is not "):
        Request.restore(Saved(state, "request"))
    del state[name]
    with pytest.raises(ValueError, match=f"^request: {name} is missing"):
        Request.restore(Saved(state, "request"))


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        (["origin"], r"fields\[0\] is not a list"),
        ([["a", "b"], ["c"]], r"fields\[1\]\[1\] is miss"),
    ],
)
def test_fields_that_were_changed_by_hand(fields: Any, wrong: str) -> None:
    state = make().state_as_dict()
    state["fields"] = fields
    with pytest.raises(ValueError, match=f"^request: {wrong}"):
        Request.restore(Saved(state, "request"))
